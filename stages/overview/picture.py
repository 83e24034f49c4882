"""Writes shapes and text as SVG: small, sharp at every size, and equal bytes for equal content."""

import re
import unicodedata
from collections.abc import Sequence

from temper.wrapping import wrap

WIDTH = 1200  # of the picture, in SVG units
MARGIN = 40
LEADING = 1.2  # the height of a line, as a multiple of the font size

# Colours are CSS classes, so that the picture follows the reader's choice of a light or a dark theme.
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif }
.page { fill: #ffffff } .card { fill: #f4f5f7 } .strong { fill: #17202a } .soft { fill: #5c6670 }
.track { fill: #e4e7eb } .accent { fill: #0b7285 } .accent-card { fill: #e3f4f6 } .warning { fill: #d9480f }
@media (prefers-color-scheme: dark) {
.page { fill: #14181c } .card { fill: #1e2429 } .strong { fill: #eceff1 } .soft { fill: #a3adb6 }
.track { fill: #2d353c } .accent { fill: #3bc9db } .accent-card { fill: #12343b } .warning { fill: #ff922b }
}
"""


def svg(height: float, title: str, shapes: Sequence[str]) -> str:
    """A complete SVG document with these shapes on a background."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    )
    inside = [f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", box(0, 0, WIDTH, height, "page"), *shapes]
    return "\n".join([f'{head} role="img">', *inside, "</svg>"]) + "\n"


def box(x: float, y: float, width: float, height: float, kind: str, rounded: float = 0) -> str:
    """A rectangle in the colour of a CSS class of STYLE (`kind`)."""
    corners = f' rx="{rounded:g}"' if rounded else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{corners} class="{kind}"/>'


def text(
    x: float, y: float, content: str, size: float, kind: str = "strong", weight: int = 400, anchor: str = ""
) -> str:
    """A line of text with its baseline at `y`. It starts at `x`, ends there ("end") or is centred there ("middle")."""
    aligned = f' text-anchor="{anchor}"' if anchor else ""
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" class="{kind}"{bold}{aligned}>{escape(content)}</text>'


def fitted(
    x: float,
    middle: float,
    width: float,
    height: float,
    content: str,
    size: float,
    kind: str,
    anchor: str = "",
    weight: int = 400,
) -> list[str]:
    """Lines of text that fit `width` x `height`, centred vertically at `middle`: wrapped, and smaller if needed."""
    lines = wrap(content, width / size, ems)
    while len(lines) * size * LEADING > height and size > 4:
        size -= 1
        lines = wrap(content, width / size, ems)
    top = middle - len(lines) * size * LEADING / 2 + size * 0.92
    return [text(x, top + row * size * LEADING, line, size, kind, weight, anchor) for row, line in enumerate(lines)]


def ems(content: str) -> float:
    """An estimate of a text's width in multiples of the font size; without font metrics, it errs on the wide side."""
    return sum(1.1 if unicodedata.east_asian_width(character) in "WF" else 0.6 for character in content)


def escape(content: str) -> str:
    """Text escaped for XML; control characters, which XML does not allow at all, are replaced."""
    visible = re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", content)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        visible = visible.replace(character, entity)
    return visible
