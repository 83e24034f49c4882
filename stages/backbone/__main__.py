"""backbone: a keras.applications model, or a weights file -> models/backbone.keras.

After this stage has run once, or was pulled, nothing needs the network.
"""

from temper import quiet

if __name__ == "__main__":
    quiet.keep_out_noise()  # before TensorFlow is imported

import hashlib
from pathlib import Path

import keras

from stages.backbone.architectures import build
from temper import keras_files, running
from temper.errors import TemperError
from temper.params import Params


def verify(weights: str, sha256: str) -> None:
    """Compares a weights file with its expected checksum."""
    with Path(weights).open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if received != sha256:
        raise TemperError(f"backbone.weights {weights}: expected sha256 {sha256}, received {received}")


def main(params: Params) -> None:
    settings = params.backbone
    keras.utils.set_random_seed(params.seed)
    weights = None if settings.weights == "none" else settings.weights
    if settings.sha256 and settings.weights not in ("none", "imagenet"):
        verify(settings.weights, settings.sha256)
    model = build(settings.name, settings.arguments, weights, params.image_size, settings.input_size)
    keras_files.save(model, "models/backbone.keras")
    print(f"{settings.name}: {model.count_params():,} parameters, {model.output_shape[-1]} features")


if __name__ == "__main__":
    running.run(main)
