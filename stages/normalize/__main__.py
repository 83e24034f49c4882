"""normalize: the raw tables' metadata -> data/images.parquet, data/classes.txt, data/rejected.csv, data/review/.

Puts the names right, decides every image's split, and says of every image that may not be used why. No image byte is
read: raw rows = images + rejected. What a person should look at is in data/review/.
"""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stages.normalize.findings import Findings, shorter_sides, write_review
from stages.normalize.names import merged_names, refuse_strange_names, rename
from stages.normalize.selection import beyond_the_cap, left_out_classes
from stages.normalize.splits import Shares, conflicts, group, place
from temper import running, tables
from temper.atomic import atomic_file, atomic_folder
from temper.errors import TemperError
from temper.params import Normalize, Params


class Rows:
    """The rows of the raw tables, their class names, and what became of them.

    Attributes:
        names: the class of each row; None: unlabelled, or rejected before a class was found.
        splits: of each row that has one; rows without a label keep None.
        reasons: of each row that may not be used.
        kinds: of each such row, the reason in one word, to count by.
    """

    def __init__(self, raw: pa.Table) -> None:
        self.raw = raw
        self.sha256: list[str] = raw["sha256"].to_pylist()
        self.published: list[str | None] = raw["split"].to_pylist()
        self.auxiliary = raw["folder"].to_numpy() == 1
        self.names: list[str | None] = [None] * len(raw)
        self.splits: list[str | None] = [None] * len(raw)
        self.reasons: dict[int, str] = {}
        self.kinds: dict[int, str] = {}

    def reject(self, row: int, kind: str, reason: str) -> None:
        """Notes why a row may not be used; the first reason counts."""
        if row not in self.reasons:
            self.reasons[row], self.kinds[row] = reason, kind

    def labelled(self) -> list[int]:
        """The rows with a class that were not rejected."""
        return [row for row, name in enumerate(self.names) if name is not None and row not in self.reasons]

    def path(self, row: int) -> str:
        """The published path of a row."""
        return str(self.raw["path"][row])


def reject_unusable(rows: Rows, min_size: int) -> None:
    """Rejects what cannot be decoded and what is too small."""
    for row, problem in enumerate(rows.raw["problem"].to_pylist()):
        if problem is not None:
            rows.reject(row, "unusable", problem)
    if min_size > 1:
        width, height = (rows.raw[side].fill_null(min_size).to_numpy() for side in ("width", "height"))
        for row in np.flatnonzero(np.minimum(width, height) < min_size).tolist():
            rows.reject(row, "too_small", f"{width[row]}x{height[row]} pixels; normalize.min_size is {min_size}")


def name_rows(rows: Rows, params: Params) -> dict[str, list[str]]:
    """Gives every labelled row its class; returns the names that several published labels became.

    Raises:
        TemperError: a name to be renamed is none, or a published split has names that train has not.
    """
    settings = params.normalize
    labels = rows.raw["label" if settings.labels == "fine" else "coarse"].to_pylist()
    own = [label for label, extra in zip(labels, rows.auxiliary, strict=True) if label is not None and not extra]
    if settings.labels == "coarse" and not own:
        raise TemperError("normalize.labels: expected a source with coarse labels, received one without; set fine")
    names = rename(own, settings.rename, "normalize.rename")
    extra = rename(
        (label for label, extra in zip(labels, rows.auxiliary, strict=True) if label is not None and extra),
        params.auxiliary.rename,
        "auxiliary.rename",
    )
    classes = set(names.values())
    for row, (label, is_extra) in enumerate(zip(labels, rows.auxiliary.tolist(), strict=True)):
        if label is None:
            if is_extra:
                rows.reject(row, "left_out", "an auxiliary image without a label")
            continue
        name = extra[label] if is_extra else names[label]
        if name is None or name == "":
            rows.reject(row, "left_out", f"of {label!r}, which is left out" if label.strip() else "a label of spaces")
        elif name not in classes:
            rows.reject(row, "left_out", f"an auxiliary image of {name!r}, no class of the source")
        else:
            rows.names[row] = name
    by_split: dict[str, set[str]] = {}
    for row in rows.labelled():
        if not rows.auxiliary[row]:
            by_split.setdefault(rows.published[row] or "train", set()).add(str(rows.names[row]))
    refuse_strange_names(by_split)
    return merged_names(names)


