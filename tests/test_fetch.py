"""The stage `fetch`: one named source into its own raw table, whole or not at all; errors name the source."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from stages.fetch.__main__ import fetch, main, write_raw
from stages.fetch.reading.bundles import forget_unpacked, open_bundle
from stages.fetch.source import Photo, Source
from temper import raw
from temper.base.errors import TemperError
from temper.headers import memory_to_decode
from temper.settings.fetch import Limits, Settings
from tests.toys import published
from tests.toys.photos import write_toy_photos
from tests.toys.workspace import ROOT

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def settings(**sources: dict[str, Any]) -> Settings:
    return Settings.model_validate({"fetch": sources})


def folder_of(path: Path | str) -> dict[str, Any]:
    return {"source": "folder", "path": str(path)}


def test_each_named_source_has_a_folder_of_its_own() -> None:
    both = settings(mine=folder_of(write_toy_photos(Path("p"), 2)), more=folder_of(write_toy_photos(Path("q"), 3)))
    assert fetch(both, "mine").images == 6
    before = {path: path.read_bytes() for path in Path(raw.FOLDER, "mine").iterdir()}
    assert fetch(both, "more").images == 9
    assert {path: path.read_bytes() for path in Path(raw.FOLDER, "mine").iterdir()} == before
    assert sorted(path.name for path in Path(raw.FOLDER).iterdir()) == ["mine", "more"]
    assert raw.read_metadata(["more", "mine"])["source"].to_pylist() == ["more"] * 9 + ["mine"] * 6
    for name, count in (("mine", 6), ("more", 9)):
        facts = json.loads(Path(raw.FOLDER, name, "source.json").read_text(encoding="utf-8"))
        assert facts["source"] == "folder" and facts["images"] == count


def test_a_row_says_all_of_a_photo_with_its_bytes_untouched() -> None:
    photos = write_toy_photos(Path("p"), 1)
    (photos / "ant/notes.txt").write_bytes(b"no photo")
    fetched = fetch(settings(mine=folder_of(photos)), "mine")
    assert (fetched.images, fetched.found.total(), fetched.problems.total()) == (4, 3, 1)
    rows = {row["path"]: row for row in pq.read_table(*raw.parts("mine")).to_pylist()}
    data = (photos / "ant/000.png").read_bytes()
    row = rows["ant/000.png"]
    assert (row["image"], row["sha256"]) == (data, hashlib.sha256(data).hexdigest())
    assert (row["label"], row["split"], row["width"], row["height"]) == ("ant", None, 24, 24)
    assert row["phash"] is not None and row["problem"] is None
    broken = rows["ant/notes.txt"]
    assert broken["image"] == b"no photo" and "no image format" in broken["problem"]
    assert broken["width"] is broken["height"] is broken["phash"] is None


def test_a_source_that_loses_photos_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="expected 3 images of x, received 2"):
        write_raw(tmp_path, Source({"source": "x"}, 3, [Photo(name, None, None, b"") for name in "ab"]))


def test_a_source_that_fails_leaves_its_old_table_as_it_is() -> None:
    photos = write_toy_photos(Path("p"), 2)
    fetch(settings(mine=folder_of(photos)), "mine")
    before = {path: path.read_bytes() for path in Path(raw.FOLDER, "mine").iterdir()}
    with pytest.raises(TemperError):
        fetch(settings(mine=folder_of("nowhere")), "mine")
    Path("empty.csv").write_text("url,label\n", encoding="utf-8")
    with pytest.raises(TemperError, match="expected images, found none"):
        fetch(settings(mine={"source": "urls", "path": "empty.csv"}), "mine")
    assert {path: path.read_bytes() for path in Path(raw.FOLDER, "mine").iterdir()} == before
    assert [path.name for path in Path(raw.FOLDER).iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        (
            "dogs",
            {"source": "csv", "path": "competition", "table": "labels.csv"},
            "^fetch.dogs: table: expected labels.csv, found ",
        ),
        ("dogs", {"source": "folder", "path": "nowhere"}, "^fetch.dogs: nowhere: expected a file or folder, found no"),
        (
            "birds",
            {"source": "cub", "path": "x", "archive": "nowhere.tgz"},
            "^fetch.birds: archive: expected a file or an http.s. URL; nowhere.tgz: expected a file",
        ),
        (
            "links",
            {"source": "urls", "path": "competition"},
            "^fetch.links: competition: expected a Darwin Core archive",
        ),
    ],
)
def test_errors_name_the_source_and_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str, entry: dict[str, Any], message: str
) -> None:
    published.competition(Path("competition"), 2)
    monkeypatch.setattr(sys, "argv", ["stages.fetch", name])
    with pytest.raises(TemperError, match=message):
        main(settings(**{name: entry}))


@pytest.mark.parametrize("arguments", [[], ["cat"]])
def test_a_name_that_is_none_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stages.fetch", *arguments])
    message = r"^expected a name of `fetch` in params.yaml \(dogs, birds\), received "
    with pytest.raises(TemperError, match=message):
        main(settings(dogs=folder_of("p"), birds=folder_of("q")))


def test_a_stage_says_what_is_wrong_in_one_line() -> None:
    """As DVC runs it, on a whole params.yaml."""
    params = yaml.safe_load((ROOT / "recipes/folder.yaml").read_text(encoding="utf-8"))
    for entry, message in (
        ({"path": "nowhere"}, "error: fetch.photos: nowhere: expected a file or folder, found nothing there"),
        (
            {"colour": "red"},
            "error: params.yaml: unknown key fetch.photos.colour: expected one of layout, max_file_mb, ",
        ),
        ({"source": "foldr"}, "error: params.yaml: fetch.photos.source: expected one of cifar100, csv, "),
    ):
        changed = params | {"fetch": {"photos": params["fetch"]["photos"] | entry}}
        Path("params.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "stages.fetch", "photos"],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr
        assert not Path("data").exists()


def test_one_photo_of_many_pixels_is_weighed_by_them() -> None:
    """Every core decodes one: 16 of 600 MB would be 10 GB, and they are 40 KB each as files."""
    large = Photo("a.png", None, None, cv2.imencode(".png", np.zeros((3000, 4000, 3), np.uint8))[1].tobytes())
    assert len(large.data) < 10**5 and memory_to_decode(large.data) == len(large.data) + 3 * 3000 * 4000
    assert memory_to_decode(b"no photo") == len(b"no photo")


FETCH = """
import sys, time
from pathlib import Path
from stages.fetch.reading import bundles
from temper.headers import memory_to_decode
from temper.settings.fetch import Limits
bundle = bundles.open_bundle(Path(sys.argv[1]), Limits(10**6, 10**7))
print("open", flush=True)
sys.stdin.readline()
print(sorted(name for name, _ in bundle.read(set(bundle.files))), flush=True)
bundles.forget_unpacked()
"""


def start_opening(archive: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, str(archive)],
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def test_two_fetches_at_once_do_not_clear_each_others_copies() -> None:
    for name in "ab":
        Path(f"{name}.zip").write_bytes(published.zipped({"m.zip": published.zipped({f"{name}.png": b"1"})}))
    first, second, killed = (start_opening(Path(f"{name}.zip")) for name in "aba")
    killed.kill()
    killed.wait()
    assert len(list(Path(".temper/unpacked").iterdir())) == 3
    assert first.communicate("\n")[0] == "['m/a.png']\n"
    assert len(list(Path(".temper/unpacked").iterdir())) == 1  # what the killed one left is gone too
    assert second.communicate("\n")[0] == "['m/b.png']\n"
    assert not Path(".temper/unpacked").exists()


def test_a_fetch_that_fails_leaves_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.zip").write_bytes(published.zipped({"m.zip": published.zipped({"1.png": b"1"})}))
    monkeypatch.setattr(sys, "argv", ["stages.fetch", "mine"])
    with pytest.raises(TemperError, match="expected train.csv"):
        main(settings(mine={"source": "csv", "path": "a.zip"}))
    assert not Path(".temper/unpacked").exists()


def foreign_file(path: Path) -> None:
    path.write_bytes(b"foreign" * 100)


def foreign_folder(path: Path) -> None:
    (path / "copy").mkdir(parents=True)
    (path / "copy/copy").write_bytes(b"foreign" * 100)


@pytest.mark.parametrize("damage", [foreign_file, foreign_folder])
@pytest.mark.parametrize("place", ["unpacked", "unpacked/tmp1", "unpacked/tmp1/lock"])
def test_what_others_left_among_the_copies_is_no_hindrance(damage: Callable[[Path], None], place: str) -> None:
    Path("a.zip").write_bytes(published.zipped({"m.zip": published.zipped({"1.png": b"1"})}))
    Path(".temper", place).parent.mkdir(parents=True)
    damage(Path(".temper", place))
    bundle = open_bundle(Path("a.zip"), Limits(10**6, 10**7))
    assert dict(bundle.read(set(bundle.files))) == {"m/1.png": b"1"}
    forget_unpacked()
    assert not Path(".temper/unpacked").exists()
