"""Markdown that names cannot break: class names and paths come from whoever published the photos.

GitHub and GitLab read it alike. Every foreign text stands in code, where neither formatting nor mentions of people nor
links nor formulas are looked for.
"""

import unicodedata
from collections.abc import Iterable, Sequence

from temper.base.errors import printable

LONGEST = 60  # characters of a name that are shown


def code(text: object, longest: int = LONGEST) -> str:
    """A text as it is, in code; cut where it is long. Of control characters and the like, the escape is shown."""
    shown = printable(str(text))
    if len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    if not shown.strip():
        return "(empty)" if not shown else "(blank)"
    right_to_left = any(unicodedata.bidirectional(one) in ("R", "AL") for one in shown)
    if not right_to_left and not set(shown) & set("`|") and shown == shown.strip():
        return f"`{shown}`"
    # As HTML: punctuation can be written as numbers there, and `dir` keeps the order of what stands beside.
    inside = "".join(one if one.isalnum() or one == " " else f"&#{ord(one)};" for one in shown)
    return f'<code dir="auto">{inside}</code>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The lines of a table; columns in `right` are aligned to the right. Cells must be safe already."""
    rule = ["---:" if number in right else "---" for number in range(len(header))]
    return [_row(one) for one in (header, rule, *rows)]


def folded(title: str, lines: Iterable[str]) -> list[str]:
    """Lines that a click unfolds."""
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>"]


def listed(names: Sequence[object], most: int = 5) -> str:
    """Names in code, the first ones where they are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(code(name) for name in names[:most]) + more


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
