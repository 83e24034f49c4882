"""The checksum of the weights and graph in an exported model, which reveals damage by a disk or a copy.

Runtimes load damaged weights without an error and predict with them. The checksum covers the bytes that the converter
made, which come first in the file; the card and the checksum follow them. A `.keras` file needs no such checksum: it is
a zip file, which has its own.
"""

import hashlib
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from temper.base.errors import TemperError

NAME = "graph.sha256"  # beside the card: "<bytes> <sha256>"
_PART = 1 << 20


def describe(graph: bytes) -> str:
    """The checksum entry for the bytes that a converter made."""
    return f"{len(graph)} {hashlib.sha256(graph).hexdigest()}"


def require(path: str | Path, entry: str | None) -> None:
    """Verifies a file by its checksum entry; `None` passes, because older files have no entry.

    Raises:
        TemperError: the file is damaged.
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
    """The same as `require`, for a file whose entries are in a zip behind the model.

    Raises:
        TemperError: the file is damaged.
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
    """The sha256 of the first `left` bytes of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while left and (part := file.read(min(left, _PART))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()
