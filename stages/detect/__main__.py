"""detect: data/raw and data/images.parquet -> data/boxes.parquet, all objects that the chosen detector found.

Readers of the table decide which object is the main one (temper/main_object.py). An image without a row is used as a
whole; with `detect.detector: none`, all images are.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

import importlib

from temper import boxes, images
from temper.base import running
from temper.base.loading import PARAMS, validate
from temper.settings.detect import Settings


def main(settings: Settings) -> None:
    table = images.read()
    name = settings.detect["detector"]
    module = importlib.import_module(f"stages.detect.detectors.{name}")
    chosen = validate(module.Settings, settings.detect, PARAMS, "detect.")
    with_boxes = boxes.write(boxes.PATH, name, getattr(chosen, "sha256", None), module.find_boxes(table, chosen))
    print(f"detector {name}: boxes in {with_boxes} of {len(table)} images")


if __name__ == "__main__":
    running.run(main, Settings)
