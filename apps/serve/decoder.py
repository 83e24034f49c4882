"""python -m apps.serve.decoder BYTES: a process that decodes photos, so that no photo can harm the server.

Image decoders are large C libraries, and here they read files from strangers. In a process of its own, a decoder has a
limit of memory (BYTES of address space), it can be killed if it takes too long, and if it crashes, the server goes on.

It reads from standard input, again and again, a line of JSON, {"length": size of the photo in bytes, "wanted": a list
of preparations}, and then the photo. For each photo it writes either a line of JSON, {"length": bytes}, and then the
pixels for each preparation, uint8 (height, width, 3); or, if the photo cannot be decoded, a line {"status",
"sentence"}. It ends when its input ends.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO

import cv2
import numpy as np

from temper.base.errors import TemperError
from temper.photos import BadPhoto, Pixels
from temper.preparation import Preparation, prepare


@dataclass(frozen=True)
class Way(Preparation):
    """How a photo becomes a model's input in the server.

    Attributes:
        finder: describes how to find the main object to crop to, as `models.finder_text` writes it; None: no cropping.
    """

    finder: str | None = None


@cache
def _finder(text: str) -> Any:
    from temper.card import Crop  # noqa: PLC0415 (a tenth of a second, for models that were trained on crops)
    from temper.inference.cropping import DetectorChoice, MainObjectFinder  # noqa: PLC0415

    name, crop, (weights, input_size, classes) = json.loads(text)
    return MainObjectFinder(name, Crop.model_validate(crop), DetectorChoice(weights, tuple(input_size), classes))


def _prepared(data: bytes, way: Way) -> Pixels:
    return prepare(data, way, _finder(way.finder).find(data) if way.finder else None)


def answer(data: bytes, wanted: list[dict[str, Any]]) -> tuple[dict[str, Any], bytes]:
    """The answer for a photo: the contents of the JSON line, and the bytes that follow it."""
    try:
        pixels = b"".join(_prepared(data, Way(**one)).tobytes() for one in wanted)
    except BadPhoto as reason:
        return {"status": 422, "sentence": f"expected a photo, received {reason}"}, b""
    except TemperError:  # the detector worked when the server was started
        return {"status": 500, "sentence": "expected the detector of the model to be here, found it gone"}, b""
    except MemoryError:
        return {"status": 413, "sentence": "expected a photo that can be decoded with the memory at hand"}, b""
    except Exception:  # a library may raise any exception for a damaged photo
        return {"status": 422, "sentence": "expected a photo, received a damaged one"}, b""
    return {"length": len(pixels)}, pixels


def unpacked(pixels: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
    """The inputs of the models, from the bytes after the JSON line."""
    parts = np.split(np.frombuffer(pixels, np.uint8), np.cumsum([one.height * one.width * 3 for one in wanted])[:-1])
    return [part.reshape(one.height, one.width, 3) for part, one in zip(parts, wanted, strict=True)]


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers until the input ends."""
    while line := source.readline():
        asked = json.loads(line)
        data = source.read(asked["length"])
        if len(data) < asked["length"]:  # the server has ended
            return
        said, pixels = answer(data, asked["wanted"])
        sink.write(json.dumps(said).encode() + b"\n" + pixels)
        sink.flush()


def main() -> None:
    """Sets the limits and reserves the standard streams, then answers."""
    for one in (signal.SIGINT, signal.SIGTERM):  # may be sent to the whole process group; this one ends with its input
        signal.signal(one, signal.SIG_IGN)
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    sink = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)  # hides what libraries print about damaged photos
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
