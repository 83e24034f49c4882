"""What a client may ask for, and how it is told that it asked for more."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from temper.base.errors import printable

MEGA = 10**6


class Refusal(Exception):
    """Why a request, or a photo of it, gets no answer: an HTTP status, and one sentence for the client."""

    def __init__(self, status: int, sentence: str, again: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.again = status, again  # `again`: the seconds of the header Retry-After
        self.sentence = printable(" ".join(sentence.split()))


@dataclass(frozen=True)
class Limits:
    """How much a client gets.

    Attributes:
        megabytes: of the body of a request, and of a photo that is fetched.
        megapixels: of a photo, as its header claims.
        photos: of a request.
        seconds: until a request must have arrived, and again until it must be answered.
        requests: that are worked on at once; those beyond are asked to come back.
        connections: that are open at once.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0
    photos: int = 16
    seconds: float = 30.0
    requests: int = 16
    connections: int = 256


class Room:
    """What all requests together may hold: so many bytes while they arrive, so many requests while they are worked on.

    A client that sends slowly holds the bytes that it sent, and no place among the requests.
    """

    def __init__(self, limits: Limits) -> None:
        self._most_bytes = limits.requests * limits.megabytes * MEGA
        self._most_requests = limits.requests
        self.bytes = self.requests = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds, given back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.bytes -= share.bytes

    def take(self, count: int) -> None:
        """Counts bytes, or refuses them."""
        if self.bytes + count > self._most_bytes:
            raise busy()
        self.bytes += count

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests that are worked on."""
        if self.requests >= self._most_requests:
            raise busy()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1


class Share:
    """The bytes of one request."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, count: int) -> None:
        """Takes bytes, or raises Refusal if all requests together would hold too many."""
        self._room.take(count)
        self.bytes += count


def busy() -> Refusal:
    """What to say where the server has too much to do."""
    return Refusal(503, "the server has as many requests as it can work on: try again in a second", again=1)


def too_long(limits: Limits) -> Refusal:
    """What to say to a body of too many bytes."""
    return Refusal(
        413,
        f"expected a request of at most {limits.megabytes:g} megabytes, received more: send fewer or smaller photos",
    )
