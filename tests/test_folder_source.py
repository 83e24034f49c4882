"""`source: folder`: where labels and splits come from, and archives that must not be trusted."""

import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.fetch.__main__ import describe
from stages.fetch.reading.layouts import place_by_folders
from stages.fetch.source import Source
from stages.fetch.sources import csv, folder
from temper.base.errors import TemperError
from tests.toys.photos import toy_photo

PHOTO = toy_photo(0, 0)


def open_source(path: Path) -> Source:
    """The folder or archive at `path`, opened."""
    return folder.open_source(folder.Settings(source="folder", path=str(path)))


LAYOUTS: dict[str, tuple[list[str], dict[str, tuple[str | None, str | None]]]] = {
    "class folders": (["ant/1.png", "bee/1.png"], {"ant/1.png": (None, "ant"), "bee/1.png": (None, "bee")}),
    "below one folder": (["photos/ant/1.png", "photos/bee/1.png"], {"photos/ant/1.png": (None, "ant")}),
    "splits": (
        ["Train/ant/1.png", "valid/ant/1.png", "testing/ant/1.png"],
        {"Train/ant/1.png": ("Train", "ant"), "valid/ant/1.png": ("valid", "ant")},
    ),
    "validate and val are validation": (
        ["d/train/ant/1.png", "d/validate/ant/1.png", "d/val/ant/1.png"],
        {"d/validate/ant/1.png": ("validate", "ant"), "d/val/ant/1.png": ("val", "ant")},
    ),
    "an unlabelled test split": (
        ["train/ant/1.png", "train/bee/1.png", "test/1.png"],
        {"test/1.png": ("test", None), "train/bee/1.png": ("train", "bee")},
    ),
    "only a train split": (["d/train/ant/1.png", "d/train/bee/1.png"], {"d/train/ant/1.png": ("train", "ant")}),
    "a class called train": (["train/1.png", "car/1.png"], {"train/1.png": (None, "train")}),
    "folders inside a class": (["ant/a/1.png", "ant/b/1.png", "bee/1.png"], {"ant/b/1.png": (None, "ant")}),
    "one class": (["d/ant/1.png", "d/ant/2.png"], {"d/ant/2.png": (None, "ant")}),
    "text above and inside": (
        ["README.md", "d/ant/1.png", "d/ant/notes.txt", "d/bee/1.png", "d/labels.csv"],
        {"d/ant/notes.txt": (None, "ant"), "d/bee/1.png": (None, "bee")},
    ),
    "loose images": (["ant/1.png", "bee/1.png", "x.png"], {"x.png": (None, None)}),
}


@pytest.mark.parametrize(("files", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_places_by_folder_names(files: list[str], expected: dict[str, tuple[str | None, str | None]]) -> None:
    folders = [str(parent) for name in files for parent in Path(name).parents if str(parent) != "."]
    places = place_by_folders(files, folders)
    assert {name: places[name] for name in expected} == expected
    left_out = set(files) - set(places)
    assert left_out == {name for name in files if name in ("README.md", "d/labels.csv")}


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        ([], [], "expected class folders of images, found none"),
        (["notes.txt"], [], "expected class folders of images, found none"),
        (["1.png", "2.png"], [], "images that lie in no folder"),
        (["ant/1.png", "bee/1.png"], ["ant", "bee", "cat"], "found none in cat"),
        (["train/ant/1.png", "test/ant/1.png"], ["train/ant", "test/ant", "test/bee"], "found none in test/bee"),
        (["train/a/1.png", "test/a/1.png", "extra/a/1.png"], [], "expected split folders only"),
        (
            ["train/a/1.png", "train/b/1.png", "sample/1.png"],
            [],
            "expected split folders only .train., received also sam",
        ),
    ],
)
def test_refuses_what_holds_no_classes(files: list[str], folders: list[str], message: str) -> None:
    with pytest.raises(TemperError, match=message):
        place_by_folders(files, folders)


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    ending = path.name.rsplit(".", 1)[-1]
    mode: Any = {"tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(ending, "w")
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


FILES = {
    "d/ant/2.png": toy_photo(0, 2),
    "d/ant/10.png": toy_photo(0, 10),
    "d/bee/1.png": toy_photo(1, 1),
    "d/bee/.DS_Store": b"litter",
    "__MACOSX/d/bee/1.png": b"litter",
}
WRITERS: dict[str, Callable[[Path, dict[str, bytes]], None]] = {
    "photos": write_folder,
    "photos.zip": write_zip,
    "photos.tar": write_tar,
    "photos.tgz": write_tar,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_and_every_archive_of_it_are_the_same_source(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, FILES)
    source = open_source(tmp_path / name)
    photos = {photo.path: (photo.split, photo.label, photo.data) for photo in source.photos}
    assert photos == {path: (None, path.split("/")[1], data) for path, data in FILES.items() if data != b"litter"}
    assert source.total == 3
    assert str(tmp_path) not in str(source.facts)


@pytest.mark.parametrize("name", [name for name in WRITERS if "." in name])
@pytest.mark.parametrize("member", ["../evil.png", "d/../../evil.png", "/etc/evil.png"])
def test_a_name_that_leads_out_of_an_archive_is_refused(tmp_path: Path, name: str, member: str) -> None:
    WRITERS[name](tmp_path / name, {"d/ant/1.png": PHOTO, member: PHOTO})
    with pytest.raises(TemperError, match="which leads out of it"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in WRITERS if "." in name])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    WRITERS[name](path, FILES)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)] if name != "photos.tar" else tar_cut(path))
    with pytest.raises(TemperError):
        list(open_source(path).photos)


