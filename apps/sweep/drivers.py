"""Several drivers of one sweep, each in a clone of its own, that share a study on a database server.

What two drivers must not do at the same time, such as choosing a trial, they do in turn, under a lock of the server.
The server releases the lock of a driver that is killed. A thread of each driver increments a counter in the study every
five seconds, as a heartbeat. If a counter has not changed for a minute, its driver counts as dead, and others may take
over its trials. Each driver measures this minute with its own clock, so the machines' clocks need not agree.
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

BEAT = 5.0  # seconds between two heartbeats
GRACE = 60.0  # seconds without a heartbeat after which a driver counts as dead
PATIENCE = 600.0  # seconds without an answer from the server after which a driver ends
# Timeouts for connecting, and for noticing a server that vanished: all in seconds, except for keepalives_count.
_LIMITS: dict[str, dict[str, int]] = {
    "postgresql": {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3},
    "mysql": {"connect_timeout": 10, "read_timeout": 700},  # longer than the wait for a turn
}
# The statements that take the lock, which lasts as long as the connection. The settings before the lock make the server
# close the connection of a machine that vanished, which would otherwise keep the lock for hours.
_TURN = {
    "postgresql": (
        *("set tcp_keepalives_idle = 30", "set tcp_keepalives_interval = 10", "set tcp_keepalives_count = 3"),
        "select pg_advisory_lock(8367236)",
    ),
    "mysql": ("set session wait_timeout = 60", "select get_lock('temper sweeps', 600)"),
}


def address(given: str, where: str) -> str:
    """The address of the database server: `given` itself, or the value of the variable if `given` is $NAME.

    Args:
        where: the path of SWEEP.yaml, for messages.

    Raises:
        TemperError: the variable is empty or not set, or the address is of another kind of server.
    """
    url = os.environ.get(given[1:], "") if given.startswith("$") else given
    if not url:
        raise TemperError(f"{where}: expected the environment variable {given[1:]} to hold an address, found none")
    if url.partition("://")[0] not in KINDS_OF_SERVERS:  # not quoted: it may hold a password
        expected = " or ".join(f"{kind}://..." for kind in KINDS_OF_SERVERS)
        raise TemperError(f"{where}: expected {expected} {f'in {given[1:]}' if url != given else 'as storage'}")
    return url


class Alone:
    """The only driver of a study: all trials are its own, and locks and heartbeats are not needed."""

    name = ""
    lost: tuple[type[Exception], ...] = ()  # exceptions that mean that the server does not answer

    def turn(self) -> AbstractContextManager[None]:
        """A context for what only one driver may do at a time: empty, without a lock."""
        return nullcontext()

    def is_free(self, owner: str | None) -> bool:
        """Whether this driver may take over the trials of `owner`. The caller leaves out trials that it runs itself."""
        return True

    def wait(self, error: Exception) -> None:
        """Raises the error: without a server, there is nothing to wait for."""
        raise error

    def answered(self) -> None:
        """Does nothing: there is no server."""

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Does nothing: there are no other drivers to tell."""


class Team(Alone):
    """One of several drivers of a study. It sends heartbeats while its `with` block runs.

    Attributes:
        name: the name of this driver: its machine, and six hex digits that tell the clones on it apart.
    """

    lost = (StorageInternalError, DBAPIError)

    def __init__(self, study: optuna.Study, name: str, turns: "Turns") -> None:
        self.study, self.name, self._turns = study, name, turns
        self._seen: dict[str, tuple[int, float]] = {}
        self._silent_since: float | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def turn(self) -> AbstractContextManager[None]:
        """A context for what only one driver may do at a time: it holds the server's lock."""
        return self._turns.turn()

    def is_free(self, owner: str | None) -> bool:
        """Whether this driver may take over the trials of `owner`: if that is itself, or a driver that is dead.

        A trial without an owner is free too. A new trial has no owner for a moment, while its driver holds the lock. So
        callers ask again when they hold the lock: then a trial has no owner only if its driver died in that moment.
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
            with suppress(*self.lost):  # the main thread notices this too, and waits
                self.study.set_user_attr(f"driver {self.name}", beat)
            if self._ends.wait(BEAT):
                return

    def wait(self, error: Exception) -> None:
        """Waits for a server that does not answer: at most five seconds per call, ten minutes in all.

        Raises:
            TemperError: the server has not answered for ten minutes.
        """
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            print(f"the server of the study does not answer: trying again for {PATIENCE / 60:.0f} minutes", flush=True)
        if now - self._silent_since > PATIENCE:
            raise unanswered(error) from None
        time.sleep(min(BEAT, PATIENCE))

    def answered(self) -> None:
        """Notes that the server answers (again)."""
        self._silent_since = None

    def __enter__(self) -> "Team":
        self.study.set_user_attr(f"folder of {self.name}", str(Path.cwd()))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Marks this driver as gone, so that others may take over its trials at once."""
        self._ends.set()
        self._thread.join()
        with suppress(*self.lost):
            self.study.set_user_attr(f"driver {self.name}", None)


def own_name(folder: Path) -> str:
    """The name of this clone's driver, kept in `folder`/driver.json.

    If the file was written on another machine or in another folder, this is a copy of a clone, and gets a new name.
    """
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
    """The lock and Optuna's storage on a database server.

    Args:
        url: `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE` or `mysql+pymysql://...`.

    Raises:
        TemperError: the server cannot be reached or refuses, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        limits = _LIMITS[url.partition("+")[0]]
        try:
            # Without a pool of connections, closing a connection really ends it, which releases the lock.
            self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=limits)
            with self.turn():  # or two drivers might create the tables at once
                self.storage = optuna.storages.RDBStorage(
                    url, engine_kwargs={"pool_pre_ping": True, "connect_args": limits}
                )
        except ImportError as error:
            raise TemperError(f"expected {error.name} to be installed for this storage: run make sweep") from None
        except (SQLAlchemyError, StorageInternalError, ValueError, RuntimeError) as error:
            raise TemperError(f"{redacted(url, secrets_of(url))}: {said(error, url)}") from None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the server's lock, and holds it within the context."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in _TURN[self._engine.dialect.name]:
                got = connection.exec_driver_sql(statement)
            if self._engine.dialect.name == "mysql" and got.scalar() != 1:
                raise StorageInternalError("no turn within 600 seconds")
            yield


def unanswered(error: BaseException) -> TemperError:
    """The error for the user if the server failed during a sweep."""
    return TemperError(f"the server of the study: {said(error)}; run the same command again to continue")


def said(error: BaseException, url: str = "") -> str:
    """The first line of an error from the server or its Python package, without passwords."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return redacted(lines[0] if lines else type(cause).__name__, secrets_of(url))
