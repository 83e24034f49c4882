"""Connections that are closed when a client takes too long to say what it wants.

uvicorn waits for the head of a request as long as it takes: a client that sends a byte a minute on many connections
would keep all others out (a "slowloris"). It has a limit only for the time between two requests.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # at most, until the head of a request must be here


class Connection(H11Protocol):
    """uvicorn's, with limits of time for the head of each request, and for a client to take its answer."""

    seconds: ClassVar[float] = 30.0  # for a client to take what it was sent
    _patience: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Starts the clock for the first request."""
        super().connection_made(transport)
        self._look_at_the_clock()

    def data_received(self, data: bytes) -> None:
        """Starts the clock with the first byte of a head, and stops it with the last."""
        super().data_received(data)
        self._look_at_the_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clocks."""
        super().connection_lost(exc)
        for clock in (self._patience, self._stuck):
            if clock is not None:
                clock.cancel()

    def pause_writing(self) -> None:
        """Starts the clock for a client that does not take its answer."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops it."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection, also one whose client never takes the last bytes."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def _look_at_the_clock(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._patience = self._patience or self.loop.call_later(min(HEAD_SECONDS, self.seconds), self._close)
        elif self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close(self) -> None:
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        self._stuck = self.loop.call_later(self.seconds, self.transport.abort)


def connections(seconds: float) -> type[Connection]:
    """The class of connections with this limit of time."""
    return type("Connection", (Connection,), {"seconds": seconds})
