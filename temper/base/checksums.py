"""Checksums that files carry with them, so that damage is found where it is read, and not in a model.

DVC compares an output with `dvc.lock` when it is made, and trusts it from then on: a disk that loses a bit later is
noticed by nobody. CRC-32 notices every change of up to 32 neighbouring bits, and any other with all but one chance in
2**32; whoever means harm could compute it too. It costs 0.14 s of processor time a GB, where SHA-256 costs 0.48 s.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from temper.base.errors import TemperError

WHOLE = "of all files"  # the entry of a list of checksums that is its own
MEND = "`make verify` says how to mend it"

_AT_ONCE = 2**20  # bytes that are read at a time


def of_bytes(data: bytes | memoryview, so_far: str = "00000000") -> str:
    """The CRC-32 of bytes, eight hex digits; of those before and these, if the checksum of those before is given."""
    return f"{zlib.crc32(data, int(so_far, 16)):08x}"


def of_file(path: Path) -> str:
    """The CRC-32 of a file's bytes.

    Reads it, and does not map it: a disk that fails is then an error and not the end of the process.
    """
    checksum = of_bytes(b"")
    with path.open("rb") as file:
        while data := file.read(_AT_ONCE):
            checksum = of_bytes(data, checksum)
    return checksum


def require_file(path: Path, expected: str) -> None:
    """Raises a TemperError if a file's bytes do not have the checksum that they were written with."""
    found = of_file(path)
    if found != expected:
        raise TemperError(f"{path}: damaged: expected the checksum {expected}, found {found}; {MEND}")


# --- A list of them, beside the files


def as_json(checksums: Mapping[str, str]) -> str:
    """A list of checksums as text, with one of its own."""
    listed = dict(sorted(checksums.items()))
    return json.dumps(listed | {WHOLE: of_bytes(json.dumps(listed).encode())}, indent=2) + "\n"


def from_json(text: str | bytes, where: str | Path) -> dict[str, str]:
    """The checksums that `as_json` wrote.

    Args:
        where: what the text was read from, for messages.

    Raises:
        TemperError: it is no such list, or not as it was written.
    """
    try:
        listed = json.loads(text)
        whole = listed.pop(WHOLE)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TemperError(f"{where}: damaged: expected a list of checksums, received none; {MEND}") from None
    found = of_bytes(json.dumps(listed).encode())
    if found != whole:
        raise TemperError(f"{where}: damaged: expected the checksum {whole}, found {found}; {MEND}")
    checksums: dict[str, str] = listed
    return checksums
