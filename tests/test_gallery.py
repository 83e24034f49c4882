"""The pictures for people: which are written, what is on them, and that they are what training sees."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages import gallery
from stages.fine_tune import __main__ as fine_tune
from stages.gallery import (
    CELL,
    COLOUR,
    EPOCHS,
    MAGNITUDES,
    augmented,
    caption,
    choose,
    evenly_spaced,
    under_each,
    with_box,
)
from temper import crops
from temper.crops import MainObject
from temper.packs import Pack
from temper.settings.fine_tune import Settings as FineTuneSettings
from temper.settings.gallery import Settings
from temper.sheets import CELL as SMALL_CELL
from temper.sheets import GAP, LINE
from tests.toys.packed import write_packed

PARAMS = {"seed": 3, "aug": 0.2, "fine_tune": {"epochs": 4, "augmentation": {"hue": 0}}}
SETTINGS = Settings.model_validate(PARAMS)
CAPTION = GAP + LINE  # pixels above the pictures of a strip whose caption fits one line


def names(count: int) -> list[str]:
    return [f"{number:03} crème brûlée" for number in range(count)]


def written() -> list[str]:
    """The names of the pictures of the gallery in the working folder."""
    return sorted(path.stem for path in Path("metrics/gallery").glob("*.png"))


def picture(name: str) -> np.ndarray:
    """A picture of the gallery in the working folder, (height, width, 3) RGB."""
    pixels = cv2.imread(f"metrics/gallery/{name}.png")
    assert pixels is not None
    return np.ascontiguousarray(pixels[..., ::-1])


def sheet_shape(strips: int, per_strip: int, across: int, cell: int) -> tuple[int, int, int]:
    """The height and width of a sheet, and its channels."""
    down = -(-strips // across)
    return down * (CAPTION + cell + 2 * GAP), min(across, strips) * (per_strip * (cell + GAP) + GAP), 3


def drawn(sheet: np.ndarray, place: int, per_strip: int, across: int) -> np.ndarray:
    """The strip of pictures number `place` of a sheet of small cells, without its caption."""
    height, width = CAPTION + SMALL_CELL + 2 * GAP, per_strip * (SMALL_CELL + GAP) + GAP
    top, left = place // across * height, place % across * width
    return sheet[top + CAPTION : top + CAPTION + SMALL_CELL, left : left + width]


@pytest.mark.parametrize(("count", "across"), [(2, 2), (41, 4), (200, 4)])
def test_every_class_has_its_strip(
    in_tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, across: int
) -> None:
    write_packed(names(count))
    gallery.main(SETTINGS)
    assert written() == ["augmentation", "classes", "magnitudes"]
    assert capsys.readouterr().out.endswith(f"pictures of {count} of {count} classes: metrics/gallery\n")
    sheet = picture("classes")
    assert sheet.shape == sheet_shape(count, 5, across, SMALL_CELL)
    for place in range(count):
        assert (drawn(sheet, place, 5, across) != 255).any(), f"nothing was drawn of class {place}"


def test_of_very_many_classes_the_first_are_shown_and_it_is_said(
    in_tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "CLASSES", 3)
    write_packed(names(5))
    gallery.main(SETTINGS)
    assert "pictures of 3 of 5 classes" in capsys.readouterr().out
    assert picture("classes").shape == sheet_shape(3, 5, 2, SMALL_CELL)


def test_the_first_pictures_of_a_class_are_its_packed_ones(in_tmp_path: Path) -> None:
    write_packed(names(2), side=SMALL_CELL)  # as large as a cell: nothing is resized
    gallery.main(SETTINGS)
    train = Pack("data/packed/train")
    for place in range(2):
        rows = np.flatnonzero(train.labels == place)
        assert len(rows) == 4
        shown = drawn(picture("classes"), place, 5, 2)
        for number, row in enumerate(rows):
            left = GAP + number * (SMALL_CELL + GAP)
            assert np.array_equal(shown[:, left : left + SMALL_CELL], train.image(int(row)))


def test_the_augmentation_is_the_one_that_the_fine_tune_sees(in_tmp_path: Path) -> None:
    """Image by image and epoch by epoch, to the bit."""
    write_packed(names(4))
    train = Pack("data/packed/train")
    rows = np.arange(len(train))
    shown = augmented(train, rows, SETTINGS)
    assert shown.shape == (EPOCHS, len(train), *train.image_shape)
    settings = FineTuneSettings.model_validate(PARAMS | {"batch_size": 1, "lr": 0.1})
    for epoch in range(EPOCHS):
        batches = fine_tune.epoch_batches(train, 4, settings, epoch)
        seen = {tuple(images[0].ravel().tolist()) for images, _ in (batches[number] for number in range(len(train)))}
        assert seen == {tuple(image.ravel().tolist()) for image in shown[epoch]}
    assert not np.array_equal(shown[0], shown[1])


def test_the_augmented_images_stand_beside_the_packed_ones(in_tmp_path: Path) -> None:
    write_packed(names(2), side=SMALL_CELL)
    gallery.main(SETTINGS)
    train = Pack("data/packed/train")
    sheet = picture("augmentation")
    assert sheet.shape == sheet_shape(8, EPOCHS + 2, 1, SMALL_CELL)
    changed = augmented(train, np.arange(8), SETTINGS)
    for row in range(8):
        shown = drawn(sheet, row, EPOCHS + 2, 1)
        expected = [train.image(row), np.full_like(train.image(row), 255), *changed[:, row]]
        for number, image in enumerate(expected):
            left = GAP + number * (SMALL_CELL + GAP)
            assert np.array_equal(shown[:, left : left + SMALL_CELL], image)


def with_augmentation(**augmentation: object) -> Settings:
    return Settings.model_validate(PARAMS | {"fine_tune": {"augmentation": augmentation}})


@pytest.mark.parametrize(
    ("on", "more"),
    [({}, []), ({"crop": 0.5, "erasing": 0.1}, ["crop", "erasing"]), ({"randaugment": {}}, ["randaugment"])],
)
def test_magnitudes_show_every_transformation_that_follows_aug_and_those_that_are_on(
    on: dict[str, object], more: list[str]
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)
    shown = under_each(photo, with_augmentation(**on))
    both = ("rotation", "zoom", "translation", "brightness", "contrast", "hue")
    names = ["flip", *(f"{name}, {way}" for name in both for way in ("one way", "the other way")), *more]
    assert [words.split(":")[0] for words, _ in shown] == names
    for words, photos in shown:
        assert len(photos) == len(MAGNITUDES) and all(one.shape == photo.shape for one in photos)
        if words.split(":")[0] != "randaugment":  # whose operations may be the identity
            assert not any(np.array_equal(one, photo) for one in photos), words


def test_magnitudes_go_as_far_as_they_may() -> None:
    photo = np.full((24, 36, 3), 100, np.uint8)
    photo[:, 18:] = 160
    shown = dict(under_each(photo, with_augmentation(erasing=0.1)))
    end = "0, then 0.05 to 0.3"
    for column, magnitude in enumerate(MAGNITUDES):
        darker, brighter = (shown[f"brightness, {way}: {end}"][column] for way in ("one way", "the other way"))
        assert np.array_equal(darker, np.rint(photo - 255 * magnitude)), "0 to 255 is not left"
        assert np.array_equal(brighter, np.rint(photo + 255 * magnitude))
        erased = (shown[f"erasing: {end}"][column] != photo).any(axis=2).mean()
        assert erased == pytest.approx(magnitude, abs=0.04)
    edges = [np.argmax(one[12, :, 0] > 130) for one in shown[f"translation, one way: {end}"]]
    assert edges == pytest.approx([18 - 36 * magnitude for magnitude in MAGNITUDES], abs=1)


def test_the_sheet_of_magnitudes_shows_the_photo_of_most_contrast(in_tmp_path: Path) -> None:
    write_packed(names(2), side=SMALL_CELL)
    gallery.main(SETTINGS)
    train = Pack("data/packed/train")
    sheet, strips = picture("magnitudes"), 13
    assert sheet.shape == sheet_shape(strips, len(MAGNITUDES) + 2, 2, SMALL_CELL)
    photo = max(train.images(np.arange(len(train))), key=lambda image: float(image.std()))
    for place, (_, photos) in enumerate(under_each(photo, SETTINGS)):
        shown = drawn(sheet, place, len(MAGNITUDES) + 2, 2)
        for number, image in enumerate([photo, np.full_like(photo, 255), *photos]):
            left = GAP + number * (SMALL_CELL + GAP)
            assert np.array_equal(shown[:, left : left + SMALL_CELL], image)


@pytest.mark.parametrize(("on", "strips"), [({"mixup": 1}, 8), ({"cutmix": 1}, 8), ({"mixup": 1, "cutmix": 1}, 16)])
def test_mixing_is_drawn_where_it_is_on(in_tmp_path: Path, on: dict[str, object], strips: int) -> None:
    write_packed(names(3), side=SMALL_CELL)
    gallery.main(with_augmentation(**on))
    assert written() == ["augmentation", "classes", "magnitudes", "mixing"]
    sheet = picture("mixing")
    assert sheet.shape == sheet_shape(strips, 4, 2, SMALL_CELL)
    step = SMALL_CELL + GAP
    for place in range(strips):
        shown = drawn(sheet, place, 4, 2)
        own, partner, _, mixed = (
            shown[:, GAP + number * step : number * step + step].astype(int) for number in range(4)
        )
        low, high = np.minimum(own, partner) - 1, np.maximum(own, partner) + 1
        assert ((mixed >= low) & (mixed <= high)).all() and not np.array_equal(own, partner)


@pytest.mark.parametrize(("count", "photos"), [(2, 12), (200, 32)])
def test_boxes_are_drawn_with_a_detector(in_tmp_path: Path, count: int, photos: int) -> None:
    """Of twelve photos all are shown; of many eight of each of the four kinds."""
    write_packed(names(count), detector="yolox")
    gallery.main(SETTINGS)
    sheet = picture("boxes")
    assert sheet.shape == sheet_shape(photos, 2, 4, CELL)
    orange = (sheet == COLOUR).all(axis=2).sum()
    with_boxes = photos - (4 if count == 2 else 8)
    assert orange > with_boxes * 2 * 4 * (CELL // 5), "each box has four sides, two pixels thick"


def test_a_detector_that_is_taken_away_takes_its_picture_along(in_tmp_path: Path) -> None:
    Path("metrics/gallery").mkdir(parents=True)
    Path("metrics/gallery/boxes.png").touch()
    write_packed(names(2))
    gallery.main(SETTINGS)
    assert not Path("metrics/gallery/boxes.png").exists()


def test_a_detector_that_found_nothing_shows_whole_photos(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.toys.packed._found", lambda *_: [])
    write_packed(names(2), detector="yolox")
    assert crops.read() == {}
    gallery.main(SETTINGS)
    sheet = picture("boxes")
    assert sheet.shape == sheet_shape(8, 2, 4, CELL) and not (sheet == COLOUR).all(axis=2).any()


def test_equal_results_give_equal_pictures(in_tmp_path: Path) -> None:
    """Law 10."""
    write_packed(names(3), detector="yolox")
    content = []
    for _ in range(2):
        gallery.main(SETTINGS)
        content.append({path.name: path.read_bytes() for path in Path("metrics/gallery").iterdir()})
    assert content[0] == content[1] and len(content[0]) == 4


def objects(shares: Sequence[float], used: bool = True) -> dict[str, MainObject]:
    return {f"{number:02}": MainObject((0, 0, 9, 9), 0.9, "car", share, used) for number, share in enumerate(shares)}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, {"largest": [], "smallest": [], "typical": []}),
        (1, {"largest": ["00"], "smallest": [], "typical": []}),
        (2, {"largest": ["01"], "smallest": ["00"], "typical": []}),
        (4, {"largest": ["03", "02"], "smallest": ["00", "01"], "typical": []}),
        (5, {"largest": ["04", "03"], "smallest": ["00", "01"], "typical": ["02"]}),
        (
            90,
            {
                "largest": [f"{number:02}" for number in range(89, 81, -1)],
                "smallest": [f"{number:02}" for number in range(8)],
                "typical": ["08", "18", "29", "39", "50", "60", "71", "81"],
            },
        ),
    ],
)
def test_no_photo_is_shown_twice(count: int, expected: dict[str, list[str]]) -> None:
    found = objects([number / 100 for number in range(count)])
    chosen = choose(found, [*found, "none", "none"])
    assert chosen == expected | {"without": ["none"]}, "an image_id of equal bytes stands twice in the table"


def test_what_is_evenly_spaced_has_both_ends() -> None:
    assert evenly_spaced(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert evenly_spaced(["a", "b"], 8) == ["a", "b"] and evenly_spaced([]) == []


def test_captions_say_what_was_found_and_whether_it_was_used() -> None:
    box = (0.0, 0.0, 9.0, 9.0)
    assert caption("largest", MainObject(box, 0.871, "car", 0.256, True)) == "largest: 26%, car 0.87"
    assert caption("typical", MainObject(box, 1, None, 0.5, True)) == "typical: 50%, published 1.00"
    assert caption("smallest", MainObject(box, 0.5, "car", 0.01, False)).endswith(", too small to crop to")
    assert caption("without", None) == "without a box"


def test_a_box_is_drawn_where_it_is_in_the_photo() -> None:
    """A photo of 320x160, twice as wide as its cell, stands in the middle of a white square."""
    photo = np.zeros((160, 320, 3), np.uint8)
    shown = with_box(photo, MainObject((80, 40, 240, 120), 0.9, "car", 0.25, True))
    assert shown.shape == (CELL, CELL, 3)
    ys, xs = np.nonzero((shown == COLOUR).all(axis=2))
    for edge, at in ((xs.min(), 40), (xs.max(), 120), (ys.min(), 40 + 20), (ys.max(), 40 + 60)):
        assert abs(edge - at) <= 1
    without = with_box(photo, None)
    assert not without[40:120].any() and (without[:40] == 255).all() and (without[120:] == 255).all()
