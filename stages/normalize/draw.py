"""Draws validation and test images, by hash or stratified, and makes sure that every class has a training image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.normalize.groups import Integers, Mask
from stages.normalize.splits import Pictures, Placement, Shares, hashed_splits, place
from stages.normalize.stratified import advice, stratified_splits
from stages.normalize.untrained import keep_one_to_train, kept_note

Splits = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Drawn:
    """The splits of the labelled rows, and lines for the console about what was unusual."""

    placement: Placement
    notes: list[str]


def draw(
    pictures: Pictures,
    published: Sequence[str | None],
    extra: Mask,
    names: Sequence[str],
    shares: Shares,
    seed: int,
    stratified: bool,
    remove_leaks: bool,
) -> Drawn:
    """Places N labelled rows.

    Args:
        pictures: the rows, grouped by content.
        published: the split of each row by its source. Validation and test images are drawn from the rows that are
            published as train or without a split.
        extra: rows of sources that only train, (N,).
        names: the class of each row.
        shares: 0 for a split that is published.
        stratified: whether to draw within each class, for sets that do not grow; otherwise the split of each image
            follows from its own hash.
        remove_leaks: whether leaking rows are removed. Other rows are then not rejected for repeating them.
    """
    classes: Integers = np.unique(np.asarray(names, str), return_inverse=True)[1].astype(np.int64)
    fixed = np.array([own in ("validation", "test") for own in published], bool) & ~extra
    drawable = ~fixed & ~extra
    splits: Splits
    if stratified:
        splits = stratified_splits(pictures, classes, drawable, fixed, shares, seed)
    else:
        splits = hashed_splits(pictures, drawable, shares, seed)
    splits = np.where(fixed, np.array([own or "" for own in published], splits.dtype), splits)
    placement = place(pictures, splits, fixed, extra, remove_leaks)
    repeats, gone = np.zeros(len(splits), bool), np.zeros(len(splits), bool)
    repeats[list(placement.repeats)] = True
    gone[[row for row in placement.leaks if remove_leaks and not fixed[row]]] = True
    moved = keep_one_to_train(pictures, classes, splits, drawable & ~gone, repeats, shares, seed)
    notes = [kept_note(names, splits, moved)]
    if moved.any():
        placement = place(pictures, np.where(moved, "train", splits), fixed, extra, remove_leaks)
    if not stratified:
        notes.append(advice(classes[~extra], np.asarray(placement.splits)[~extra].tolist(), shares))
    return Drawn(placement, [note for note in notes if note])
