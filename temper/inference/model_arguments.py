"""The command-line arguments that choose an app's models, and how these models are opened."""

import argparse
from typing import Any

from temper.base import quiet
from temper.card import Crop
from temper.inference import detector_arguments
from temper.inference.models import Finder, FinderOf, Models

DEFAULT = "models/fine_tune.keras"  # the model that `evaluate` measured; models/export/ may be from an earlier training


def add_to(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Adds --model and the arguments about the detector.

    Args:
        several: whether one --model takes several files; leave it False if the app has positional arguments.
    """
    how: dict[str, Any] = {"action": "extend", "nargs": "+"} if several else {"action": "append"}
    together = "several stand side by side" if several else "given several times, their average"
    what = f"a .keras, .tflite or .onnx file; {together}"
    parser.add_argument("--model", metavar="M", help=f"{what} (default: {DEFAULT})", **how)
    detector_arguments.add_to(parser)


def open_models(chosen: argparse.Namespace, calibrated: bool = False, alone: bool = False) -> Models:
    """Opens the models that the arguments choose; by default, the pipeline's own.

    Args:
        calibrated: as in `Models`.
        alone: whether the process belongs to the app alone, so that it may filter what TensorFlow prints at every
            start.

    Raises:
        TemperError: as in `Models`.
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
