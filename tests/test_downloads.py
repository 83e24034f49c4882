"""Published files by URL: a server that lies, stalls, redirects and never ends; what lies in the cache damaged."""

import hashlib
import http.server
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from temper.base.errors import TemperError
from temper.network import downloads

DATA = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
OK = b"HTTP/1.1 200 OK\r\n"


class Handler(http.server.BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        with suppress(OSError):  # the client went away
            self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers every request with `answer`, and notes the ranges that it was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = whole
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a.bin"

    def handle_error(self, *_: object) -> None:
        pass


def raw(head: bytes, content: bytes = b"") -> Answer:
    """Exactly these lines, and the body."""

    def send(handler: Handler) -> None:
        handler.wfile.write(head + b"\r\n" + content)

    return send


def whole(handler: Handler) -> None:
    """The file, or what is asked of it."""
    asked = handler.headers["Range"]
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if start >= len(DATA):
        return raw(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n")(handler)
    where = f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}\r\n" if asked else ""
    head = f"HTTP/1.1 {206 if asked else 200} OK\r\n{where}Content-Length: {len(DATA) - start}\r\n"
    raw(head.encode(), DATA[start:])(handler)


def without_ranges(handler: Handler) -> None:
    raw(OK + b"Content-Length: %d\r\n" % len(DATA), DATA)(handler)


def ranged(where: bytes) -> Answer:
    """An answer to a request for a range with another range; without one the file."""

    def send(handler: Handler) -> None:
        if handler.headers["Range"]:
            raw(b"HTTP/1.1 206 Partial Content\r\n" + where + b"\r\n", DATA[:1000])(handler)
        else:
            without_ranges(handler)

    return send


def drip(head: bytes) -> Answer:
    """A byte now and then, without end."""

    def send(handler: Handler) -> None:
        handler.wfile.write(head)
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    return send


def endless(head: bytes) -> Answer:
    def send(handler: Handler) -> None:
        handler.wfile.write(head + b"\r\n")
        while True:
            handler.wfile.write(bytes(2**16))

    return send


def redirect_with_endless_body(handler: Handler) -> None:
    if handler.path == "/a.bin":
        return endless(b"HTTP/1.1 302 Found\r\nLocation: /b.bin\r\n")(handler)
    without_ranges(handler)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, in_tmp_path: Path) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "_TIMEOUT", 0.3)
    monkeypatch.setattr(downloads, "_ANSWER", 1.0)
    with Server() as listening:
        threading.Thread(target=partial(listening.serve_forever, 0.02), daemon=True).start()
        yield listening
        listening.shutdown()


def obtain(server: Server) -> bytes:
    return downloads.obtain(server.url, SHA256, "archive").read_bytes()


def kept() -> Path:
    folder = Path(".temper/downloads")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / SHA256


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"), "received 404 Client Error"),
        (raw(OK + b"Content-Length: abc\r\n", DATA), "received a Content-Length of 'abc' instead of a number of bytes"),
        (raw(OK + b"Content-Length: -5\r\n", DATA), "received a Content-Length of '-5' instead"),
        (raw(OK + b"Content-Length: 1_0\r\n", DATA), "received a Content-Length of '1_0' instead"),
        (raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n", DATA), "received Content-Length contained multiple"),
        (raw(OK + b"Content-Length: 400000\r\n", DATA), "received no connection to its host, or a broken one"),
        (raw(OK + b"Content-Length: 5\r\n", DATA), "expected sha256 "),
        (raw(OK + b"Content-Length: 9999999999999999\r\n", DATA), "a.bin: expected 10 PB of free disk space"),
        (raw(OK + b"X: " + b"x" * 100_000 + b"\r\n"), "received no connection to its host, or a broken one"),
        (raw(OK + b"".join(b"X-%d: x\r\n" % n for n in range(500))), "received no connection to its host"),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: /a.bin\r\nContent-Length: 0\r\n"), "received Exceeded 30 redirects"),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n"), "received "),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n"), "received No connection"),
        (
            raw(b"HTTP/1.1 206 OK\r\nContent-Range: bytes 5-9/10\r\n", b"12345"),
            "received a Content-Range of 'bytes 5-9",
        ),
        (raw(b"220 no web server\r\n"), "received no connection to its host"),
        (drip(OK + b"\r\n"), r"received no answer in time \(\d+ bytes in"),
        (drip(OK + b"Content-Length: 9999\r\n\r\n"), r"received no answer in time \(\d+ bytes in"),
        (drip(OK + b"X-Slow: "), r"received no answer in time \(no answer within 1 seconds\)"),
        (lambda handler: time.sleep(0.8), "received no answer in time"),
    ],
)
def test_what_a_server_does_wrong_ends_in_one_line(server: Server, answer: Answer, message: str) -> None:
    server.answer = answer
    begun = time.monotonic()
    with pytest.raises(TemperError, match=message) as raised:
        obtain(server)
    assert str(raised.value).startswith((server.url, "the download of a.bin")) and time.monotonic() - begun < 5
    assert not kept().exists() and not list(Path(".temper/downloads").glob("*.lock"))
    server.answer = whole
    kept().with_name(f"{SHA256}.partial").unlink(missing_ok=True)
    assert obtain(server) == DATA


