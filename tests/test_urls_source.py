"""`source: urls`: a server that is slow, fails, lies and redirects; tables in all formats; kills in the middle."""

import csv
import email.utils
import http.server
import itertools
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.fetch.reading.url_tables import read_url_table
from stages.fetch.source import Photo, Source
from stages.fetch.sources import urls
from temper.base.errors import TemperError
from temper.network import public_hosts, url_cache
from temper.network.url_downloads import Manners, download_missing, parse_address
from tests.toys.gbif import BY_NC, META, SEPARATED, gbif_archive
from tests.toys.workspace import ROOT

QUICK = partial(Manners, per_host=4, attempts=3, pause=0.01, silence=5.0, private=True)
JPEG = b"\xff\xd8\xff"  # how a photo begins


# --- a server


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Site"

    def do_GET(self) -> None:
        site, host = self.server, self.headers["Host"].split(":")[0]
        with site.counting:
            site.asked.append((time.time(), host, self.path))
            times = sum(path == self.path for _, _, path in site.asked)
            site.now[host] += 1
            site.most[host] = max(site.most[host], site.now[host])
            site.most_together = max(site.most_together, sum(site.now.values()))
        try:
            answers = site.pages.get(self.path, [site.usual])
            answers[min(times, len(answers)) - 1](self)
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            with site.counting:
                site.now[host] -= 1

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler], None]


def body(path: str) -> bytes:
    return JPEG + f"the photo at {path} ".encode() * 40


def answer(
    status: int = 200, data: bytes | None = None, length: int | None = None, after: float = 0, **headers: str
) -> Answer:
    """An answer; `length` is what Content-Length says, where that is a lie."""

    def send(handler: Handler) -> None:
        time.sleep(after)
        content = body(handler.path) if data is None else data
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = length is not None and length > len(content)

    return send


def moved(to: str) -> Answer:
    return answer(302, b"", Location=to)


def stall(handler: Handler) -> None:
    """The header and half of the body, then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(JPEG + b"x" * 500)
    handler.wfile.flush()
    time.sleep(1)
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def babble(handler: Handler) -> None:
    handler.wfile.write(b"220 this is no web server\r\n\r\n")
    handler.close_connection = True


def spoken(head: bytes, content: bytes = JPEG) -> Answer:
    """An answer whose header is exactly these lines."""

    def send(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + content)
        handler.close_connection = True

    return send


def noting(header: str, sent: list[str | None]) -> Answer:
    """The usual answer; what the request says in a header is added to `sent`."""

    def send(handler: Handler) -> None:
        sent.append(handler.headers[header])
        answer()(handler)

    return send


def drip(handler: Handler) -> None:
    """A photo of which a byte comes now and then, without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + JPEG)
    for _ in range(100):
        time.sleep(0.05)
        handler.wfile.write(b"x")


def drip_header(handler: Handler) -> None:
    """A header of which a byte comes now and then, without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        time.sleep(0.05)
        handler.wfile.write(b"x")


def pour(handler: Handler) -> None:
    """A photo that never ends, as fast as it is read."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + JPEG)
    while True:
        handler.wfile.write(bytes(2**16))


