"""Prints the layers of the backbone in params.yaml as JSON, a pair (name, has weights) for each.

    python -m stages.backbone.layers [PARAMS.yaml]

It builds the backbone without its weights. `temper/settings/check.py` runs it, so that a backbone that cannot be built,
or an `unfreeze_from` that names no layer of it, stops a run before any photo is fetched.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before Keras is imported

import json
import sys

from stages.backbone import hub
from stages.backbone.architectures import build
from temper.base import loading
from temper.base.errors import TemperError
from temper.settings.backbone import HUB, Settings


def main() -> None:
    try:
        settings = loading.load(Settings, *sys.argv[1:])
        chosen, size = settings.backbone, settings.image_size
        if chosen.name == HUB:
            model, _ = hub.build(settings, with_weights=False)
        else:
            model = build(chosen.name, chosen.arguments, None, size, chosen.input_size, chosen.pooling or "avg")
    except TemperError as error:
        sys.exit(f"error: {error}")
    print(json.dumps([(layer.name, bool(layer.weights)) for layer in model.layers]))


if __name__ == "__main__":
    main()
