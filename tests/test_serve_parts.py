"""Parts of the server that need no server: addresses of public hosts only, and processes that decode."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apps.serve import addresses, decoding
from apps.serve.addresses import Addresses
from apps.serve.decoding import Decoders
from apps.serve.limits import Limits, Refusal, Room, Share
from temper import preparation
from temper.network import public_hosts
from tests.toys.colours import photo
from tests.toys.workspace import ROOT

WANTED = [preparation.Preparation(32, 32, "crop", 0.0), preparation.Preparation(24, 40, "pad", 0.0)]


# --- What all requests together may hold


def test_a_share_of_the_room_is_given_back_whatever_happens() -> None:
    room = Room(Limits(megabytes=1, requests=2))
    with room.share() as slow:
        slow.take(1_500_000)
        with room.place(), pytest.raises(Refusal, match="try again") as refused, room.share() as other:
            other.take(400_000)
            other.take(200_000)
        assert (refused.value.status, refused.value.again) == (503, 1) and room.bytes == 1_500_000
    with room.place(), room.place():
        with pytest.raises(Refusal, match="try again"), room.place():
            raise AssertionError("a third place")
        assert room.requests == 2
    assert (room.bytes, room.requests) == (0, 0)


# --- Addresses


def fetched(url: str, private: bool = False) -> bytes:
    """What an address gives, or a Refusal."""

    async def run() -> bytes:
        fetching = Addresses(Limits(seconds=5), private)
        try:
            return await fetching.fetch(url, Share(Room(Limits())))
        finally:
            await fetching.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "https://192.168.0.1/",
        "http://metadata.internal/",
        "http://u:p@10.0.0.1/",
    ],
)
def test_addresses_that_are_not_public_are_not_asked(url: str) -> None:
    with pytest.raises(Refusal, match="public host") as refused:
        fetched(url)
    assert refused.value.status == 403


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names, and the addresses that they resolve to one after the other; 127.0.0.1 counts as public, 127.0.0.2 not."""
    resolved: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        found = resolved.get(host, [host])
        return real(found.pop(0) if len(found) > 1 else found[0], port, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    known = public_hosts.is_public
    monkeypatch.setattr(public_hosts, "is_public", lambda address: address == "127.0.0.1" or known(address))
    return resolved


async def site(answers: dict[str, bytes], asked: list[str], host: str) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        asked.append(path)
        writer.write(answers[path])
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, 0)


def test_a_redirect_and_a_second_answer_of_the_resolver_lead_nowhere_private(names: dict[str, list[str]]) -> None:
    """A host that is public redirects to one that is not, and its name is resolved to another host the second time."""
    asked: list[str] = []

    async def run() -> None:
        answers = {"/photo": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}
        public = await site(answers, asked, "127.0.0.1")
        port = public.sockets[0].getsockname()[1]
        hidden = await asyncio.start_server(lambda *_: asked.append("hidden"), "127.0.0.2", port)
        names["photos.example.org"] = ["127.0.0.1"]
        names["inside.example.org"] = ["127.0.0.2"]
        names["turning.example.org"] = ["127.0.0.1", "127.0.0.2"]
        for name in ("inside", "turning"):
            to = f"http://{name}.example.org:{port}/photo".encode()
            answers[f"/{name}"] = b"HTTP/1.1 302 Found\r\nLocation: " + to + b"\r\nContent-Length: 0\r\n\r\n"
        fetching, share = Addresses(Limits(seconds=5)), Share(Room(Limits()))
        assert await fetching.fetch(f"http://photos.example.org:{port}/photo", share) == b"ok"
        for address in (f"photos.example.org:{port}/inside", f"turning.example.org:{port}/turning"):
            with pytest.raises(Refusal, match="public host"):
                await fetching.fetch(f"http://{address}", share)
        await fetching.close()
        public.close()
        hidden.close()

    asyncio.run(run())
    assert asked == ["/photo", "/inside", "/turning"]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n" + b"\0" * 21_000_000, 413, "20 megabytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 502, "cannot be read"),
        (b"nothing\r\n\r\n", 502, "cannot be read"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", 400, "http://"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 502, "redirects"),
    ],
)
def test_answers_that_are_no_photo(names: dict[str, list[str]], answer: bytes, status: int, words: str) -> None:
    async def run() -> None:
        running = await site({"/": answer}, [], "127.0.0.1")
        fetching = Addresses(Limits(seconds=5))
        try:
            await fetching.fetch(f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/", Share(Room(Limits())))
        finally:
            await fetching.close()
            running.close()

    with pytest.raises(Refusal, match=words) as refused:
        asyncio.run(run())
    assert refused.value.status == status


def test_an_address_that_does_not_answer(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(Refusal, match="within 0.2 seconds") as refused,
    ):
        fetched(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert refused.value.status == 504


# --- Decoders


def test_photos_are_prepared_to_the_bit_and_a_lost_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    data = photo(1, side=100)
    large = bytes(cv2.imencode(".png", np.zeros((6000, 8000, 3), np.uint8))[1])

    async def run() -> None:
        decoders = Decoders(1, Limits(), seconds=20)
        for _ in range(2):
            found = await decoders.prepare(data, WANTED)
            assert all(
                np.array_equal(one, preparation.prepare(data, way)) for one, way in zip(found, WANTED, strict=True)
            )
        process = decoders._idle.get_nowait()
        assert process is not None
        decoders._idle.put_nowait(process)
        os.kill(process.pid, signal.SIGKILL)  # as the kernel does where memory is short
        assert len(await decoders.prepare(data, WANTED)) == 2
        lost = decoders.restarts
        decoders._seconds = 0.02
        with pytest.raises(Refusal, match="decoded within 0.02 seconds") as refused:
            await decoders.prepare(large, WANTED)
        assert refused.value.status == 422 and decoders.restarts == lost + 1
        decoders._seconds = 20
        task = asyncio.create_task(decoders.prepare(large, WANTED))  # whose client is refused for another reason
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await decoders.prepare(data, WANTED[:1])) == 1
        await decoders.close()

    asyncio.run(run())


def test_a_photo_gets_no_more_memory_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    large = bytes(cv2.imencode(".png", np.zeros((9000, 9000, 3), np.uint8))[1])
    monkeypatch.setattr(decoding, "_OWN_BYTES", 700_000_000)

    async def run() -> None:
        decoders = Decoders(1, Limits(megapixels=1))
        with pytest.raises(Refusal, match="with the memory at hand") as refused:
            await decoders.prepare(large, WANTED)
        assert refused.value.status == 413
        assert len(await decoders.prepare(photo(0), WANTED)) == 2
        assert decoders.restarts == 0
        await decoders.close()

    asyncio.run(run())


def test_a_photo_that_ends_every_process_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", "/bin/false")  # ends at once, as one that crashes

    async def run() -> None:
        decoders = Decoders(1, Limits())
        with pytest.raises(Refusal, match="ends the program") as refused:
            await decoders.prepare(photo(0), WANTED)
        assert refused.value.status == 422 and decoders.restarts == 2
        await decoders.close()

    asyncio.run(run())