class Site(http.server.ThreadingHTTPServer):
    """A local web site: each page has the answers to its first, second, ... request; the last one stays."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Sequence[Answer]] = {}
        self.usual = answer()
        self.counting = threading.Lock()
        self.asked: list[tuple[float, str, str]] = []  # when, host, path
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  # requests at a time, by host
        self.most_together = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def paths(self) -> list[str]:
        return [path for _, _, path in self.asked]

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Site() as listening:
        threading.Thread(target=partial(listening.serve_forever, 0.02), daemon=True).start()
        yield listening
        listening.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(urls, "Manners", partial(Manners, pause=0.01, silence=5.0))


# --- tables

HEADER = ["url", "label", "split", "licence"]
ROWS = [
    ("http://x/1", "Märzbecher, weiß", "Train", "CC0"),
    ("http://x/2", "", "val", ""),
    ("http://x/3", 'the "other"', "", "CC BY"),
    ("http://x/4", "b", "TESTING", ""),
]
EXPECTED = [  # splits as published: normalize says what they mean
    ("http://x/1", "Märzbecher, weiß", "Train", "CC0"),
    ("http://x/2", None, "val", None),
    ("http://x/3", 'the "other"', None, "CC BY"),
    ("http://x/4", "b", "TESTING", None),
]


def opened(table: Path, **changes: Any) -> Source:
    """The source of the table."""
    values = {"source": "urls", "path": str(table), "label": "label", "per_host": 4, "attempts": 3, "failures": 0.0}
    values |= {"allow_private_addresses": True}  # the toy server's
    return urls.open_source(urls.Settings.model_validate(values | changes))


def write_table(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("url", "label")) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], names=list(header)), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t").writerows([header, *rows])
    return path


def rows_of(path: Path, label: str = "label") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in read_url_table(path, label).rows.to_pylist()]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.parquet"])
def test_all_formats_say_the_same(tmp_path: Path, name: str) -> None:
    assert rows_of(write_table(tmp_path / name, ROWS, HEADER)) == EXPECTED


def test_a_byte_order_mark_other_columns_and_letter_case_do_no_harm(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_bytes(
        '\ufeffURL,note,Species,License\r\nhttp://x/1,"two\nlines, and a comma", ä ,CC0\r\n'.encode()
    )
    for label in ("Species", "species"):
        assert rows_of(path, label) == [("http://x/1", "ä", None, "CC0")]


def test_line_breaks_in_cells_of_a_table_of_many_blocks(tmp_path: Path) -> None:
    rows = [(f"http://x/{number}", "a", "note\n" * 30) for number in range(40_000)]
    table = rows_of(write_table(tmp_path / "t.csv", rows, ["url", "label", "note"]))
    assert [row[0] for row in table] == [row[0] for row in rows]


def test_a_cell_longer_than_the_csv_module_reads(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [("http://x/1", "a", "n" * 300_000)], ["url", "label", "note"])
    assert rows_of(path) == [("http://x/1", "a", None, None)]


def test_labels_that_parquet_holds_as_numbers_or_categories(tmp_path: Path) -> None:
    table = pa.table({"url": ["http://x/1"], "number": [7], "kind": pa.array(["a"]).dictionary_encode()})
    pq.write_table(table, path := tmp_path / "t.parquet")
    assert [rows_of(path, label)[0][1] for label in ("number", "kind")] == ["7", "a"]


def test_repeated_rows_become_one_and_two_labels_stay_two(tmp_path: Path) -> None:
    rows = [("http://x/2", "a"), ("http://x/1", "a"), ("http://x/2", "a"), ("http://x/1", "b"), ("http://x/1", "")]
    path = write_table(tmp_path / "t.csv", rows)
    assert [row[:2] for row in rows_of(path)] == [rows[0], rows[1], rows[3], ("http://x/1", None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"link,label\nhttp://x,a\n", "t.csv: expected a column url, found link, label"),
        (
            "t.csv",
            b"url,labels\nhttp://x,a\n",
            r"column label \(label\), found url, labels; .* mean labels",
        ),
        ("t.csv", b"url,label,url\nhttp://x,a,b\n", "expected one column url, found 2"),
        ("t.csv", b"", "expected a column url, found none"),
        ("t.csv", b"url,label\nhttp://x,a,b\n", "Expected 2 columns, got 3"),
        ("t.csv", b"url,label\nhttp://me:pw@x?sig=5160a7e0,a,b\n", r"got 3: http://\*{3}@x\?sig=\*{3}$"),
        ("t.csv", b"url,label\nhttp://x,\xff\n", "received 'utf-8' codec"),
        ("t.csv", b"url,label\n" + b"http://x,a\n" * 10_000 + b"http://x,\xff\n", "invalid UTF8"),
        ("t.csv", b"url,\xff\nhttp://x,a\n", "expected a readable table, received 'utf-8' codec"),
        ("t.csv", b"url,label\nhttp://x,a\n,b\n", "expected a url in every row, found none in data row 2"),
        ("t.parquet", b"url,label\nhttp://x,a\n", "expected a readable table, received .*Parquet"),
        ("t.zip", b"url,label\nhttp://x,a\n", "expected a readable table, received File is not a zip"),
        ("t.xlsx", b"PK", "expected .csv, .tsv, .txt, .parquet, or a Darwin Core archive"),
    ],
)
def test_tables_that_are_none_are_named_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (path := tmp_path / name).write_bytes(content)
    with pytest.raises(TemperError, match=message):
        read_url_table(path, "label")


@pytest.mark.usefixtures("in_tmp_path")
def test_a_table_without_rows_has_no_photos() -> None:
    (path := Path("t.csv")).write_text("url,label\n")
    assert photos_of(path) == []


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="t.csv: expected a table, found nothing there"):
        read_url_table(tmp_path / "t.csv", "label")


def test_source_json_says_what_was_read(tmp_path: Path) -> None:
    rows = [("http://x/1", "a", "CC0"), ("http://x/2", "a", ""), ("http://x/3", "a", "CC0")]
    path = write_table(tmp_path / "t.csv", rows, ["url", "label", "licence"])
    source = opened(path)
    assert source.total == 3
    assert {**source.facts, "sha256": len(str(source.facts["sha256"]))} == {
        "source": "urls",
        "from": "t.csv",
        "sha256": 64,
        "label": "label",
        "licence": "CC0 (2), none stated (1)",
    }


# --- Darwin Core archives


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("species", [None, "Amanita muscaria"]),
        ("genus", ["Boletus", "Amanita"]),
        ("scientificName", ["Boletus L.", '"Amanita" muscaria (L.) Lam.']),
    ],
)
@pytest.mark.parametrize("unpacked", [False, True])
def test_a_gbif_download(tmp_path: Path, label: str, names: list[str | None], unpacked: bool) -> None:
    path = gbif_archive(tmp_path / "0001-240321.zip")
    if unpacked:
        shutil.unpack_archive(path, tmp_path / "folder")
        path = tmp_path / "folder"
    boletus, amanita = names
    assert rows_of(path, label) == [
        ("http://x/1.jpg", boletus, None, "CC0_1_0"),
        ("http://x/2.jpg", amanita, None, BY_NC),
        ("http://x/3.png", amanita, None, "CC_BY_4_0"),
        ("http://x/4.jpg", amanita, None, BY_NC),
    ]
    facts = read_url_table(path, label).facts
    assert (facts["doi"], facts["media_left_out"], "sha256" in facts) == ("10.15468/dl.ab12cd", 2, not unpacked)


def test_an_unknown_taxon_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"occurrence.txt: expected a column specie \(.*gbifID, .*mean species\?"):
        read_url_table(gbif_archive(tmp_path / "g.zip"), "specie")


def test_an_archive_of_commas_and_quotes_without_header(tmp_path: Path) -> None:
    """What the Darwin Core text guide takes for granted where meta.xml says nothing."""
    meta = META.replace(SEPARATED, "")
    occurrences = '101,CC0,x,"Amanita, the fly agaric",Amanita,Amanita muscaria\n'
    media = "101,StillImage,image/jpeg,http://x/1.jpg" + "," * 11 + "\n"
    path = gbif_archive(tmp_path / "g.zip", meta_xml=meta, occurrence_txt=occurrences, multimedia_txt=media)
    assert rows_of(path, "scientificName") == [("http://x/1.jpg", "Amanita, the fly agaric", None, "CC0")]


BOMB = '<!DOCTYPE a [<!ENTITY x "haha">]>' + META.replace("occurrence.txt", "&x;")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (BOMB, "received one with a DOCTYPE"),
        (META.replace("occurrence.txt", "../secret.txt"), r"locations \['../secret.txt'\] instead of one plain file"),
        (META.replace("occurrence.txt", "other.txt"), "found no other.txt"),
        (META.replace("Multimedia", "Sounds"), "instead of a core and .../Multimedia"),
        (META.replace('"UTF-8"', '"EBCDIC-9"'), "encoding='EBCDIC-9' instead of one such as UTF-8"),
        (
            META.replace('ignoreHeaderLines="1"', 'ignoreHeaderLines="one"'),
            "='one' instead of a number",
        ),
        (
            META.replace("terms/identifier", "terms/picture"),
            "multimedia.txt: expected a column identifier, found gbifID",
        ),
        (META[:200], "no element found|unclosed token"),
    ],
)
def test_a_meta_xml_that_misleads_is_refused(tmp_path: Path, meta: str, message: str) -> None:
    with pytest.raises(TemperError, match=message):
        read_url_table(gbif_archive(tmp_path / "g.zip", meta_xml=meta), "species")


# --- downloads


def fetch(site: Site, folder: Path, *paths: str, **manners: Any) -> tuple[list[bytes | None], dict[str, str]]:
    """The bytes in the cache for each path, and the problems by path."""
    addresses = [site.url(path) for path in paths]
    problems = download_missing(addresses, folder, QUICK(**manners))
    assert not list(folder.rglob(".partial-*"))
    contents = [url_cache.read(folder, address) for address in addresses]
    return contents, {url.removeprefix(site.url("")): problem for url, problem in problems.items()}


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ([answer()], 1),
        ([answer(after=0.5)], 1),  # slow
        ([answer(503), answer(500), answer()], 3),
        ([answer(408), answer(429), answer()], 3),
        ([answer(length=5000), answer()], 2),  # says more than it sends
        ([hang_up, babble, answer()], 3),
        ([answer(data=b""), answer()], 2),
    ],
)
def test_what_fails_for_a_while_arrives(site: Site, tmp_path: Path, answers: list[Answer], requests: int) -> None:
    site.pages["/a"] = answers
    assert fetch(site, tmp_path, "/a") == ([body("/a")], {})
    assert len(site.asked) == requests


@pytest.mark.parametrize(
    ("answers", "problem", "requests"),
    [
        ([answer(404)], "HTTP 404", 1),
        ([answer(410)], "HTTP 410", 1),
        ([answer(403)], "HTTP 403", 1),
        ([answer(206)], "HTTP 206", 1),
        ([answer(503)], "HTTP 503 after 3 attempts", 3),
        ([answer(429)], "HTTP 429 after 3 attempts", 3),
        ([answer(length=5000)], "cut off after 3 attempts", 3),
        ([stall], "timed out after 3 attempts", 3),
        ([answer(after=1)], "timed out after 3 attempts", 3),
        ([hang_up], "connection lost after 3 attempts", 6),  # after each, aiohttp tries a new connection at once
        ([babble], "answer is not HTTP after 3 attempts", 3),
        ([answer(data=b"")], "empty after 3 attempts", 3),
        ([answer(data=JPEG + b"x" * 200_000)], "larger than 200000 bytes", 1),
        ([moved("/a")], "redirected more than 10 times", 11),
        ([moved("file:///etc/passwd")], "redirected to what is no http(s) address", 1),
        ([moved("http://[::1")], "redirected to what is no http(s) address", 1),
        ([answer(301)], "redirected to what is no http(s) address", 1),
        ([moved("/" + "a" * 9000)], "answer is not HTTP after 3 attempts", 3),
        ([answer(data=b"<!DOCTYPE html>" * 99)], "no image that can be read", 1),
        ([answer(data=b"{}", Content_Type="text/html; charset=utf-8")], "no image that can be read (text/html)", 1),
        ([answer(data=b"secret", Content_Type="image/jpeg")], "no image that can be read (image/jpeg)", 1),
        ([answer(data=b"<html>", Content_Type="a" * 5000)], "no image that can be read", 1),
        ([answer(data=JPEG, length=300_000)], "larger than 200000 bytes", 1),
        ([drip], "slower than 1000 bytes a second after 3 attempts", 3),
        ([drip_header], "timed out after 3 attempts", 3),
        ([pour], "larger than 200000 bytes", 1),
        ([spoken(b"Content-Length: abc")], "answer is not HTTP after 3 attempts", 3),
        ([spoken(b"Content-Length: -5")], "answer is not HTTP after 3 attempts", 3),
        ([spoken(b"Content-Length: 3\r\nContent-Length: 4")], "answer is not HTTP after 3 attempts", 3),
        ([spoken(b"Content-Length: 99999999999999999999999999")], "answer is not HTTP after 3 attempts", 3),
        ([spoken(b"X: " + b"x" * 100_000)], "answer is not HTTP after 3 attempts", 3),
        ([spoken(b"\r\n".join(b"X-%d: x" % n for n in range(5000)))], "answer is not HTTP after 3 attempts", 3),
    ],
)
def test_what_fails_for_good_says_why(
    site: Site, tmp_path: Path, answers: list[Answer], problem: str, requests: int
) -> None:
    site.pages["/a"] = answers
    assert fetch(site, tmp_path, "/a", "/b", silence=0.3, most_bytes=200_000) == ([None, body("/b")], {"/a": problem})
    assert site.paths().count("/a") == requests


def test_a_length_that_says_less_than_is_sent_spoils_no_other_photo(site: Site, tmp_path: Path) -> None:
    """The rest could be taken for the answer to the next request on the same connection."""
    paths = [f"/{number}" for number in range(20)]
    for path in paths[::2]:
        site.pages[path] = [answer(data=JPEG + b"ab, and the rest", length=5)]
    contents, problems = fetch(site, tmp_path, *paths, per_host=1, attempts=10)
    assert contents[1::2] == [body(path) for path in paths[1::2]]
    assert set(contents[::2]) <= {JPEG + b"ab", None}  # how much of the rest arrives in time is chance
    assert set(problems.values()) <= {"answer is not HTTP after 10 attempts"}


def test_an_answer_inside_an_answer_holds_nothing_up(site: Site, tmp_path: Path) -> None:
    """With aiohttp 3.14.5 it outlasts `sock_read`: the request would stay until its total time is over."""
    paths = [f"/{number}" for number in range(20)]
    inner = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ninner"
    for path in paths[::2]:
        site.pages[path] = [answer(data=JPEG + b"ab" + inner, length=5)]
    begun = time.monotonic()
    fetch(site, tmp_path, *paths, per_host=4, silence=0.2)
    assert time.monotonic() - begun < 5


def test_redirects_are_followed(site: Site, tmp_path: Path) -> None:
    site.pages |= {"/a": [moved("b/c?x=%2F")], "/b/c?x=%2F": [moved(site.url("/d", "localhost"))]}
    assert fetch(site, tmp_path, "/a") == ([body("/d")], {})
    assert site.paths() == ["/a", "/b/c?x=%2F", "/d"]


def test_what_a_redirect_leads_to_is_asked_for_next(site: Site, tmp_path: Path) -> None:
    """Signed addresses are valid for minutes; the queue may take hours."""
    site.pages["/0"] = [moved("/signed")]
    fetch(site, tmp_path, *(f"/{number}" for number in range(5)), per_host=1)
    assert site.paths()[:2] == ["/0", "/signed"]


def test_a_retry_begins_at_the_published_address(site: Site, tmp_path: Path) -> None:
    site.pages |= {"/a": [moved("/old"), moved("/new")], "/old": [answer(503)]}
    assert fetch(site, tmp_path, "/a") == ([body("/new")], {})


@pytest.mark.parametrize("retry_after", ["1", "date"])
def test_retry_after_makes_the_whole_host_wait_and_no_other(site: Site, tmp_path: Path, retry_after: str) -> None:
    def busy(handler: Handler) -> None:
        until = email.utils.formatdate(time.time() + 1.5, usegmt=True)  # whole seconds: at least half a second ahead
        answer(429, Retry_After=until if retry_after == "date" else retry_after)(handler)

    site.pages["/0"] = [busy, answer()]
    paths = [f"/{number}" for number in range(8)]
    others = [site.url(f"/other{number}", "localhost") for number in range(8)]
    addresses = [site.url(path) for path in paths] + others
    assert download_missing(addresses, tmp_path, QUICK(per_host=2)) == {}
    times = {(host, path): when for when, host, path in reversed(site.asked)}
    begun = times["127.0.0.1", "/0"]
    waited = [when - begun for (host, path), when in times.items() if host == "127.0.0.1" and path not in ("/0", "/1")]
    assert len(waited) == 6 and min(waited) > (0.4 if retry_after == "date" else 0.95)
    assert max(when - begun for (host, _), when in times.items() if host == "localhost") < 0.4


def test_a_host_that_begs_off_for_hours_is_left_alone(site: Site, tmp_path: Path) -> None:
    site.usual = answer(503, Retry_After="7200")
    contents, problems = fetch(site, tmp_path, *(f"/{number}" for number in range(50)), per_host=2)
    assert contents == [None] * 50 and set(problems.values()) == {"HTTP 503, to be asked again in 120 minutes"}
    assert len(site.asked) <= 2


def test_no_host_gets_more_requests_at_a_time_than_it_should(site: Site, tmp_path: Path) -> None:
    site.usual = answer(after=0.03)
    addresses = [site.url(f"/{number}", host) for host in ("127.0.0.1", "localhost") for number in range(30)]
    download_missing(addresses, tmp_path / "a", QUICK(per_host=3))
    assert site.most == {"127.0.0.1": 3, "localhost": 3}
    site.most_together = 0
    download_missing(addresses, tmp_path / "b", QUICK(per_host=10, at_once=5))
    assert site.most_together == 5


def test_redirects_count_for_the_host_that_they_lead_to(site: Site, tmp_path: Path) -> None:
    for number in range(30):
        site.pages[f"/{number}"] = [answer(302, b"", after=0.01, Location=site.url(f"/to{number}", "localhost"))]
        site.pages[f"/to{number}"] = [answer(after=0.03)]
    addresses = [site.url(f"/{number}") for number in range(30)]
    assert download_missing(addresses, tmp_path, QUICK(per_host=2)) == {}
    assert site.most == {"127.0.0.1": 2, "localhost": 2}


def test_a_host_that_is_gone_is_not_asked_for_every_photo(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        addresses = [f"http://127.0.0.1:{taken.getsockname()[1]}/{number}" for number in range(5000)]
        assert download_missing(addresses[:1], tmp_path, QUICK()) == {addresses[0]: "no connection after 3 attempts"}
        begun = time.monotonic()
        problems = download_missing(addresses, tmp_path, QUICK(pause=0.001))
    counts = Counter(problems.values())
    assert counts["no connection, as 32 times in a row on its host"] > 4950 and len(problems) == 5000
    assert time.monotonic() - begun < 5


def test_a_host_whose_answers_never_end_is_not_waited_for_with_each_photo(site: Site, tmp_path: Path) -> None:
    site.usual = drip
    contents, problems = fetch(site, tmp_path, *(f"/{number}" for number in range(200)), silence=0.2, unanswered=4)
    assert contents == [None] * 200 and len(site.asked) <= 4 + 4
    assert set(problems.values()) == {"slower than 1000 bytes a second, as 4 times in a row on its host"}


PRIVATE = "leads to an address that is not public"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_not_asked(site: Site, tmp_path: Path, host: str) -> None:
    address = site.url("/a", host)
    assert download_missing([address], tmp_path, QUICK(private=False)) == {address: PRIVATE}
    assert site.asked == []
    assert download_missing([address], tmp_path, QUICK()) == {}, "unless a param allows it"


@pytest.fixture
def half_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public; other addresses are what they are."""
    known = public_hosts.is_public
    monkeypatch.setattr(public_hosts, "is_public", lambda address: address == "127.0.0.1" or known(address))


