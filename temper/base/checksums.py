"""Checksums stored with the data, so that damage is found when a file is read, and not later in a model.

DVC compares an output with `dvc.lock` when it is made and trusts it from then on, so it does not notice when a disk
loses a bit later. CRC-32 detects every change within 32 neighbouring bits, and misses any other with a probability of 1
in 2**32. It is no protection against an attacker, who could compute it too. It costs 0.14 s of processor time per GB,
SHA-256 0.48 s.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from temper.base.errors import TemperError

WHOLE = "of all files"  # the entry in a list of checksums with the checksum of the list itself
MEND = "`make verify` says how to mend it"

_AT_ONCE = 2**20  # bytes read at a time


def of_bytes(data: bytes | memoryview, so_far: str = "00000000") -> str:
    """The CRC-32 of bytes, eight hex digits; `so_far` is the checksum of the bytes before them, if there are any."""
    return f"{zlib.crc32(data, int(so_far, 16)):08x}"


def of_file(path: Path) -> str:
    """The CRC-32 of a file's bytes.

    The file is read and not memory-mapped, so that a failing disk raises an error instead of killing the process.
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
    """A list of checksums as JSON, with an additional checksum of the list itself."""
    listed = dict(sorted(checksums.items()))
    return json.dumps(listed | {WHOLE: of_bytes(json.dumps(listed).encode())}, indent=2) + "\n"


def from_json(text: str | bytes, where: str | Path) -> dict[str, str]:
    """Reads the checksums that `as_json` wrote.

    Args:
        where: the file that the text was read from, for messages.

    Raises:
        TemperError: the text is not such a list, or it is damaged.
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
