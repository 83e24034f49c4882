"""The table of crops: the main object of each photo that has one, and whether `pack` cropped the photo to it."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from temper import tables
from temper.photos import Box

PATH = "data/packed/crops.parquet"

CROPS = pa.schema(
    [
        ("image_id", pa.string()),
        ("x1", pa.float32()),  # in pixels of the upright image
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("class_name", pa.string()),  # null: the box was published without one
        ("share", pa.float32()),  # the box's share of the photo's area, 0 to 1
        ("used", pa.bool_()),  # false: the box is smaller than pack.box.min_box, so the whole photo was packed
    ]
)


@dataclass(frozen=True)
class MainObject:
    """The main object of a photo."""

    box: Box
    score: float
    class_name: str | None
    share: float  # the box's share of the photo's area, 0 to 1
    used: bool  # whether the photo was cropped to it


def write(path: str | Path, found: dict[str, MainObject]) -> None:
    """Writes the main objects, by image_id."""
    objects = list(found.values())
    columns = {name: [one.box[side] for one in objects] for side, name in enumerate(("x1", "y1", "x2", "y2"))}
    columns |= {name: [getattr(one, name) for one in objects] for name in ("score", "class_name", "share", "used")}
    tables.write(path, CROPS, {"image_id": list(found), **columns})


def read(path: str | Path = PATH) -> dict[str, MainObject]:
    """The main objects that `write` wrote, by image_id."""
    return {
        row["image_id"]: MainObject(
            (row["x1"], row["y1"], row["x2"], row["y2"]), row["score"], row["class_name"], row["share"], row["used"]
        )
        for row in tables.read(path, CROPS).to_pylist()
    }