@pytest.mark.usefixtures("half_public")
@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.2:{port}/b", "//0x7f000002:{port}/b", "http://[::1]:{port}/b", "http://169.254.169.254/b"],
)
def test_redirects_to_private_addresses_are_not_followed(site: Site, tmp_path: Path, target: str) -> None:
    site.pages["/a"] = [moved(target.format(port=site.server_port))]
    address = site.url("/a")
    assert download_missing([address], tmp_path, QUICK(private=False)) == {address: PRIVATE}
    assert site.paths() == ["/a"]


@pytest.mark.usefixtures("half_public")
@pytest.mark.parametrize(
    ("resolved", "problem"),
    [
        ([["127.0.0.2"]], PRIVATE),
        ([["127.0.0.2", "10.0.0.1", "::1"]], PRIVATE),
        ([["127.0.0.1"], ["127.0.0.2"]], None),  # another answer later: the connection goes where it was checked
        ([["127.0.0.2", "127.0.0.1"]], None),  # what is public of it
    ],
)
def test_the_address_that_a_name_resolves_to_decides(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: list[list[str]], problem: str | None
) -> None:
    answers, real = list(resolved), socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "photos.example":
            return real(host, port, *arguments, **options)
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        return [info for address in now for info in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with http.server.ThreadingHTTPServer(("127.0.0.2", site.server_port), Handler) as inner:  # what must not be asked
        threading.Thread(target=partial(inner.serve_forever, 0.02), daemon=True).start()
        address = site.url("/a", "photos.example")
        problems = download_missing([address], tmp_path, QUICK(private=False))
        inner.shutdown()
    assert problems == ({address: problem} if problem else {})
    assert url_cache.read(tmp_path, address) == (None if problem else body("/a"))


def test_a_proxy_is_asked_for_what_is_public_by_its_name(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy itself may be in the own network; what it connects to is its own decision."""
    monkeypatch.setenv("http_proxy", site.url("", "user:pass@127.0.0.1"))
    addresses = ["http://photos.example/a", "http://169.254.169.254/b", "http://localhost/c", "http://0x7f000001/d"]
    sent: list[str | None] = []
    site.usual = noting("Proxy-Authorization", sent)
    problems = download_missing(addresses, tmp_path, QUICK(private=False))
    assert problems == dict.fromkeys(addresses[1:], PRIVATE)
    assert sent == ["Basic dXNlcjpwYXNz"]
    assert site.paths() == ["http://photos.example/a"]
    assert url_cache.read(tmp_path, addresses[0]) == body("http://photos.example/a")


def test_no_password_of_netrc_is_sent(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password sekret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sent: list[str | None] = []
    site.pages["/a"] = [noting("Authorization", sent)]
    fetch(site, tmp_path, "/a")
    assert sent == [None]


def test_a_photo_that_would_fill_the_disk_stops_the_run_first(site: Site, tmp_path: Path) -> None:
    site.pages["/a"] = [spoken(b"Content-Length: 999999999999999")]
    with pytest.raises(TemperError, match=r"a photo: expected 1.0 PB of free disk space"):
        fetch(site, tmp_path, "/a", most_bytes=10**16)


def test_pauses_grow(site: Site, tmp_path: Path) -> None:
    site.pages["/a"] = [answer(503)]
    fetch(site, tmp_path, "/a", pause=0.2, attempts=4)
    times = [when for when, _, _ in site.asked]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert least <= pause <= 2 * least + 0.15


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://x/a%2Fb?q=%3A+%7E", "/a%2Fb?q=%3A+%7E"),  # signed addresses break where this is written otherwise
        ("http://x/ä b", "/%C3%A4%20b"),
        ("http://x/a\r\nEvil: yes", "/aEvil:%20yes"),
        ("HTTPS://x/a", "/a"),
        ("file:///etc/passwd", None),
        ("ftp://x/a", None),
        ("//x/a", None),
        ("http:///a", None),
        ("http://x:99999/a", None),
        ("http://[::1/a", None),
        (f"http://{'x' * 64}.org/a", None),
        ("urn:catalog:1", None),
        ("", None),
    ],
)
def test_addresses(text: str, asked: str | None) -> None:
    address = parse_address(text)
    assert (address.raw_path_qs if address else None) == asked


def test_what_is_no_address_is_refused_without_a_request(tmp_path: Path) -> None:
    assert download_missing(["file:///etc/passwd"], tmp_path, QUICK()) == {
        "file:///etc/passwd": "not an http(s) address"
    }


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_a_certificate_that_nobody_vouches_for_is_refused(site: Site, tmp_path: Path) -> None:
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    site.socket = context.wrap_socket(site.socket, server_side=True)
    address = site.url("/a", "localhost").replace("http:", "https:")
    assert download_missing([address], tmp_path, QUICK()) == {address: "certificate not valid"}


def test_a_full_disk_stops_the_run_and_leaves_no_half_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(site, tmp_path, *(f"/{number}" for number in range(20)))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_two_processes_do_not_share_a_cache(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The second waits, says for whom, and goes on."""
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(); sys.stdout.flush(); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline()
        waiting = threading.Thread(target=download_missing, args=([], tmp_path, QUICK()))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
        holder.communicate(b"\n")
        waiting.join(10)
    assert not waiting.is_alive() and "waiting for the process that downloads into it" in capfd.readouterr().out


# --- the source as a whole


def photos_of(table: Path, **changes: Any) -> list[Photo]:
    return list(opened(table, **changes).photos)


def test_photos_come_in_the_tables_order_whatever_arrives_first(in_tmp_path: Path, site: Site) -> None:
    chance = random.Random(0)
    paths = [f"/{number}" for number in range(40)]
    for path in paths:
        site.pages[path] = [answer(after=chance.uniform(0, 0.05))]
    site.pages["/7"] = [answer(404)]
    rows = [(site.url(path), "b", "CC0") for path in paths] + [(site.url("/3"), "c", "")]
    table = write_table(in_tmp_path / "t.csv", rows, ["url", "label", "licence"])
    photos = photos_of(table, failures=0.1)
    assert [(photo.path, photo.label) for photo in photos] == [row[:2] for row in rows]
    assert [photo.data for photo in photos] == [b"" if path == "/7" else body(path) for path in [*paths, "/3"]]
    assert [photo.problem for photo in photos if photo.problem] == ["HTTP 404"] and photos[7].problem
    assert photos[0].licence == "CC0" and photos[-1].licence is None
    assert site.paths().count("/3") == 1


def test_random_failures_change_nothing(in_tmp_path: Path, site: Site) -> None:
    chance = random.Random(1)
    failing = [answer(500), answer(503), answer(length=5000), hang_up, answer(429), answer(data=b"")]
    paths = [f"/{number}" for number in range(150)]
    for path in paths:
        site.pages[path] = [*chance.choices(failing, k=chance.choice([0, 0, 1, 2, 3])), answer()]
    table = write_table(in_tmp_path / "t.csv", [(site.url(path), "a") for path in paths])
    photos = photos_of(table, attempts=4)
    assert [photo.data for photo in photos] == [body(path) for path in paths]


def test_nothing_is_fetched_twice(in_tmp_path: Path, site: Site) -> None:
    site.pages["/gone"] = [answer(404)]
    rows = [(site.url(path), "a") for path in ("/1", "/2", "/gone")]
    first = photos_of(write_table(in_tmp_path / "t.csv", rows), failures=0.5)
    site.asked.clear()
    assert photos_of(in_tmp_path / "t.csv", failures=0.5) == first
    assert site.paths() == ["/gone"]  # failures are not remembered: it may be back
    site.asked.clear()
    edited = write_table(in_tmp_path / "t.csv", [(site.url("/new"), "b"), *rows[:2]])
    assert [photo.data for photo in photos_of(edited)] == [body("/new"), body("/1"), body("/2")]
    assert site.paths() == ["/new"]


def damage(path: Path, what: str) -> None:
    """Spoils a file of the cache."""
    content = path.read_bytes()
    if what in ("folder", "link"):
        path.unlink()
        path.mkdir() if what == "folder" else path.symlink_to("/dev/zero")
    elif what == "parent":
        shutil.rmtree(path.parent)
        path.parent.write_bytes(b"a file")
    elif what == "partial":
        path.with_name(f".partial-{path.name}").mkdir()
        path.unlink()
    else:
        flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
        path.write_bytes({"flipped": flipped, "cut": content[:-99], "empty": b"", "page": b"<html>"}[what])


@pytest.mark.parametrize("what", ["flipped", "cut", "empty", "page", "folder", "link", "parent", "partial"])
def test_a_damaged_photo_in_the_cache_is_put_aside_and_fetched_again(
    in_tmp_path: Path, site: Site, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    table = write_table(in_tmp_path / "t.csv", [(site.url(path), "a") for path in ("/1", "/2", "/3")])
    before = photos_of(table)
    site.asked.clear()
    damage(place := url_cache.place(in_tmp_path / ".temper/downloads/urls", site.url("/2")), what)
    assert photos_of(table) == before and "/2" in site.paths()
    said = capsys.readouterr().out
    assert "put aside as " in said and place.name[:2] in said and said.count("\n") == 1
    assert list((in_tmp_path / ".temper/downloads/urls").rglob("*.damaged"))
    site.asked.clear()
    assert photos_of(table) == before and site.asked == []


def test_photos_of_earlier_versions_are_not_asked_for_again(in_tmp_path: Path, site: Site) -> None:
    """Their files are the photos alone."""
    place = url_cache.place(in_tmp_path / ".temper/downloads/urls", site.url("/1"))
    place.parent.mkdir(parents=True)
    place.write_bytes(JPEG + b"from before")
    (photo,) = photos_of(write_table(in_tmp_path / "t.csv", [(site.url("/1"), "a")]))
    assert photo.data == JPEG + b"from before" and site.asked == []


def test_secrets_in_addresses_are_used_and_not_kept(in_tmp_path: Path, site: Site) -> None:
    address = site.url("/1?id=7&X-Amz-Signature=5160a7e0", "me:sekret@127.0.0.1")
    (photo,) = photos_of(write_table(in_tmp_path / "t.csv", [(address, "a")]))
    assert photo.path == site.url("/1?id=7&X-Amz-Signature=***", "***@127.0.0.1")
    assert photo.data == body("/1?id=7&X-Amz-Signature=5160a7e0")


def test_too_many_failures_stop_the_stage_and_the_next_run_goes_on(in_tmp_path: Path, site: Site) -> None:
    paths = [f"/{number}" for number in range(20)]
    site.pages |= {path: [answer(404)] for path in paths[:3]} | {
        path: [answer(503)] * 3 + [answer()] for path in paths[3:5]
    }
    table = write_table(in_tmp_path / "t.csv", [(site.url(path), "a") for path in paths])
    message = (
        r"^failures: expected at most 0.2 .* received 5 failures of 20 \(HTTP 404: 3, HTTP 503 after 3 attempts: 2\); "
        "what was fetched is kept and a further run asks only for the rest; .* raise failures$"
    )
    with pytest.raises(TemperError, match=message):
        photos_of(table, failures=0.2)
    before = len(site.asked)
    assert [photo.problem for photo in photos_of(table, failures=0.2)] == ["HTTP 404"] * 3 + [None] * 17
    assert sorted(site.paths()[before:]) == ["/0", "/1", "/2", "/3", "/4"]


RUN = """
import sys
from stages.fetch.sources.urls import Settings, open_source
settings = Settings(source="urls", path=sys.argv[1], per_host=8, attempts=3, failures=0.0, allow_private_addresses=True)
for photo in open_source(settings).photos:
    print(photo.path, photo.data.hex())
"""


def test_a_run_killed_anywhere_goes_on(in_tmp_path: Path, site: Site) -> None:
    paths = [f"/{number}" for number in range(300)]
    site.usual = answer(after=0.01)
    table = write_table(in_tmp_path / "t.csv", [(site.url(path), "a") for path in paths])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", RUN, str(table)]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    for moment in sorted(random.Random(2).sample(range(10, 280), 3)):
        with start() as process:
            while len(site.asked) < moment:
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        time.sleep(0.1)  # the server's last answers
        asked = Counter(site.paths())
        whole = {path for path in paths if url_cache.is_cached(Path(".temper/downloads/urls"), site.url(path))}
        assert 0 < len(whole) < 300
    with start() as process:
        output, _ = process.communicate()
    assert output.splitlines() == [f"{site.url(path)} {body(path).hex()}" for path in paths]
    again = [path for path in whole if Counter(site.paths())[path] > asked[path]]
    assert not again
    assert len(site.asked) <= 300 + 3 * 8  # each kill loses at most what was on its way
