"""Models of every format through one signature: the same card, and the same probabilities."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from temper.base.errors import TemperError
from temper.inference.runtimes import keras_model, on_threads
from temper.inference.runtimes.litert import dequantized, quantized
from temper.inference.runtimes.opening import FORMATS, open_model
from temper.predictor import Predictor
from tests.toys.classifier import PIXELS
from tests.toys.exported import WHOLE, needs_onnx, set_card, write_exported


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier in every format; leave them as they are."""
    return write_exported(tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_has_its_card_and_says_the_same(exported: dict[str, Path], ending: str) -> None:
    model, reference = open_model(exported[ending]), open_model(exported[".keras"])
    assert model.card == reference.card == WHOLE
    found, expected = model.probabilities([*PIXELS]), reference.probabilities([*PIXELS])
    assert found.dtype == np.float32 and found.shape == (8, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3, "photos differ"


@pytest.mark.parametrize("ending", [".tflite", ".onnx"])
@pytest.mark.parametrize("cores", [1, 3])
def test_an_answer_does_not_depend_on_the_photos_beside_it(
    exported: dict[str, Path], ending: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_threads, "cores", lambda: cores)
    model = open_model(exported[ending])
    together = model.probabilities([*PIXELS])
    assert np.array_equal(np.concatenate([model.probabilities([photo]) for photo in PIXELS]), together)


@pytest.mark.parametrize("ending", FORMATS)
def test_the_predictor_takes_every_format(exported: dict[str, Path], ending: str) -> None:
    predictor = Predictor(exported[ending])
    assert predictor.card.classes == WHOLE.classes
    assert np.allclose(predictor.probabilities([*PIXELS]).sum(axis=1), 1, atol=1e-5)


def test_many_photos_are_shown_to_keras_in_batches(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory stays bounded; the last batch is smaller."""
    predictor = Predictor(exported[".keras"])
    whole = predictor.probabilities([*PIXELS])
    monkeypatch.setattr(keras_model, "BATCH", 3)
    np.testing.assert_allclose(predictor.probabilities([*PIXELS]), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "quantization", "stored"),
    [
        (np.float32, (0.0, 0), [0, 100, 255]),
        (np.uint8, (0.0, 0), [0, 100, 255]),
        (np.uint8, (1.0, 0), [0, 100, 255]),
        (np.int8, (1.0, -128), [-128, -28, 127]),
        (np.int8, (0.5, 0), [0, 127, 127]),  # what does not fit is cut
    ],
)
def test_photos_are_stored_as_a_model_wants_them(
    kind: type, quantization: tuple[float, int], stored: list[int]
) -> None:
    found = quantized(np.array([0, 100, 255], np.uint8), {"dtype": kind, "quantization": quantization})
    assert found.dtype == kind and found.tolist() == stored


def test_stored_probabilities_are_read_back() -> None:
    values = dequantized(np.array([-128, 0, 127], np.int8), {"quantization": (1 / 256, -128)})
    assert values.dtype == np.float32 and values.tolist() == [0, 0.5, 255 / 256]
    assert dequantized(np.array([0.25], np.float32), {"quantization": (0.0, 0)}).tolist() == [0.25]


def missing(path: Path, exported: dict[str, Path]) -> None:
    """No file at all."""


def of_another_size(path: Path, exported: dict[str, Path]) -> None:
    shutil.copy(exported[path.suffix], path)
    set_card(
        path, WHOLE.model_copy(update={"preparation": WHOLE.preparation.model_copy(update={"height": 48, "width": 64})})
    )


def without_a_card(path: Path, exported: dict[str, Path]) -> None:
    content = exported[path.suffix].read_bytes()
    if path.suffix == ".tflite":
        with zipfile.ZipFile(exported[path.suffix]) as behind:
            content = content[: behind.infolist()[0].header_offset]
    else:
        content = content.replace(b"card.json", b"lost.json")
    path.write_bytes(content)


def a_zip_with_a_card_and_no_model(path: Path, exported: dict[str, Path]) -> None:
    with zipfile.ZipFile(path, "w") as file, zipfile.ZipFile(exported[".tflite"]) as other:
        file.writestr("card.json", other.read("card.json"))


def with_a_damaged_checksum(path: Path, exported: dict[str, Path]) -> None:
    shutil.copy(exported[path.suffix], path)
    with zipfile.ZipFile(path, "a") as behind:
        behind.writestr("graph.sha256", "12 of no model")
    path.write_bytes(path.read_bytes().replace(b"12 of no model", b"12 of no modem"))


def text(path: Path, exported: dict[str, Path]) -> None:
    path.write_text("no model", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("m.tflite", missing, "no such file; run dvc repro, or dvc pull"),
        ("m.onnx", missing, "no such file"),
        ("m.keras", missing, "no such file"),
        ("m.h5", text, r"expected a model whose name ends in .keras, .tflite, .onnx"),
        ("m.tflite", text, "expected a model of this pipeline with its card inside"),
        ("m.tflite", without_a_card, "expected a model of this pipeline with its card inside"),
        ("m.tflite", a_zip_with_a_card_and_no_model, "expected a model that LiteRT runs"),
        ("m.tflite", of_another_size, r"expected a model for photos of \(48, 64, 3\).*received one for \(32, 32, 3\)"),
        ("m.tflite", with_a_damaged_checksum, "expected a checksum of the model behind it, received Bad CRC-32"),
        pytest.param(
            "m.onnx",
            text,
            "expected a model that ONNX Runtime runs",
            marks=needs_onnx,
        ),
        ("m.onnx", without_a_card, "expected a model of this pipeline with its card among the metadata"),
        ("m.onnx", of_another_size, r"expected a model for photos of \(48, 64, 3\).*received one for \(32, 32, 3\)"),
    ],
)
def test_what_is_no_model_ends_in_one_line(
    tmp_path: Path,
    exported: dict[str, Path],
    name: str,
    damage: Callable[[Path, dict[str, Path]], None],
    message: str,
) -> None:
    damage(tmp_path / name, exported)
    with pytest.raises(TemperError, match=f"^{tmp_path / name}: {message}") as refused:
        open_model(tmp_path / name)
    assert "\n" not in str(refused.value)
