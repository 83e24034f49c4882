"""The arguments by which an app is told its models, and the models that they mean."""

import argparse
from typing import Any

from temper.base import quiet
from temper.card import Crop
from temper.inference import detector_arguments
from temper.inference.models import Finder, FinderOf, Models

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
    detector_arguments.add_to(parser)


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
        from temper.inference.cropping import MainObjectFinder  # noqa: PLC0415 (only such models need it)

        return MainObjectFinder(path, crop, detector_arguments.choice(chosen))

    return finder_of
