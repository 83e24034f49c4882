"""Runs Detectron2 in an environment of its own: files with photos in, files with boxes out.

    .venv-detectron2/bin/python -m stages.detect.detectors.detectron2_worker FOLDER

FOLDER contains `settings.json`. Each `photos-<number>.npz` (encoded photos, uint8 arrays in order) is answered by
`boxes-<number>.npz`. Files get their names only when they are complete. The worker ends when its parent process ends.
The environment has neither pydantic nor pyarrow: import nothing here but OpenCV, NumPy and temper.photos, and import
torch and detectron2 only inside the functions that need them.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from temper import photos

POLL = 0.02  # seconds

Arrays = dict[str, np.ndarray]


def send(folder: Path, kind: str, number: int, arrays: Arrays) -> None:
    """Writes a message; the reader never sees an incomplete one."""
    partial = folder / f".partial-{kind}-{number}.npz"
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.rename(folder / f"{kind}-{number}.npz")


def receive(folder: Path, kind: str, number: int) -> Arrays | None:
    """Reads a message and removes it; `None` if it is not there yet."""
    path = folder / f"{kind}-{number}.npz"
    if not path.exists():
        return None
    with np.load(path) as message:
        arrays = dict(message)
    path.unlink()
    return arrays


def make_predictor(settings: dict[str, Any]) -> Any:
    """Detectron2's own predictor for a config of its model zoo.

    MODEL.WEIGHTS and MODEL.DEVICE are replaced: the config names the weights of the ImageNet backbone alone, and a GPU.
    """
    import torch
    from detectron2 import config, model_zoo
    from detectron2.engine import DefaultPredictor

    name = f"{settings['config']}.yaml"
    try:
        file = model_zoo.get_config_file(name)
    except RuntimeError:
        sys.exit(f"config: expected a name in Detectron2's model zoo, received {settings['config']}")
    chosen = config.get_cfg()
    chosen.merge_from_file(file)
    chosen.MODEL.WEIGHTS = settings["weights"] or model_zoo.get_checkpoint_url(name)
    chosen.MODEL.DEVICE = settings["device"]
    if settings["device"] == "auto":
        chosen.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    chosen.MODEL.ROI_HEADS.SCORE_THRESH_TEST = settings["floor"]
    chosen.MODEL.RETINANET.SCORE_THRESH_TEST = settings["floor"]
    return DefaultPredictor(chosen)


def prepare(predictor: Any, data: np.ndarray) -> dict[str, Any] | str:
    """The input that a model of Detectron2 takes for an encoded photo, or why the photo cannot be decoded."""
    import torch

    try:
        pixels = photos.decode(data.tobytes())
    except photos.BadPhoto as reason:
        return str(reason)
    if predictor.input_format == "BGR":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    height, width = pixels.shape[:2]
    scaled = predictor.aug.get_transform(pixels).apply_image(pixels)
    image = torch.as_tensor(scaled.astype("float32").transpose(2, 0, 1))
    return {"image": image, "height": height, "width": width}


def batches(inputs: list[dict[str, Any]], most: int) -> Iterator[list[int]]:
    """Batches of inputs of equal size, as lists of their positions, at most `most` in each.

    With different sizes, a photo would be padded to the size of the largest one. That changes what the network sees at
    the edge, and thereby its boxes.
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    for place, one in enumerate(inputs):
        height, width = one["image"].shape[1:]
        sizes.setdefault((height, width), []).append(place)
    for places in sizes.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]


def detect(predictor: Any, prepared: list[dict[str, Any] | str], most: int) -> Arrays:
    """The answer to a message: how many boxes each photo has, all boxes, and the photos that cannot be decoded."""
    import torch

    problems = {place: one for place, one in enumerate(prepared) if isinstance(one, str)}
    good = [place for place in range(len(prepared)) if place not in problems]
    inputs = [one for one in prepared if not isinstance(one, str)]
    found: dict[int, Any] = {}
    with torch.no_grad():
        for places in batches(inputs, most):
            for place, output in zip(places, predictor.model([inputs[place] for place in places]), strict=True):
                found[good[place]] = output["instances"].to("cpu")
    results = [found[place] for place in sorted(found)]
    corners = [result.pred_boxes.tensor.numpy().reshape(-1, 4) for result in results]
    return {
        "counts": np.array([len(found.get(place, ())) for place in range(len(prepared))]),
        "corners": np.concatenate([np.empty((0, 4)), *corners]).astype(np.float32),
        "scores": np.concatenate([np.empty(0), *(result.scores.numpy() for result in results)]).astype(np.float32),
        "classes": np.concatenate([np.empty(0), *(result.pred_classes.numpy() for result in results)]).astype(np.int64),
        "names": np.array(predictor.metadata.thing_classes),
        "problems": np.array(json.dumps(problems)),
    }


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    predictor = make_predictor(settings)
    parent = os.getppid()
    coming: list[tuple[int, list[Future[Any]]]] = []
    received = 0
    with ThreadPoolExecutor(settings["threads"]) as pool:
        while os.getppid() == parent:
            message = receive(folder, "photos", received)
            if message is not None:  # decoded by threads while the model processes earlier photos
                coming.append((received, [pool.submit(prepare, predictor, data) for data in message.values()]))
                received += 1
            if coming and (message is None or len(coming) > 1):
                number, futures = coming.pop(0)
                prepared = [future.result() for future in futures]
                send(folder, "boxes", number, detect(predictor, prepared, settings["batch"]))
            elif message is None:
                time.sleep(POLL)
    shutil.rmtree(folder, ignore_errors=True)  # the parent process, which does it otherwise, is gone


if __name__ == "__main__":
    main(Path(sys.argv[1]))
