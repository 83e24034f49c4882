"""detect: data/raw and data/images.parquet -> data/boxes.parquet, all objects that the chosen detector found.

Which of them is the main object is decided by who reads the table (temper/boxes.py). An image without a row is used
as a whole; with `detect.detector: none` all are.
"""

import importlib

from temper import boxes, running, tables
from temper.params import Params


def main(params: Params) -> None:
    images = tables.read("data/images.parquet", tables.IMAGES)
    chosen = params.detect.detector
    module = importlib.import_module(f"stages.detect.{chosen}")
    found = module.find_boxes(tables.RAW_FOLDERS, images, getattr(params.detect, chosen))
    with_boxes = boxes.write("data/boxes.parquet", chosen, found)
    print(f"detector {chosen}: boxes in {with_boxes} of {len(images)} images")


if __name__ == "__main__":
    running.run(main)
