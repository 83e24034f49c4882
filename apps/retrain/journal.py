"""What a retraining writes down on its way, so that one that was killed goes on; and the lock that keeps others out.

Training and predictions need no notes: the stages resume by themselves, and DVC's run cache knows what is done. Noted
is the commit from which it started, and, from the moment at which the new model was accepted, the report.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.texts import write_json

FOLDER = Path(".temper/retrain")
PATH, LOCK = FOLDER / "journal.json", FOLDER / "lock"


@dataclass(frozen=True)
class Journal:
    """How far a retraining has come.

    Attributes:
        base: the commit from which it started.
        updated: the .dvc files that it was told to update.
        accepted: the report, once the new model was accepted; `None` before.
        replaced: the version that it is to replace, if any.
        rewritten: the .dvc files that differed from git's after the pipeline had run.
    """

    base: str
    updated: tuple[str, ...] = ()
    accepted: str | None = None
    replaced: str | None = None
    rewritten: tuple[str, ...] = ()

    def write(self) -> None:
        """Notes it on the disk."""
        with atomic_file(PATH) as partial:
            write_json(partial, asdict(self))


def read() -> Journal | None:
    """What a retraining that did not come to its end has noted; `None`: there is none."""
    try:
        values = json.loads(PATH.read_text(encoding="utf-8"))
        updated, rewritten = tuple(values["updated"]), tuple(values["rewritten"])
        return Journal(values["base"], updated, values["accepted"], values["replaced"], rewritten)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise TemperError(f"{PATH}: expected the notes of a retraining, received none; remove the file") from None


def end() -> None:
    """Forgets the notes: the retraining has come to its end."""
    PATH.unlink(missing_ok=True)


@contextmanager
def alone() -> Iterator[None]:
    """Keeps every other retraining of this folder out; a process that is killed lets go.

    Raises:
        TemperError: another one runs. Waiting for it would pile up those that a schedule starts.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a", encoding="utf-8") as lock:  # never removed: whoever opens it meets whoever holds it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TemperError(
                f"{LOCK}: expected no other retraining in this folder, but one is running; wait until it has ended"
            ) from None
        yield
