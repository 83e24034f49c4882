"""The stage `detect`: each photo is seen once, killed runs go on, and what is wrong is said in one line."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from stages.detect.cache import Cache
from stages.detect.detectors import none
from temper import boxes, images, tables, yolox
from temper.base.errors import TemperError
from tests.toys.cars import cars
from tests.toys.detector import (
    CAR_IN_BUS,
    find_new,
    nano_settings,
    rows,
    toy_detector,
    write_toy_detector,
    yolox_section,
)
from tests.toys.tables import gray, write_raw
from tests.toys.workspace import ROOT


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every pass through a network."""
    calls: list[int] = []
    forward = yolox.forward

    def counted(network: Any, framed: Any) -> Any:
        calls.append(1)
        return forward(network, framed)

    monkeypatch.setattr(yolox, "forward", counted)
    return calls


def test_what_the_detector_saw_once_it_is_not_shown_again(in_tmp_path: Path, forwards: list[int]) -> None:
    table = write_raw(in_tmp_path, [gray(level) for level in range(100, 160)])
    first = rows(find_new(table.slice(0, 40), toy_detector(in_tmp_path)))
    assert len(forwards) == 40 + 1, "one is the blank image"
    again = rows(find_new(table, toy_detector(in_tmp_path)))
    assert len(forwards) == 60 + 2
    assert again[:40] == first and len(again) == 60 and [row[0] for row in again] == table["image_id"].to_pylist()
    assert rows(find_new(table, toy_detector(in_tmp_path))) == again
    assert len(forwards) == 60 + 3
    another = toy_detector(in_tmp_path, floor=0.06)
    assert rows(find_new(table, another)) == again
    assert len(forwards) == 120 + 4, "another floor is another detector"


def test_equal_bytes_are_detected_once(in_tmp_path: Path, forwards: list[int]) -> None:
    table = write_raw(in_tmp_path, [gray(200), gray(210), gray(200)])
    assert len(list(find_new(table, toy_detector(in_tmp_path)))) == 2
    assert len(forwards) == 2 + 1


def test_a_photo_that_does_not_decode_ends_in_one_line_and_loses_nothing(
    in_tmp_path: Path, forwards: list[int]
) -> None:
    good = [gray(level) for level in range(100, 130)]
    table = write_raw(in_tmp_path, [*good[:20], b"\x89PNG\r\n\x1a\n broken", *good[20:]])
    with pytest.raises(TemperError, match=r"^detect: 20.jpg .*received a truncated or corrupt PNG; run dvc repro"):
        list(find_new(table, toy_detector(in_tmp_path)))
    before = len(forwards)
    mended = table.filter(pa.array([number != 20 for number in range(31)]))
    assert len(list(find_new(mended, toy_detector(in_tmp_path)))) == 30
    assert len(forwards) - before <= 10 + 1, "the twenty before it were kept"


def flip_a_row(path: Path) -> None:
    """One bit of the boxes of one image: SQLite itself does not notice."""
    content = path.read_bytes()
    with Cache("test", path.stem.removeprefix("test-")) as cache:
        (wanted, *_) = sorted(cache.image_ids())
        found = cache.boxes(wanted).corners.tobytes()
    at = content.index(found)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def rewrite(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)


def other_table(path: Path) -> None:
    path.unlink()
    rewrite(path, "CREATE TABLE boxes (photo TEXT, left INTEGER)")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def with_journal(path: Path) -> None:
    path.with_name(f"{path.name}-journal").write_bytes(path.read_bytes())
    path.write_bytes(b"something else" * 1000)


