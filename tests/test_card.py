"""The card: what travels with a model, in its own file, and is read without Keras (law 3)."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from temper import card, keras_files
from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.card import Backbone, Card, Crop, Preparation
from temper.measures.calibration import scale
from temper.predictor import Predictor
from tests.toys.classifier import CARD, PIXELS, classifier
from tests.toys.workspace import ROOT

WHOLE_PHOTO = CARD.model_copy(update={"preparation": Preparation(height=32, width=48, fit="stretch", crop=None)})


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return classifier("tiny")


@pytest.fixture(scope="module")
def saved(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its card; leave it as it is."""
    path = tmp_path_factory.mktemp("card") / "model.keras"
    keras_files.save(model, path, CARD.as_entry())
    return path


@pytest.mark.parametrize("written", [CARD, WHOLE_PHOTO], ids=["cropped", "whole photo"])
def test_a_card_reads_back_from_the_models_file(tmp_path: Path, model: keras.Model, written: Card) -> None:
    keras_files.save(model, tmp_path / "model.keras", written.as_entry())
    assert card.read(tmp_path / "model.keras") == written


def test_a_backbones_file_says_where_it_comes_from(tmp_path: Path, model: keras.Model) -> None:
    keras_files.save(model, tmp_path / "backbone.keras", CARD.backbone.as_entry())
    assert card.read_backbone(tmp_path / "backbone.keras") == CARD.backbone


@pytest.mark.parametrize(("weights", "pretrained"), [("none", False), ("imagenet", True), ("mobilenet.h5", True)])
def test_a_backbone_of_published_weights_is_pretrained(weights: str, pretrained: bool) -> None:
    """Law 4 hangs on it: the BatchNorm statistics of such a backbone are kept."""
    assert Backbone(name="MobileNet", arguments={}, weights=weights, sha256=None).pretrained is pretrained


def test_keras_loads_a_file_with_a_card_inside(saved: Path, model: keras.Model) -> None:
    loaded = keras.saving.load_model(saved)
    assert np.array_equal(loaded.predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0))


def test_equal_cards_give_equal_bytes_and_others_do_not(tmp_path: Path, model: keras.Model, saved: Path) -> None:
    """Law 10. The order of a mapping is no content: params.yaml may write `arguments` and `box` in any."""
    arguments = {"alpha": 0.25, "depth_multiplier": 1}
    swapped = dict(reversed(arguments.items()))
    for name, written in (
        ("first", CARD.model_copy(update={"backbone": CARD.backbone.model_copy(update={"arguments": arguments})})),
        ("swapped", CARD.model_copy(update={"backbone": CARD.backbone.model_copy(update={"arguments": swapped})})),
        ("same", Card.model_validate_json(CARD.model_dump_json())),
        ("other", WHOLE_PHOTO),
    ):
        keras_files.save(model, tmp_path / f"{name}.keras", written.as_entry())
    content = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert content["first"] == content["swapped"]
    assert content["same"] == saved.read_bytes() != content["other"]


def missing(path: Path, saved: Path) -> None:
    """No file at all."""


def no_zip(path: Path, saved: Path) -> None:
    path.write_bytes(b"no model")


def cut_off(path: Path, saved: Path) -> None:
    path.write_bytes(saved.read_bytes()[:-100])


def folder(path: Path, saved: Path) -> None:
    path.mkdir()


def without_card(path: Path, saved: Path) -> None:
    """As Keras itself writes it."""
    keras.saving.load_model(saved).save(path)


def with_another_card(path: Path, saved: Path) -> None:
    """As models/backbone.keras has it."""
    keras_files.save(keras_files.load(saved), path, CARD.backbone.as_entry())


def with_a_card_that_is_no_json(path: Path, saved: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(card.NAME, b"\xff{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "no such file; run dvc repro, or dvc pull"),
        (no_zip, "expected a model of this pipeline with its card inside, received BadZipFile"),
        (cut_off, "expected a model of this pipeline with its card inside, received BadZipFile"),
        (folder, "expected a model of this pipeline with its card inside, received IsADirectoryError"),
        (without_card, "expected a model of this pipeline with its card inside, received KeyError.*card.json"),
        (with_another_card, "expected the card of a classifier inside, received another one: classes: Field required"),
        (with_a_card_that_is_no_json, "expected a model of this pipeline with its card inside, received Unicode"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_without_a_card_ends_in_one_line(
    tmp_path: Path, saved: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    path = tmp_path / "model.keras"
    damage(path, saved)
    with pytest.raises(TemperError, match=f"^{path}: {message}") as refused:
        card.read(path)
    assert "\n" not in str(refused.value)


def test_what_pack_wrote_is_read_back_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "preparation.json"
    with pytest.raises(
        TemperError,
        match=r"preparation.json: expected a description of how the photos were packed, .*run dvc repro pack$",
    ):
        card.read_preparation(path)
    for made in (CARD.preparation, WHOLE_PHOTO.preparation):
        write_json(path, made.model_dump(mode="json"))
        assert card.read_preparation(path) == made
    path.write_text('{"height": 32}', encoding="utf-8")
    with pytest.raises(
        TemperError, match=r"expected a description of how the photos were packed, .*run dvc repro pack$"
    ) as refused:
        card.read_preparation(path)
    assert "\n" not in str(refused.value)


def test_a_key_that_the_card_does_not_know_is_no_card() -> None:
    """A model of a later version may be fed in a way that this one cannot: it is refused, not fed wrong."""
    for part in (CARD, CARD.preparation, CARD.backbone, Crop(detector="yolox", sha256=None, margin=0.1, box={})):
        with pytest.raises(ValueError, match="extra_forbidden"):
            type(part).model_validate(part.model_dump() | {"rotated": True})


def test_reading_a_card_imports_no_keras(saved: Path) -> None:
    """`predict` and `serve` on an exported model start in milliseconds, without TensorFlow."""
    code = (
        "import sys; from temper import card; made = card.read(sys.argv[1]); print(made.classes); "
        "print(sorted({'keras', 'tensorflow', 'torch', 'jax', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stdout.splitlines() == [str(CARD.classes), "[]"]


def test_a_predictor_scales_by_the_temperature_of_the_card_when_asked(tmp_path: Path, model: keras.Model) -> None:
    path = tmp_path / "model.keras"
    keras_files.save(model, path, CARD.model_copy(update={"temperature": 2.5}).as_entry())
    predictor = Predictor(path)
    plain, calibrated = (predictor.probabilities([*PIXELS], calibrated=asked) for asked in (False, True))
    np.testing.assert_array_equal(calibrated, scale(plain, 2.5))
    assert (plain != calibrated).any() and calibrated.dtype == np.float32
