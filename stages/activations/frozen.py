"""Runs the frozen part of the backbone on the views of every image and stores its output."""

import math
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from temper import card, devices, keras_files
from temper.augmentation.augment import Magnitudes, magnitudes
from temper.base.atomic import atomic_folder
from temper.base.disk import in_words, require_room
from temper.drawn_views import batches, seen
from temper.freezing.activations import FOLDER, NAME, write_layers
from temper.freezing.boundary import Boundary
from temper.freezing.classifier import layers_of, open_backbone_from
from temper.freezing.cutting import boundary_tensors, frozen_part, names_of
from temper.freezing.unfreezing import first_open
from temper.packs import Pack
from temper.parallel import ordered_map
from temper.shards import ShardWriter

Shape = tuple[int, ...]
BACKBONE = "models/backbone.keras"
BYTES = np.dtype(np.float32).itemsize


def write_activations(chosen: Boundary) -> None:
    """Writes data/activations: what the frozen layers output at the boundary to the unfrozen ones.

    Training images are stored in all views, validation images only in the plain one.

    Raises:
        TemperError: the disk is too small for them, or an input is missing or damaged.
    """
    print(devices.described())
    backbone = keras_files.load(BACKBONE)
    assert chosen.unfreeze_from is not None  # where views are stored
    first = first_open(layers_of(backbone), chosen.unfreeze_from)
    open_backbone_from(backbone, first, card.read_backbone(BACKBONE).pretrained)
    tensors = boundary_tensors(backbone)
    shapes, layers = [tuple(tensor.shape[1:]) for tensor in tensors], names_of(tensors)
    packs = {split: Pack(f"data/packed/{split}") for split in ("train", "validation")}
    room = require_room_for(packs, chosen.views, shapes)
    drawn = chosen.drawn
    magnitude = magnitudes(drawn.aug, drawn.augmentation) if drawn else Magnitudes()
    frozen, seed = frozen_part(backbone), drawn.seed if drawn else 0
    with atomic_folder(FOLDER) as folder:
        for split, views in (("train", chosen.views), ("validation", 1)):
            store(folder / split, frozen, packs[split], views, magnitude, seed, split)
        write_layers(folder, layers)
    print(f"stored {chosen.views} view(s) of each training image as {' and '.join(layers)} gives it, {room}")


def store(
    folder: Path, frozen: keras.Model, pack: Pack, views: int, magnitude: Magnitudes, seed: int, name: str
) -> None:
    """Writes the frozen part's output for a pack's images, batch by batch, into one folder for each output tensor.

    Args:
        views: how many views of each image are stored, the plain one included.
        magnitude: how strongly the further views are augmented.
        name: of the split, for the progress bar.
    """
    bar = tqdm(total=views * len(pack), desc=f"activations {name}", unit="image", disable=None)
    shapes = [(views, *tensor.shape[1:]) for tensor in frozen.outputs]
    with bar, ExitStack() as stack:
        writers = [
            stack.enter_context(ShardWriter(folder / str(number), NAME, pack.image_ids.tolist(), shape, "<f4"))
            for number, shape in enumerate(shapes)
        ]
        ends = writers[0].ends
        work = ((rows, view) for rows in batches(ends) for view in range(views))
        images = ordered_map(lambda one: seen(pack, *one, magnitude, seed), work)
        for rows in batches(ends):
            of_views = [keras.tree.flatten(frozen.predict_on_batch(next(images))) for _ in range(views)]
            for writer, tensors in zip(writers, zip(*of_views, strict=True), strict=True):
                for row in range(len(rows)):
                    writer.append(np.stack([tensor[row] for tensor in tensors]))
            bar.update(views * len(rows))
        for writer in writers:
            writer.finish({"image_ids": pack.image_ids})


def require_room_for(packs: dict[str, Pack], views: int, shapes: list[Shape]) -> str:
    """How much disk space the activations will take, in words.

    Args:
        views: how many views of each training image are stored.
        shapes: the shape of each stored tensor for one image, in float32.

    Raises:
        TemperError: the disk does not have that much free space.
    """
    rows = views * len(packs["train"]) + len(packs["validation"])
    each = BYTES * sum(math.prod(shape) for shape in shapes)
    size = f"{in_words(each)} a view"
    what = f"the activations ({views:,} views of {len(packs['train']):,} training images, {size})"
    require_room(FOLDER, rows * each, what, "lower fine_tune.views, or set it to 0")
    return f"{size}, {in_words(rows * each)} in all"
