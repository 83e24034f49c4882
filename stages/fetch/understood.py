"""Describes the classes and splits recognized in a source, and what is odd about them; printed at every fetch."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from temper.split_names import meaning

Place = tuple[str | None, str | None]  # split and label, as published; None: the source gives none

_SHOWN = 5  # how many names of a list are printed
_FEW = 10  # a class with fewer images is pointed out
_ORDER = ("train", "validation", "test", None)


def describe(counts: Mapping[Place, int]) -> list[str]:
    """A few lines about classes, splits, unlabelled images and oddities; short also with thousands of classes.

    Args:
        counts: how many usable images each (split, label) has; 0 for a class whose files are all unusable.
    """
    classes, splits = _classes(counts), _splits(counts)
    without = sum(n for (split, _), n in counts.items() if split is None)
    unlabelled = sum(n for (_, label), n in counts.items() if label is None)
    lines = [f"{_number(len(classes), 'class')}: {_counted(classes)}" if classes else "no classes"]
    named = [f"{name} ({meaning(name) or 'unknown, see normalize.splits'}) {n:,}" for name, n in splits.items()]
    lines.append(f"splits: {_few(named)}" if named else "splits: none published")
    if named and without:
        lines[-1] += f"; in no split {without:,}"
    if unlabelled:
        lines.append(f"unlabelled: {_number(unlabelled, 'image')}")
    return lines + _oddities(classes)


def facts(counts: Mapping[Place, int]) -> dict[str, object]:
    """The recognized splits, classes and unlabelled images, in the form of source.json."""
    return {
        "splits": {name: {"means": meaning(name), "images": n} for name, n in _splits(counts).items()},
        "classes": len(_classes(counts)),
        "unlabelled": sum(n for (_, label), n in counts.items() if label is None),
    }


def _oddities(classes: Counter[str]) -> list[str]:
    """Notes on classes that are probably mistakes: very small ones, variants of one name, names of splits."""
    notes = []
    rare = {name: n for name, n in classes.items() if n < _FEW}
    if rare:
        notes.append(f"note: {_number(len(rare), 'class')} with fewer than {_FEW} images: {_counted(rare)}")
    spellings = defaultdict(list)
    for name in sorted(classes):
        spellings[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
    twins = [" = ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]
    if twins:
        notes.append(f"note: classes that differ only by case, spaces, - or _: {_few(twins)}; see normalize.rename")
    named = [name for name in sorted(classes) if meaning(name)]
    if named:
        notes.append(f"note: taken for classes, though named like splits: {_few(named)}")
    return notes


def _classes(counts: Mapping[Place, int]) -> Counter[str]:
    """The published labels with their numbers of images."""
    classes: Counter[str] = Counter()
    for (_, label), n in counts.items():
        if label is not None:
            classes[label] += n
    return classes


def _splits(counts: Mapping[Place, int]) -> dict[str, int]:
    """The published splits with their numbers of images: train, validation, test, then those of unknown meaning."""
    splits: Counter[str] = Counter()
    for (split, _), n in counts.items():
        if split is not None:
            splits[split] += n
    return {name: splits[name] for name in sorted(splits, key=lambda name: (_ORDER.index(meaning(name)), name))}


def _few(names: Sequence[str], most: int = _SHOWN) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _counted(counts: Mapping[str, int]) -> str:
    return _few([f"{name} ({counts[name]:,})" for name in sorted(counts)])


def _number(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