def reject_classes(rows: Rows, settings: Normalize) -> None:
    """Rejects the images of classes that do not take part."""
    labelled = rows.labelled()
    own = [rows.names[row] for row in labelled if not rows.auxiliary[row]]
    reasons = left_out_classes(own, settings.classes, settings.min_per_class)
    for row in labelled:
        if (reason := reasons.get(str(rows.names[row]))) is not None:
            rows.reject(row, "left_out", reason)


def place_rows(rows: Rows, settings: Normalize, seed: int) -> Findings:
    """Gives every labelled row its split, and rejects what may not be in it beside another image."""
    labelled = rows.labelled()
    hashes = rows.raw["phash"].take(pa.array(labelled, pa.int64())).to_numpy().astype(np.uint64)
    pictures = group([rows.sha256[row] for row in labelled], hashes, settings.near_duplicates)
    auxiliary = rows.auxiliary[labelled]
    shares = Shares(settings.validation, settings.test)
    placement = place(pictures, [rows.published[row] for row in labelled], auxiliary, shares, seed)
    for row, split in zip(labelled, placement.splits, strict=True):
        rows.splits[row] = split
    numbers = np.unique([str(rows.names[row]) for row in labelled], return_inverse=True)[1]

    def by_row(twins: dict[int, int]) -> dict[int, int]:
        return {labelled[row]: labelled[twin] for row, twin in twins.items()}

    found = Findings(
        pictures=pictures,
        labelled=labelled,
        hashes=hashes,
        leaks=by_row(placement.leaks),
        conflicts=by_row(conflicts(numbers.astype(np.int64), pictures)),
        duplicates=equal_training_images(rows, labelled),
    )
    reject_repeated(rows, by_row(placement.repeats), found, settings)
    return found


def equal_training_images(rows: Rows, labelled: Sequence[int]) -> dict[int, int]:
    """Of each training image whose bytes an earlier one of the same class has, that one."""
    first: dict[tuple[str, str | None], int] = {}
    equal = {}
    for row in labelled:
        if rows.splits[row] == "train":
            before = first.setdefault((rows.sha256[row], rows.names[row]), row)
            if before != row:
                equal[row] = before
    return equal


def reject_repeated(rows: Rows, repeats: dict[int, int], found: Findings, settings: Normalize) -> None:
    """Rejects repeated images: always those that would train and test, the others as the params say."""
    for row, twin in repeats.items():
        rows.reject(row, "repeated", f"nearly the same picture as {rows.path(twin)} ({rows.splits[twin]})")
    if settings.leaks == "remove":
        for row, twin in found.leaks.items():
            if rows.published[row] not in ("validation", "test"):  # a published split stays whole
                rows.reject(row, "repeated", f"nearly the same picture as {rows.path(twin)} ({rows.splits[twin]})")
    if settings.conflicts == "remove":
        for row, twin in found.conflicts.items():
            rows.reject(row, "conflict", f"nearly the same picture as {rows.path(twin)} of class {rows.names[twin]}")
    if settings.duplicates == "remove":
        for row, twin in found.duplicates.items():
            rows.reject(row, "duplicate", f"the same bytes as {rows.path(twin)}")


def cap_classes(rows: Rows, settings: Normalize, seed: int) -> None:
    """Rejects the training images beyond what a class may have; what is measured on stays the same."""
    train = [row for row in rows.labelled() if rows.splits[row] == "train"]
    names = [str(rows.names[row]) for row in train]
    sha256 = [rows.sha256[row] for row in train]
    for position in beyond_the_cap(names, sha256, seed, settings.max_per_class, settings.balance):
        rows.reject(train[position], "capped", "beyond normalize.max_per_class or normalize.balance")


def decide_classes(names: Sequence[str | None], splits: Sequence[str]) -> list[str]:
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
            f"normalize: expected an image to train on in every class, found none for {few(untrained)}; "
            "add photos, lower normalize.validation and normalize.test, or raise normalize.min_per_class"
        )
    for split in ("validation", "test"):
        if split not in splits:
            raise TemperError(f"normalize: expected {split} images, found none; raise normalize.{split} or add photos")
    return classes


