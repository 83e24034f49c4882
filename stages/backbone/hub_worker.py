"""Runs KerasHub in an environment of its own: a published network in, a backbone of Keras's own layers out.

    .venv-hub/bin/python -m stages.backbone.hub_worker FOLDER

FOLDER contains `settings.json`; the worker writes `backbone.keras` and `answer.json` beside it. The environment has
neither pydantic nor pyarrow, so do not import anything here that needs them.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.backbone import presets
from stages.backbone.flattening import CannotFlatten, flatten
from stages.backbone.pooling import pooled, pooled_tokens
from stages.backbone.presets import Preset
from temper.base.errors import TemperError

NEAR = 1e-4  # allowed difference between the flat graph and the original network, relative to the largest feature
FILES = ["*.json", "model.safetensors", "model.weights.h5"]


def obtain(place: str, revision: str | None, with_weights: bool) -> Path:
    """The folder of a preset, which is downloaded by the hubs' own clients into their own caches if it is remote.

    Raises:
        TemperError: it cannot be downloaded.
    """
    try:
        if place.startswith("hf://"):
            from huggingface_hub import snapshot_download

            files = FILES if with_weights else FILES[:1]
            return Path(snapshot_download(place.removeprefix("hf://"), revision=revision, allow_patterns=files))
        if place.startswith("kaggle://"):
            import kagglehub

            return Path(kagglehub.model_download(place.removeprefix("kaggle://")))
    except Exception as error:  # the two clients and their libraries raise many kinds
        said = str(error).strip().splitlines() or [""]
        raise TemperError(
            f"backbone.weights: {place}: expected a download, received {type(error).__name__}: {said[0]}; without "
            "network, download it elsewhere and set backbone.weights to its folder"
        ) from None
    return Path(place)


def load(preset: Preset, height: int, width: int, with_weights: bool) -> Any:
    """KerasHub's network for images of this size.

    Raises:
        TemperError: the network does not take that size, or its files are damaged.
    """
    import keras_hub

    options: dict[str, Any] = {"image_shape": (height, width, 3)}
    own = _fixed_size(preset)
    if own is not None and own != (height, width):
        raise TemperError(
            f"backbone: {preset.folder}: {preset.architecture} takes images of {own[0]}x{own[1]} pixels, received "
            f"{height}x{width}: set backbone.input_size to [{own[0]}, {own[1]}]"
        )
    if preset.architecture == "vit":
        options["layer_norm_epsilon"] = preset.config.get("layer_norm_eps", 1e-12)
    try:
        network = keras_hub.models.Backbone.from_preset(
            str(preset.folder), load_weights=with_weights, dtype="float32", **options
        )
    except Exception as error:  # raised by KerasHub, Keras, safetensors or h5py
        said = str(error).strip().splitlines() or [""]
        raise TemperError(
            f"backbone.weights: {preset.folder}: KerasHub cannot load it: {type(error).__name__}: {said[0]}"
        ) from None
    _interpolate_positions(network)
    return network


def _fixed_size(preset: Preset) -> tuple[int, int] | None:
    """The only height and width that a network accepts, if its table of positions fixes them; None otherwise."""
    if preset.architecture == "vit":
        return (preset.config["image_size"], preset.config["image_size"])
    if preset.architecture in ("ViTBackbone", "DeiTBackbone"):
        height, width, _ = preset.config["config"]["image_shape"]
        return (height, width)
    return None


def _interpolate_positions(network: Any) -> None:
    """Interpolates the positions of DINOv2 to another image size, as PyTorch does without antialiasing.

    The parameter of PyTorch's bicubic kernel is then -0.75; that of Keras is -0.5.
    """
    layer: Any = getattr(network, "embeddings", None)
    if getattr(layer, "antialias_in_interpolation", True):
        return
    rows = np.array(layer.position_embeddings)[0]
    side = round((len(rows) - 1) ** 0.5)
    height, width = (length // layer.patch_size for length in layer.image_shape)
    grid = rows[1:].reshape(side, side, -1)
    grid = np.einsum("hy,wx,yxd->hwd", _bicubic(side, height), _bicubic(side, width), grid)
    table = np.concatenate([rows[:1], grid.reshape(height * width, -1)])
    layer.interpolated_position_embeddings.assign(table[None])


def _bicubic(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) of PyTorch's bicubic interpolation from `before` to `after` numbers (Keys 1981)."""
    matrix = np.zeros((after, before))
    sharpness = -0.75
    for place in range(after):
        source = (place + 0.5) * before / after - 0.5
        for near in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
            far = abs(source - near)
            if far <= 1:
                weight = (sharpness + 2) * far**3 - (sharpness + 3) * far**2 + 1
            else:
                weight = sharpness * (far**3 - 5 * far**2 + 8 * far - 4)
            matrix[place, min(max(near, 0), before - 1)] += weight
    return matrix


