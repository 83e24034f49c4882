"""audit: data/audit and the raw bytes -> metrics/audit/*.png, pairs of images side by side.

There is one sheet each for leaks, conflicts, duplicates and near-duplicates. `normalize` found these pairs by their
hashes alone; a person should judge them.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from temper import raw
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.photos import Pixels, decode, resize
from temper.settings.base import StageSettings
from temper.sheets import CELL, write_sheet

MOST = 60  # how many pairs a sheet shows at most

WANTED = pa.schema([("source", pa.string()), ("part", pa.int32()), ("row", pa.int32())])

Pair = Mapping[str, str]
Place = tuple[str, int, int]  # source, part and row of the raw tables


def most_telling(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs to show: pairs of different classes first, then pairs across splits; within these, by most bits."""
    ranked = sorted(
        enumerate(pairs),
        key=lambda numbered: (
            numbered[1]["class_name"] == numbered[1]["other_class_name"],
            numbered[1]["split"] == numbered[1]["other_split"],
            -int(numbered[1]["bits"]),
            numbered[0],
        ),
    )
    return [pair for _, pair in ranked[:MOST]]


def places(pair: Pair) -> tuple[Place, Place]:
    """Where the bytes of the two images are in the raw tables."""
    return (
        (pair["source"], int(pair["part"]), int(pair["row"])),
        (pair["other_source"], int(pair["other_part"]), int(pair["other_row"])),
    )


def pictures(wanted: set[Place]) -> dict[Place, Pixels]:
    """Thumbnails of these images, by where their bytes are."""
    ordered = sorted(wanted)
    columns = [list(column) for column in zip(*ordered, strict=True)] or [[], [], []]
    rows = pa.table(columns, schema=WANTED)
    shown = tqdm(zip(ordered, raw.stream_images(rows), strict=True), "audit", len(ordered), unit="image", disable=None)
    return {place: resize(decode(image), CELL, CELL, "pad") for place, image in shown}


def caption(pair: Pair) -> str:
    """The caption of a pair: how many bits of the hashes differ, then both classes if they differ, else both splits."""
    key = "class_name" if pair["class_name"] != pair["other_class_name"] else "split"
    return f"{pair['bits']}: {pair[key]} | {pair[f'other_{key}']}"


def main(settings: StageSettings) -> None:
    chosen: dict[str, list[Pair]] = {}
    for name in ("leaks", "conflicts", "duplicates", "near_duplicates"):
        with Path(f"data/audit/{name}.csv").open(encoding="utf-8", newline="") as file:
            chosen[name] = most_telling(list(csv.DictReader(file)))
    shown = pictures({place for pairs in chosen.values() for pair in pairs for place in places(pair)})
    with atomic_folder("metrics/audit") as folder:
        for name, pairs in chosen.items():
            strips = [(caption(pair), [shown[place] for place in places(pair)]) for pair in pairs]
            write_sheet(folder / f"{name}.png", strips, per_strip=2, across=4)
    drawn = [f"{len(pairs)} {name}" for name, pairs in chosen.items() if pairs]
    print(f"pairs side by side in metrics/audit: {', '.join(drawn)}" if drawn else "no pair to look at")


if __name__ == "__main__":
    running.run(main, StageSettings)
