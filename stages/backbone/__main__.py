"""backbone: a keras.applications model, a weights file or a published preset -> models/backbone.keras.

Once this stage has run, or its output was pulled, no later stage needs the internet.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before anything heavy is imported

import hashlib
from pathlib import Path

import keras

from stages.backbone import hub
from stages.backbone.architectures import build
from temper import card, keras_files
from temper.base import running
from temper.base.errors import TemperError
from temper.base.paths import existing
from temper.settings.backbone import HUB, Backbone, Settings


def find_weights(settings: Backbone) -> tuple[str | None, str | None]:
    """The argument `weights` for Keras ("imagenet", a path or None), and the checksum if it is a file.

    Raises:
        TemperError: the file is missing or has another checksum than params.yaml says.
    """
    if settings.weights in ("none", "imagenet"):
        return (None if settings.weights == "none" else settings.weights), None
    try:
        path = existing(settings.weights)
    except TemperError as error:
        raise TemperError(f"backbone.weights: {error}") from None
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if settings.sha256 not in (None, received):
        raise TemperError(f"backbone.weights {path}: expected sha256 {settings.sha256}, received {received}")
    return str(path), received


def main(settings: Settings) -> None:
    chosen = settings.backbone
    keras.utils.set_random_seed(settings.seed)
    if chosen.name == HUB:
        model, sha256 = hub.build(settings)
        title = hub.title(chosen)
    else:
        weights, sha256 = find_weights(chosen)
        size, pooling = settings.image_size, chosen.pooling or "avg"
        model = build(chosen.name, chosen.arguments, weights, size, chosen.input_size, pooling)
        title = Path(chosen.weights).name
    origin = card.Backbone(
        name=chosen.name,
        arguments=chosen.arguments,
        weights=title,
        sha256=sha256,
        backend=chosen.backend,
        devices=chosen.devices,
    )
    keras_files.save(model, "models/backbone.keras", origin.as_entry())
    print(f"{chosen.name}: {model.count_params():,} parameters, {model.output_shape[-1]} features")


if __name__ == "__main__":
    running.run(main, Settings)
