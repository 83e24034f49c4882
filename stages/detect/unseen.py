"""Runs a detector only on photos that it has not processed before."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from stages.detect import on_ray
from stages.detect.cache import Cache
from stages.detect.detector import Detector, Photo
from temper import raw
from temper.detections import Boxes
from temper.settings.detect import EngineSettings


def find_boxes(
    images: pa.Table, name: str, make: Callable[[], Detector], engine: EngineSettings
) -> Iterator[tuple[str, Boxes]]:
    """Yields the image_id and the boxes of each image, in order; the detector runs only on photos not in its cache.

    A run that was killed continues where it stopped.

    Args:
        images: rows of images.parquet; equal image_ids are processed once.
        name: the detector's name, which the cache's file has.
        make: creates the detector; with `engine: ray`, each actor calls it too.
    """
    first = _first_of_each(images)
    detector = make()
    with Cache(name, detector.key) as cache:
        known = cache.image_ids()
        new = first.filter(pa.array([image_id not in known for image_id in first["image_id"].to_pylist()], pa.bool_()))
        if len(new):
            if engine.engine == "ray":
                found = on_ray.detect(make, new, engine.actors, engine.gpus)
            else:
                found = detector.detect(_stream(new))
            try:
                for image_id, boxes in tqdm(found, "detect", len(new), unit="image", disable=None):
                    cache.add(image_id, boxes)
            finally:
                detector.close()
        print(f"{name}: {len(new)} images detected now, {len(first) - len(new)} before")
        for image_id in first["image_id"].to_pylist():
            yield image_id, cache.boxes(image_id)


def _first_of_each(images: pa.Table) -> pa.Table:
    """The rows of `images`, in order, without those that repeat an image_id."""
    rows = pa.table({"image_id": images["image_id"], "place": pa.array(range(len(images)), pa.int64())})
    first = rows.group_by("image_id").aggregate([("place", "min")])["place_min"]
    return images.take(first.take(pc.sort_indices(first)))


def _stream(images: pa.Table) -> Iterator[Photo]:
    names = zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True)
    for (image_id, path), data in zip(names, raw.stream_images(images), strict=True):
        yield Photo(image_id, path, data)
