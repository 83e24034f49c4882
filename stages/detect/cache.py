"""A cache of all boxes that a detector has ever found, kept outside DVC's outputs.

Each detector has a SQLite file, `.temper/boxes/<name>-<key>.sqlite`. If a run is killed, each result is either complete
or absent, and two runs may write at the same time. Each row has a checksum. A damaged file is moved aside and its
images are detected again; so are the images of damaged rows.
"""

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import numpy as np

from temper.aside import is_file
from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.databases import is_damage, put_database_aside
from temper.detections import Boxes

_COMMIT_EVERY = 2.0  # seconds between commits: the most work that a kill loses
_WAIT = 60.0  # seconds to wait for another run's commit
_EXPECTED = "a cache of boxes"


class Cache:
    """The boxes that a detector has found, by image_id; a context manager."""

    def __init__(self, name: str, key: str) -> None:
        self._path = scratch("boxes") / f"{name}-{key}.sqlite"

    def __enter__(self) -> "Cache":
        with self._readable():
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                self._start_afresh(error)
        self._committed = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with self._readable():
                self._database.commit()
        finally:
            self._database.close()

    def image_ids(self) -> set[str]:
        """The image_ids of all images whose boxes are known."""
        with self._readable():
            try:
                return self._sound()
            except sqlite3.DatabaseError as error:
                self._start_afresh(error)
                return set()

    def add(self, image_id: str, boxes: Boxes) -> None:
        """Stores the boxes of an image. They are on disk after seconds, or when the context ends, even by an error."""
        row = (boxes.corners.tobytes(), boxes.scores.tobytes(), json.dumps(list(boxes.classes)))
        with self._readable():
            self._database.execute(
                "INSERT OR REPLACE INTO boxes (image_id, corners, scores, classes, checksum) VALUES (?, ?, ?, ?, ?)",
                (image_id, *row, _checksum(*row)),
            )
            if time.monotonic() - self._committed > _COMMIT_EVERY:
                self._database.commit()
                self._committed = time.monotonic()

    def boxes(self, image_id: str) -> Boxes:
        """The boxes of an image that is in the cache."""
        with self._readable():
            row = self._database.execute(
                "SELECT corners, scores, classes FROM boxes WHERE image_id = ?", (image_id,)
            ).fetchone()
        return _unpacked(*row)

    def _open(self) -> None:
        """Opens the file, or creates it if it is missing.

        Raises:
            sqlite3.DatabaseError: it is damaged, is not such a cache, or cannot be read and written at the moment.
        """
        is_file(self._path, _EXPECTED)
        self._database = sqlite3.connect(self._path, timeout=_WAIT)
        # Decode damaged text without an error; its checksum then differs.
        self._database.text_factory = lambda text: text.decode(errors="replace")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS boxes"
            " (image_id TEXT PRIMARY KEY, corners BLOB, scores BLOB, classes TEXT, checksum INTEGER) WITHOUT ROWID"
        )
        columns = {name for _, name, *_ in self._database.execute("PRAGMA table_info(boxes)")}
        if not {"image_id", "corners", "scores", "classes"} <= columns:
            raise sqlite3.DatabaseError("a table of other columns")
        if "checksum" not in columns:  # a cache of an earlier version, whose boxes took hours
            with suppress(sqlite3.OperationalError):  # another run has added it meanwhile
                self._database.execute("ALTER TABLE boxes ADD COLUMN checksum INTEGER")

    def _sound(self) -> set[str]:
        """The image_ids of all undamaged rows; prints how many rows are damaged."""
        sound, damaged = set[str](), 0
        for image_id, *row, checksum in self._database.execute(
            "SELECT image_id, corners, scores, classes, checksum FROM boxes"
        ):
            if _is_sound(row, checksum):
                sound.add(image_id)
            else:
                damaged += 1
        if damaged:
            print(
                f"{self._path}: expected the boxes of {damaged + len(sound):,} images, {damaged:,} are damaged: "
                "those are detected again"
            )
        return sound

    def _start_afresh(self, error: sqlite3.DatabaseError) -> None:
        """Moves a damaged file aside and opens a new one.

        Raises:
            sqlite3.DatabaseError: `error` itself, if it does not mean damage: the file is locked, or the disk is full.
        """
        if not is_damage(error):
            raise error
        self._database.close()
        put_database_aside(self._path, _EXPECTED, error)
        self._open()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise TemperError(
                f"{self._path}: expected {_EXPECTED} that can be read and written, received: {error}; "
                "run again, with space on the disk; if that does not help, remove the file"
            ) from None


def _checksum(corners: bytes, scores: bytes, classes: str) -> int:
    return zlib.crc32(classes.encode(), zlib.crc32(scores, zlib.crc32(corners)))


def _unpacked(corners: bytes, scores: bytes, classes: str) -> Boxes:
    return Boxes(
        np.frombuffer(corners, np.float32).reshape(-1, 4), np.frombuffer(scores, np.float32), json.loads(classes)
    )


def _is_sound(row: list[Any], checksum: int | None) -> bool:
    """Whether a row is undamaged; for a row without checksum, whether it can be parsed."""
    corners, scores, classes = row
    if not (isinstance(corners, bytes) and isinstance(scores, bytes) and isinstance(classes, str)):
        return False
    if checksum is not None:
        return checksum == _checksum(corners, scores, classes)
    try:
        names = json.loads(classes)
    except ValueError:
        return False
    return isinstance(names, list) and len(corners) == 16 * len(names) and len(scores) == 4 * len(names)
