"""The limits for clients, and the refusals that tell them that they exceeded one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from temper.base.errors import printable

MEGA = 10**6


class Refusal(Exception):
    """A request, or a photo of it, gets no answer: an HTTP status, and one sentence for the client."""

    def __init__(self, status: int, sentence: str, again: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.again = status, again  # `again`: the seconds of the header Retry-After
        self.sentence = printable(" ".join(sentence.split()))


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        megabytes: the size of a request's body, and of a photo that is fetched, in millions of bytes.
        megapixels: the size of a photo as its header claims it, in millions of pixels.
        photos: the number of photos in a request.
        seconds: the time for a request to arrive, and again the time for answering it.
        requests: how many requests are processed at the same time; further ones are asked to come back later.
        connections: how many connections are open at the same time.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0
    photos: int = 16
    seconds: float = 30.0
    requests: int = 16
    connections: int = 256


class Room:
    """Limits what all requests together may hold: bytes while they arrive, places while they are processed.

    A client that sends slowly takes up only the bytes that it has sent, and no place.
    """

    def __init__(self, limits: Limits) -> None:
        self._most_bytes = limits.requests * limits.megabytes * MEGA
        self._most_requests = limits.requests
        self.bytes = self.requests = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Counts the bytes that a request holds, and releases them at the end of the context."""
        share = Share(self)
        try:
            yield share
        finally:
            self.bytes -= share.bytes

    def take(self, count: int) -> None:
        """Counts bytes, or raises Refusal if all requests together would hold too many."""
        if self.bytes + count > self._most_bytes:
            raise busy()
        self.bytes += count

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place among the requests that are processed, for the time of the context.

        Raises:
            Refusal: all places are taken.
        """
        if self.requests >= self._most_requests:
            raise busy()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1


class Share:
    """The bytes that one request holds."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, count: int) -> None:
        """Takes bytes, or raises Refusal if all requests together would hold too many."""
        self._room.take(count)
        self.bytes += count


def busy() -> Refusal:
    """The refusal of a server that has too much to do."""
    return Refusal(503, "the server has as many requests as it can work on: try again in a second", again=1)


def too_long(limits: Limits) -> Refusal:
    """The refusal of a body that is too long."""
    return Refusal(
        413,
        f"expected a request of at most {limits.megabytes:g} megabytes, received more: send fewer or smaller photos",
    )