def backbone(preset: Preset, settings: dict[str, Any]) -> keras.Model:
    """The whole backbone, of Keras's layers: (n, height, width, 3) pixels, RGB, 0-255 -> (n, features).

    Raises:
        TemperError: it cannot be built, or its output differs from that of the network.
    """
    pixels = keras.Input((*settings["image_size"], 3), name="pixels")
    size = settings["input_size"]
    x = pixels if size is None else keras.layers.Resizing(*size, name="resize")(pixels)
    height, width = size or settings["image_size"]
    network = load(preset, height, width, settings["with_weights"])
    scale, offset = _normalization(preset)
    x = normalized = keras.layers.Rescaling(scale, offset, name="rescale")(x)
    try:
        x = flatten(network, pixels, x)
    except CannotFlatten as error:
        raise TemperError(f"{preset.folder}: {preset.architecture} is refused: {error}") from None
    _compare(keras.Model(pixels, [normalized, x]), network, preset)
    return keras.Model(pixels, _pooled(x, network, preset, settings["pooling"]), name="backbone")


def _normalization(preset: Preset) -> tuple[Any, Any]:
    """The scale and offset for `keras.layers.Rescaling` that the preset prescribes."""
    if preset.layout != "keras_hub":
        return presets.normalization(preset)
    import keras_hub

    try:
        converter = keras_hub.layers.ImageConverter.from_preset(str(preset.folder))
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        raise TemperError(
            f"backbone.weights: {preset.folder}: expected a pixel normalization, received {said[0]}"
        ) from None
    scale = 1.0 if converter.scale is None else converter.scale
    return scale, (0.0 if converter.offset is None else converter.offset)


def _compare(flat: keras.Model, network: Any, preset: Preset) -> None:
    """Raises a TemperError if the flat graph and the original network give different features for an image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, *flat.input_shape[1:])).astype(np.float32)
    normalized, received = flat(pixels, training=False)
    given = dict.fromkeys(network.input, normalized) if isinstance(network.input, dict) else normalized
    expected = np.array(network(given, training=False))
    differs = np.abs(np.array(received) - expected).max() / max(np.abs(expected).max(), 1e-30)
    if not differs < NEAR:  # written this way to refuse NaN too
        raise TemperError(
            f"{preset.folder}: {preset.architecture} is refused: the features of the converted network differ by "
            f"{differs:.1e} of the largest feature, expected less than {NEAR:.0e}"
        )


def _pooled(x: keras.KerasTensor, network: Any, preset: Preset, pooling: str | None) -> keras.KerasTensor:
    if x.ndim == 4:
        if pooling == "class_token":
            raise TemperError(
                f"backbone.pooling: expected avg, max or concat with {preset.architecture}, which has no class token, "
                "received class_token"
            )
        return pooled(x, pooling or "avg")
    if x.ndim != 3:
        raise TemperError(
            f"{preset.folder}: {preset.architecture}: expected a feature map or tokens, received {x.shape}"
        )
    others = int(getattr(network, "use_class_token", True)) + getattr(network, "num_register_tokens", 0)
    return pooled_tokens(x, pooling or ("class_token" if others else "avg"), others)


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    keras.utils.set_random_seed(settings["seed"])
    try:
        preset = presets.read(obtain(settings["place"], settings["revision"], settings["with_weights"]))
        sha256 = presets.checksum(preset, settings["sha256"]) if settings["with_weights"] else None
        backbone(preset, settings).save(folder / "backbone.keras")
    except TemperError as error:
        sys.exit(f"error: {error}")
    answer = {"architecture": preset.architecture, "sha256": sha256}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
