"""Writes Markdown that no name can break: class names and paths come from whoever published the photos.

GitHub and GitLab show it in the same way. Every foreign text is put into code, where they do not look for formatting,
mentions of people, links or formulas.
"""

import unicodedata
from collections.abc import Iterable, Sequence

from temper.base.errors import printable

LONGEST = 60  # a longer name is cut to this many characters


def code(text: object, longest: int = LONGEST) -> str:
    """A text as Markdown code, cut if it is too long. Control characters and the like are shown as escapes."""
    shown = printable(str(text))
    if len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    if not shown.strip():
        return "(empty)" if not shown else "(blank)"
    right_to_left = any(unicodedata.bidirectional(one) in ("R", "AL") for one in shown)
    if not right_to_left and not set(shown) & set("`|") and shown == shown.strip():
        return f"`{shown}`"
    # As HTML, where punctuation can be written as numbers, and `dir` keeps right-to-left text from reordering the rest.
    inside = "".join(one if one.isalnum() or one == " " else f"&#{ord(one)};" for one in shown)
    return f'<code dir="auto">{inside}</code>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The lines of a table; columns in `right` are aligned to the right. Cells must be safe already."""
    rule = ["---:" if number in right else "---" for number in range(len(header))]
    return [_row(one) for one in (header, rule, *rows)]


def folded(title: str, lines: Iterable[str]) -> list[str]:
    """Lines under a title that a click unfolds."""
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>"]


def listed(names: Sequence[object], most: int = 5) -> str:
    """Names as code, separated by commas; only the first `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(code(name) for name in names[:most]) + more


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
