"""`source: cifar100`: a checksum before anything is unpickled, and an unpickler that trusts nothing more."""

import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.fetch.sources.cifar100 import Settings, open_source
from temper.base.errors import TemperError
from temper.photos import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3072)).astype(np.uint8)


def table(rows: slice, split: str) -> dict[bytes, Any]:
    numbers = list(range(6))[rows]
    return {
        b"filenames": [f"{split}_{number}.png".encode() for number in numbers],
        b"fine_labels": [number % 3 for number in numbers],
        b"coarse_labels": [number % 2 for number in numbers],
        b"data": PIXELS[rows],
    }


def archive_bytes(**replaced: bytes) -> bytes:
    """A toy archive in the official layout: protocol-2 pickles with bytes for keys."""
    contents = {
        "meta": pickle.dumps(
            {b"fine_label_names": [b"apple", b"bear", b"cup"], b"coarse_label_names": [b"x", b"y"]}, 2
        ),
        "train": pickle.dumps(table(slice(0, 4), "train"), 2),
        "test": pickle.dumps(table(slice(4, 6), "test"), 2),
    } | replaced
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def settings(archive: Path | str, data: bytes) -> Settings:
    """Of an archive with these bytes; nothing at `path` is read."""
    digest = hashlib.sha256(data).hexdigest()
    return Settings(source="cifar100", path="nothing", archive=str(archive), sha256=digest)


def test_reads_pixels_labels_and_splits(tmp_path: Path) -> None:
    (path := tmp_path / "c.tar.gz").write_bytes(data := archive_bytes())
    photos = list(open_source(settings(path, data)).photos)
    assert [photo.split for photo in photos] == ["train"] * 4 + ["test"] * 2
    assert [photo.label for photo in photos[:4]] == ["apple", "bear", "cup", "apple"]
    assert [photo.coarse for photo in photos[:4]] == list("xyxy")
    assert photos[4].path == "test/test_4.png"
    for photo, row in zip(photos, PIXELS, strict=True):
        assert np.array_equal(decode(photo.data), row.reshape(3, 32, 32).transpose(1, 2, 0))


def test_a_wrong_checksum_is_refused_before_anything_is_unpickled(tmp_path: Path) -> None:
    (path := tmp_path / "c.tar.gz").write_bytes(archive_bytes(train=EVIL))
    with pytest.raises(TemperError, match="expected sha256 .*, received"):
        open_source(settings(path, b"something else"))
    assert not Path("evil").exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("evil",)


EVIL = pickle.dumps(_Evil(), 2)


@pytest.mark.usefixtures("in_tmp_path")
def test_a_pickle_of_anything_else_is_refused_even_with_the_right_checksum() -> None:
    (path := Path("c.tar.gz")).write_bytes(data := archive_bytes(train=EVIL))
    with pytest.raises(TemperError, match=r"cifar-100-python/train, received .*(posix|nt)\.mkdir"):
        open_source(settings(path, data))
    assert not Path("evil").exists()


