"""export: every format answers as the classifier does, says how it was fed, and is refused where it does not."""

import importlib.util
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from stages.export import __main__ as stage
from stages.export import exporting, graph
from stages.export.artefact import Artefact, Images, Request
from stages.export.formats import saved_model
from stages.export.gate import Limit, Reference, pass_through
from temper import card, graph_checksums, keras_files
from temper.base.errors import TemperError
from temper.inference.runtimes.opening import open_model
from temper.packs import Pack
from temper.page import assembly, runtime
from temper.settings.check import refuse_missing_exporters
from temper.settings.export import NEEDS, Export, Settings
from tests.toys.classifier import CARD, alive, classifier
from tests.toys.exported import needs_onnx
from tests.toys.packed import write_packed
from tests.toys.workspace import ROOT

SIDE = 32
CLASSES = ["ant", "bee", "cat"]
FILES = {
    "litert": "classifier.tflite",
    "litert_float16": "classifier_float16.tflite",
    "litert_int8": "classifier_int8.tflite",
    "onnx": "classifier.onnx",
    "saved_model": "classifier_saved_model",
}
# A test of several formats has a row without ONNX and one with it, which skips where ONNX is not installed.
ALL, BUT_ONNX = list(FILES), [name for name in FILES if name != "onnx"]
SAME = ["litert", "saved_model"]  # whose predictions are the classifier's, as ONNX's are
MADE = CARD.model_copy(
    update={
        "classes": CLASSES,
        "preparation": card.Preparation(height=SIDE, width=SIDE, fit="stretch", crop=None),
    }
)


def settings(*formats: str, **others: Any) -> Settings:
    return Settings.model_validate({"seed": 0, "export": {"formats": list(formats), **others}})


def save(model: keras.Model, made: card.Card = MADE) -> None:
    """Writes a model as the fine-tune does, with contrast in its answers."""
    alive(model, Pack("data/packed/train").images(np.arange(24)))
    keras_files.save(model, exporting.MODEL, made.as_entry())


def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("metrics/export/metrics.json").read_text(encoding="utf-8"))["export"]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def packed(in_tmp_path: Path) -> Path:
    """A working folder with packed images of three classes: 24 train, 6 validation and 6 test."""
    write_packed(CLASSES, per_class=12, side=SIDE)
    return in_tmp_path


@pytest.mark.filterwarnings("ignore")  # of the converters, about their own age
@pytest.mark.parametrize(
    ("name", "formats"),
    [
        pytest.param("tiny", BUT_ONNX, id="tiny, but ONNX"),
        pytest.param("tiny", ALL, id="tiny", marks=needs_onnx),
        pytest.param("MobileNet", ALL, id="MobileNet", marks=[needs_onnx, pytest.mark.slow]),
    ],
)
def test_every_format_answers_as_the_classifier_and_twice_in_the_same_bytes(
    name: str, formats: list[str], packed: Path
) -> None:
    """Law 10, also in another order, beside other formats, and after whatever else the process has traced."""
    save(classifier(name, SIDE))
    stage.main(settings(*formats, float16_difference=0.05, int8_accuracy_loss=1.0))
    found, first = figures(), contents(packed / "models/export")
    assert (found["split"], found["images"]) == ("test", 6)
    assert {name.split("/")[0] for name in first} == {FILES[name] for name in formats}
    for format_ in formats:
        taken = sum(len(data) for file, data in first.items() if file.split("/")[0] == FILES[format_])
        assert found[format_]["bytes"] == taken
        if not format_.startswith("litert_"):
            assert found[format_]["agreement"] == 1 and found[format_]["largest_difference"] < 1e-4
    assert 1e-4 < found["litert_float16"]["largest_difference"] < found["litert_int8"]["largest_difference"]
    assert found["litert_int8"]["bytes"] < 0.8 * found["litert_float16"]["bytes"] < 0.5 * found["litert"]["bytes"]
    classifier("tiny", 8)
    stage.main(settings(*reversed(formats), float16_difference=0.05, int8_accuracy_loss=1.0))
    assert contents(packed / "models/export") == first
    stage.main(settings("litert"))
    assert contents(packed / "models/export") == {"classifier.tflite": first["classifier.tflite"]}


