"""The journal of a retraining, from which a killed one continues, and the lock that prevents two at the same time.

Training and predictions need no journal: the stages resume by themselves, and DVC's run cache knows what is done. The
journal has the commit from which the retraining started and, once the new model was accepted, the report.
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
        updated: the .dvc files that it was told to update (--update).
        accepted: the report, once the new model was accepted; `None` before.
        replaced: the version that the new model replaces; `None`: there is none.
        rewritten: the .dvc files that differed from those in git after the pipeline had run.
    """

    base: str
    updated: tuple[str, ...] = ()
    accepted: str | None = None
    replaced: str | None = None
    rewritten: tuple[str, ...] = ()

    def write(self) -> None:
        """Writes the journal to disk."""
        with atomic_file(PATH) as partial:
            write_json(partial, asdict(self))


def read() -> Journal | None:
    """The journal of a retraining that did not finish; `None`: there is none."""
    try:
        values = json.loads(PATH.read_text(encoding="utf-8"))
        updated, rewritten = tuple(values["updated"]), tuple(values["rewritten"])
        return Journal(values["base"], updated, values["accepted"], values["replaced"], rewritten)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise TemperError(f"{PATH}: expected the notes of a retraining, received none; remove the file") from None


def end() -> None:
    """Removes the journal, because the retraining is finished."""
    PATH.unlink(missing_ok=True)


@contextmanager
def alone() -> Iterator[None]:
    """Prevents other retrainings in this folder while the context lasts; a killed process releases the lock.

    Raises:
        TemperError: another one is running. Waiting for it would let scheduled retrainings pile up.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a", encoding="utf-8") as lock:  # never removed, so that all processes lock the same file
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TemperError(
                f"{LOCK}: expected no other retraining in this folder, but one is running; wait until it has ended"
            ) from None
        yield
