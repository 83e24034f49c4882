"""Reads data/activations, which the stage `activations` writes: the frozen part's outputs for each image of a split."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from temper.base.checksums import MEND
from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.shards import Shards

FOLDER = Path("data/activations")
NAME, LAYERS = "activations", "layers.json"  # the name of the shards; the file that lists their layers

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def write_layers(folder: Path, layers: list[str]) -> None:
    """Writes the names of the layers whose activations a folder holds, in the order of its subfolders."""
    write_json(folder / LAYERS, layers)


def read_layers() -> list[str]:
    """The names of the layers whose activations data/activations holds, in the order of its subfolders.

    Raises:
        TemperError: the file is missing or damaged.
    """
    path = FOLDER / LAYERS
    try:
        layers = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; run dvc repro, or dvc pull") from None
    except ValueError:
        layers = None
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise TemperError(f"{path}: damaged: expected the names of layers; {MEND}")
    return layers


class Activations:
    """The activations of a split, memory-mapped; each file is checked against its checksum once.

    Attributes:
        views: the number of views of each image; view 0 is the plain image.
    """

    def __init__(self, split: str, image_ids: npt.NDArray[np.str_], layers: list[str], views: int) -> None:
        """Opens the activations and checks that they belong to these images, layers and views.

        Args:
            image_ids: the ids of the images in the pack, in order; the rows must be of the same images.
            layers: the layers whose output crosses the boundary with the current settings.
            views: the expected number of views of each image.

        Raises:
            TemperError: a file is missing or damaged, or it holds other images, layers or views.
        """
        stored = read_layers()
        if stored != layers:
            raise TemperError(
                f"{FOLDER / LAYERS}: expected the activations of {', '.join(layers)}, found those of "
                f"{', '.join(stored) or 'no layer'}; run dvc repro"
            )
        folders = [FOLDER / split / str(number) for number in range(len(layers))]
        self._tensors = [Shards(folder, NAME) for folder in folders]  # rows of (views, ...)
        for folder, tensor in zip(folders, self._tensors, strict=True):
            if not np.array_equal(tensor.beside("image_ids"), image_ids):
                raise TemperError(
                    f"{folder}/image_ids.npy: expected the images of data/packed/{split}, found others; run dvc repro"
                )
            if tensor.shape[0] != views:
                raise TemperError(f"{folder}: expected {views} view(s), found {tensor.shape[0]}; run dvc repro")
        self.views = views

    def take(self, rows: Indices, views: Indices) -> Floats | tuple[Floats, ...]:
        """One view of each of n images: (n, ...), or a tuple of such arrays if several layers cross the boundary.

        Args:
            rows: int64 (n,), the rows of the images.
            views: int64 (n,), the view of each of these images.
        """
        found = tuple(_taken(tensor, rows, views) for tensor in self._tensors)
        return found[0] if len(found) == 1 else found

    def plain(self, rows: Indices) -> Floats | tuple[Floats, ...]:
        """View 0, the plain image, of some images, in the form that `take` returns."""
        return self.take(rows, np.zeros_like(rows))


def _taken(tensor: Shards, rows: Indices, views: Indices) -> Floats:
    out = np.empty((len(rows), *tensor.shape[1:]), np.float32)
    for place, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
        out[place] = tensor.row(row)[view]
    return out