def few(names: Sequence[str]) -> str:
    """The first names of a list that may have thousands."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def main(params: Params) -> None:
    rows = Rows(tables.read_raw_metadata(*tables.RAW_FOLDERS))
    reject_unusable(rows, params.normalize.min_size)
    merged = name_rows(rows, params)
    reject_classes(rows, params.normalize)
    found = place_rows(rows, params.normalize, params.seed)
    cap_classes(rows, params.normalize, params.seed)

    kept = [row for row in range(len(rows.raw)) if row not in rows.reasons]
    names = [rows.names[row] for row in kept]
    splits = [rows.splits[row] or "unlabelled" for row in kept]
    classes = decide_classes(names, splits)
    write_tables(rows, kept, names, splits, classes)
    write_review("data/review", rows.raw, rows.names, rows.splits, rows.reasons, found)
    per_class = Counter(zip(names, splits, strict=True))
    missing = {split: [name for name in classes if not per_class[name, split]] for split in ("validation", "test")}
    summary = summarize(rows, found, splits, classes, merged, missing)
    sizes = shorter_sides(rows.raw.take(pa.array(kept, pa.int64())))
    write_metrics(summary, per_class, classes, sizes)
    say(summary, merged, missing)


def write_tables(
    rows: Rows, kept: Sequence[int], names: Sequence[str | None], splits: Sequence[str], classes: Sequence[str]
) -> None:
    """Writes images.parquet, classes.txt and rejected.csv."""
    chosen = rows.raw.take(pa.array(kept, pa.int64()))
    columns = {
        "image_id": [sha256[:16] for sha256 in chosen["sha256"].to_pylist()],
        **{name: chosen[name] for name in ("part", "row", "path")},
        "class_name": names,
        "split": splits,
    }
    tables.write("data/images.parquet", tables.IMAGES, columns)
    with atomic_file("data/classes.txt") as path:
        path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    rejected = sorted(rows.reasons)
    published = (rows.raw[name].take(pa.array(rejected, pa.int64())).to_pylist() for name in ("path", "label", "split"))
    reasons = (rows.reasons[row] for row in rejected)
    with atomic_file("data/rejected.csv") as path:
        tables.write_csv(path, ["path", "label", "split", "reason"], zip(*published, reasons, strict=True))


def summarize(
    rows: Rows,
    found: Findings,
    splits: Sequence[str],
    classes: Sequence[str],
    merged: dict[str, list[str]],
    missing: dict[str, list[str]],
) -> dict[str, int]:
    """What `dvc metrics diff` shows of a changed dataset."""
    counts, kinds = Counter(splits), Counter(rows.kinds.values())
    return {
        "images": len(splits),
        "classes": len(classes),
        **{split: counts[split] for split in tables.SPLITS},
        "auxiliary": sum(bool(extra) and row not in rows.reasons for row, extra in enumerate(rows.auxiliary)),
        "rejected": len(rows.reasons),
        **{f"rejected_{kind}": kinds[kind] for kind in REJECTED},
        "duplicates": len(found.duplicates),
        "near_duplicate_pairs": len(found.pictures.pairs),
        "leaks": len(found.leaks),
        "conflicts": len(found.conflicts),
        "merged_names": len(merged),
        **{f"classes_without_{split}": len(names) for split, names in missing.items()},
    }


REJECTED = ("unusable", "too_small", "left_out", "repeated", "conflict", "duplicate", "capped")


def write_metrics(
    summary: dict[str, int],
    per_class: Counter[tuple[str | None, str]],
    classes: Sequence[str],
    sizes: list[tuple[str, int]],
) -> None:
    """Writes metrics/normalize: the counts, the images of each class, the long tail, the sizes."""
    counts = {name: [per_class[name, split] for split in tables.SPLITS[:3]] for name in classes}
    with atomic_folder("metrics/normalize") as folder:
        (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        rows = [(name, *of_class, sum(of_class)) for name, of_class in counts.items()]
        tables.write_csv(folder / "classes.csv", ["class_name", *tables.SPLITS[:3], "images"], rows)
        tail = enumerate(sorted((sum(of_class) for of_class in counts.values()), reverse=True), start=1)
        tables.write_csv(folder / "long_tail.csv", ["rank", "images"], tail)
        tables.write_csv(folder / "sizes.csv", ["shorter_side", "images"], sizes)


def say(summary: dict[str, int], merged: dict[str, list[str]], missing: dict[str, list[str]]) -> None:
    for name, published in merged.items():
        print(f"published as {published}: one class, {name}")
    for split, names in missing.items():
        if names:
            print(f"{len(names)} classes have no {split} images: {few(names)}")
    print(", ".join(f"{value} {name}" for name, value in summary.items() if value))
    if summary["rejected"]:
        print("why images were rejected: data/rejected.csv")
    if summary["leaks"] or summary["conflicts"] or summary["near_duplicate_pairs"]:
        print("to be looked at: data/review/leaks.csv, conflicts.csv, near_duplicates.csv")


if __name__ == "__main__":
    running.run(main)
