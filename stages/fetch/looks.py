"""Finds a photo's size and perceptual hash, or why it cannot be used, and caches this so that it is decoded only once.

Decoding is nearly all of a fetch's processor time: it takes 15 times as long as the checksum. The results ("looks") are
therefore kept outside DVC's outputs, in `.temper/looks/<key>.sqlite`, one SQLite file for each version of the code that
decodes, with some 65 bytes for each photo. A fetch with 30 new photos then decodes 30. The file may be deleted at any
time. Trouble with it never stops a run: a damaged file is moved aside, and if the cache cannot be used at all, photos
are decoded without it.
"""

import hashlib
import importlib.metadata
import platform
import sqlite3
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from temper import headers, photos
from temper.base.paths import scratch
from temper.databases import is_damage, put_database_aside
from temper.photos import HASHED, BadPhoto, decode_with_dimensions, perceptual_hash

_WRITE_EVERY = 2.0  # seconds between writes: the most work that a kill loses
_WAIT = 10.0  # seconds to wait for another run's lock, which it holds for milliseconds
_SIGNED = 2**63  # subtracted from perceptual hashes, which are unsigned, because SQLite's integers are signed


@dataclass(frozen=True)
class Look:
    """What was found in a photo: its upright size in pixels and its perceptual hash, or why it cannot be used."""

    width: int | None = None
    height: int | None = None
    phash: int | None = None  # 64 bits
    problem: str | None = None


def look(data: bytes) -> Look:
    """Decodes a photo and looks at it. A large JPEG is decoded at a reduced size, which is enough for its hash."""
    try:
        pixels, (height, width) = decode_with_dimensions(data, HASHED)
    except BadPhoto as reason:
        return Look(problem=str(reason))
    return Look(width, height, perceptual_hash(pixels))


def version() -> str:
    """16 hex digits that identify all that a look depends on: this code and the versions of the libraries it uses."""
    digest = hashlib.sha256()
    for path in (Path(__file__), Path(photos.__file__), Path(headers.__file__)):
        digest.update(path.read_bytes())
    try:
        heif = importlib.metadata.version("pillow-heif")  # without it, a HEIC photo is a problem
    except importlib.metadata.PackageNotFoundError:
        heif = "none"
    digest.update(f"\n{cv2.__version__} {np.__version__} {heif} {platform.machine()}".encode())
    return digest.hexdigest()[:16]


class Looks:
    """The cache of looks at all photos that any fetch of the repository has seen; a context manager.

    It may be used from several threads, and by several runs at the same time.

    Attributes:
        decoded: how many photos were not in the cache.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._new: list[tuple[bytes, int | None, int | None, int | None, str | None, int]] = []
        self._written = time.monotonic()
        self.decoded = 0

    def __enter__(self) -> "Looks":
        try:
            self._path = scratch("looks") / f"{version()}.sqlite"
            self._database = _open(self._path)
        except (sqlite3.Error, OSError) as error:
            self._begin_anew(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._write()
            if self._database is not None:
                self._database.close()
                self._database = None

    def at(self, data: bytes, sha256: str) -> Look:
        """The look at a photo, which is decoded only if the cache does not have its bytes.

        Args:
            data: the photo's encoded bytes.
            sha256: the checksum of `data`, in hex digits.
        """
        key = bytes.fromhex(sha256)
        known = self._find(key)
        if known is not None:
            return known
        found = look(data)  # outside the lock, so that threads decode in parallel
        with self._lock:
            self.decoded += 1
            phash = None if found.phash is None else found.phash - _SIGNED
            row = (found.width, found.height, phash, found.problem)
            self._new.append((key, *row, _checksum(key, row)))
            if time.monotonic() - self._written > _WRITE_EVERY:
                self._write()
        return found

    def _find(self, key: bytes) -> Look | None:
        with self._lock:
            if self._database is None:
                return None
            try:
                row = self._database.execute(_SELECT, (key,)).fetchone()
                if row is not None and row[-1] != _checksum(key, row[:-1]):
                    raise sqlite3.DatabaseError("a row differs from its checksum")
            except sqlite3.Error as error:
                self._begin_anew(error)
                return None
        if row is None:
            return None
        width, height, phash, problem, _ = row
        return Look(width, height, None if phash is None else phash + _SIGNED, problem)

    def _write(self) -> None:
        """Writes the new looks in one short transaction."""
        if self._database is not None and self._new:
            try:
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?)", self._new)
            except sqlite3.Error as error:
                self._begin_anew(error)
        self._new, self._written = [], time.monotonic()

    def _begin_anew(self, error: Exception) -> None:
        """Moves a damaged cache aside and opens a new one; if that fails, goes on without a cache."""
        if self._do_without(error) and self._path is not None:
            try:
                self._database = _open(self._path)
            except sqlite3.Error as again:
                self._do_without(again)

    def _do_without(self, error: Exception) -> bool:
        """Closes the cache; returns whether it was damaged and has been moved aside, so that a new one can be opened.

        In the other case it prints why photos are decoded without the cache from now on.
        """
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = None
        if self._path is not None and (is_damage(error) or self._path.is_dir()):
            with suppress(OSError):
                put_database_aside(self._path, "a cache of looks at photos", error)
                return True
        print(f"{self._path or '.temper/looks'}: cannot be used now ({error}): photos are decoded without it")
        return False


def _checksum(key: bytes, row: tuple[object, ...]) -> int:
    """The checksum of a row. SQLite's own check covers the structure of the file, not the values in it."""
    return zlib.crc32(repr((key, row)).encode())


_SELECT = "SELECT width, height, phash, problem, checksum FROM looks WHERE sha256 = ?"


def _open(path: Path) -> sqlite3.Connection:
    """Opens the database in a file, or creates it if it is missing.

    Raises:
        sqlite3.Error: the database is damaged, or cannot be read and written.
    """
    database = sqlite3.connect(path, timeout=_WAIT, check_same_thread=False)
    try:
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(" ".join(str(problem).split()))
        database.execute(
            "CREATE TABLE IF NOT EXISTS looks"
            " (sha256 BLOB PRIMARY KEY, width INTEGER, height INTEGER, phash INTEGER, problem TEXT,"
            " checksum INTEGER) WITHOUT ROWID"
        )
        database.execute(_SELECT, (b"",))  # fails if the file has a table with other columns
    except sqlite3.Error:
        database.close()
        raise
    return database
