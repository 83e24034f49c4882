"""embed: packed train and validation images, the backbone -> data/embeddings/<split>/, the inputs of the head.

The frozen backbone processes each view of every image once, however many epochs the warm-up has. The files
`embeddings-00000.npy`, ... are float32 (n, views, features). View 0 is the plain image; the further views, which only
training images have, are augmented.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True, on_gpu=True)  # before anything heavy is imported

from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from temper import card, devices, keras_files
from temper.augmentation.augment import Magnitudes, magnitudes
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.disk import require_room
from temper.drawn_views import batches, seen
from temper.packs import Pack
from temper.parallel import ordered_map
from temper.settings.embed import Settings
from temper.shards import ShardWriter


def embed(
    folder: Path, backbone: keras.Model, pack: Pack, views: int, magnitude: Magnitudes, seed: int, name: str
) -> None:
    """Writes the embeddings and labels.npy of a pack, with their checksums, one batch at a time.

    Args:
        views: how many views to embed of each image, the plain one included.
        magnitude: how strongly the further views are augmented.
        name: of the split, for the progress bar.
    """
    bar = tqdm(total=views * len(pack), desc=f"embed {name}", unit="image", disable=None)
    shape = (views, backbone.output_shape[-1])
    with bar, ShardWriter(folder, "embeddings", pack.image_ids.tolist(), shape, "<f4") as writer:
        work = ((rows, view) for rows in batches(writer.ends) for view in range(views))
        on = devices.spread().devices
        images = ordered_map(lambda one: seen(pack, *one, magnitude, seed, on), work)
        for rows in batches(writer.ends):
            of_views = [backbone.predict_on_batch(devices.shared_out(next(images))) for _ in range(views)]
            for row in np.stack(of_views, axis=1)[: len(rows)]:
                writer.append(row)
            bar.update(views * len(rows))
        writer.finish({"labels": pack.labels})


def require_room_for(packs: dict[str, Pack], views: int, features: int) -> None:
    """Raises a TemperError if the embeddings of `views` training images and of the others would not fit on the disk."""
    rows = views * len(packs["train"]) + len(packs["validation"])
    what = f"the embeddings ({views:,} views of {len(packs['train']):,} training images, {features:,} features each)"
    remedy = "choose a backbone with fewer features" if views == 1 else "lower embed.views"
    require_room("data/embeddings", rows * features * np.dtype(np.float32).itemsize, what, remedy)


def main(settings: Settings) -> None:
    print(devices.described())
    devices.use(card.read_backbone("models/backbone.keras").devices)
    backbone = keras_files.load("models/backbone.keras")
    magnitude = magnitudes(settings.embed.aug, settings.embed.augmentation)
    packs = {split: Pack(f"data/packed/{split}") for split in ("train", "validation")}
    require_room_for(packs, settings.embed.views, backbone.output_shape[-1])
    with atomic_folder("data/embeddings") as folder:
        for split, views in (("train", settings.embed.views), ("validation", 1)):
            embed(folder / split, backbone, packs[split], views, magnitude, settings.seed, split)
    print(f"embedded {settings.embed.views} view(s) of each training image, {backbone.output_shape[-1]} features")


if __name__ == "__main__":
    running.run(main, Settings)
