"""data/filters.npz: kernels and activations of chosen layers of the backbone, for `overview` to draw."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError

PATH = Path("data/filters.npz")


@dataclass(frozen=True)
class Filters:
    """The kernels and activations of the layers in the setting `evaluate.filters`.

    Attributes:
        kernels: for each layer that sees colours, its kernels: float32 (height, width, 3, filters).
        maps: for each other layer, its strongest channels on some test images: float16 (images, height, width,
            channels).
        channels: the numbers of these channels, by layer.
        rows: the rows of these images in the pack of the test images.
    """

    kernels: dict[str, npt.NDArray[np.float32]]
    maps: dict[str, npt.NDArray[np.float16]]
    channels: dict[str, npt.NDArray[np.int64]]
    rows: npt.NDArray[np.int64]


def write(found: Filters) -> None:
    """Writes data/filters.npz; equal filters give equal bytes."""
    parts = ("kernels", "maps", "channels")
    arrays = {f"{part}/{name}": array for part in parts for name, array in getattr(found, part).items()}
    with atomic_file(PATH) as partial, partial.open("wb") as file:
        np.savez(file, rows=found.rows, **arrays)


def read() -> Filters:
    """Reads what `write` wrote.

    Raises:
        TemperError: the file is missing or damaged.
    """
    try:
        with np.load(PATH) as saved:
            parts: dict[str, dict[str, npt.NDArray[np.generic]]] = {"kernels": {}, "maps": {}, "channels": {}}
            for key in saved.files:
                part, _, name = key.partition("/")
                if name:
                    parts[part][name] = saved[key]
            return Filters(**parts, rows=saved["rows"])  # type: ignore[arg-type]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TemperError(f"{PATH}: expected what evaluate wrote, received {error}; run dvc repro evaluate") from None
