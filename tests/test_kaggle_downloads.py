"""`obtain_dataset` with Kaggle's real client, each call in a process of its own, against a local kaggle.com."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toys.kaggle_server import USERNAME, Files, KaggleServer, pack
from tests.toys.workspace import ROOT

MB = 10**6
SMALL = {"images.zip": b"one" * 999, "labels.csv": b"path,label\n" * 99, "more/images.zip": b"two" * 999}
LARGE = {"images.zip": random.Random(0).randbytes(24 * MB)}
OTHER = {"images.zip": random.Random(1).randbytes(24 * MB)}
CACHE = ".temper/downloads/kaggle"
CALL = """
import json, sys
from stages.fetch.reading import kaggle_downloads
from temper.base.errors import TemperError
kaggle_downloads._WAITS = (0.05,) * 3
try:
    downloaded = kaggle_downloads.obtain_dataset(sys.argv[1], sys.argv[2:])
except TemperError as error:
    sys.exit(f"TemperError: {error}")
print(json.dumps({"folder": str(downloaded.folder), "facts": downloaded.facts}))
"""


class Caller:
    """Calls `obtain_dataset` in one working folder, in processes with an empty home."""

    def __init__(self, folder: Path, server: KaggleServer) -> None:
        self.folder, self.server = folder, server
        self.home = folder / "home"
        self.home.mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE")}
        self.environment |= {**server.environment, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "DVC_ROOT": "."}
        self.printed = ""
        self.said = ""  # what the last call printed on stdout beside its answer

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", CALL, *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _finish(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=100)
        self.printed += output + errors
        return process.returncode, output, errors

    def obtain(self, slug: str, *files: str) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files in the folder that comes back, and the facts."""
        code, output, errors = self._finish(slug, *files)
        assert code == 0, errors
        assert errors == ""
        *said, last = output.splitlines()
        self.said = "\n".join(said)
        assert all("put aside as" in line for line in said), "the client printed something"
        answer = json.loads(last)
        folder = self.folder / answer["folder"]
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}, answer["facts"]

    def fail(self, slug: str, *files: str) -> str:
        """The message of the TemperError, which is one line and all that is printed."""
        code, output, errors = self._finish(slug, *files)
        assert code == 1
        assert all("put aside as" in line for line in output.splitlines()), "the client printed something"
        (line,) = errors.splitlines()
        assert line.startswith("TemperError: ")
        return line.removeprefix("TemperError: ")

    def written(self) -> str:
        """All that was printed, and written below the working folder, as text."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and self.home not in path.parents]
        texts = [f"{path}\n{path.read_bytes().decode('latin-1')}" for path in paths]
        return "\n".join([self.printed, *texts])

    def partial_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / CACHE).glob("*/partial/*/*"))


Serve = Callable[..., Caller]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Makes a Caller with a server that publishes o/small, o/large, and the competition `race`; both are checked for
    secrets in the end.
    """
    callers: list[Caller] = []

    def start(**settings: Any) -> Caller:
        datasets = {"o/small": {1: {"images.zip": b"old"}, 2: SMALL}, "o/large": {1: LARGE}}
        server = KaggleServer(datasets, {"race": SMALL}, **settings).__enter__()
        callers.append(Caller(tmp_path, server))
        return callers[-1]

    yield start
    for caller in callers:
        caller.server.__exit__()
        for secret in caller.server.secrets:
            assert secret not in caller.written()