def test_a_body_without_end_stops_before_the_disk_is_full(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def room(folder: Path, expected: int, what: str, remedy: str) -> None:
        looked.append(expected)
        if len(looked) == 4:
            raise TemperError("full")

    monkeypatch.setattr(downloads, "require_room", room)
    monkeypatch.setattr(downloads, "_LOOK_AT_DISK", 2**20)
    server.answer = endless(OK)
    with pytest.raises(TemperError, match="full"):
        obtain(server)
    (partial_download,) = Path(".temper/downloads").glob("*.partial")
    assert 2 * 2**20 < partial_download.stat().st_size < 4 * 2**20


def test_the_body_of_a_redirect_is_not_read(server: Server) -> None:
    server.answer = redirect_with_endless_body
    assert obtain(server) == DATA


@pytest.mark.parametrize(
    ("answer", "ranges"),
    [
        (whole, ["bytes=1000-"]),
        (without_ranges, ["bytes=1000-"]),
        (ranged(b"Content-Range: bytes 0-999/300000\r\n"), ["bytes=1000-", None]),
        (ranged(b"Content-Range: bytes 999-1998/300000\r\n"), ["bytes=1000-", None]),
        (ranged(b"Content-Range: nonsense\r\n"), ["bytes=1000-", None]),
        (ranged(b""), ["bytes=1000-", None]),
    ],
)
def test_a_download_goes_on_only_where_the_answer_does(
    server: Server, answer: Answer, ranges: list[str | None]
) -> None:
    server.answer = answer
    kept().with_name(f"{SHA256}.partial").write_bytes(DATA[:1000])
    assert obtain(server) == DATA and server.ranges == ranges
    assert not list(Path(".temper/downloads").glob("*.damaged")), "what was there was right"


def as_folder(path: Path) -> None:
    path.mkdir()
    (path / "of somebody else").touch()


@pytest.mark.parametrize("ending", ["", ".partial"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"damage" + DATA[6:]),
        lambda path: path.write_bytes(DATA + b"more"),
        lambda path: path.write_bytes(b"<html>another page"),
        as_folder,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere"),
    ],
)
def test_what_lies_there_damaged_is_put_aside_and_downloaded_afresh(
    server: Server, capsys: pytest.CaptureFixture[str], write: Callable[[Path], None], ending: str
) -> None:
    write(kept().with_name(SHA256 + ending))
    assert obtain(server) == DATA
    assert f"put aside as {SHA256}{ending}.damaged, starting afresh" in capsys.readouterr().out
    server.answer = raw(b"HTTP/1.1 500 No\r\n")
    assert obtain(server) == DATA, "now it is there"


def test_a_cut_download_in_the_cache_is_put_aside(server: Server) -> None:
    kept().write_bytes(DATA[:-1])
    assert obtain(server) == DATA and server.ranges == [None]


def test_two_at_once_download_it_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.2)
        whole(handler)

    server.answer = slow
    found: list[bytes] = []
    both = [threading.Thread(target=lambda: found.append(obtain(server))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(10)
    assert found == [DATA, DATA] and server.ranges == [None]
    assert "waiting for the process that downloads it" in capsys.readouterr().out


def test_what_an_address_holds_is_not_told(server: Server) -> None:
    def repeat(handler: Handler) -> None:
        sent = handler.headers["Authorization"].encode()
        raw(b"HTTP/1.1 403 No, " + sent + b"\r\nContent-Length: 0\r\n")(handler)

    server.answer = repeat
    url = server.url.replace("http://", "http://me:sekret-word@") + "?token=5160a7e0"
    with pytest.raises(TemperError, match=r"http://\*\*\*@127.0.0.1:\d+/a.bin\?token=\*\*\*: expected") as raised:
        downloads.obtain(url, SHA256, "archive")
    assert "Basic ***" in str(raised.value)
    assert not any(secret in str(raised.value) for secret in ("sekret", "5160a7e0", "bWU6"))
    with pytest.raises(TemperError) as raised:  # a body of other bytes
        server.answer = raw(OK + b"Content-Length: 5\r\n", b"other")
        downloads.obtain(url, SHA256, "archive")
    assert "expected sha256" in str(raised.value) and "sekret" not in str(raised.value)
