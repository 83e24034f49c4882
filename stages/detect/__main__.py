"""detect: data/raw and data/images.parquet -> data/boxes.parquet, where the main object of each image is.

With `detect.detector: none` the table is empty, which means that the whole of every image is used.
"""

from temper import running, tables
from temper.params import Params


def main(params: Params) -> None:
    tables.write("data/boxes.parquet", tables.BOXES, {name: [] for name in tables.BOXES.names})
    print(f"detector {params.detect.detector}: the whole of every image is used")


if __name__ == "__main__":
    running.run(main)
