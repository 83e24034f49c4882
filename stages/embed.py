"""embed: packed train and validation images, the backbone -> data/embeddings/<split>/, what the head trains on.

The frozen backbone sees every image once, however many epochs the warm-up has. `embeddings.npy` is float32
(views, N, features): view 0 is the plain image, further views of the training images are augmented.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before anything heavy is imported

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from temper import keras_files
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.packs import Pack
from temper.parallel import ordered_map
from temper.settings.embed import Settings
from temper.training.augmentation import Magnitudes, augment_images, magnitudes
from temper.training.batches import INFERENCE_BATCH


def view_batches(pack: Pack, view: int, magnitude: Magnitudes, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The images of a pack as one view sees them, in order, in batches: uint8 (n, height, width, 3)."""

    def read(start: int) -> npt.NDArray[np.uint8]:
        rows = np.arange(start, min(start + INFERENCE_BATCH, len(pack)))
        images = pack.images(rows)
        if view:
            augment_images(images, rows, magnitude, seed, view)
        return images

    return ordered_map(read, range(0, len(pack), INFERENCE_BATCH))


def embed(
    folder: Path, backbone: keras.Model, pack: Pack, views: int, magnitude: Magnitudes, seed: int, name: str
) -> None:
    """Writes embeddings.npy and labels.npy of a pack, batch after batch."""
    folder.mkdir()
    header = {"descr": "<f4", "fortran_order": False, "shape": (views, len(pack), backbone.output_shape[-1])}
    bar = tqdm(total=views * len(pack), desc=f"embed {name}", unit="image", disable=None)
    with (
        bar,
        (folder / "embeddings.npy").open("wb") as file,
    ):  # no memory map: on a full disk it would end in a bus error
        np.lib.format.write_array_header_1_0(file, header)
        for view in range(views):
            for images in view_batches(pack, view, magnitude, seed):
                file.write(np.ascontiguousarray(backbone.predict_on_batch(images), "<f4").data)
                bar.update(len(images))
    np.save(folder / "labels.npy", pack.labels)


def main(settings: Settings) -> None:
    backbone = keras_files.load("models/backbone.keras")
    magnitude = magnitudes(settings.embed.aug, settings.embed.augmentation)
    with atomic_folder("data/embeddings") as folder:
        for split, views in (("train", settings.embed.views), ("validation", 1)):
            pack = Pack(f"data/packed/{split}")
            embed(folder / split, backbone, pack, views, magnitude, settings.seed, split)
    print(f"embedded {settings.embed.views} view(s) of each training image, {backbone.output_shape[-1]} features")


if __name__ == "__main__":
    running.run(main, Settings)
