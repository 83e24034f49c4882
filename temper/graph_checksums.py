"""The checksum in an exported model of what it computes with: a weight that a disk or a copy changed is found.

Runtimes read damaged weights without a word, and answer with them. The checksum is of the bytes that the converter
made, which come first in the file; card and checksum are behind them. A `.keras` file needs none: it is a zip, which
has its own.
"""

import hashlib
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from temper.base.errors import TemperError

NAME = "graph.sha256"  # beside the card: "<bytes> <sha256>"
_PART = 1 << 20


def describe(graph: bytes) -> str:
    """The entry for what a converter made."""
    return f"{len(graph)} {hashlib.sha256(graph).hexdigest()}"


def require(path: str | Path, entry: str | None) -> None:
    """Compares a file with its entry; a file of before there were entries has none.

    Raises:
        TemperError: the file is not as it was written.
    """
    if entry is None:
        return
    length, _, expected = entry.partition(" ")
    received = _of_first(path, int(length)) if length.isdecimal() else "nothing"
    if received != expected:
        raise TemperError(
            f"{path}: expected a model whose first {length[:20]} bytes have the sha256 {expected[:64]}, received "
            f"{received}: the file is damaged; export it again, or copy it again"
        )


def require_zipped(path: str | Path) -> None:
    """The same for a file with its entries in a zip behind the model.

    Raises:
        TemperError: the file is not as it was written.
    """
    try:
        with ZipFile(path) as entries:
            entry = entries.read(NAME).decode(errors="replace") if NAME in entries.namelist() else None
    except (BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise TemperError(
            f"{path}: expected a checksum of the model behind it, received {error}: the file is damaged; export it "
            "again, or copy it again"
        ) from None
    require(path, entry)


def _of_first(path: str | Path, left: int) -> str:
    """The sha256 of so many bytes of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while left and (part := file.read(min(left, _PART))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()