def named(files: Files) -> list[dict[str, object]]:
    return [{"name": n, "bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in files.items()]


def test_a_whole_dataset_is_one_archive_of_its_latest_version(serve: Serve) -> None:
    files, facts = serve().obtain("o/small")
    assert files == {"small.zip": pack(SMALL)}
    assert facts == {
        "from": "https://www.kaggle.com/datasets/o/small/versions/2",
        "slug": "o/small",
        "version": 2,
        "title": "Title of o/small",
        "licence": "CC0: Public Domain",
        "files": named(files),
    }


def test_the_folder_holds_the_files_asked_for_and_no_others(serve: Serve) -> None:
    caller = serve(page=1)
    for names in (["images.zip"], ["more/images.zip", "labels.csv"], ["images.zip", "labels.csv"]):
        files, facts = caller.obtain("o/small", *names)
        assert files == {name: SMALL[name] for name in names}
        assert facts["files"] == named(dict(sorted(files.items())))
    assert len(caller.server.asked("/2/images.zip")) == 2  # located, fetched: not for the third call again


def test_a_pinned_version(serve: Serve) -> None:
    files, facts = serve().obtain("o/small/versions/1", "images.zip")
    assert files == {"images.zip": b"old"}
    assert facts["version"] == 1
    assert facts["slug"] == "o/small"


@pytest.mark.parametrize("names", [(), ("images.zip", "more/images.zip")])
def test_a_competition(serve: Serve, names: tuple[str, ...]) -> None:
    files, facts = serve().obtain("race", *names)
    assert files == ({name: SMALL[name] for name in names} or {"race.zip": pack(SMALL)})
    assert facts["from"] == "https://www.kaggle.com/competitions/race"
    assert facts["version"] is None
    assert facts["licence"] == "the competition's rules, https://www.kaggle.com/competitions/race/rules"


def test_a_file_that_kaggle_wraps_in_a_zip_arrives_as_published(serve: Serve) -> None:
    files, facts = serve(wrapped=["labels.csv"]).obtain("o/small", "labels.csv")
    assert files == {"labels.csv": SMALL["labels.csv"]}
    assert facts["files"] == named(files)


def test_a_second_call_downloads_nothing(serve: Serve) -> None:
    caller = serve()
    first = caller.obtain("o/small"), caller.obtain("o/small", "labels.csv")
    served, asked = caller.server.served_bytes, len(caller.server.requests)
    assert (caller.obtain("o/small"), caller.obtain("o/small", "labels.csv")) == first
    assert caller.server.served_bytes == served
    assert not any("Download" in request.path for request in caller.server.requests[asked:])


# Cut off


@pytest.mark.parametrize("times", [1, 3])
def test_a_cut_connection_goes_on_where_it_stopped(serve: Serve, times: int) -> None:
    caller = serve()
    caller.server.cut_after(5 * MB, times)
    files, _ = caller.obtain("o/large", "images.zip")
    assert files == LARGE
    starts = [int(asked.removeprefix("bytes=")[:-1]) for asked in caller.server.asked("images.zip") if asked]
    assert len(starts) == times
    for number, start in enumerate(starts, 1):
        assert start == pytest.approx(number * 5 * MB, rel=0.05)
    unread = caller.server.UNREAD * (times + 1)
    assert caller.server.served_bytes < 24 * MB + unread + times * 0.25 * MB


def kill_in_the_middle(caller: Caller, *arguments: str, at: int = 16 * MB) -> int:
    """Kills a call when about `at` bytes were served; the bytes that it had kept."""
    caller.server.hold_after(at)
    process = caller.start(*arguments)
    assert caller.server.holding.wait(60)
    end = time.monotonic() + 60
    while caller.partial_bytes() < at - MB and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    caller.server.release()
    return caller.partial_bytes()


@pytest.mark.parametrize("arguments", [("o/large", "images.zip"), ("o/large",)])
def test_a_killed_download_goes_on_where_it_stopped(serve: Serve, arguments: tuple[str, ...]) -> None:
    caller = serve()
    kept = kill_in_the_middle(caller, *arguments)
    assert kept > 15 * MB
    before = caller.server.served_bytes
    files, _ = caller.obtain(*arguments)
    expected = LARGE if len(arguments) > 1 else {"large.zip": pack(LARGE)}
    assert files == expected
    again = caller.server.served_bytes - before - (len(next(iter(expected.values()))) - before)
    print(f"killed with {kept} of {before} served bytes on disk; served again: {again}, {again / before:.1%}")
    assert again < 0.1 * before
    assert not list((caller.folder / CACHE).glob("*/partial/*"))


def test_a_half_download_is_never_taken_for_a_whole_one(serve: Serve) -> None:
    caller = serve()
    kill_in_the_middle(caller, "o/large", "images.zip")
    outside = [path for path in (caller.folder / CACHE).glob("*/files/**/*") if path.is_file()]
    assert outside == []


def test_another_version_does_not_mix_with_the_bytes_of_the_old_one(serve: Serve) -> None:
    caller = serve()
    kill_in_the_middle(caller, "o/large", "images.zip")
    caller.server.publish("o/large", 2, OTHER)
    files, facts = caller.obtain("o/large", "images.zip")
    assert files == OTHER
    assert facts["version"] == 2
    assert caller.obtain("o/large/versions/1", "images.zip")[0] == LARGE
    assert [asked for asked in caller.server.asked("/1/images.zip") if asked]  # it goes on, too


@pytest.mark.parametrize("checksums", [True, False])
def test_other_bytes_under_the_same_name_do_not_mix_with_the_old_ones(serve: Serve, checksums: bool) -> None:
    caller = serve()
    caller.server.checksums = checksums
    caller.server.competitions["race"] = LARGE
    kill_in_the_middle(caller, "race", "images.zip")
    caller.server.competitions["race"] = OTHER
    assert caller.obtain("race", "images.zip")[0] == OTHER


def test_a_storage_without_ranges_starts_over(serve: Serve) -> None:
    caller = serve()
    caller.server.ranges = False
    caller.server.cut_after(5 * MB)
    assert caller.obtain("o/large", "images.zip")[0] == LARGE


@pytest.mark.parametrize("checksums", [True, False])
def test_an_error_page_leaves_what_was_downloaded_as_it_is(serve: Serve, checksums: bool) -> None:
    caller = serve()
    caller.server.checksums = checksums
    kept = kill_in_the_middle(caller, "o/large", "images.zip")
    caller.server.fail(503, 99)
    assert "503" in caller.fail("o/large", "images.zip")
    assert caller.partial_bytes() == kept
    caller.server.fail(503, 1, only_ranges=True)
    assert caller.obtain("o/large", "images.zip")[0] == LARGE
    assert caller.server.asked("images.zip")[-1] == f"bytes={kept}-"


def test_damaged_bytes_are_told_by_their_checksum_and_fetched_again(serve: Serve) -> None:
    caller = serve()
    kill_in_the_middle(caller, "o/large", "images.zip")
    (partial,) = (caller.folder / CACHE).glob("*/partial/*/*")
    with partial.open("r+b") as file:
        file.write(b"damage")
    assert caller.obtain("o/large", "images.zip")[0] == LARGE
    assert "expected the bytes that Kaggle tells the md5 of, received others: put aside" in caller.said


def test_two_processes_at_once_download_it_once(serve: Serve) -> None:
    caller = serve()
    caller.server.hold_after(5 * MB)
    first = caller.start("o/large", "images.zip")
    assert caller.server.holding.wait(60)
    second = caller.start("o/large", "images.zip")
    time.sleep(1.5)  # by now it waits
    caller.server.release()
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(caller.server.asked("images.zip")) == 2


# Refused


def test_wrong_credentials(serve: Serve) -> None:
    caller = serve()
    caller.environment["KAGGLE_KEY"] = "wrong-key-99"
    message = caller.fail("o/small")
    assert message.startswith("https://www.kaggle.com/datasets/o/small: expected a download, received 401 Unauthorized")
    assert "Unauthenticated" in message
    assert "kaggle.json in ~/.kaggle" in message
    assert "KAGGLE_USERNAME and KAGGLE_KEY" in message
    assert "wrong-key-99" not in message


def test_no_credentials(serve: Serve) -> None:
    caller = serve()
    del caller.environment["KAGGLE_USERNAME"], caller.environment["KAGGLE_KEY"]
    message = caller.fail("o/small")
    assert message.startswith("o/small: expected Kaggle's credentials, received none; ")
    assert "kaggle.json in ~/.kaggle, or set the environment variables KAGGLE_USERNAME and KAGGLE_KEY" in message
    assert caller.server.requests == []


@pytest.mark.parametrize("token", ["KGAT-wrong-token-99", "wrong" * 100])
def test_a_wrong_access_token(serve: Serve, token: str) -> None:
    caller = serve()
    del caller.environment["KAGGLE_USERNAME"], caller.environment["KAGGLE_KEY"]
    caller.environment["KAGGLE_API_TOKEN"] = token
    message = caller.fail("o/small")
    assert token not in message
    if len(token) < 99:  # the client takes a longer one for a path that is too long
        assert "received an access token (KAGGLE_API_TOKEN) that Kaggle refuses" in message


@pytest.mark.parametrize("where", ["kaggle.json", "config dir", "token", "token file"])
def test_credentials_from_elsewhere(serve: Serve, where: str, tmp_path: Path) -> None:
    caller = serve()
    del caller.environment["KAGGLE_USERNAME"], caller.environment["KAGGLE_KEY"]
    folder = caller.home / (".kaggle" if where != "config dir" else "elsewhere")
    folder.mkdir()
    if where == "token":
        caller.environment["KAGGLE_API_TOKEN"] = caller.server.token
    elif where == "token file":
        (folder / "access_token").write_text(caller.server.token)
    else:
        (folder / "kaggle.json").write_text(json.dumps({"username": USERNAME, "key": caller.server.key}))
        caller.environment["KAGGLE_CONFIG_DIR"] = str(folder) if where == "config dir" else ""
    assert caller.obtain("o/small", "images.zip")[0] == {"images.zip": SMALL["images.zip"]}


def test_no_such_dataset(serve: Serve) -> None:
    caller = serve()
    for slug in ("o/nothing", "o/nothing/versions/2", "no-race"):
        message = caller.fail(slug)
        assert "received 404 Not Found: Not found; see whether its page exists" in message
        assert "kaggle.json in ~/.kaggle, or set the environment variables KAGGLE_USERNAME and KAGGLE_KEY" in message


def test_no_such_version(serve: Serve) -> None:
    assert "/o/small/versions/3: expected a version from 1 to 2" in serve().fail("o/small/versions/3")


def test_a_private_dataset(serve: Serve) -> None:
    message = serve(denied=["o/small"]).fail("o/small")
    assert "received 403 Forbidden: Permission 'datasets.get' was denied; see whether its page exists" in message
    assert "KAGGLE_USERNAME and KAGGLE_KEY" in message


def test_a_competition_whose_rules_are_not_accepted(serve: Serve) -> None:
    message = serve(denied=["race"]).fail("race")
    assert "received 403 Forbidden: You must accept this competition's rules" in message
    assert "accept its rules at https://www.kaggle.com/competitions/race/rules with" in message


def test_an_unknown_file(serve: Serve) -> None:
    caller = serve(page=1)
    for slug in ("o/small", "race"):
        message = caller.fail(slug, "images.zip", "image.zip")
        assert "received 'image.zip', did you mean images.zip?" in message
        assert message.endswith("there are: images.zip, labels.csv, more/images.zip")
    assert caller.server.served_bytes == 0


def test_names_that_lead_out_of_the_cache(serve: Serve) -> None:
    caller = serve()
    caller.server.competitions["race"] = {"../../evil": b""}
    assert "expected names inside the dataset" in caller.fail("race", "../../evil")


@pytest.mark.parametrize("slug", ["", "o/small/2", "../small", "race/versions/2", "https://www.kaggle.com/o/small"])
def test_what_is_no_slug(serve: Serve, slug: str) -> None:
    assert f"{slug!r}: expected a Kaggle dataset (owner/name" in serve().fail(slug)


def test_no_network(serve: Serve) -> None:
    caller = serve()
    caller.environment |= {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    message = caller.fail("o/small")
    assert "expected a download, received ProxyError" in message
    assert "Connection refused" in message


def test_a_network_that_fails_in_the_middle(serve: Serve) -> None:
    caller = serve()
    caller.server.fail(403)
    assert "403" in caller.fail("o/small", "images.zip")
    assert caller.server.asked("images.zip") == [None]


def test_a_signed_address_is_not_told(serve: Serve) -> None:
    caller = serve()
    caller.server.storage = "gs://kaggle"
    message = caller.fail("o/small", "images.zip")
    assert "No connection adapters were found for 'gs://kaggle/kaggle-data-sets/o/small/2/images.zip';" in message


def test_no_secret_is_told_even_if_the_client_is_to_be_verbose(serve: Serve) -> None:
    caller = serve()
    caller.environment |= {"VERBOSE": "true", "VERBOSE_OUTPUT": "1"}
    caller.obtain("o/small")
    caller.server.fail(503, 99)
    caller.fail("o/small", "images.zip")
    (caller.folder / "proof").write_text(caller.server.key)  # the fixture's search would find it
    assert caller.server.key in caller.written()
    (caller.folder / "proof").unlink()


# Secrets that come back. The Base64 of this key has `+`, `/` and padding.
KEY = "sekret>>>???~~~key-310"


def test_a_server_that_repeats_the_credentials_does_not_get_them_shown(serve: Serve) -> None:
    caller = serve(key=KEY)
    assert {"+", "/", "="} <= set(caller.server.credentials[0])
    caller.server.repeats = True
    assert "received 404 Not Found: Not found ***, ***" in caller.fail("o/nothing")
    assert "there are: ***, ***, ***, ***, ***, Authorization: Basic ***" in caller.fail("o/small", "nothing.zip")
    assert "expected md5 ***, received " in caller.fail("o/small", "images.zip")
    caller.server.repeats = False
    caller.obtain("o/small", "images.zip")
    caller.server.repeats = True
    facts = caller.obtain("o/small", "images.zip")[1]
    assert str(facts["title"]).startswith("Title of o/small ***, ***")
    assert str(facts["licence"]).startswith("CC0: Public Domain ***, ***")


@pytest.mark.parametrize("length", ["abc", "-5", "1, 2", "9" * 30])
def test_a_length_that_is_none_ends_in_one_line(serve: Serve, length: str) -> None:
    caller = serve()
    caller.server.length = length
    message = caller.fail("o/small", "images.zip")
    assert "expected a download, received InvalidHeader: " in message


def test_a_download_that_would_fill_the_disk_does_not_begin(serve: Serve) -> None:
    caller = serve()
    caller.server.length = str(10**16)
    assert "the download of images.zip: expected 10 PB of free disk space" in caller.fail("o/small", "images.zip")


# Damaged, or put there by somebody else


def spoil(folder: Path, what: str) -> None:
    """Damages what a killed download (partial) or a whole one left in the cache."""
    kind, _, how = what.partition(" ")
    place = {
        "partial": lambda: next(folder.glob("partial/*/*")),
        "partials": lambda: next(folder.glob("partial/*")),
        "file": lambda: folder / "files/images.zip",
        "chosen": lambda: next(folder.glob("chosen-*")),
        "note": lambda: next(folder.glob("checksums/*")),
    }[kind]()
    content = place.read_bytes() if place.is_file() else b""
    if how in ("as a folder", "as a file"):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        place.mkdir() if how == "as a folder" else place.write_bytes(b"a file")
    elif how == "with more":
        (place / "more.jpg").write_bytes(b"of somebody else")
    else:
        longer = content + bytes(30 * MB)
        place.write_bytes({"flipped": b"damage" + content[6:], "too long": longer, "cut": content[:-1]}[how])


@pytest.mark.parametrize("what", ["partial flipped", "partial too long", "partial as a folder", "partials as a file"])
def test_a_damaged_partial_download_is_put_aside(serve: Serve, what: str) -> None:
    caller = serve()
    kill_in_the_middle(caller, "o/large", "images.zip")
    spoil(caller.folder / CACHE / "o.large.1", what)
    assert caller.obtain("o/large", "images.zip")[0] == LARGE
    assert caller.said.count("put aside as") == 1


@pytest.mark.parametrize(
    ("what", "fetched"),
    [
        ("file flipped", 1),
        ("file cut", 1),
        ("file as a folder", 1),
        ("chosen as a file", 0),
        ("chosen with more", 0),
        ("note flipped", 0),
        ("note as a folder", 0),
    ],
)
def test_what_is_damaged_after_the_download_is_put_aside(serve: Serve, what: str, fetched: int) -> None:
    caller = serve()
    first = caller.obtain("o/small", "images.zip")
    spoil(caller.folder / CACHE / "o.small.2", what)
    assert caller.obtain("o/small", "images.zip") == first
    assert caller.said.count("put aside as") == (what != "chosen with more")
    assert len(caller.server.asked("/2/images.zip")) == 2 + 2 * fetched  # located, fetched
    assert caller.obtain("o/small", "images.zip") == first and caller.said == ""


def test_a_damaged_whole_archive_is_put_aside_outside_of_its_folder(serve: Serve) -> None:
    """All that is in the folder is read."""
    caller = serve()
    first = caller.obtain("o/small")
    (caller.folder / CACHE / "o.small.2/whole/small.zip").write_bytes(b"PK of somebody else")
    assert caller.obtain("o/small") == first