def tar_cut(path: Path) -> bytes:
    """A plain tar cut inside its last file: zeros may be missing at the end of a whole one."""
    data = path.read_bytes().rstrip(b"\0")
    return data[: len(data) // 2]


@pytest.mark.parametrize("name", ["photos.tar", "photos.tgz", "photos.tar.bz2", "photos.tar.xz", "photos.zip"])
def test_a_flipped_bit_is_refused_or_seen(tmp_path: Path, name: str) -> None:
    """A compressed archive has checksums over its data: nothing changes unseen. A plain tar has them over its names."""
    whole, path = tmp_path / f"whole.{name}", tmp_path / name
    WRITERS.get(name, write_tar)(whole, FILES)
    good = [(photo.path, photo.data) for photo in open_source(whole).photos]
    data = bytearray(whole.read_bytes().rstrip(b"\0") if name == "photos.tar" else whole.read_bytes())
    refused = 0
    for place in range(0, len(data), max(1, len(data) // 60)):
        data[place] ^= 0x10
        path.write_bytes(data)
        data[place] ^= 0x10
        try:
            read = [(photo.path, photo.data) for photo in open_source(path).photos]
        except TemperError:
            refused += 1
            continue
        if name == "photos.tar":
            assert len(read) == len(good)
        else:
            assert read == good
    assert refused > (5 if name == "photos.tar" else 40)


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    write_zip(tmp_path / "inner.zip", {"cars/1.png": PHOTO, "dogs/1.png": PHOTO})
    write_tar(tmp_path / "o.tar", {"ant/1.png": PHOTO, "bee/1.png": PHOTO, "z": (tmp_path / "inner.zip").read_bytes()})
    source = open_source(tmp_path / "o.tar")
    assert {photo.label for photo in source.photos} == {"ant", "bee"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant/1.png", "ant/1.png"], "expected every name once, received 'ant/1.png' twice"),
        (["ant/1.png", "ant/\udcff.png"], "expected names in UTF-8 without line breaks"),
        (["ant/1.png", "ant/a\nb.png"], "expected names in UTF-8 without line breaks"),
    ],
)
def test_a_name_that_no_table_can_hold_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with tarfile.open(tmp_path / "names.tar", "w", errors="surrogateescape") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(PHOTO)
            archive.addfile(member, io.BytesIO(PHOTO))
    with pytest.raises(TemperError, match=message):
        open_source(tmp_path / "names.tar")


def test_a_file_too_large_for_a_photo_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", {"ant/1.png": PHOTO, "bee/1.png": PHOTO})
    with (tmp_path / "d/bee/film.mp4").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(TemperError, match="received bee/film.mp4 of 1073741825 bytes"):
        open_source(tmp_path / "d")


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("d/ant/1.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(TemperError, match="received a link or device named d/ant/1.png"):
        open_source(tmp_path / "links.tar")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="found nothing there"):
        open_source(tmp_path / "nowhere")


def test_the_published_flowers(shared: Path) -> None:
    source = open_source(shared / "data/flowers/flowers.zip")
    labels = [photo.label for photo in source.photos]
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(
        ["daisy", "dandelion", "rose", "sunflower", "tulip"], 60
    )


def make_odd_folder(top: Path) -> dict[str, str]:
    """A folder of links, loops and what is no file; returns why each of those cannot be read."""
    write_folder(top, {"ant/1.png": PHOTO, "bee/1.png": PHOTO})
    write_folder(top.parent / "elsewhere", {"2.png": PHOTO, "deeper/3.png": PHOTO, "cat/4.png": PHOTO})
    (top / "ant/linked.png").symlink_to(top.parent / "elsewhere/2.png")
    (top / "ant/more").symlink_to(top.parent / "elsewhere")
    (top.parent / "elsewhere/deeper/back").symlink_to(top.parent / "elsewhere")
    (top / "cat").symlink_to(top.parent / "elsewhere/cat")
    os.mkfifo(top / "bee/pipe.jpg")
    (top / "bee/zero.jpg").symlink_to("/dev/zero")
    (top / "bee/gone.jpg").symlink_to("nowhere.jpg")
    (top / "bee/round.jpg").symlink_to("round.jpg")
    (top / "bee/all.jpg").symlink_to(top)
    (top / "bee/.hidden.jpg").symlink_to("nowhere.jpg")
    return {
        "ant/more/deeper/back": "a link to a folder that it is in",
        "bee/all.jpg": "a link to a folder that it is in",
        "bee/gone.jpg": "a link to nothing",
        "bee/pipe.jpg": "a named pipe, no file",
        "bee/round.jpg": "a link that leads back to itself",
        "bee/zero.jpg": "a device, no file",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes and links as Unix has them")
@pytest.mark.parametrize("layout", [None, ["{label}/**/{name}"]])
def test_links_are_followed_and_what_is_no_file_is_counted(tmp_path: Path, layout: list[str] | None) -> None:
    problems = make_odd_folder(tmp_path / "d")
    source = folder.open_source(folder.Settings(source="folder", path=str(tmp_path / "d"), layout=layout))
    photos = list(source.photos)
    good = {photo.path: photo.label for photo in photos if photo.data == PHOTO}
    more = [f"ant/more/{name}" for name in ("2.png", "cat/4.png", "deeper/3.png")]
    assert list(good) == ["ant/1.png", "ant/linked.png", *more, "bee/1.png", "cat/4.png"]
    assert all(label == path.split("/")[0] for path, label in good.items())
    if layout:  # patterns place images alone
        del problems["ant/more/deeper/back"]
    assert {photo.path: photo.problem for photo in photos if not photo.data} == problems
    assert {photo.label for photo in photos if photo.path in problems} == {path.split("/")[0] for path in problems}
    assert source.total == len(photos) == len(good) + len(problems)
    rows = [describe(photo)["problem"] for photo in photos[len(good) :]]
    assert rows == list(problems.values())


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes as Unix has them")
def test_a_path_to_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photos.tar")
    with pytest.raises(TemperError, match="expected a folder, zip or tar, received a named pipe, no file"):
        open_source(tmp_path / "photos.tar")


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes as Unix has them")
def test_photos_of_a_table_and_archives_of_a_dataset_do_not_vanish(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", {"train/1.png": PHOTO, "train.csv": b"id,label\n1.png,ant\n2.png,bee\n"})
    os.mkfifo(tmp_path / "d/train/2.png")
    (tmp_path / "d/train/3.png").symlink_to("nowhere.png")
    source = csv.open_source(csv.Settings(source="csv", path=str(tmp_path / "d")))
    assert [(photo.path, photo.label, photo.problem) for photo in source.photos] == [
        ("train/1.png", "ant", None),
        ("train/2.png", "bee", "a named pipe, no file"),
        ("train/3.png", None, "a link to nothing"),
    ]
    assert source.total == 3
    (tmp_path / "d/more.zip").symlink_to("nowhere.zip")
    with pytest.raises(TemperError, match="more.zip: expected a file, received a link to nothing"):
        csv.open_source(csv.Settings(source="csv", path=str(tmp_path / "d")))