def test_an_archive_without_its_files_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    (path := tmp_path / "c.tar.gz").write_bytes(data := buffer.getvalue())
    with pytest.raises(TemperError, match=r"expected cifar-100-python/meta.*, found \[\]"):
        open_source(settings(path, data))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A local server with ranges that serves a folder, its address, the folder and the ranges it was asked for."""
    folder, ranges = tmp_path / "served", list[str]()
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = folder / self.path.lstrip("/")
            if not path.exists():
                return self.send_error(404)
            asked = self.headers.get("Range", "")
            ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
            data = path.read_bytes()[start:]
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{start + len(data)}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", folder, ranges
        listening.shutdown()


def test_downloads_once_and_goes_on_where_it_was_cut(in_tmp_path: Path, server: tuple[str, Path, list[str]]) -> None:
    address, folder, ranges = server
    (folder / "c.tar.gz").write_bytes(data := archive_bytes())
    wanted = settings(f"{address}/c.tar.gz", data)
    downloads = in_tmp_path / ".temper/downloads"
    downloads.mkdir(parents=True)
    (downloads / f"{wanted.sha256}.partial").write_bytes(data[:100])
    for _ in range(2):
        assert len(list(open_source(wanted).photos)) == 6
    assert ranges == ["bytes=100-"]
    assert [path.name for path in downloads.iterdir()] == [wanted.sha256]


def test_a_damaged_download_is_fetched_again(in_tmp_path: Path, server: tuple[str, Path, list[str]]) -> None:
    address, folder, _ = server
    (folder / "c.tar.gz").write_bytes(data := archive_bytes())
    wanted = settings(f"{address}/c.tar.gz", data)
    list(open_source(wanted).photos)
    (in_tmp_path / ".temper/downloads" / wanted.sha256).write_bytes(data[:-1] + b"x")
    assert len(list(open_source(wanted).photos)) == 6


@pytest.mark.usefixtures("in_tmp_path")
def test_a_server_that_refuses_is_named(server: tuple[str, Path, list[str]]) -> None:
    with pytest.raises(TemperError, match="c.tar.gz: expected a download, received 404"):
        open_source(settings(f"{server[0]}/c.tar.gz", b""))


def test_the_published_archive(shared: Path) -> None:
    path = shared / "data/cifar100/cifar-100-python.tar.gz"
    source = open_source(settings(path, path.read_bytes()))
    photos = list(source.photos)
    assert len(photos) == source.total == 6000
    assert len({photo.label for photo in photos}) == 100 and len({photo.coarse for photo in photos}) == 20


def batch(**changes: Any) -> bytes:
    content = table(slice(0, 4), "train") | {key.encode(): value for key, value in changes.items()}
    return pickle.dumps({key: value for key, value in content.items() if value is not None}, 2)


ILL_FORMED: dict[str, tuple[str, bytes, str]] = {
    "truncated": ("train", batch()[:-500], "received"),
    "no pickle": ("train", b"no pickle", "received"),
    "empty": ("test", b"", "received"),
    "a list": ("test", pickle.dumps([1, 2], 2), "a list instead of a mapping"),
    "a long number": ("test", b"I" + b"1" * 5000 + b"\n.", "received"),
    "a memo of four billion": ("train", b"\x80\x02Nr\xff\xff\xff\xff.", "place 4294967295 of its memo after"),
    "a length of exabytes": ("train", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.", "received"),
    "without data": ("train", batch(data=None), "data that is no array of 4 photos"),
    "data that is a list": ("train", batch(data=[1]), "data that is no array"),
    "too few pixels": ("train", batch(data=PIXELS[:3]), "data that is no array of 4 photos with 3072 bytes"),
    "without labels": ("train", batch(fine_labels=None), "fine_labels that is no list of 4 numbers"),
    "too few labels": ("train", batch(coarse_labels=[1]), "coarse_labels that is no list of 4 numbers"),
    "a label out of range": (
        "train",
        batch(fine_labels=[0, 1, 3, 0]),
        "fine_labels 3 of b'train_2.png' instead of 0 to 2",
    ),
    "a label below it": ("train", batch(coarse_labels=[0, -1, 0, 0]), "-1 of b'train_1.png' instead of 0 to 1"),
    "a label that is text": ("train", batch(fine_labels=["1"] * 4), "fine_labels 1 of b'train_0.png' instead"),
    "a label of 5000 digits": ("train", batch(fine_labels=[10**5000] * 4), "received"),
    "names that are numbers": ("train", batch(filenames=[1, 2, 3, 4]), "filenames that are no list of names"),
    "names in no encoding": ("train", batch(filenames=[b"\xff"] * 4), "received"),
    "meta without names": ("meta", pickle.dumps({}, 2), "fine_label_names that is no list of names"),
    "an array of objects": ("meta", pickle.dumps(np.array([object()]), 2), "received .*instead of arrays, lists and"),
}


@pytest.mark.parametrize(("name", "data", "message"), ILL_FORMED.values(), ids=ILL_FORMED)
def test_an_ill_formed_file_is_named_in_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (path := tmp_path / "c.tar.gz").write_bytes(whole := archive_bytes(**{name: data}))
    with pytest.raises(TemperError, match=f"c.tar.gz: expected CIFAR-100's cifar-100-python/{name}, .*{message}"):
        open_source(settings(path, whole))
