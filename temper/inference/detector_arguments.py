"""The command-line arguments about the detector, for models that were trained on cropped photos."""

import argparse
import re

from temper.inference.cropping import DetectorChoice


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds --whole, --detector-weights, --detector-input and --detector-classes."""
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


def choice(chosen: argparse.Namespace) -> DetectorChoice:
    """The detector that the arguments choose."""
    given = {"weights": chosen.detector_weights, "input_size": chosen.detector_input}
    given["classes"] = chosen.detector_classes and chosen.detector_classes.split(",")
    return DetectorChoice(**{key: of for key, of in given.items() if of})


def _sides(text: str) -> tuple[int, int]:
    """`416` as (416, 416), `320x416` as (320, 416)."""
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected N or HEIGHTxWIDTH, received {text!r}")
    return int(found[1]), int(found[2] or found[1])
