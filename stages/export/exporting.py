"""The work of `export`: writes each chosen format, and accepts it if it gives the classifier's answers."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.export.artefact import Images, Request
from stages.export.exporters import Exporter, chosen
from stages.export.gate import MOST, Comparison, Reference, pass_through
from temper import card, images, keras_files
from temper.base import memory
from temper.base.disk import in_words
from temper.base.errors import TemperError
from temper.packs import Pack
from temper.settings.export import Settings

MODEL = "models/fine_tune.keras"
COMPARED_ON = ("test", "validation", "train")  # the first of these that has images

Figures = dict[str, Any]  # the contents of metrics.json: a mapping for each format, and the split and number of images


def open_pack(split: str, made: card.Card) -> Pack:
    """The packed images of a split.

    Raises:
        TemperError: they have another size than the images that the model was trained on.
    """
    pack = Pack(f"data/packed/{split}", len(made.classes))
    expected = made.preparation.height, made.preparation.width, 3
    if len(pack) and pack.image_shape != expected:
        raise TemperError(f"data/packed/{split}: expected images of {expected}, received {pack.image_shape}; dvc repro")
    return pack


def spread(pack: Pack, most: int) -> tuple[Images, list[int]]:
    """At most `most` images of a pack, evenly spaced over it, and their rows."""
    rows = np.unique(np.linspace(0, len(pack) - 1, min(len(pack), most)).astype(np.int64))
    return pack.images(rows), rows.tolist()


def drawn(pack: Pack, count: int, seed: int) -> Images:
    """`count` images of a pack drawn at random, or all if there are fewer."""
    rows = np.random.default_rng(seed).permutation(len(pack))[:count]
    return pack.images(rows)


def prepare(settings: Settings) -> tuple[Request, Reference]:
    """The classifier to export, and its predictions on real images as the reference.

    Raises:
        TemperError: there are no packed images.
    """
    made = card.read(MODEL)
    packs = {split: open_pack(split, made) for split in COMPARED_ON}
    split = next((name for name, pack in packs.items() if len(pack)), None)
    if split is None:
        raise TemperError("export: expected packed images to compare the files on, received none; run dvc repro pack")
    if split != "test":
        print(f"no test images: exported files are compared on the {split} images")
    classifier = keras_files.load(MODEL)
    pack, text = packs[split], made.as_entry()[card.NAME]
    shown, rows = spread(pack, MOST)
    calibrates = "litert_int8" in settings.export.formats
    calibration = drawn(packs["train"], settings.export.calibration_images if calibrates else 0, settings.seed)
    table = images.read(["image_id", "path"])
    paths = dict(zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True))
    names = [paths.get(pack.image_ids[row], str(pack.image_ids[row])) for row in rows]
    said = classifier.predict(shown, verbose=0)
    return Request(classifier, text, calibration), Reference(split, shown, names, pack.labels[rows], said, text)


def export(settings: Settings, folder: Path) -> Figures:
    """Writes the chosen formats into a folder and compares each with the classifier; returns their figures.

    Raises:
        TemperError: a format cannot be written, or differs too much; the message says which formats are fine.
    """
    request, reference = prepare(settings)
    exporters = chosen(settings.export)
    figures: Figures = {"split": reference.split, "images": len(reference.names)}
    fine: list[str] = []
    refused: list[str] = []
    for name, exporter in exporters.items():
        try:
            figures[name] = _exported(name, exporter, request, reference, folder / exporter.file)
            fine.append(name)
        except TemperError as error:
            refused.append(str(error))
    if refused:
        advice = f"export.formats: [{', '.join(fine)}] {'is fine' if fine else 'exports nothing'}"
        raise TemperError(f"export: {'; '.join(refused)}; nothing was written; {advice}")
    return figures


def _exported(name: str, exporter: Exporter, request: Request, reference: Reference, path: Path) -> Figures:
    """Writes and compares one format."""
    try:
        exporter.write(request, path)
        artefact = exporter.open_artefact(path)
    # Converters raise exceptions of any class, even bare `Exception`.
    except Exception as error:
        if isinstance(error, OSError | TemperError) or memory.in_one_line(error):
            raise  # a problem of the disk, the memory or the settings, not a classifier that the format cannot express
        problem = f"{type(error).__name__}: {str(error).strip()}".split("\n", 1)[0][:200]
        raise TemperError(f"{name}: expected a classifier that this format can express, received {problem}") from None
    try:
        found = pass_through(artefact, reference, exporter.limit)
    except TemperError as error:
        raise TemperError(f"{name}: {error}") from None
    taken = sum(file.stat().st_size for file in _files(path))
    print(_described(exporter.file, taken, found, reference))
    return {
        "bytes": taken,
        "agreement": found.agreement,
        "largest_difference": float(f"{found.largest_difference:.2g}"),
        "accuracy": found.accuracy,
    }


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _described(file: str, taken: int, found: Comparison, reference: Reference) -> str:
    same = round(found.agreement * len(reference.names))
    return (
        f"models/export/{file}: {in_words(taken)}, the same class for {same} of {len(reference.names)} "
        f"{reference.split} images, probabilities within {found.largest_difference:.1g}"
    )
