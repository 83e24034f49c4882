"""The new photos: how many there are, their classes, and which are unlike the photos the model was trained on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apps.retrain import unlike
from apps.retrain.rule import LabelCheck
from apps.retrain.scoring import PACKS, Old, Scored
from apps.retrain.shares import Shift, shifts
from apps.retrain.unlike import Limit
from temper import images, sheets
from temper.base.atomic import atomic_file
from temper.base.errors import printable
from temper.base.texts import write_csv
from temper.embeddings import Embeddings
from temper.packs import Pack

BACKBONE = "models/backbone.keras"
SHOWN, ACROSS, CELL = 40, 8, 128  # photos on the contact sheet, photos per row, side of a photo in pixels
FEWEST = 5  # with fewer validation photos, no limit is computed


@dataclass(frozen=True)
class Arrived:
    """How the photos differ from those of the old model.

    Attributes:
        photos: the new photos: image_id -> path, class name (None: unlabelled), split.
        gone: how many old photos no longer exist.
        class_shifts: the classes whose share among the new photos differs from that among the old ones.
        new_classes: the classes that no old photo had, with their numbers of photos.
    """

    photos: dict[str, tuple[str, str | None, str]]
    gone: int
    class_shifts: list[Shift]
    new_classes: dict[str, int]


def arrived(old: Old) -> Arrived:
    """Compares the table of images with that of the old model."""
    table = images.read(["image_id", "path", "class_name", "split"])
    columns = [table[name].to_pylist() for name in ("image_id", "path", "class_name", "split")]
    before = old.ids()
    photos = {row[0]: (row[1], row[2], row[3]) for row in zip(*columns, strict=True) if row[0] not in before}
    old_classes = Counter(filter(None, old.photos["class_name"].to_pylist()))
    new_classes = Counter(name for _, name, _ in photos.values() if name is not None)
    strange = {name: count for name, count in new_classes.items() if name not in old_classes}
    return Arrived(photos, len(before - set(columns[0])), shifts(old_classes, new_classes), strange)


@dataclass(frozen=True)
class Unlike:
    """How far the new photos are from the old training photos.

    Attributes:
        distances: the distance of each new photo, by image_id.
        limit: the distance beyond which a photo counts as unlike.
    """

    distances: dict[str, float]
    limit: Limit

    @property
    def above(self) -> list[str]:
        """The photos that are unlike, the farthest first."""
        far = [one for one, distance in self.distances.items() if distance > self.limit.distance]
        return sorted(far, key=lambda one: (-self.distances[one], one))

    @property
    def is_flagged(self) -> bool:
        """Whether more photos are unlike than chance allows."""
        return self.limit.is_flagged(len(self.above), len(self.distances))


def find_unlike(old: Old, photos: set[str]) -> Unlike | None:
    """How far some photos are from those that the old model was trained on; `None` if there are too few photos to say.

    Distances are measured between embeddings of the frozen backbone, and the limit comes from the old validation
    photos. Train and validation photos have stored embeddings; test and unlabelled photos are embedded here.

    Args:
        photos: the image_ids of the new photos.
    """
    known = {"train": old.ids("train"), "validation": old.ids("validation")}
    references: dict[str, npt.NDArray[np.float32]] = {}
    found: dict[str, npt.NDArray[np.float32]] = {}
    for split, before in known.items():
        embeddings, ids = Embeddings(split), Pack(f"{PACKS}/{split}").image_ids
        rows = np.flatnonzero(np.isin(ids, list(before)))
        references[split] = embeddings.take(rows, np.zeros(len(rows), np.int64))
        rows = np.flatnonzero(np.isin(ids, list(photos)))
        found |= zip(ids[rows].tolist(), embeddings.take(rows, np.zeros(len(rows), np.int64)), strict=True)
    if not photos or not len(references["train"]) or len(references["validation"]) < FEWEST:
        return None
    found |= dict(_embedded(photos))
    limit = Limit.of(unlike.distances(references["train"], references["validation"]))
    every = sorted(found)
    values = unlike.distances(references["train"], np.stack([found[one] for one in every]))
    return Unlike(dict(zip(every, values.tolist(), strict=True)), limit)


def _embedded(photos: set[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yields the image_id and the embedding of those photos that are among the test or unlabelled images."""
    from temper import keras_files  # noqa: PLC0415 (both import Keras)
    from temper.batches import INFERENCE_BATCH  # noqa: PLC0415

    backbone = None
    for split in ("test", "unlabelled"):
        pack = Pack(f"{PACKS}/{split}")
        rows = np.flatnonzero(np.isin(pack.image_ids, list(photos)))
        for start in range(0, len(rows), INFERENCE_BATCH):
            backbone = backbone or keras_files.load(BACKBONE)
            some = rows[start : start + INFERENCE_BATCH]
            batch = np.zeros((INFERENCE_BATCH, *pack.image_shape), np.uint8)  # always of one size, as in `embed`
            batch[: len(some)] = pack.images(some)
            embeddings = backbone.predict_on_batch(batch)[: len(some)]
            yield from zip(pack.image_ids[some].tolist(), embeddings, strict=True)


def check_labels(old: Old, tested: Scored, found: Arrived, guesses: dict[str, str], far: Sequence[str]) -> LabelCheck:
    """How often the labels of the new photos contradict the old model, compared with the labels of its test images.

    Args:
        guesses: the class that the old model predicts for each new photo, by image_id.
        far: the image_ids of photos that are unlike the training photos; they are left out, because the old model may
            be wrong about them for that reason.
    """
    before = np.isin(tested.image_ids, list(old.ids("test")))
    wrong = (tested.old_guesses != tested.class_names)[before]
    known, left_out = set(tested.old_classes), set(far)
    pairs = [
        (name, guesses[image_id])
        for image_id, (_, name, _) in found.photos.items()
        if name in known and image_id not in left_out
    ]
    return LabelCheck(int(wrong.sum()), len(wrong), sum(name != guess for name, guess in pairs), len(pairs))


def write_unlike(folder: Path, found: Arrived, far: Unlike) -> None:
    """Writes unlike.csv, which lists the unlike photos, the farthest first, and unlike.png, which shows the first."""
    limit, rows, strips = far.limit.distance, [], []
    pixels = dict(_pixels(set(far.above[:SHOWN])))
    for image_id in far.above:
        path, name, split = found.photos[image_id]
        rows.append((path, name or "", split, f"{far.distances[image_id]:.4f}", f"{limit:.4f}"))
        if image_id in pixels:
            caption = f"{printable(Path(path).name)}: {far.distances[image_id]:.3f}, limit {limit:.3f}"
            strips.append((caption, [pixels[image_id]]))
    with atomic_file(folder / "unlike.csv") as partial:
        write_csv(partial, ["path", "class_name", "split", "distance", "limit"], rows)
    (folder / "unlike.png").unlink(missing_ok=True)
    sheets.write_sheet(folder / "unlike.png", strips, per_strip=1, across=ACROSS, cell=CELL)


def _pixels(image_ids: set[str]) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """The packed pixels of some images."""
    for split in images.SPLITS:
        pack = Pack(f"{PACKS}/{split}")
        for row in np.flatnonzero(np.isin(pack.image_ids, list(image_ids))).tolist():
            yield str(pack.image_ids[row]), pack.image(row)
