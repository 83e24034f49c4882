"""Records of accepted requests, written to disk before they are queued.

Because of them, a repeated request runs nothing twice, and a crash loses nothing.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from apps.queue.postings import Run, Wish
from temper.base.atomic import atomic_file

_DAYS = 30  # how long the id of a request is remembered


@dataclass(frozen=True)
class Record:
    """An accepted request.

    Attributes:
        id: chosen by the client.
        digest: the checksum of its contents (`Wish.digest`).
        runs: its runs.
        commit: the commit that its runs start from.
        queued: whether all its runs have been put into the queue.
    """

    id: str
    digest: str
    runs: tuple[Run, ...]
    commit: str
    queued: bool = False


class Records:
    """The records in a folder, a file for each request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, identity: str) -> Record | None:
        """The record of the request with an id; None if there is none."""
        return _read(self._path(identity))

    def write(self, wish: Wish, runs: tuple[Run, ...], commit: str, queued: bool) -> None:
        """Writes the record of a request to disk."""
        record = Record(wish.id, wish.digest, runs, commit, queued)
        with atomic_file(self._path(wish.id)) as partial:
            partial.write_text(json.dumps(asdict(record)), encoding="utf-8")

    def finish(self, record: Record) -> None:
        """Records that all runs of a request are in the queue."""
        with atomic_file(self._path(record.id)) as partial:
            partial.write_text(json.dumps(asdict(record) | {"queued": True}), encoding="utf-8")

    def forget(self, identity: str) -> None:
        """Removes the record of a request."""
        self._path(identity).unlink(missing_ok=True)

    def unfinished(self) -> Iterator[Record]:
        """The requests that a crash interrupted; removes the records of queued requests that are too old."""
        for path in sorted(self._folder.glob("*.json")):
            record = _read(path)
            if record is not None and not record.queued:
                yield record
            elif time.time() - path.stat().st_mtime > _DAYS * 86400:
                path.unlink()

    def _path(self, identity: str) -> Path:
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Record | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = tuple(Run(run["name"], tuple(run["overrides"])) for run in content["runs"])
        return Record(content["id"], content["digest"], runs, content.get("commit", ""), content["queued"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
