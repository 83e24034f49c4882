"""A photo is decoded once ever: later fetches decode what is new, write the same bytes, and need no cache to run."""

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.fetch import looks as looks_module
from stages.fetch.__main__ import fetch, write_raw
from stages.fetch.looks import Look, Looks, look, version
from stages.fetch.source import Photo, Source
from temper.settings.fetch import Settings
from tests.toys.photos import toy_photo
from tests.toys.workspace import ROOT

PHOTOS = [toy_photo(0, number) for number in range(40)] + [b"", b"no photo", toy_photo(1, 0)[:-40]]
NEW = [toy_photo(2, number) for number in range(3)]


def source(data: list[bytes]) -> Source:
    photos = [Photo(f"a/{number}.png", "a", None, one) for number, one in enumerate(data)]
    return Source({"source": "toys"}, len(photos), photos)


def write(folder: Path, data: list[bytes], looks: Looks | None) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    write_raw(folder, source(data), looks)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cache_file() -> Path:
    (path,) = Path(".temper/looks").glob("*.sqlite")
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def decoded(data: list[bytes]) -> int:
    """How many of these photos are decoded in a run of their own; all must be found to be what they are."""
    with Looks() as looks:
        for one in data:
            assert looks.at(one, sha256(one)) == look(one)
    return looks.decoded


def test_only_new_photos_are_decoded(in_tmp_path: Path) -> None:
    assert decoded(PHOTOS) == len(PHOTOS)
    assert decoded(PHOTOS) == 0
    assert decoded(PHOTOS + NEW) == len(NEW)


def test_a_fetch_counts_what_it_decodes(in_tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        folder = in_tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(toy_photo(number % 2, number))
    settings = Settings.model_validate({"fetch": {"toys": {"source": "folder", "path": "photos"}}})
    assert fetch(settings, "toys").decoded == 12
    (in_tmp_path / "photos/a/new.png").write_bytes(toy_photo(0, 99))
    again = fetch(settings, "toys")
    assert (again.images, again.decoded) == (13, 1)


def test_the_raw_table_has_the_same_bytes_with_and_without_what_was_known(in_tmp_path: Path) -> None:
    """Law 10."""
    plain = write(in_tmp_path / "plain", PHOTOS + NEW, None)
    with Looks() as looks:
        write(in_tmp_path / "before", PHOTOS, looks)
    with Looks() as looks:
        assert write(in_tmp_path / "filled", PHOTOS + NEW, looks) == plain
    assert looks.decoded == len(NEW)


def test_every_hash_of_64_bits_comes_back(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    for number in hashes:
        monkeypatch.setattr(looks_module, "look", lambda _, number=number: Look(3, 4, number))
        with Looks() as looks:
            looks.at(b"", sha256(str(number).encode()))
    with Looks() as looks:
        assert [looks.at(b"", sha256(str(number).encode())).phash for number in hashes] == hashes
    assert looks.decoded == 0


def test_other_code_or_another_opencv_looks_again(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded(PHOTOS)
    before = version()
    monkeypatch.setattr("cv2.__version__", "6.0.0")
    assert version() != before
    assert decoded(PHOTOS) == len(PHOTOS)


def change(statement: str) -> Callable[[Path], None]:
    """A damage that SQLite cannot see."""

    def execute(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            for part in statement.split(";"):
                database.execute(part)

    return execute


def content(data: bytes) -> Callable[[Path], None]:
    """A file of something else."""

    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


OTHER_COLUMNS = "DROP TABLE looks; CREATE TABLE looks (sha256 BLOB PRIMARY KEY, width INTEGER)"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "no database": content(b"not a database" * 100),
    "a header alone": content(b"SQLite format 3\0" + bytes(200)),
    "cut": lambda path: os.truncate(path, 5000),
    "another width": change("UPDATE looks SET width = width + 1"),
    "another hash": change("UPDATE looks SET phash = phash + 1"),
    "another problem": change("UPDATE looks SET problem = 'none'"),
    "no numbers": change("UPDATE looks SET width = 'wide', height = x'ff'"),
    "no text": change("UPDATE looks SET problem = CAST(x'ff' AS TEXT)"),
    "other columns": change(OTHER_COLUMNS),
    "a folder": a_folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_file_is_put_aside_with_a_line(
    in_tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    decoded(PHOTOS)
    damage(cache_file())
    for _ in range(2):  # a second time over what was put aside before
        assert decoded(PHOTOS) == len(PHOTOS)
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "put aside as" in said
        assert cache_file().with_name(f"{cache_file().name}.damaged").exists()
        assert decoded(PHOTOS) == 0
        damage(cache_file())


def test_pages_damaged_in_the_middle_are_found_at_the_start(
    in_tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Looks() as looks:
        for number in range(2000):
            looks.at(b"no photo", sha256(str(number).encode()))
    content = bytearray(cache_file().read_bytes())
    content[8192:40960] = b"\xff" * 32768
    cache_file().write_bytes(content)
    assert decoded(PHOTOS) == len(PHOTOS)
    assert "put aside as" in capsys.readouterr().out


def test_a_cache_that_cannot_be_used_blocks_nothing(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(looks_module, "_WAIT", 0.1)
    decoded(PHOTOS)
    with sqlite3.connect(cache_file()) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert decoded(PHOTOS) == len(PHOTOS)
        other.rollback()
    assert "cannot be used now (database is locked)" in capsys.readouterr().out
    assert decoded(PHOTOS) == 0
    cache_file().unlink()
    Path(".temper/looks").rmdir()
    Path(".temper/looks").write_text("a file where the folder should be")
    assert decoded(PHOTOS) == len(PHOTOS)


CODE = """
import hashlib, sys
from stages.fetch.looks import Looks
with Looks() as looks:
    for number in range(int(sys.argv[1]), int(sys.argv[1]) + 3000):
        looks.at(b"no photo", hashlib.sha256(str(number).encode()).hexdigest())
"""


def test_runs_at_once_share_a_cache_and_lose_nothing(in_tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE]
    runs = [
        subprocess.Popen([*command, str(first)], env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
        for first in (0, 1500, 3000)
    ]
    assert [(run.communicate()[0], run.returncode) for run in runs] == [("", 0)] * 3
    with sqlite3.connect(cache_file()) as database:
        assert database.execute("SELECT count(*) FROM looks").fetchone() == (6000,)
