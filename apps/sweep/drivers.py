"""Several drivers of one sweep, each in a clone of its own: the server's study, turns, and who has which trial.

What two drivers must not do at once, such as choosing a trial, they do in turn, under a lock of the server that a
killed driver lets go of. Each driver raises a number in the study every few seconds, from a thread; where it stands
still, the driver is gone, and its trials are free for the others. Clocks of machines are not compared.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from apps.sweep.settings import KINDS_OF_SERVERS
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.network.redaction import redacted, secrets_of

BEAT = 5.0  # seconds between two signs of life
GRACE = 60.0  # seconds without one, after which a driver is gone
PATIENCE = 600.0  # seconds that a server may not answer
# Seconds until a connection stands, and until a server that vanished is noticed.
_LIMITS: dict[str, dict[str, int]] = {
    "postgresql": {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3},
    "mysql": {"connect_timeout": 10, "read_timeout": 700},  # longer than the wait for a turn
}
# Kept for as long as the connection is. The settings before it end the connection of a machine that vanished, which
# would otherwise keep the lock for hours.
_TURN = {
    "postgresql": (
        *("set tcp_keepalives_idle = 30", "set tcp_keepalives_interval = 10", "set tcp_keepalives_count = 3"),
        "select pg_advisory_lock(8367236)",
    ),
    "mysql": ("set session wait_timeout = 60", "select get_lock('temper sweeps', 600)"),
}


def address(given: str, where: str) -> str:
    """The address of a server's storage, from the environment where $NAME stands for it.

    Raises:
        TemperError: there is no such variable, or no such address.
    """
    url = os.environ.get(given[1:], "") if given.startswith("$") else given
    if not url:
        raise TemperError(f"{where}: expected the environment variable {given[1:]} to hold an address, found none")
    if url.partition("://")[0] not in KINDS_OF_SERVERS:  # it may hold a password, so it is not repeated
        expected = " or ".join(f"{kind}://..." for kind in KINDS_OF_SERVERS)
        raise TemperError(f"{where}: expected {expected} {f'in {given[1:]}' if url != given else 'as storage'}")
    return url


class Alone:
    """The only driver of a study: each trial is its own."""

    name = ""
    lost: tuple[type[Exception], ...] = ()  # what says that a server does not answer

    def turn(self) -> AbstractContextManager[None]:
        """What only one driver may do at a time."""
        return nullcontext()

    def is_free(self, owner: str | None) -> bool:
        """Whether the trials of a driver may be taken over; of those that this one does not run already."""
        return True

    def wait(self, error: Exception) -> None:
        """Waits for a server that does not answer."""
        raise error

    def answered(self) -> None:
        """The server answers (again)."""

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nobody else has to know."""


class Team(Alone):
    """A driver among others of one study; lives within `with`.

    Attributes:
        name: of this driver: the machine, and some letters that tell its clones apart.
    """

    lost = (StorageInternalError, DBAPIError)

    def __init__(self, study: optuna.Study, name: str, turns: "Turns") -> None:
        self.study, self.name, self._turns = study, name, turns
        self._seen: dict[str, tuple[int, float]] = {}
        self._silent_since: float | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def turn(self) -> AbstractContextManager[None]:
        """What only one driver may do at a time."""
        return self._turns.turn()

    def is_free(self, owner: str | None) -> bool:
        """Whether the trials of a driver may be taken over.

        Without an owner, which is how a trial starts within a turn, it is free, if it is still so in the next turn.
        """
        return owner is None or owner == self.name or not self._lives(owner)

    def _lives(self, other: str) -> bool:
        beat = self.study.user_attrs.get(f"driver {other}")
        if beat is None:
            return False
        last, since = self._seen.get(other, (-1, 0.0))
        if beat != last:
            since = time.monotonic()
            self._seen[other] = (beat, since)
        return time.monotonic() - since < GRACE

    def _live(self) -> None:
        beat = 0
        while True:
            beat += 1
            with suppress(*self.lost):  # whoever runs trials notices too, and waits
                self.study.set_user_attr(f"driver {self.name}", beat)
            if self._ends.wait(BEAT):
                return

    def wait(self, error: Exception) -> None:
        """Waits for a server that does not answer.

        Raises:
            TemperError: it has been silent for too long.
        """
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            print(f"the server of the study does not answer: trying again for {PATIENCE / 60:.0f} minutes", flush=True)
        if now - self._silent_since > PATIENCE:
            raise TemperError(f"the server of the study: {said(error)}; the same command goes on") from None
        time.sleep(min(BEAT, PATIENCE))

    def answered(self) -> None:
        """The server answers (again)."""
        self._silent_since = None

    def __enter__(self) -> "Team":
        self.study.set_user_attr(f"folder of {self.name}", str(Path.cwd()))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leaves: others may have its trials at once."""
        self._ends.set()
        self._thread.join()
        with suppress(*self.lost):
            self.study.set_user_attr(f"driver {self.name}", None)


def own_name(folder: Path) -> str:
    """The name of the driver in this clone, kept in a folder of it; a copy of the clone gets another one."""
    path, here = folder / "driver.json", [socket.gethostname(), str(Path.cwd())]
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["here"] == here:
            return str(kept["name"])
    name = f"{here[0]}-{secrets.token_hex(3)}"
    with atomic_file(path) as partial:
        partial.write_text(json.dumps({"name": name, "here": here}), encoding="utf-8")
    return name


class Turns:
    """The lock of a server, and the storage that lies on it.

    Args:
        url: `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE` or `mysql+pymysql://...`.

    Raises:
        TemperError: it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        limits = _LIMITS[url.partition("+")[0]]
        try:
            # Without a pool: closing a connection ends it, and with it the turn.
            self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=limits)
            with self.turn():  # two drivers would make the same tables
                self.storage = optuna.storages.RDBStorage(
                    url, engine_kwargs={"pool_pre_ping": True, "connect_args": limits}
                )
        except ImportError as error:
            raise TemperError(f"expected {error.name} to be installed for this storage: make sweep does it") from None
        except (SQLAlchemyError, StorageInternalError, ValueError, RuntimeError) as error:
            raise TemperError(f"{redacted(url, secrets_of(url))}: {said(error, url)}") from None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What only one driver may do at a time."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in _TURN[self._engine.dialect.name]:
                got = connection.exec_driver_sql(statement)
            if self._engine.dialect.name == "mysql" and got.scalar() != 1:
                raise StorageInternalError("no turn within 600 seconds")
            yield


def said(error: BaseException, url: str = "") -> str:
    """The first line of what a server or its driver says, without passwords."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return redacted(lines[0] if lines else type(cause).__name__, secrets_of(url))
