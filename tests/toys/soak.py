"""Thousands of good and bad requests by many clients, for a test and a benchmark of the server."""

import base64
import json
import random
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import requests

from tests.toys.colours import CLASSES, photo
from tests.toys.served import Served

PHOTOS = [
    (label, photo(label, number, ending)) for label in range(3) for number in range(3) for ending in (".jpg", ".png")
]


@dataclass
class Outcome:
    """The result of a soak.

    Attributes:
        statuses: for each kind of request, how many answers had each status; 0: no answer, as expected.
        wrong: what should not have happened, in words.
        memory: the server's memory in megabytes, after each tenth of the requests.
        seconds: the wall time of each good request.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def bomb(side: int = 30_000) -> bytes:
    """A PNG of less than a megabyte that decodes to gigabytes of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + 3 * side // 4)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


class Client:
    """One of many clients: sends random requests and checks the answers."""

    def __init__(self, server: Served, seed: int) -> None:
        self.server, self.dice, self.session = server, random.Random(seed), requests.Session()

    def send(self, kind: str) -> tuple[int, bool]:
        """Sends a request of a kind; returns the status (0 for no answer), and whether it is as expected."""
        status, right = getattr(self, kind)()
        return status, bool(right)

    def _post(self, data: Any = None, query: str = "", **arguments: Any) -> requests.Response:
        return self.session.post(f"{self.server.url}/predict{query}", data=data, timeout=60, **arguments)

    def _is(self, found: dict[str, Any], label: int) -> bool:
        return bool(found["status"] == 200 and found["answers"][0]["classes"][0]["name"] == CLASSES[label])

    def raw(self) -> tuple[int, bool]:
        """A good photo as the body."""
        label, data = self.dice.choice(PHOTOS)
        answer = self._post(data)
        return answer.status_code, answer.status_code == 200 and self._is(answer.json()["photos"][0], label)

    def form(self) -> tuple[int, bool]:
        """Good photos and a file that is no photo, as a form."""
        chosen = self.dice.choices(PHOTOS, k=self.dice.randint(1, 4))
        files = [("photo", (f"{number}.jpg", data)) for number, (_, data) in enumerate(chosen)]
        answer = self._post(files=[*files, ("photo", ("bad", b"none"))])
        found = answer.json().get("photos", [])
        good = all(self._is(one, label) for one, (label, _) in zip(found, chosen, strict=False))
        return answer.status_code, good and len(found) == len(files) + 1 and found[-1]["status"] == 415

    def json(self) -> tuple[int, bool]:
        """A good photo as base64."""
        label, data = self.dice.choice(PHOTOS)
        answer = self._post(json={"photos": [{"base64": base64.b64encode(data).decode()}]})
        return answer.status_code, answer.status_code == 200 and self._is(answer.json()["photos"][0], label)

    def looked(self) -> tuple[int, bool]:
        """Asks where the model looked in a good photo."""
        label, data = self.dice.choice(PHOTOS)
        answer = self._post(data, "?look=true")
        return answer.status_code, answer.status_code == 200 and self._is(answer.json()["photos"][0], label)

    def damaged(self) -> tuple[int, bool]:
        """A photo with missing or changed bytes; some of these can still be read."""
        _, data = self.dice.choice(PHOTOS)
        changed = bytearray(data[: self.dice.randint(1, len(data))])
        for _ in range(self.dice.randint(0, 5)):
            changed[self.dice.randrange(len(changed))] = self.dice.randrange(256)
        status = self._post(bytes(changed)).status_code
        return status, status in (200, 413, 415, 422)

    def nonsense(self) -> tuple[int, bool]:
        """Requests that are malformed in ways of their own."""
        data, query, kind, expected = self.dice.choice(NONSENSE)
        answer = self._post(data, query, headers={"Content-Type": kind})
        return answer.status_code, answer.status_code == expected and answer.json()["error"]

    def cut(self) -> tuple[int, bool]:
        """A connection that is cut in the middle of the request, or before the answer is read."""
        _, data = self.dice.choice(PHOTOS)
        with socket.create_connection(("127.0.0.1", self.server.port)) as line:
            whole = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            line.sendall(whole[: self.dice.randint(0, len(whole))])
            if self.dice.random() < 0.5:  # with a reset in place of an orderly end
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return 0, True

    def slow(self) -> tuple[int, bool]:
        """A good photo in small parts, with pauses."""
        label, data = self.dice.choice(PHOTOS)
        parts = [data[place : place + len(data) // 4 + 1] for place in range(0, len(data), len(data) // 4 + 1)]

        def dribble() -> Any:
            for part in parts:
                time.sleep(0.05)
                yield part

        answer = self._post(dribble())  # chunked
        return answer.status_code, answer.status_code == 200 and self._is(answer.json()["photos"][0], label)

    def garbage(self) -> tuple[int, bool]:
        """Bytes that are not HTTP."""
        with socket.create_connection(("127.0.0.1", self.server.port)) as line:
            line.settimeout(60)
            line.sendall(self.dice.randbytes(self.dice.randint(1, 200)) + b"\r\n\r\n")
            said = line.recv(100)
        return (int(said[9:12]) if said else 0), not said or b" 400 " in said


BOMB = bomb()
NONSENSE = [  # body, query, type, status
    (b"", "", "image/jpeg", 400),
    (b"{", "", "application/json", 400),
    (b"[" * 100_000, "", "application/json", 400),
    (b'{"photos": [{"base64": "%%%"}]}', "", "application/json", 400),
    (b'{"photos": [{"address": "http://127.0.0.1/"}]}', "", "application/json", 403),
    (b'{"photos": []}', "", "application/json", 400),
    (json.dumps({"photos": [{"base64": ""}] * 17}).encode(), "", "application/json", 413),
    (b"--x\r\n", "", "multipart/form-data; boundary=x", 400),
    (b"--x", "", "multipart/form-data", 400),
    (b"--x\r\n" + b"a: b\r\n" * 10_000, "", "multipart/form-data; boundary=x", 400),
    (b"x", "?model=none-such", "image/jpeg", 404),
    (b"x", "?top=0", "image/jpeg", 400),
    (b"x" * 100, "", "image/jpeg", 415),
    (b"\xff\xd8\xff", "", "image/jpeg", 422),
    (BOMB, "", "image/png", 413),
    (b"\0" * 21_000_000, "", "image/png", 413),
]
# Of a hundred requests, how many are of which kind.
MIX = {"raw": 30, "form": 8, "json": 10, "looked": 1, "damaged": 20, "nonsense": 15, "cut": 8, "slow": 3, "garbage": 5}
GOOD = ("raw", "json")


def soak(server: Served, count: int, clients: int = 8, shown: Callable[[int], None] = lambda done: None) -> Outcome:
    """Sends `count` requests from several clients at the same time."""
    outcome, lock = Outcome(), Lock()
    dice = random.Random(0)
    kinds = dice.choices(list(MIX), list(MIX.values()), k=count)
    waiting = list(enumerate(kinds))

    def work(number: int) -> None:
        client = Client(server, number)
        while True:
            with lock:
                if not waiting:
                    return
                place, kind = waiting.pop(0)
                if place % max(1, count // 10) == 0:
                    outcome.memory.append(server.memory())
                    shown(place)
            client.dice.seed(place)
            begun = time.monotonic()
            status, right = client.send(kind)
            with lock:
                outcome.statuses[kind, status] += 1
                if kind in GOOD:
                    outcome.seconds.append(time.monotonic() - begun)
                if not right or status >= 500:
                    outcome.wrong.append(f"request {place}, {kind}: status {status}")

    with ThreadPoolExecutor(clients) as pool:
        for finished in [pool.submit(work, number) for number in range(clients)]:
            finished.result()
    outcome.memory.append(server.memory())
    return outcome
