"""normalize: the raw tables' metadata -> data/images.parquet, data/classes.txt, data/rejected.csv, data/audit/.

Normalizes the class names, assigns each image to a split, and gives a reason for every image that may not be used. Each
row of the raw tables ends up either in images.parquet or in rejected.csv. The stage reads only metadata, no pixels.
data/audit/ lists what a person should look at: leaks, conflicts and duplicates.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from stages.normalize.draw import draw
from stages.normalize.findings import Findings, shorter_sides, write_audit
from stages.normalize.names import merged_names, refuse_strange_names, rename, split_meanings
from stages.normalize.rows import Rows
from stages.normalize.selection import beyond_the_cap, check_classes, rare_classes
from stages.normalize.splits import Pictures, Shares, conflicts, group
from stages.normalize.summary import few, say, summarize, write_metrics
from temper import classes, images, raw, tables
from temper.base import running
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.texts import write_csv
from temper.settings.normalize import Normalize, Settings


def reject_unusable(rows: Rows, min_size: int) -> None:
    """Rejects images that cannot be decoded or whose shorter side has fewer than `min_size` pixels."""
    for row, problem in enumerate(rows.raw["problem"].to_pylist()):
        if problem is not None:
            rows.reject(row, "unusable", problem)
    if min_size > 1:
        width, height = (rows.raw[side].fill_null(min_size).to_numpy() for side in ("width", "height"))
        for row in np.flatnonzero(np.minimum(width, height) < min_size).tolist():
            rows.reject(row, "too_small", f"{width[row]}x{height[row]} pixels; normalize.min_size is {min_size}")


def read_splits(rows: Rows, said: Mapping[str, str | None]) -> None:
    """Replaces the published names of splits by train, validation and test, and rejects the images of unwanted splits.

    Sources of `normalize.only_train` may use names of unknown meaning, because all of their images train.

    Args:
        said: `normalize.splits`: the meaning of published names, None for a split whose images are left out.

    Raises:
        TemperError: as `split_meanings`.
    """
    every = zip(rows.raw["label"].to_pylist(), rows.extra.tolist(), strict=True)
    labels = [None if is_extra else label for label, is_extra in every]
    meanings = split_meanings(rows.published, labels, said)
    for row, name in enumerate(rows.published):
        if name is not None:
            rows.published[row] = meanings.get(name)
            if name in meanings and meanings[name] is None:
                rows.reject(row, "left_out", f"of the published split {name}, which normalize.splits leaves out")


def name_rows(rows: Rows, settings: Normalize) -> tuple[dict[str, list[str]], set[str]]:
    """Gives every labelled row its class.

    Returns:
        The class names that merge several published labels, with these labels; and the set of all classes.

    Raises:
        TemperError: `normalize.rename` or `normalize.classes` contains an unknown name, or a published validation or
            test split has a class that train lacks.
    """
    labels, own, extra = published_labels(rows, settings.labels)
    names = rename(own | extra, settings.rename, "normalize.rename")
    classes = {name for label in own if (name := names[label])}
    check_classes(settings.classes, classes)
    by_split: dict[str, set[str]] = {}
    for row, (label, is_extra) in enumerate(zip(labels, rows.extra.tolist(), strict=True)):
        if label is None:
            if is_extra:
                rows.reject(row, "left_out", "without a label, of a source that only trains")
            continue
        name = names[label]
        if not name:
            rows.reject(row, "left_out", f"of {label!r}, which is left out" if label.strip() else "a label of spaces")
        elif name not in classes:
            rows.reject(row, "left_out", f"of {name!r}, which only a source that only trains has")
        elif settings.classes is not None and name not in settings.classes:
            rows.reject(row, "left_out", f"of the class {name}, which is not in normalize.classes")
        else:
            rows.names[row] = name
            if not is_extra:  # also for an image that cannot be used: only the names are compared
                by_split.setdefault(rows.published[row] or "train", set()).add(name)
    refuse_strange_names(by_split)
    foreign = sorted({name for label in extra if (name := names[label])} - classes)
    if foreign:
        print(f"names that only sources of normalize.only_train have, left out: {few(foreign)}; see normalize.rename")
    return merged_names({label: names[label] for label in own}), set.union(set(), *by_split.values())


def published_labels(rows: Rows, kind: str) -> tuple[list[str | None], set[str], set[str]]:
    """The label of each row, the set of labels of the main sources, and the set of those of `normalize.only_train`.

    Main sources are those that validation and test images come from.

    Args:
        kind: "fine" or "coarse". With "coarse", a row of a source that only trains keeps its fine label if it has no
            coarse one.

    Raises:
        TemperError: coarse labels are asked for, but no source has any.
    """
    fine, coarse = rows.raw["label"].to_pylist(), rows.raw["coarse"].to_pylist()
    extra = rows.extra.tolist()
    if kind == "coarse":
        if not any(coarse):
            raise TemperError("normalize.labels: expected a source with coarse labels, received one without; set fine")
        both = zip(fine, coarse, extra, strict=True)
        fine = [second or (first if is_extra else None) for first, second, is_extra in both]
    of_source: tuple[set[str], set[str]] = (set(), set())
    for label, is_extra in zip(fine, extra, strict=True):
        if label is not None:
            of_source[is_extra].add(label)
    return fine, *of_source


def place_rows(rows: Rows, settings: Normalize, seed: int) -> Findings:
    """Gives every labelled row its split, and rejects rows that repeat or contradict another image.

    A row is rejected if nearly the same picture is used in another split (in a published one: only with `leaks:
    remove`), if nearly the same picture has another class (with `conflicts: remove`), or if an earlier training image
    of its class has the same bytes (with `duplicates: remove`).
    """
    every = zip(rows.published, rows.raw["label"].to_pylist(), rows.extra.tolist(), strict=True)
    given = {own for own, label, extra in every if label is not None and not extra}
    shares = Shares(
        0.0 if "validation" in given else settings.validation,
        0.0 if "test" in given else settings.test,
    )
    labelled = rows.labelled()
    hashes = rows.raw["phash"].take(pa.array(labelled, pa.int64())).to_numpy().astype(np.uint64)
    pictures = group([rows.sha256[row] for row in labelled], hashes, settings.near_duplicates)
    published = [rows.published[row] for row in labelled]
    names = [str(rows.names[row]) for row in labelled]
    stratified, remove_leaks = settings.draw == "stratified", settings.leaks == "remove"
    drawn = draw(pictures, published, rows.extra[labelled], names, shares, seed, stratified, remove_leaks)
    placement = drawn.placement
    rows.notes += drawn.notes
    for row, split in zip(labelled, placement.splits, strict=True):
        rows.splits[row] = split
    for position, twin in placement.repeats.items():
        reject_twin(rows, labelled[position], labelled[twin])
    leaks = {labelled[position]: labelled[twin] for position, twin in placement.leaks.items()}
    if settings.leaks == "remove":
        for row, twin in leaks.items():
            if rows.published[row] not in ("validation", "test"):  # published validation and test splits stay whole
                reject_twin(rows, row, twin)
    conflicting = find_conflicts(rows, labelled, pictures)
    if settings.conflicts == "remove":
        for row, twin in conflicting.items():
            if rows.extra[row] or rows.published[row] not in ("validation", "test"):
                reason = f"nearly the same picture as {rows.path(twin)} of class {rows.names[twin]}"
                rows.reject(row, "conflict", reason)
    duplicates = equal_training_images(rows)
    if settings.duplicates == "remove":
        for row, twin in duplicates.items():
            rows.reject(row, "duplicate", f"the same bytes as {rows.path(twin)}")
    return Findings(pictures, labelled, hashes, leaks, conflicting, duplicates)


def reject_twin(rows: Rows, row: int, twin: int) -> None:
    """Rejects a row because another split has nearly the same picture."""
    rows.reject(row, "repeated", f"nearly the same picture as {rows.path(twin)} ({rows.splits[twin]})")


def find_conflicts(rows: Rows, labelled: Sequence[int], pictures: Pictures) -> dict[int, int]:
    """For each row whose picture nearly equals one of another class: that row -> one such other row.

    Rows that are already rejected do not count. A row of a main source conflicts only with rows of main sources, so
    photos of sources that only train never cause the loss of another photo.
    """
    kept = np.array([row not in rows.reasons for row in labelled], bool)
    extra = rows.extra[labelled]
    numbers = np.unique([str(rows.names[row]) for row in labelled], return_inverse=True)[1].astype(np.int64)
    of_all = conflicts(numbers, kept, pictures) if extra.any() else {}
    found = {row: twin for row, twin in of_all.items() if extra[row]} | conflicts(numbers, kept & ~extra, pictures)
    return {labelled[row]: labelled[twin] for row, twin in sorted(found.items())}


def equal_training_images(rows: Rows) -> dict[int, int]:
    """For each training image with the same bytes as an earlier one of the same class: its row -> the earlier row."""
    first: dict[tuple[str, str | None], int] = {}
    equal = {}
    for row in rows.labelled():
        if rows.splits[row] == "train":
            before = first.setdefault((rows.sha256[row], rows.names[row]), row)
            if before != row:
                equal[row] = before
    return equal


def reject_rare_classes(rows: Rows, classes: set[str], least: int) -> dict[str, str]:
    """Rejects the images of classes with fewer than `least` usable images; returns these classes with the reason."""
    labelled = rows.labelled()
    own = [str(rows.names[row]) for row in labelled if not rows.extra[row]]
    reasons = rare_classes(own, classes, least)
    for row in labelled:
        if (reason := reasons.get(str(rows.names[row]))) is not None:
            rows.reject(row, "left_out", reason)
    return reasons


def cap_classes(rows: Rows, settings: Normalize, seed: int) -> None:
    """Rejects training images beyond the limit for a class; validation and test images stay as they are."""
    train = [row for row in rows.labelled() if rows.splits[row] == "train"]
    names = [str(rows.names[row]) for row in train]
    sha256 = [rows.sha256[row] for row in train]
    extra = rows.extra[train].tolist()
    for position in beyond_the_cap(names, sha256, extra, seed, settings.max_per_class, settings.balance):
        rows.reject(train[position], "capped", "beyond normalize.max_per_class or normalize.balance")


def decide_classes(names: Sequence[str | None], splits: Sequence[str], rare: dict[str, str]) -> list[str]:
    """The class names, sorted by code point. This order of the model's outputs is decided here and nowhere else.

    Args:
        names: the class of each usable image; None: unlabelled.
        splits: the split of each usable image.
        rare: the classes that were left out, with the reason.

    Raises:
        TemperError: there are fewer than two classes, a class has no training image, or there are no validation or no
            test images at all.
    """
    classes = sorted({name for name in names if name is not None})
    if len(classes) < 2:
        received = f"received {len(classes)}" + (f", {classes[0]}" if classes else "")
        more = f", left out were {few(sorted(rare.values()))}" if rare else "; add photos in a folder for each class"
        raise TemperError(f"normalize: expected at least 2 classes, {received}{more}")
    trained = {name for name, split in zip(names, splits, strict=True) if split == "train"}
    untrained = [name for name in classes if name not in trained]
    if untrained:
        counts = Counter(names)
        received = few([f"{name} (of {counts[name]} images)" for name in untrained])
        raise TemperError(
            f"normalize: expected an image to train on in every class, found none for {received}, whose images are all "
            "of a published validation or test split; add photos, or leave such classes out with normalize.rename"
        )
    for split in ("validation", "test"):
        if split not in splits:
            raise TemperError(f"normalize: expected {split} images, found none; raise normalize.{split} or add photos")
    return classes


def in_order(sources: Iterable[str], only_train: Collection[str]) -> list[str]:
    """The sources sorted by name, those of `only_train` last.

    If two images are equal, the one in the earlier row is kept, so the images of sources that only train must come
    last. The order in params.yaml has no effect: DVC considers mappings equal whatever their order, and equal params
    must give equal bytes.
    """
    return sorted(sources, key=lambda name: (name in only_train, name))


def main(settings: Settings) -> None:
    normalize = settings.normalize
    forget_other_sources(settings.fetch)
    rows = Rows(raw.read_metadata(in_order(settings.fetch, normalize.only_train)), normalize.only_train)
    reject_unusable(rows, normalize.min_size)
    read_splits(rows, normalize.splits)
    merged, named = name_rows(rows, normalize)
    found = place_rows(rows, normalize, settings.seed)
    rare = reject_rare_classes(rows, named, normalize.min_per_class)
    cap_classes(rows, normalize, settings.seed)

    kept = [row for row in range(len(rows.raw)) if row not in rows.reasons]
    names = [rows.names[row] for row in kept]
    splits = [rows.splits[row] or "unlabelled" for row in kept]
    every = decide_classes(names, splits, rare)
    classes.write(every)
    write_tables(rows, kept, names, splits)
    write_audit("data/audit", rows.raw, rows.names, rows.splits, rows.reasons, found)
    per_class = Counter(zip(names, splits, strict=True))
    missing = {split: [name for name in every if not per_class[name, split]] for split in ("validation", "test")}
    summary = summarize(rows, found, splits, every, merged, rare, missing)
    sizes = shorter_sides(rows.raw.take(pa.array(kept, pa.int64())))
    write_metrics(summary, per_class, every, sizes)
    say(summary, merged, rare, missing, rows.notes)


def forget_other_sources(named: Collection[str]) -> None:
    """Removes the raw tables of sources that params.yaml no longer names.

    DVC does not delete the outputs of a stage that no longer exists. They would stay in data/raw, on which other stages
    depend, so results here would differ from those of a clone that never had the source. DVC's cache still has them.
    """
    for folder in raw.sources():
        if folder.name not in named:
            shutil.rmtree(folder)
            print(f"removed {folder}: params.yaml no longer names this source")


def write_tables(rows: Rows, kept: Sequence[int], names: Sequence[str | None], splits: Sequence[str]) -> None:
    """Writes images.parquet and rejected.csv."""
    chosen = rows.raw.take(pa.array(kept, pa.int64()))
    columns = {
        "image_id": [sha256[:16] for sha256 in chosen["sha256"].to_pylist()],
        **{name: chosen[name] for name in ("source", "part", "row", "path")},
        "class_name": names,
        "split": splits,
    }
    tables.write(images.PATH, images.IMAGES, columns)
    rejected = sorted(rows.reasons)
    said = [rows.raw[name].take(pa.array(rejected, pa.int64())).to_pylist() for name in ("source", "path", "label")]
    splits_of = [rows.splits[row] or rows.published[row] for row in rejected]
    reasons = (rows.reasons[row] for row in rejected)
    with atomic_file("data/rejected.csv") as path:
        write_csv(path, ["source", "path", "label", "split", "reason"], zip(*said, splits_of, reasons, strict=True))


if __name__ == "__main__":
    running.run(main, Settings)
