"""The backbones: all of keras.applications, raw pixels in (law 3), and what cannot be is refused."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from stages.backbone import published_weights
from stages.backbone.architectures import build, known
from temper import keras_files
from temper.base.errors import TemperError
from temper.settings.backbone import HUB, BackboneName
from tests.toys.classifier import CARD, PIXELS


def test_every_model_of_keras_applications_is_known_to_the_schema() -> None:
    assert sorted(get_args(BackboneName)) == sorted([*known(), HUB])
    assert {"tiny", "EfficientNetB0", "MobileNetV3Small", "ResNet50", "ConvNeXtTiny", "Xception"} <= set(known())


@pytest.mark.parametrize(
    "name",
    [
        "ResNet50",
        "MobileNetV2",
        "VGG16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ResNet50V2", "DenseNet121", "EfficientNetB0")),
    ],
)
def test_preprocessing_is_inside_the_backbone(name: str) -> None:
    """Law 3: raw pixels in. Equal to the published model behind its published preprocessing (three kinds and none)."""
    keras.utils.set_random_seed(0)
    ours = build(name, {}, None, (32, 32), None)
    theirs = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    theirs.set_weights(ours.get_weights())
    expected = theirs.predict(known()[name].preprocess_input(PIXELS.astype(np.float32)), verbose=0)  # type: ignore[union-attr]
    assert ours.predict(PIXELS, verbose=0) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_small_image_is_resized_inside_the_backbone() -> None:
    backbone = build("MobileNet", {"alpha": 0.25}, None, (32, 32), (96, 96))
    assert backbone.input_shape == (None, 32, 32, 3)
    assert backbone.get_layer("conv1").output.shape[1:3] == (48, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Xception", {}, None, (32, 32), None), r"must be at least 71x71.*backbone.input_size enlarges"),
        (("MobileNet", {"alpha": 0.3, "beta": 1}, None, (32, 32), None), r"expected only alpha.*, received beta"),
        (("MobileNet", {}, "/no/such.h5", (32, 32), None), r"\(weights /no/such.h5.*expected the path of this"),
        (("tiny", {}, "imagenet", (32, 32), None), r"weights: none with tiny"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TemperError, match=message):
        build(*arguments)


def test_real_weights_fit(shared: Path) -> None:
    weights = str(shared / "weights/mobilenet_2_5_224_tf_no_top.h5")
    backbone = build("MobileNet", {"alpha": 0.25}, weights, (96, 96), None)
    with pytest.raises(TemperError, match="backbone MobileNet"):
        build("MobileNet", {"alpha": 0.5}, weights, (96, 96), None)
    assert backbone.output_shape == (None, 256)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in known() if not name.endswith(("Large", "XLarge", "B7", "B6"))])
def test_every_backbone_is_built_saved_and_loaded(tmp_path: Path, name: str) -> None:
    """The biggest ones of each family differ in nothing but their sizes."""
    backbone = (
        build(name, {}, None, (96, 96), None) if "NASNet" not in name else build(name, {}, None, (224, 224), None)
    )
    keras_files.save(backbone, tmp_path / "backbone.keras", CARD.backbone.as_entry())
    again = keras_files.load(tmp_path / "backbone.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (1, *backbone.input_shape[1:])).astype(np.float32)
    assert np.array_equal(backbone(pixels), again(pixels))


MOBILE_NET = ("MobileNet", {"alpha": 0.25}, "imagenet", (224, 224), None)
FILE = "mobilenet_2_5_224_tf_no_top.h5"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A site with weights of a small MobileNet, and an empty cache of Keras, which is returned."""
    (site := tmp_path / "site").mkdir()
    model = build(*MOBILE_NET[:2], None, *MOBILE_NET[3:])
    with h5py.File(site / FILE, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True).start()
        monkeypatch.setattr(
            keras.src.applications.mobilenet, "BASE_WEIGHT_PATH", f"http://127.0.0.1:{server.server_port}/"
        )
        monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path / "keras"))
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        (tmp_path / "keras/models").mkdir(parents=True)
        yield tmp_path / "keras/models"
        server.shutdown()


@pytest.mark.parametrize("kind", ["cut", "page", "empty", "folder"])
def test_damaged_weights_in_keras_cache_are_put_aside_and_downloaded_again(published: Path, kind: str) -> None:
    build(*MOBILE_NET)
    content = (published / FILE).read_bytes()
    if kind == "folder":
        (published / FILE).unlink()
        (published / FILE).mkdir()
    else:
        (published / FILE).write_bytes({"cut": content[:-4096], "page": b"<html>", "empty": b""}[kind])
    build(*MOBILE_NET)
    assert (published / FILE).read_bytes() == content and (published / f"{FILE}.damaged").exists()


@pytest.mark.usefixtures("published")
def test_weights_that_do_not_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_weights, "_SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(keras.src.applications.mobilenet, "BASE_WEIGHT_PATH", address)
        begun = time.monotonic()
        with pytest.raises(TemperError, match="timed out; without network, fetch the file elsewhere"):
            build(*MOBILE_NET)
    assert time.monotonic() - begun < 10 and socket.getdefaulttimeout() is None


@pytest.mark.parametrize(("name", "arguments"), [("tiny", {}), ("MobileNet", {"alpha": 0.25})])
def test_pooling_is_the_average_the_maximum_or_both(name: str, arguments: dict[str, Any]) -> None:
    """Of the same features: `concat` has the averages, then the maxima."""
    keras.utils.set_random_seed(0)
    both = build(name, arguments, None, (32, 32), None, "concat")
    found = both.predict(PIXELS, verbose=0)
    features = both.layers[-4].output.shape[-1]
    assert found.shape == (len(PIXELS), 2 * features)
    for pooling, expected in (("avg", found[:, :features]), ("max", found[:, features:])):
        one = build(name, arguments, None, (32, 32), None, pooling)  # type: ignore[arg-type]
        one.set_weights(both.get_weights())
        assert np.array_equal(one.predict(PIXELS, verbose=0), expected)
    assert (found[:, features:] >= found[:, :features]).all()
