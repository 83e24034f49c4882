"""normalize: the raw table's metadata -> data/images.parquet, data/classes.txt, data/rejected.csv, data/leaks.csv.

Puts the names right, decides every image's split, and says of every image that may not be used why. No image byte is
read: raw rows = images + rejected.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.normalize.splits import Shares, place
from temper import running, tables
from temper.atomic import atomic_file, atomic_folder
from temper.errors import TemperError
from temper.params import Normalize, Params


def class_name(label: str) -> str:
    """A published label as a name: Unicode NFC, trimmed, inner spaces collapsed, case kept."""
    return " ".join(unicodedata.normalize("NFC", label).split())


def merged_names(labels: Iterable[str]) -> dict[str, list[str]]:
    """The class names that several published labels became, with those labels."""
    published: dict[str, set[str]] = {}
    for label in labels:
        published.setdefault(class_name(label), set()).add(label)
    return {name: sorted(of_name) for name, of_name in sorted(published.items()) if len(of_name) > 1}


@dataclass(frozen=True)
class Sifted:
    """What becomes of each row of the raw table, by its number.

    Attributes:
        split_of: of each labelled image that can be decoded.
        reasons: of each row that may not be used.
        leaks: rows nearly repeated by a row of a later split, one of the two published; with that row.
        near_pairs: how many pairs of different perceptual hashes are nearly the same.
    """

    split_of: dict[int, str]
    reasons: dict[int, str]
    leaks: dict[int, int]
    near_pairs: int


def sift(raw: pa.Table, names: list[str | None], settings: Normalize, seed: int) -> Sifted:
    """Places every image in a split, or says why it may not be used."""
    reasons: dict[int, str] = {row: p for row, p in enumerate(raw["problem"].to_pylist()) if p is not None}
    reasons |= {row: "a label of nothing but spaces" for row, name in enumerate(names) if name == ""}
    labelled = [row for row, name in enumerate(names) if name is not None and row not in reasons]
    chosen = raw.take(pa.array(labelled, pa.int64()))
    placement = place(
        chosen["sha256"].to_pylist(),
        chosen["phash"].to_numpy().astype(np.uint64),
        chosen["split"].to_pylist(),
        Shares(settings.validation, settings.test),
        seed,
        settings.near_duplicates,
    )
    split_of = dict(zip(labelled, placement.splits, strict=True))
    leaks = {labelled[row]: labelled[twin] for row, twin in placement.leaks.items()}
    out = {labelled[row]: labelled[twin] for row, twin in placement.repeats.items()}
    if settings.leaks == "remove":
        out |= {row: twin for row, twin in leaks.items() if split_of[row] == "train"}
    paths = raw["path"]
    reasons |= {row: f"nearly the same picture as {paths[twin]} ({split_of[twin]})" for row, twin in out.items()}
    return Sifted(split_of, reasons, leaks, placement.near_pairs)


def decide_classes(names: list[str | None], splits: list[str]) -> list[str]:
    """The class names in their order, for good: sorted by code point.

    Raises:
        TemperError: fewer than two classes, one without an image to train on, or no validation or test image at all.
    """
    classes = sorted({name for name in names if name is not None})
    if len(classes) < 2:
        raise TemperError(f"normalize: expected at least 2 classes, received {len(classes)}: {', '.join(classes)}")
    trained = {name for name, split in zip(names, splits, strict=True) if split == "train"}
    untrained = [name for name in classes if name not in trained]
    if untrained:
        raise TemperError(
            f"normalize: expected an image to train on in every class, found none for {', '.join(untrained)}; "
            "add photos, or lower normalize.validation and normalize.test"
        )
    for split in ("validation", "test"):
        if split not in splits:
            raise TemperError(f"normalize: expected {split} images, found none; raise normalize.{split} or add photos")
    return classes


def main(params: Params) -> None:
    raw = tables.read_raw_metadata("data/raw")
    labels = raw["label"].to_pylist()
    every_name = [None if label is None else class_name(label) for label in labels]
    sifted = sift(raw, every_name, params.normalize, params.seed)
    kept = [row for row in range(len(raw)) if row not in sifted.reasons]
    names = [every_name[row] for row in kept]
    splits = [sifted.split_of.get(row, "unlabelled") for row in kept]
    classes = decide_classes(names, splits)
    for name, published in merged_names(label for label in labels if label is not None).items():
        print(f"published as {published}: one class, {name}")

    write_tables(raw, kept, names, splits, classes)
    write_reasons(raw, sifted.reasons)
    write_leaks(raw, sifted)
    counts = Counter(splits)
    summary = {
        "images": len(kept),
        "rejected": len(sifted.reasons),
        "classes": len(classes),
        **{split: counts[split] for split in tables.SPLITS},
        "near_duplicate_pairs": sifted.near_pairs,
        "leaks": len(sifted.leaks),
    }
    write_metrics(summary, names, splits, classes)
    print(", ".join(f"{value} {name}" for name, value in summary.items()))
    if sifted.reasons:
        print("why images were rejected: data/rejected.csv")


def write_tables(
    raw: pa.Table, kept: list[int], names: list[str | None], splits: list[str], classes: list[str]
) -> None:
    """Writes images.parquet and classes.txt."""
    chosen = raw.take(pa.array(kept, pa.int64()))
    columns = {
        "image_id": [sha256[:16] for sha256 in chosen["sha256"].to_pylist()],
        "part": chosen["part"],
        "row": chosen["row"],
        "path": chosen["path"],
        "class_name": names,
        "split": splits,
    }
    tables.write("data/images.parquet", tables.IMAGES, columns)
    with atomic_file("data/classes.txt") as path:
        path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def write_reasons(raw: pa.Table, reasons: dict[int, str]) -> None:
    """Writes rejected.csv: a row for each image that may not be used."""
    rows = sorted(reasons)
    columns = (raw[name].take(pa.array(rows, pa.int64())).to_pylist() for name in ("path", "label", "split"))
    with atomic_file("data/rejected.csv") as path:
        tables.write_csv(path, ["path", "label", "split", "reason"], zip(*columns, map(reasons.get, rows), strict=True))


def write_leaks(raw: pa.Table, sifted: Sifted) -> None:
    """Writes leaks.csv: a row for each image that a published split of later rank repeats."""
    paths, split_of = raw["path"], sifted.split_of
    rows = [(paths[row], split_of[row], paths[twin], split_of[twin]) for row, twin in sorted(sifted.leaks.items())]
    with atomic_file("data/leaks.csv") as path:
        tables.write_csv(path, ["path", "split", "repeats", "repeated_split"], rows)


def write_metrics(summary: dict[str, int], names: list[str | None], splits: list[str], classes: list[str]) -> None:
    """Writes metrics/normalize: the counts, and how many images each class has."""
    per_class = Counter((name, split) for name, split in zip(names, splits, strict=True))
    with atomic_folder("metrics/normalize") as folder:
        (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        counts = {name: [per_class[name, split] for split in tables.SPLITS[:3]] for name in classes}
        rows = [(name, *of_class, sum(of_class)) for name, of_class in counts.items()]
        tables.write_csv(folder / "classes.csv", ["class_name", *tables.SPLITS[:3], "images"], rows)


if __name__ == "__main__":
    running.run(main)
