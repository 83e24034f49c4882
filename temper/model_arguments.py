"""The arguments by which an app is told its models, and the models that they mean."""

import argparse
import re
from typing import Any

from temper.base import quiet
from temper.card import Crop
from temper.inference import Finder, FinderOf, Models

DEFAULT = "models/fine_tune.keras"  # what `evaluate` measured; models/export/ may be of an earlier training


def add_to(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Adds --model and what goes with it.

    Args:
        several: whether one --model takes several files; not where other arguments without a name follow.
    """
    how: dict[str, Any] = {"action": "extend", "nargs": "+"} if several else {"action": "append"}
    together = "several stand side by side" if several else "given several times, their average"
    what = f"a .keras, .tflite or .onnx file; {together}"
    parser.add_argument("--model", metavar="M", help=f"{what} (default: {DEFAULT})", **how)
    group = parser.add_argument_group("models trained on photos cropped to their main object")
    group.add_argument("--whole", action="store_true", help="show them whole photos all the same")
    group.add_argument(
        "--detector-weights",
        metavar="FILE",
        help="the ONNX file of the detector yolox, if it is not where the pipeline downloaded it",
    )
    group.add_argument(
        "--detector-input",
        metavar="N",
        type=_sides,
        help="the pixels that it takes: N or HEIGHTxWIDTH (default: 416)",
    )
    group.add_argument(
        "--detector-classes", metavar="A,B,...", help="the names of its classes, in order (default: those of COCO)"
    )


def open_models(chosen: argparse.Namespace, calibrated: bool = False, alone: bool = False) -> Models:
    """The models that the arguments mean; without any, the pipeline's own.

    Args:
        calibrated: as `Models`.
        alone: whether the process is the app's own, so that what TensorFlow prints at every start may be kept off it.

    Raises:
        TemperError: as `Models`.
    """
    paths = chosen.model or [DEFAULT]
    if alone and any(path.lower().endswith(".keras") for path in paths):
        quiet.keep_out_noise()
    return Models(paths, None if chosen.whole else _finder_of(chosen), calibrated)


def _finder_of(chosen: argparse.Namespace) -> FinderOf:
    def finder_of(path: str, crop: Crop) -> Finder:
        from temper.cropping import DetectorChoice, MainObjectFinder  # noqa: PLC0415 (only such models need them)

        given = {"weights": chosen.detector_weights, "input_size": chosen.detector_input}
        given["classes"] = chosen.detector_classes and chosen.detector_classes.split(",")
        return MainObjectFinder(path, crop, DetectorChoice(**{key: of for key, of in given.items() if of}))

    return finder_of


def _sides(text: str) -> tuple[int, int]:
    """`416` as (416, 416), `320x416` as (320, 416)."""
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected N or HEIGHTxWIDTH, received {text!r}")
    return int(found[1]), int(found[2] or found[1])
