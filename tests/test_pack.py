"""The stage `pack`: what a model is told of its input, and what is known of its main object."""

from pathlib import Path

import numpy as np
import pytest

import stages.pack
from stages.pack import describe, find_main_objects, main
from temper import boxes, classes, images, tables
from temper.base import disk
from temper.base.errors import TemperError
from temper.detections import Boxes
from temper.settings.pack import MainBox, Pack, Settings
from tests.toys.tables import gray, write_raw


def test_the_main_object_knows_its_share_of_the_photo(in_tmp_path: Path) -> None:
    images = write_raw(in_tmp_path, [gray(1, 50, 100), gray(2, 50, 100)])
    sizes = images.append_column("height", [[50, 50]]).append_column("width", [[100, 100]])
    one = Boxes(np.array([[0, 0, 50, 50]], np.float32), np.array([0.5], np.float32), ["car"])
    boxes.write("boxes.parquet", "yolox", None, iter([(images["image_id"][1].as_py(), one)]))
    settings = MainBox(classes=["car"], score=0.3, overlap=0.5, pick="largest", min_box=0)
    (found,) = find_main_objects("boxes.parquet", images, sizes, settings).items()
    assert found[0] == images["image_id"][1].as_py()
    assert found[1].share == 0.5 and found[1].class_name == "car" and found[1].box == (0, 0, 50, 50)
    with pytest.raises(TemperError, match=r"expected detected classes \(car\), received bus"):
        find_main_objects("boxes.parquet", images, sizes, settings.model_copy(update={"classes": ["bus"]}))


def write_one(folder: Path, data: bytes) -> None:
    """Everything that `pack` reads, of one photo, as if it could be used."""
    table = write_raw(folder, [data])
    tables.write(images.PATH, images.IMAGES, {name: table[name] for name in table.column_names})
    classes.write(["a"])
    boxes.write(boxes.PATH, "none", None, iter([]))


SMALL = Settings(image_size=(8, 8), pack=Pack())


def test_a_photo_that_cannot_be_used_any_more_is_named_with_its_source(in_tmp_path: Path) -> None:
    write_one(in_tmp_path, gray(1)[:-30])
    said = (
        r"^0.jpg of source photos: expected a photo that can be used, .*received a truncated or corrupt PNG; .*@photos$"
    )
    with pytest.raises(TemperError, match=said):
        main(SMALL)
    assert not Path("data/packed").exists()


def test_a_lack_of_memory_says_for_which_photo(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("expected 5 GB")

    write_one(in_tmp_path, gray(1))
    monkeypatch.setattr(stages.pack, "prepare", fail)
    with pytest.raises(MemoryError, match=r"^0.jpg of source photos: expected 5 GB$"):
        main(SMALL)


def test_what_would_not_fit_is_refused_before_the_first_photo_is_read(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_one(in_tmp_path, b"no photo")
    monkeypatch.setattr(disk, "SPARE", 2**60)
    with pytest.raises(TemperError, match=r"the packed images \(1 of 8x8\): expected .* found .* lower image_size$"):
        main(SMALL)
    assert not Path("data/packed").exists()


def test_what_a_model_is_fed_with_is_described_and_nothing_more() -> None:
    """Without a detector, the margin and the choice of a box make no difference, so they are not in the card."""
    settings = Pack(fit="pad", margin=0.25, box=MainBox(classes=["car"]))
    made = describe(settings, (32, 48), "yolox", "0" * 64)
    assert (made.height, made.width, made.fit) == (32, 48, "pad")
    assert made.crop is not None
    assert (made.crop.detector, made.crop.sha256, made.crop.margin) == ("yolox", "0" * 64, 0.25)
    assert made.crop.box == settings.box.model_dump(mode="json")
    whole = describe(settings, (32, 48), "none", None)
    assert whole.crop is None
    assert whole == describe(Pack(fit="pad"), (32, 48), "none", None)
