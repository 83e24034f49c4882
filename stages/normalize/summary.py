"""The figures of a dataset that `normalize` writes as metrics, and the lines that it prints."""

from collections import Counter
from collections.abc import Sequence

from stages.normalize.findings import Findings
from stages.normalize.rows import Rows
from temper.base.atomic import atomic_folder
from temper.base.texts import write_csv, write_json
from temper.images import SPLITS

REJECTED = ("unusable", "too_small", "left_out", "repeated", "conflict", "duplicate", "capped")


def few(names: Sequence[str]) -> str:
    """The first five names of a list that may have thousands, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def summarize(
    rows: Rows,
    found: Findings,
    splits: Sequence[str],
    classes: Sequence[str],
    merged: dict[str, list[str]],
    rare: dict[str, str],
    missing: dict[str, list[str]],
) -> dict[str, int]:
    """The counts of metrics/normalize/metrics.json, in which `dvc metrics diff` shows how a dataset has changed.

    Args:
        splits: the split of each image that is used.
        merged: the class names that merge several published labels.
        rare: the classes that were left out.
        missing: by split, the classes without an image of it.
    """
    counts, kinds = Counter(splits), Counter(rows.kinds.values())
    return {
        "images": len(splits),
        "classes": len(classes),
        **{split: counts[split] for split in SPLITS},
        "only_train": sum(bool(extra) and row not in rows.reasons for row, extra in enumerate(rows.extra)),
        "rejected": len(rows.reasons),
        **{f"rejected_{kind}": kinds[kind] for kind in REJECTED},
        "duplicates": len(found.duplicates),
        "near_duplicate_pairs": len(found.near_pairs()),
        "leaks": len(found.leaks),
        "conflicts": len(found.conflicts),
        "merged_names": len(merged),
        "classes_left_out": len(rare),
        **{f"classes_without_{split}": len(names) for split, names in missing.items()},
    }


def write_metrics(
    summary: dict[str, int],
    per_class: Counter[tuple[str | None, str]],
    classes: Sequence[str],
    sizes: list[tuple[str, int]],
) -> None:
    """Writes metrics/normalize: the counts, the images of each class and split, and the histogram of image sizes."""
    counts = {name: [per_class[name, split] for split in SPLITS[:3]] for name in classes}
    with atomic_folder("metrics/normalize") as folder:
        write_json(folder / "metrics.json", summary)
        rows = [(name, *of_class, sum(of_class)) for name, of_class in counts.items()]
        write_csv(folder / "classes.csv", ["class_name", *SPLITS[:3], "images"], rows)
        write_csv(folder / "sizes.csv", ["shorter_side", "images"], sizes)


def say(
    summary: dict[str, int],
    merged: dict[str, list[str]],
    rare: dict[str, str],
    missing: dict[str, list[str]],
    notes: Sequence[str],
) -> None:
    """Prints what was decided, and which files tell more."""
    for name, published in merged.items():
        print(f"published as {published}: one class, {name}")
    if rare:
        print(f"{len(rare)} classes have too few usable images and are left out: {few(sorted(rare))}")
    for split, names in missing.items():
        if names:
            have = "1 class has" if len(names) == 1 else f"{len(names)} classes have"
            print(f"{have} no {split} image: {few(names)}")
    for note in notes:
        print(note)
    print(", ".join(f"{value} {name}" for name, value in summary.items() if value))
    if summary["rejected"]:
        print("why images were rejected: data/rejected.csv")
    counted = {"leaks": "leaks", "conflicts": "conflicts", "duplicates": "duplicates"}
    files = [file for file, key in {**counted, "near_duplicates": "near_duplicate_pairs"}.items() if summary[key]]
    if files:
        print(f"please look at: data/audit/{', '.join(f'{name}.csv' for name in files)}, metrics/audit/*.png")