@pytest.mark.parametrize(
    ("damage", "said", "again"),
    [
        (lambda path: path.write_bytes(b"something else" * 1000), "received file is not a database: put aside as", 3),
        (lambda path: path.write_bytes(path.read_bytes()[:-4096]), "malformed: put aside as", 3),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(8192)), "malformed: put aside as", 3),
        (other_table, "received a table of other columns: put aside as", 3),
        (as_folder, "received a folder: put aside as", 3),
        (with_journal, "received file is not a database: put aside as", 3),
        (flip_a_row, "expected the boxes of 3 images, 1 are damaged", 1),
        (lambda path: rewrite(path, "UPDATE boxes SET corners = 7"), "3 are damaged", 3),
        (lambda path: rewrite(path, "UPDATE boxes SET classes = CAST(x'ff' AS TEXT)"), "3 are damaged", 3),
        (lambda path: rewrite(path, "UPDATE boxes SET checksum = NULL, scores = x'00'"), "3 are damaged", 3),
        (lambda path: path.write_bytes(b""), "", 3),
        (lambda path: rewrite(path, "ALTER TABLE boxes DROP COLUMN checksum"), "", 0),  # of an earlier version
    ],
)
def test_what_is_damaged_in_the_cache_is_detected_again(
    in_tmp_path: Path,
    forwards: list[int],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    said: str,
    again: int,
) -> None:
    table = write_raw(in_tmp_path, [gray(200), gray(210), gray(220)])
    before = rows(find_new(table, toy_detector(in_tmp_path)))
    (cache,) = (in_tmp_path / ".temper/boxes").iterdir()
    damage(cache)
    capsys.readouterr()
    forwards.clear()
    assert rows(find_new(table, toy_detector(in_tmp_path))) == before
    assert len(forwards) == again + 1, "one is the blank image"
    assert said in capsys.readouterr().out
    assert rows(find_new(table, toy_detector(in_tmp_path))) == before
    assert len(forwards) == again + 2


def test_a_cache_that_cannot_be_written_stays_and_is_named(in_tmp_path: Path) -> None:
    """It may be whole: the disk is full, or another run holds it."""
    table = write_raw(in_tmp_path, [gray(200)])
    list(find_new(table, toy_detector(in_tmp_path)))
    (cache,) = (in_tmp_path / ".temper/boxes").iterdir()
    content = cache.read_bytes()
    with (
        pytest.MonkeyPatch.context() as patch,
        sqlite3.connect(cache, isolation_level=None) as other,
        pytest.raises(TemperError, match=r"sqlite: expected a cache .* database is locked; .* remove the file$"),
    ):
        patch.setattr("stages.detect.cache._WAIT", 0.1)
        other.execute("BEGIN EXCLUSIVE")
        list(find_new(table, toy_detector(in_tmp_path)))
    assert cache.read_bytes() == content


def test_without_a_detector_there_are_no_boxes(in_tmp_path: Path) -> None:
    table = write_raw(in_tmp_path, [gray(200), gray(210)])
    assert list(none.find_boxes(table, none.Settings(detector="none"))) == []


def write_stage(folder: Path, section: dict[str, Any], data: list[bytes]) -> None:
    """What `python -m stages.detect` needs in a working folder of its own."""
    table = write_raw(folder, data)
    tables.write(folder / images.PATH, images.IMAGES, {name: table[name] for name in table.column_names})
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["detect"] = section
    (folder / "params.yaml").write_text(json.dumps(values), encoding="utf-8")


def run_stage(folder: Path) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.detect"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def detected(folder: Path) -> int:
    """How many images the caches hold."""
    count = 0
    for path in folder.glob(".temper/boxes/*.sqlite"):
        with sqlite3.connect(path) as database:
            count += database.execute("SELECT count(*) FROM boxes").fetchone()[0]
    return count


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(in_tmp_path: Path, shared: Path) -> None:
    data = [image + bytes([number]) for number in range(4) for image, _ in cars(shared)]
    write_stage(in_tmp_path, nano_settings(shared).model_dump(include={"detector", "weights"}), data)
    killed = run_stage(in_tmp_path)
    while not detected(in_tmp_path):
        assert killed.poll() is None, killed.stdout and killed.stdout.read()
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    kept = detected(in_tmp_path)
    assert 0 < kept < 240 and not (in_tmp_path / "data/boxes.parquet").exists()
    output, _ = run_stage(in_tmp_path).communicate()
    assert boxes.read_detector("data/boxes.parquet") == ("yolox", nano_settings(shared).sha256)
    assert f"yolox: {240 - kept} images detected now, {kept} before" in output
    boxes_sha256 = hashlib.sha256((in_tmp_path / "data/boxes.parquet").read_bytes()).hexdigest()
    shutil.rmtree(in_tmp_path / ".temper")
    output, _ = run_stage(in_tmp_path).communicate()
    assert "yolox: 240 images detected now, 0 before" in output
    assert hashlib.sha256((in_tmp_path / "data/boxes.parquet").read_bytes()).hexdigest() == boxes_sha256


def test_the_stage_says_what_is_wrong_in_one_line(in_tmp_path: Path) -> None:
    model = write_toy_detector(in_tmp_path / "model.onnx", CAR_IN_BUS)
    model.write_bytes(model.read_bytes()[:300])
    write_stage(in_tmp_path, yolox_section(model), [gray(200)])
    process = run_stage(in_tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 1 and output.startswith("error: ") and output.count("\n") == 1, output
