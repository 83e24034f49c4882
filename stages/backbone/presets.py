"""Reads the folder of a published network: its architecture, how it normalizes pixels, whether it is supported.

There are three layouts: timm's (`config.json` with `architecture`, and `model.safetensors`), that of Hugging Face's
transformers (`config.json` with `model_type`, and `model.safetensors`), and KerasHub's presets (`config.json` with
`registered_name`, and `model.weights.h5`). Needs neither Keras nor KerasHub.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from temper.base.errors import TemperError

# Each architecture was compared with timm on the same random weights, including BatchNorm statistics, at image sizes
# that no stride divides: the features differ by less than 4e-5 of the largest one (tests/test_hub.py).
TIMM = (
    *("cspdarknet53", "cspresnet50", "cspresnext50", "darknet53"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5"),
    *("efficientnet_lite0", "mobilenetv3_large_100", "mobilenetv3_small_050", "mobilenetv3_small_100"),
    *("resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnetv2_50", "resnetv2_101", "resnetv2_152", "vgg11", "vgg13", "vgg16", "vgg19"),
)
# Architectures that KerasHub 0.32 converts without an error although the features differ: start of name -> how much.
WRONG = {
    "densenet": "6 to 10 % of the largest feature",
    "efficientnet_el": "52 % of the largest feature",
    "efficientnet_em": "48 % of the largest feature",
    "efficientnet_es": "67 % of the largest feature",
    "efficientnetv2_rw": "80 % of the largest feature and more",
}
TRANSFORMERS = ("dinov2", "dinov2_with_registers", "vit")  # compared with Hugging Face's transformers in the same way
_NO_EFFECT = {
    "global_pool",
    "img_size",
    "in_chans",
    "num_classes",
}  # of timm's model_args, on a backbone with 3 channels

Layout = Literal["timm", "transformers", "keras_hub"]


@dataclass(frozen=True)
class Preset:
    """A published network in a folder."""

    folder: Path
    layout: Layout
    architecture: str
    config: Mapping[str, Any]
    weights: Path  # may be missing, if only the layers are needed


def read(folder: Path) -> Preset:
    """Describes the network in a folder by its `config.json`.

    Raises:
        TemperError: there is no such file, or the network is not one of those that KerasHub is known to convert
            correctly.
    """
    config = _json(folder / "config.json")
    if "architecture" in config:
        return Preset(folder, "timm", _timm(folder, config), config, folder / "model.safetensors")
    if "model_type" in config:
        return Preset(folder, "transformers", _transformers(folder, config), config, folder / "model.safetensors")
    if str(config.get("registered_name", "")).startswith("keras_hub>"):
        name = str(config["registered_name"]).removeprefix("keras_hub>")
        return Preset(folder, "keras_hub", name, config, folder / "model.weights.h5")
    raise TemperError(
        f"{folder / 'config.json'}: expected the configuration of timm (architecture), of transformers (model_type) or "
        f"of KerasHub (registered_name), received {', '.join(sorted(config)[:8]) or 'an empty one'}"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TemperError(f"backbone.weights: {path}: expected this file of a preset, found none") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TemperError(f"backbone.weights: {path}: expected JSON, received {error}") from None
    if not isinstance(content, dict):
        raise TemperError(f"backbone.weights: {path}: expected a mapping, received {type(content).__name__}")
    return content


def _timm(folder: Path, config: Mapping[str, Any]) -> str:
    """The architecture of a timm checkpoint, if KerasHub is known to convert it correctly."""
    name = str(config["architecture"])
    wrong = next((how for start, how in WRONG.items() if name.startswith(start)), None)
    if wrong is not None:
        raise TemperError(
            f"{folder}: {name} is refused: KerasHub's differs from timm's, with the same weights, by {wrong}; "
            "choose another network, or one of keras.applications"
        )
    if name not in TIMM:
        raise TemperError(
            f"{folder}: expected an architecture of timm that was compared with it: {', '.join(TIMM)}; received {name}"
        )
    changed = sorted(set(config.get("model_args") or {}) - _NO_EFFECT)
    if changed:
        raise TemperError(
            f"{folder}: expected {name} as timm makes it by default, received one with model_args that KerasHub does "
            f"not know: {', '.join(changed)}; choose another checkpoint"
        )
    return name


def _transformers(folder: Path, config: Mapping[str, Any]) -> str:
    """The `model_type` of a network of transformers, if KerasHub is known to convert it correctly."""
    name = str(config["model_type"])
    if name not in TRANSFORMERS:
        expected = ", ".join(TRANSFORMERS)
        raise TemperError(f"{folder}: expected a model_type that was compared: {expected}; received {name}")
    if config.get("hidden_act", "gelu") != "gelu":
        raise TemperError(f"{folder}: expected hidden_act gelu, as KerasHub computes, received {config['hidden_act']}")
    return name


def normalization(preset: Preset) -> tuple[list[float], list[float]]:
    """The factor and the offset of each channel, (3,) each, for pixels from 0 to 255; for timm and transformers.

    Raises:
        TemperError: the folder does not contain them.
    """
    factor: Any = 1 / 255
    if preset.layout == "timm":
        place = preset.folder / "config.json"
        said = preset.config.get("pretrained_cfg") or {}
        mean, std = said.get("mean"), said.get("std")
    else:
        place = preset.folder / "preprocessor_config.json"
        said = _json(place)
        mean, std = said.get("image_mean"), said.get("image_std")
        if not said.get("do_normalize", True):
            mean, std = [0.0] * 3, [1.0] * 3
        factor = said.get("rescale_factor", factor) if said.get("do_rescale", True) else 1.0
    numbers = [*_three(mean, place), *_three(std, place), *_three([factor] * 3, place)]
    if 0 in numbers[3:]:
        raise TemperError(f"{place}: expected no zero among std and the factor, received {std} and {factor}")
    return [factor / by for by in numbers[3:6]], [-one / by for one, by in zip(numbers[:3], numbers[3:6], strict=True)]


def _three(values: Any, place: Path) -> list[float]:
    if isinstance(values, list) and len(values) == 3 and all(isinstance(one, int | float) for one in values):
        return values
    raise TemperError(
        f"{place}: expected mean and std of three channels, for it says how pixels are fed; received {values}"
    )


def checksum(preset: Preset, expected: str | None) -> str:
    """The SHA-256 of the weights.

    Raises:
        TemperError: the weights are missing, are split into several files, or have another checksum than `expected`.
    """
    path = preset.weights
    if not path.is_file():
        raise TemperError(f"backbone.weights: {path}: expected the weights of {preset.architecture} in this one file")
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if expected not in (None, received):
        raise TemperError(f"backbone.weights {path}: expected sha256 {expected}, received {received}")
    return received
