"""The stage `fetch`: one named source into its own raw table, whole or not at all; errors name the source."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from stages.fetch.__main__ import fetch, main, write_raw
from stages.fetch.source import Photo, Source
from temper import raw
from temper.base.errors import TemperError
from temper.settings.fetch import Settings
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
            "error: params.yaml: unknown key fetch.photos.colour: expected one of layout, path, ",
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
