"""export: models/fine_tune.keras, packed images -> models/export/, metrics/export/.

Writes the classifier in each format of `export.formats`. Each file is opened with the runtime that its users have, and
compared with the classifier on test images. If a file gives different answers, the stage fails and writes nothing.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before anything heavy is imported

import logging
import os

from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.texts import write_json
from temper.settings.export import Settings


def use_tensorflow() -> None:
    """Makes Keras run on TensorFlow, to which the converters belong, and on the CPU. Call before Keras is imported.

    Any backend can load a model's file. On a GPU, the reference probabilities would be rounded to TF32.
    """
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # hides warnings about its own deprecated functions


def main(settings: Settings) -> None:
    with atomic_folder("models/export") as folder:
        figures = {}
        if settings.export.formats:
            from stages.export.exporting import export  # noqa: PLC0415 (TensorFlow is not everywhere: JAX)

            figures = export(settings, folder)
        else:
            print("export.formats is empty: nothing is exported")
    with atomic_folder("metrics/export") as folder:
        write_json(folder / "metrics.json", {"export": figures})


if __name__ == "__main__":
    use_tensorflow()
    running.run(main, Settings)
