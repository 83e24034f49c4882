"""data/classes.txt: the class names in order. `normalize` decides it once (law 1); every model has it in its card."""

from collections.abc import Sequence
from pathlib import Path

from temper.base.atomic import atomic_file

PATH = "data/classes.txt"


def write(classes: Sequence[str]) -> None:
    """Writes the names, one per line."""
    with atomic_file(PATH) as path:
        path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def read() -> list[str]:
    """The names that `write` wrote."""
    return Path(PATH).read_text(encoding="utf-8").splitlines()
