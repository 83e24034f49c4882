"""Turns published labels into class names, and refuses classes that validation or test has but train lacks."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from temper.base.errors import TemperError
from temper.split_names import meaning


def class_name(label: str) -> str:
    """A published label as a class name: Unicode NFC, trimmed, runs of spaces replaced by one, case kept."""
    return " ".join(unicodedata.normalize("NFC", label).split())


def rename(labels: Iterable[str], renamed: Mapping[str, str | None], key: str) -> dict[str, str | None]:
    """The class name of each published label; None for labels that `renamed` leaves out.

    Args:
        renamed: old name to new name, or to None to leave the images out.
        key: the params key that `renamed` comes from, for error messages.

    Raises:
        TemperError: a label contains a control character, or `renamed` has a name that no label has.
    """
    names = {label: class_name(label) for label in set(labels)}
    for label, name in sorted(names.items()):
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise TemperError(f"normalize: expected names without control characters, received {label!r}; rename it")
    wanted = {class_name(old): None if new is None else class_name(new) for old, new in renamed.items()}
    known = set(names.values())
    for old in wanted:
        if old not in known:
            some = ", ".join(sorted(known)[:5]) + (", ..." if len(known) > 5 else "") if known else "there are none"
            raise TemperError(f"{key}: expected published labels ({some}), received {old!r}{_closest(old, known)}")
    return {label: wanted.get(name, name) for label, name in names.items()}


def merged_names(names: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The class names that merge several published labels, with these labels."""
    published: dict[str, list[str]] = {}
    for label, name in sorted(names.items()):
        if name is not None:
            published.setdefault(name, []).append(label)
    return {name: labels for name, labels in sorted(published.items()) if len(labels) > 1}


def refuse_strange_names(names_of: Mapping[str, set[str]]) -> None:
    """Refuses classes that a published validation or test split has but train lacks: misspelt, or without photos.

    Args:
        names_of: the class names in each published split; images without a published split count as train.

    Raises:
        TemperError: there is such a class. The message suggests the closest name in train, and how to leave the class
            out; the suggestion is never applied automatically.
    """
    train = names_of.get("train", set())
    for split in ("validation", "test"):
        names = names_of.get(split, set())
        strange = sorted(names - train)
        if not train or not strange:
            continue
        name = strange[0]
        close = closest(name, train - names) or closest(name, train)
        says = "which train lacks: add to normalize.rename"
        if close:
            says = f"train has {close!r}: add to normalize.rename {name}: {close}, or"
        others = ", ".join(strange[1:6]) + (", ..." if len(strange) > 6 else "")
        more = f"; train lacks as well: {others}" if others else ""
        raise TemperError(f"normalize: {split} has {name!r}, {says} {name}: null to leave it out{more}")


def split_meanings(
    published: Sequence[str | None], labels: Sequence[str | None], said: Mapping[str, str | None]
) -> dict[str, str | None]:
    """What each published split name means: train, validation, test, or None if its images are left out.

    Unlabelled images need no split. A name of unknown meaning that only unlabelled images have is therefore allowed,
    and missing from the result.

    Args:
        published: the published split of each image.
        labels: the published label of each image.
        said: `normalize.splits`, which takes precedence over the names that Temper knows.

    Raises:
        TemperError: `said` contains a name that is not published, or the split of labelled images has a name of
            unknown meaning.
    """
    names = {name for name in published if name is not None}
    for name in said:
        if name not in names:
            some = ", ".join(sorted(names)[:5]) or "there are none"
            raise TemperError(
                f"normalize.splits: expected published splits ({some}), received {name!r}{_closest(name, names)}"
            )
    labelled = Counter(name for name, label in zip(published, labels, strict=True) if label is not None)
    meanings = {name: said[name] if name in said else meaning(name) for name in sorted(names)}
    for split, count in labelled.items():
        if split is not None and meanings[split] is None and split not in said:
            raise TemperError(
                f"normalize: the published split {split!r} of {count} labelled images has a name of unknown meaning: "
                f"add to normalize.splits {split}: train (or validation, or test; null leaves its images out)"
            )
    return {name: means for name, means in meanings.items() if means is not None or name in said}


def closest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the known names, or None. A name that contains the other one always counts as similar."""
    known = sorted(known)
    inside = [other for other in known if name.lower() in other.lower() or other.lower() in name.lower()]
    return next(iter(difflib.get_close_matches(name, inside or known, 1, cutoff=0.0 if inside else 0.6)), None)


def _closest(name: str, known: Iterable[str]) -> str:
    close = closest(name, known)
    return f"; did you mean {close!r}?" if close else ""
