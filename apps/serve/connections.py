"""Closes connections whose clients take too long to send a request or to receive the answer.

uvicorn limits only the time between two requests, and waits forever for the head of a request. A client that sends a
byte per minute on many connections would keep all others out (a "slowloris" attack).
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # the most time that the head of a request may take to arrive


class Connection(H11Protocol):
    """uvicorn's connection with time limits for the head of each request, and for the client to receive its answer."""

    seconds: ClassVar[float] = 30.0  # the most time that a client may take to receive an answer
    _patience: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Starts the clock for the first request."""
        super().connection_made(transport)
        self._look_at_the_clock()

    def data_received(self, data: bytes) -> None:
        """Starts the clock when a head begins to arrive, and stops it when the head is complete."""
        super().data_received(data)
        self._look_at_the_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clocks."""
        super().connection_lost(exc)
        for clock in (self._patience, self._stuck):
            if clock is not None:
                clock.cancel()

    def pause_writing(self) -> None:
        """Starts the clock for a client that does not receive its answer."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops that clock."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection, even if its client never receives the last bytes."""
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
    """A class of connections with this time limit."""
    return type("Connection", (Connection,), {"seconds": seconds})
