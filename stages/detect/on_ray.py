"""`engine: ray`: runs the same detectors on a Ray cluster, by `ray.data` over blocks of images, a detector per actor.

Every node must see the repository's folder and data/raw under the same paths. RAY_ADDRESS names the cluster; without
it, Ray starts on this machine.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from stages.detect.detector import Detector, Photo
from temper import raw
from temper.base.errors import TemperError
from temper.detections import Boxes

BLOCK = 256  # images per work item; a task that is interrupted reads its item again
BATCH = 32  # photos that an actor gets at a time
ROOT = Path(__file__).parent.parent.parent
NOTHING = Boxes(np.empty((0, 4), np.float32), np.empty(0, np.float32), [])

Row = dict[str, Any]


def detect(make: Callable[[], Detector], images: pa.Table, actors: int, gpus: float) -> Iterator[tuple[str, Boxes]]:
    """Yields the image_id and the boxes of each image, in any order.

    Args:
        make: creates the detector of an actor; called where the actor runs.
        actors: how many actors run at the same time.
        gpus: how many GPUs each actor gets; with a fraction, several actors share one.

    Raises:
        TemperError: Ray is not installed, or an actor failed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise TemperError(
            "detect: engine: ray: expected the package ray, found none; pip install 'ray[data]', or choose local"
        ) from None
    started = not ray.is_initialized()
    if started:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
    try:
        photos = ray.data.from_items(list(blocks(images))).flat_map(read_block)
        found = photos.map_batches(
            Actor, fn_constructor_args=[make], batch_size=BATCH, concurrency=actors, num_cpus=1, num_gpus=gpus
        )
        for row in found.iter_rows():
            yield row["image_id"], unpack(row)
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise TemperError(f"detect: engine: ray: {last}; what was found before is kept: run again to go on") from None
    finally:
        if started:
            ray.shutdown()


def blocks(images: pa.Table) -> Iterator[Row]:
    """Work items: consecutive images, with the absolute path of the raw tables."""
    chosen = images.select(["image_id", "path", "source", "part", "row"])
    for start in range(0, len(chosen), BLOCK):
        yield {"raw": str(Path(raw.FOLDER).absolute()), **chosen.slice(start, BLOCK).to_pydict()}


def read_block(block: Row) -> Iterator[Row]:
    """Reads the photos of a work item from the raw tables."""
    wanted = pa.table({name: block[name] for name in ("source", "part", "row")})
    names = zip(block["image_id"], block["path"], strict=True)
    for (image_id, path), data in zip(names, raw.stream_images(wanted, block["raw"]), strict=True):
        yield {"image_id": image_id, "path": path, "data": data}


class Actor:
    """A detector that runs on one core, or on a share of a GPU."""

    def __init__(self, make: Callable[[], Detector]) -> None:
        cv2.setNumThreads(1)
        self._make = make
        self._detector: Detector | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """The boxes of a batch of photos. Errors for the user come back as text: Ray would hide them in tracebacks."""
        names = zip(batch["image_id"], batch["path"], batch["data"], strict=True)
        rows = []
        try:
            self._detector = self._detector or self._make()
            photos = (Photo(str(image_id), str(path), bytes(data)) for image_id, path, data in names)
            for image_id, boxes in self._detector.detect(photos):
                rows.append(pack(image_id, boxes))
        except TemperError as problem:
            rows.append(pack("", NOTHING) | {"problem": str(problem)})
        return {name: [row[name] for row in rows] for name in ("image_id", "corners", "scores", "classes", "problem")}


def pack(image_id: str, boxes: Boxes) -> Row:
    """Boxes as plain values, because Arrow cannot hold an empty array of arrays."""
    return {
        "image_id": image_id,
        "corners": boxes.corners.tobytes(),
        "scores": boxes.scores.tobytes(),
        "classes": json.dumps(list(boxes.classes)),
        "problem": "",
    }


def unpack(row: Row) -> Boxes:
    """The boxes of a row that `pack` made.

    Raises:
        TemperError: the row has the message of an actor's error, which the user can fix.
    """
    if row["problem"]:
        raise TemperError(row["problem"])
    corners = np.frombuffer(row["corners"], np.float32).reshape(-1, 4)
    return Boxes(corners, np.frombuffer(row["scores"], np.float32), json.loads(row["classes"]))
