"""`backbone.name: hub`: a network published by timm, Hugging Face or KerasHub, as a model of Keras's own layers.

KerasHub is not installed in this environment, whose packages it would change. A worker in an environment of its own
converts the network (hub_worker.py) and returns a file that can be loaded without KerasHub.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.backbone import hub_worker
from temper import keras_files
from temper.base.errors import TemperError
from temper.base.paths import existing, repository, scratch
from temper.settings.backbone import Backbone, Settings

ROOT = Path(__file__).parent.parent.parent
REMOTE = ("hf://", "kaggle://")


def build(settings: Settings, with_weights: bool = True) -> tuple[keras.Model, str | None]:
    """A backbone, (n, height, width, 3) pixels, RGB, 0-255 -> (n, features), and the SHA-256 of its weights.

    Args:
        with_weights: if False, the weights are random, are not downloaded, and the checksum is None.

    Raises:
        TemperError: the environment or the network is missing, or the network is not supported.
    """
    chosen = settings.backbone
    with tempfile.TemporaryDirectory(dir=scratch("messages").resolve(), prefix="hub-") as name:
        folder = Path(name)
        values = settings.model_dump(include={"seed", "image_size"})
        values |= chosen.model_dump(include={"revision", "sha256", "pooling", "input_size"})
        values |= {"place": place_of(chosen), "with_weights": with_weights}
        (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
        _convert(chosen, folder)
        model = keras_files.load(folder / "backbone.keras")
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    _require_a_backbone(model, chosen.weights, settings.image_size)
    return model, answer["sha256"]


def place_of(chosen: Backbone) -> str:
    """Where the network is: an address on a hub, or a folder on this machine.

    Raises:
        TemperError: the folder does not exist.
    """
    if chosen.weights.startswith(REMOTE):
        return chosen.weights
    try:
        return str(existing(chosen.weights).resolve())
    except TemperError as error:
        raise TemperError(f"backbone.weights: {error}") from None


def title(chosen: Backbone) -> str:
    """The origin of the weights for the card: an address, or the name of a folder without its path on this machine."""
    if not chosen.weights.startswith(REMOTE):
        return Path(chosen.weights).resolve().name
    return chosen.weights + (f"@{chosen.revision}" if chosen.revision else "")


def _convert(chosen: Backbone, folder: Path) -> None:
    """Runs the worker, which reads settings.json in the folder and writes backbone.keras and answer.json."""
    python = (repository() / chosen.environment / "bin/python").absolute()
    # The worker may use any backend, because the file that it writes works with all of them.
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [str(python), "-m", hub_worker.__name__, str(folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    except OSError:
        raise _no_environment(chosen) from None
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines() or ["nothing"]
    said = next((line for line in lines if line.startswith("error: ")), None)
    if said is not None:
        raise TemperError(said.removeprefix("error: "))
    if "ModuleNotFoundError" in lines[-1]:
        raise _no_environment(chosen)
    how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with code {done.returncode}"
    raise TemperError(f"backbone: {chosen.weights}: its conversion {how}, saying: {lines[-1]}")


def _no_environment(chosen: Backbone) -> TemperError:
    made = "make hub makes it" if chosen.environment == ".venv-hub" else "install requirements-hub.lock into it"
    return TemperError(
        f"backbone.environment: expected an environment with KerasHub in {chosen.environment}, found none; {made}"
    )


def _require_a_backbone(model: Any, place: str, image_size: tuple[int, int]) -> None:
    """Raises a TemperError if a model does not take raw pixels of this size, or its features are not finite."""
    if model.input_shape != (None, *image_size, 3) or len(model.output_shape) != 2:
        raise TemperError(
            f"backbone: {place}: expected {(None, *image_size, 3)} -> (n, features), received "
            f"{model.input_shape} -> {model.output_shape}"
        )
    noise = np.random.default_rng(0).integers(0, 256, (1, *image_size, 3)).astype(np.float32)
    for pixels in (np.zeros_like(noise), noise):
        if not np.isfinite(keras.ops.convert_to_numpy(model(pixels, training=False))).all():
            raise TemperError(
                f"backbone: {place}: expected finite features of any image, received others; its weights "
                "are damaged or too large"
            )
