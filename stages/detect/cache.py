"""Everything that a detector ever found, kept outside DVC's outputs.

One SQLite file for each detector, `.temper/boxes/<name>-<key>.sqlite`: each of many small results is whole or absent
when the run is killed, and two runs may write at once. If the file is removed, every image is detected again.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import numpy as np

from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.boxes import Boxes

_COMMIT_EVERY = 2.0  # seconds: what a kill may cost
_WAIT = 60.0  # seconds for another run's commit


class Cache:
    """The boxes that one detector found, by image_id."""

    def __init__(self, name: str, key: str) -> None:
        self._path = scratch("boxes") / f"{name}-{key}.sqlite"

    def __enter__(self) -> "Cache":
        with self._readable():
            self._database = sqlite3.connect(self._path, timeout=_WAIT)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS boxes"
                " (image_id TEXT PRIMARY KEY, corners BLOB, scores BLOB, classes TEXT) WITHOUT ROWID"
            )
        self._committed = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with self._readable():
                self._database.commit()
        finally:
            self._database.close()

    def image_ids(self) -> set[str]:
        """The image_ids of all images that the detector has seen."""
        with self._readable():
            return {image_id for (image_id,) in self._database.execute("SELECT image_id FROM boxes")}

    def add(self, image_id: str, boxes: Boxes) -> None:
        """Keeps the boxes of an image; they are on the disk after seconds, or when the block ends, even by an error."""
        row = (image_id, boxes.corners.tobytes(), boxes.scores.tobytes(), json.dumps(list(boxes.classes)))
        with self._readable():
            self._database.execute("INSERT OR REPLACE INTO boxes VALUES (?, ?, ?, ?)", row)
            if time.monotonic() - self._committed > _COMMIT_EVERY:
                self._database.commit()
                self._committed = time.monotonic()

    def boxes(self, image_id: str) -> Boxes:
        """The boxes of an image that was added."""
        with self._readable():
            corners, scores, classes = self._database.execute(
                "SELECT corners, scores, classes FROM boxes WHERE image_id = ?", (image_id,)
            ).fetchone()
        return Boxes(
            np.frombuffer(corners, np.float32).reshape(-1, 4), np.frombuffer(scores, np.float32), json.loads(classes)
        )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise TemperError(
                f"{self._path}: expected a cache of boxes that can be read and written, received: {error}; "
                "run again, with space on the disk; if that does not help, remove the file"
            ) from None