@pytest.mark.filterwarnings("ignore")
def test_the_card_and_a_checksum_are_inside_each_file(packed: Path) -> None:
    save(classifier("tiny", SIDE))
    stage.main(settings(*BUT_ONNX, int8_accuracy_loss=1.0, float16_difference=1))
    folder = packed / "models/export"
    for name in [name for name in BUT_ONNX if name.startswith("litert")]:
        assert card.read(folder / FILES[name]) == MADE
        data = (folder / FILES[name]).read_bytes()
        assert data[4:8] == b"TFL3" and zipfile.is_zipfile(folder / FILES[name])
        a_changed_weight_is_found(folder / FILES[name], len(data) // 2)
    written = json.loads((folder / FILES["saved_model"] / "assets/card.json").read_text(encoding="utf-8"))
    assert card.Card.model_validate(written) == MADE


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_the_card_and_a_checksum_are_inside_an_onnx_file(packed: Path) -> None:
    import onnx  # noqa: PLC0415

    save(classifier("tiny", SIDE))
    stage.main(settings("onnx"))
    path = packed / "models/export" / FILES["onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.key for entry in model.metadata_props] == [card.NAME, graph_checksums.NAME]
    assert card.Card.model_validate_json(model.metadata_props[0].value) == MADE
    assert [one.name for one in (*model.graph.input, *model.graph.output)] == ["pixels", "probabilities"]
    weights = max((weight.raw_data for weight in model.graph.initializer), key=len)
    a_changed_weight_is_found(path, path.read_bytes().index(weights) + len(weights) // 2)


def a_changed_weight_is_found(path: Path, place: int) -> None:
    """Changes one bit of a copy; the runtime itself would answer, with other probabilities."""
    open_model(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    damaged = path.with_stem("damaged")
    damaged.write_bytes(data)
    with pytest.raises(TemperError, match=f"^{damaged}: expected a model whose first .* the file is damaged"):
        open_model(damaged)


@pytest.mark.slow  # two conversions, and a runtime that is compressed
@pytest.mark.filterwarnings("ignore")
def test_the_page_holds_the_classifier_and_has_equal_bytes_each_time(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 10. What browsers make of it: tests/test_page.py."""
    archives = [ROOT / ".temper/npm" / package.archive for package in runtime.PACKAGES]
    if not all(archive.exists() for archive in archives):
        pytest.skip("LiteRT.js is not here: make page-runtime")
    save(classifier("tiny", SIDE))
    with pytest.raises(TemperError, match="found none; make page-runtime fetches it; nothing was written"):
        stage.main(settings("litert", "page"))
    monkeypatch.setenv("DVC_ROOT", str(ROOT))  # as in a copy of the repository, in which DVC runs experiments
    stage.main(settings("litert", "page"))
    first = contents(packed / "models/export")
    (model,) = assembly.model_files(packed / "models/export/page")
    assert model.read_bytes() == first["classifier.tflite"] and card.read(model) == MADE
    found = figures()["page"]
    assert found["agreement"] == 1 and found["largest_difference"] < 1e-4
    assert found["bytes"] == sum(len(data) for name, data in first.items() if name.startswith("page/"))
    stage.main(settings("page"))
    again = contents(packed / "models/export")
    assert again == {name: data for name, data in first.items() if name.startswith("page/")}


QUICK = [("tiny", {}), ("MobileNet", {"alpha": 0.25})]
BIG = [
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "ResNet50",
    "DenseNet121",
    "ConvNeXtTiny",
]
BACKBONES = [
    *(pytest.param(name, arguments, SAME, id=f"{name}, but ONNX") for name, arguments in QUICK),
    *(pytest.param(name, arguments, ["onnx"], id=f"{name}, ONNX", marks=needs_onnx) for name, arguments in QUICK),
    *(pytest.param(name, {}, [*SAME, "onnx"], id=name, marks=[needs_onnx, pytest.mark.slow]) for name in BIG),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "arguments", "formats"), BACKBONES)
@pytest.mark.parametrize(("input_size", "frozen"), [(None, True), (40, False)], ids=["plain", "resized"])
def test_a_backbone_converts(
    name: str, arguments: dict[str, Any], formats: list[str], input_size: int | None, frozen: bool, packed: Path
) -> None:
    """With dropout in the head, and also with a `Resizing` inside and BatchNorm that trains."""
    model = classifier(name, SIDE, input_size, **arguments)
    for layer in model.get_layer("backbone").layers:
        layer.trainable = not (frozen and isinstance(layer, keras.layers.BatchNormalization))
    save(model)
    stage.main(settings(*formats))
    found = figures()
    reference = model.predict(Pack("data/packed/test").images(np.arange(6)), verbose=0)
    assert np.ptp(reference, axis=0).max() > 0.05, "the answers must differ between images for this to mean anything"
    assert all(found[format_]["largest_difference"] < 1e-4 for format_ in formats)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("formats", [SAME, pytest.param(["onnx"], marks=needs_onnx)], ids=["but ONNX", "ONNX"])
def test_a_grouped_convolution_and_a_gelu_convert(formats: list[str], packed: Path) -> None:
    """What ConvNeXt has: Keras computes the first in a function of its own, and ONNX has no Erfc."""
    pixels = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", groups=8)(keras.layers.Conv2D(8, 4, strides=4)(pixels))
    x = keras.layers.Activation("gelu")(keras.layers.Rescaling(0.02)(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(0.02)(x))
    grouped = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))
    keras_files.save(grouped, exporting.MODEL, MADE.as_entry())
    stage.main(settings(*formats))
    assert all(figures()[format_]["largest_difference"] < 1e-5 for format_ in formats)


def write_in_training_mode(request: Request, path: Path) -> None:
    """A SavedModel as Keras 3.15's own exporter writes it: without `training=False`."""
    shape = (None, *request.classifier.input_shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32, name=graph.PIXELS)]
    module = tf.Module()
    module.held = [variable.value for variable in request.classifier.variables]
    serve = tf.function(lambda pixels: {graph.PROBABILITIES: request.classifier(pixels)}, input_signature=signature)
    tf.saved_model.save(module, str(path), {graph.SIGNATURE: serve})
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets" / card.NAME).write_text(request.card, encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_an_export_in_training_mode_is_refused_and_leaves_what_was_there(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a `Resizing` inside makes of a call without `training=False`: half of the head is dropped."""
    save(classifier("tiny", SIDE, 40))
    stage.main(settings("saved_model"))
    before = contents(packed / "models"), contents(packed / "metrics")
    monkeypatch.setattr(saved_model, "write", write_in_training_mode)
    with pytest.raises(TemperError, match=r"^export: saved_model: expected .* 6 test images: \w+/\d+.png") as refused:
        stage.main(settings("saved_model"))
    assert str(refused.value).endswith("; nothing was written; export.formats: [] exports nothing")
    assert (contents(packed / "models"), contents(packed / "metrics")) == before


@pytest.mark.filterwarnings("ignore")
def test_a_classifier_that_a_format_cannot_hold_ends_in_a_line_that_says_which_can(packed: Path) -> None:
    """LiteRT has no inverse of the error function."""
    inside = classifier("tiny", SIDE)
    odd = keras.Model(inside.input, keras.layers.Softmax()(keras.ops.erfinv(0.9 * inside.output)), name="odd")
    keras_files.save(odd, exporting.MODEL, MADE.as_entry())
    with pytest.raises(
        TemperError, match=r"^export: litert: expected a classifier that this format can express, .*[Ee]rfinv"
    ) as no:
        stage.main(settings("litert", "saved_model"))
    assert str(no.value).endswith("nothing was written; export.formats: [saved_model] is fine")
    assert not (packed / "models/export").exists()


def test_without_test_images_it_says_what_was_compared(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(classifier("tiny", SIDE))
    real = exporting.open_pack

    def open_pack(split: str, made: card.Card) -> Any:
        return real(split, made) if split != "test" else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "open_pack", open_pack)
        stage.main(settings("litert"))
    assert "no test images: exported files are compared on the validation images" in capsys.readouterr().out
    assert figures()["split"] == "validation"


def test_images_of_another_size_are_refused(packed: Path) -> None:
    save(
        classifier("tiny", SIDE),
        MADE.model_copy(update={"preparation": CARD.preparation.model_copy(update={"width": 9})}),
    )
    with pytest.raises(
        TemperError, match=r"^data/packed/test: expected images of \(32, 9, 3\), received \(32, 32, 3\)"
    ):
        stage.main(settings("litert"))


def test_no_formats_export_nothing(in_tmp_path: Path) -> None:
    """Without a model, and so without TensorFlow."""
    stage.main(settings())
    assert contents(in_tmp_path / "models/export") == {} and figures() == {}


def test_calibration_images_are_drawn_by_the_seed(packed: Path) -> None:
    pack = Pack("data/packed/train")
    first = exporting.drawn(pack, 5, 0)
    assert len(first) == 5 and np.array_equal(first, exporting.drawn(pack, 5, 0))
    assert not np.array_equal(first, exporting.drawn(pack, 5, 1))
    assert len(exporting.drawn(pack, 1000, 0)) == len(pack)


def test_the_images_compared_are_spread_over_the_pack(packed: Path) -> None:
    assert exporting.spread(Pack("data/packed/train"), 3)[1] == [0, 11, 23]
    assert exporting.spread(Pack("data/packed/train"), 500)[1] == list(range(24))


# --- The gate alone, on files that are functions

IMAGES = np.zeros((20, 2, 2, 3), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(20)
TABLE = np.random.default_rng(0).dirichlet([1, 1, 1], 20).astype(np.float32)
TABLE[7] = [0.40002, 0.39998, 0.2]
REFERENCE = Reference("test", IMAGES, [f"{row}.jpg" for row in range(20)], TABLE.argmax(axis=1), TABLE, "{}")


def looked_up(images: Images) -> np.ndarray[Any, np.dtype[np.float32]]:
    return TABLE[images[:, 0, 0, 0]]


FAITHFUL = Artefact([(-1, 2, 2, 3)], "{}", True, looked_up)
EXACT, COARSE = Limit(difference=1e-4), Limit(accuracy_loss=0.1, key="export.int8_accuracy_loss")


def moved(*rows: int, by: float) -> Artefact:
    """A file that takes probability from the first class of some images and gives it to the second."""

    def predict(images: Images) -> np.ndarray[Any, np.dtype[np.float32]]:
        there = np.isin(images[:, 0, 0, 0], rows)[:, np.newaxis]
        return looked_up(images) + np.where(there, np.array([-by, by, 0], np.float32), np.float32(0))

    return replace(FAITHFUL, predict=predict)


@pytest.mark.parametrize("limit", [EXACT, COARSE, Limit()])
def test_a_faithful_file_passes(limit: Limit) -> None:
    found = pass_through(FAITHFUL, REFERENCE, limit)
    assert (found.agreement, found.largest_difference, found.accuracy) == (1, 0, 1)


def test_two_classes_that_the_classifier_cannot_tell_apart_may_change_places() -> None:
    found = pass_through(moved(7, by=5e-5), REFERENCE, EXACT)
    assert found.agreement == found.accuracy == 0.95


@pytest.mark.parametrize(
    ("artefact", "limit", "message"),
    [
        (moved(3, by=2e-4), EXACT, "within 0.0001 and .* differ by up to 0.0002 for 1 of 20 test images: 3.jpg$"),
        (moved(*range(5), by=0.3), EXACT, "for 5 of 20 test images: 0.jpg, 1.jpg, 2.jpg and 2 more$"),
        (moved(3, by=np.nan), Limit(difference=1e9), "for 1 of 20 test images: 3.jpg$"),
        (moved(*range(20), by=1.0), COARSE, r"lose at most 0.1 of .* 1.0000 \(export.int8_accuracy_loss\), received 0"),
        (replace(FAITHFUL, inputs=[(-1, 2, 2, 3), (4,)]), EXACT, r"^expected one input, .* received 2: .*, \(4,\)$"),
        (replace(FAITHFUL, inputs=[(-1, 2, 3, 3)]), EXACT, r"^expected one input, of images \(2, 2, 3\), received 1"),
        (replace(FAITHFUL, card="[]"), EXACT, "^expected the classifier's card inside"),
        (replace(FAITHFUL, predict=lambda images: looked_up(images)[:, :2]), EXACT, r"shape \(20, 3\) .* \(20, 2\)"),
        (
            replace(FAITHFUL, predict=lambda images: looked_up(images) + np.float32(0.1 * (len(images) > 1))),
            EXACT,
            "^expected the same answer of an image beside any others, .* by 0.1 for 16 of 20 test images: 15.jpg",
        ),
    ],
)
def test_an_unfaithful_file_is_refused(artefact: Artefact, limit: Limit, message: str) -> None:
    with pytest.raises(TemperError, match=message):
        pass_through(artefact, REFERENCE, limit)


def test_a_file_that_remembers_the_image_before_is_refused() -> None:
    seen = [0]

    def predict(images: Images) -> np.ndarray[Any, np.dtype[np.float32]]:
        before, seen[0] = seen[0], int(images[0, 0, 0, 0])
        return looked_up(images) + np.float32(0.1 * (before > seen[0]))

    with pytest.raises(TemperError, match="beside any others"):
        pass_through(replace(FAITHFUL, predict=predict, any_batch=False), REFERENCE, EXACT)


# --- The settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"formats": ["litert", "litert"]}, "each format once"),
        ({"formats": ["tflite"]}, "Input should be 'litert'"),
        ({"formats": "litert"}, "valid list"),
        (
            {"formats": ["litert"], "calibration_images": 10},
            "export.calibration_images: expected none where .*int8",
        ),
        ({"int8_accuracy_loss": 0.1}, "export.int8_accuracy_loss: expected none"),
        ({"formats": ["litert_int8"], "float16_difference": 0.1}, "has no litert_float16, received 0.1"),
        ({"formats": ["litert_float16"], "float16_difference": 0}, "greater than 0"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Export.model_validate(given)


def test_by_default_one_file_is_exported() -> None:
    assert Export().formats == ["litert"] and set(NEEDS) == {*FILES, "page"}


@pytest.mark.parametrize(
    ("format_", "missing", "command"),
    [
        ("onnx", "tf2onnx", "make onnx"),
        ("litert_int8", "ai_edge_litert", "make"),
        ("litert", "tensorflow", "pip install tensorflow-cpu"),
        ("saved_model", "tensorflow", "pip install tensorflow-cpu"),
    ],
)
def test_what_is_not_installed_is_said_before_any_work(
    format_: str, missing: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    refuse_missing_exporters({"seed": 0, "export": {"formats": []}}, "params.yaml")
    with pytest.raises(TemperError, match=f"expected {missing} to be .* no {format_}, .*; {command} installs it"):
        refuse_missing_exporters({"seed": 0, "export": {"formats": [format_]}}, "params.yaml")
