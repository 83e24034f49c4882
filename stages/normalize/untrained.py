"""Moves an image back to train for each class that the draw left without a training image.

Under the hash draw (splits.py), all images of a small class may be drawn for validation or test. With shares of 0.15
and 0.2, that happens to 35 % of the classes with one image. Such a class must not stop the run, so it gets a training
image.

No rule can guarantee a training image and also keep every image in its split when the set grows: the only image of a
class must train, and if it could never move later, every image would train. So this rule moves as little as possible:

- If a class has a training image, nothing moves. This is the case for nearly every class.
- Otherwise a validation image is preferred: the guarantee that an added image never moves an old one concerns only
  train and test.
- A test image moves only if all images of the class were drawn for test. It returns to test once the class has another
  training image, so an earlier model was trained on what is then a test image. This price is at most one group of
  nearly equal pictures per class. With a test share of 0.2, it affects 20 % of the classes with one image, 4 % of those
  with two and 0.8 % of those with three. `kept_note` names the classes, and `normalize.min_per_class` can leave them
  out.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.normalize.groups import Integers, Mask, connected_groups
from stages.normalize.splits import Pictures, Shares, uniform


def keep_one_to_train(
    pictures: Pictures,
    classes: Integers,
    splits: npt.NDArray[np.str_],
    drawn: Mask,
    repeats: Mask,
    shares: Shares,
    seed: int,
) -> Mask:
    """Chooses rows to move to train so that every class with a drawn row has a training image.

    A connected group of nearly equal pictures moves as a whole, so that no picture is in two splits; rows of the group
    that were rejected as repeats can be used again. The group to move is chosen within each class that has no training
    image, by these criteria in turn: it contains a row drawn for train (rejected because a later split repeats it); it
    has the fewest test images; it has the fewest images; it would be the first to train if the shares were smaller. The
    order of the rows has no effect.

    Args:
        pictures: all N rows, grouped by content.
        classes: the number of each row's class, (N,).
        splits: the split that was drawn for each row, (N,).
        drawn: rows that were drawn and may be used, (N,): no rows of a published validation or test split, and no rows
            that are removed for a reason other than being a repeat. Rows of a source that only trains do not belong
            here either, because they would make images of main sources move.
        repeats: those of the `drawn` rows that cannot be used because another split has nearly the same picture, (N,).
        shares: the shares of the draw.
        seed: the seed of the draw.

    Returns:
        Which rows must train, (N,): the chosen groups as a whole, also rows of them that train already; all False if
        there is nothing to do. Assign "train" to them and find repeats again; only those of the chosen groups change.
    """
    trained = np.unique(classes[drawn & ~repeats & (splits == "train")])
    untrained = drawn & ~np.isin(classes, trained)
    if not untrained.any():
        return np.zeros(len(drawn), bool)
    group_of = connected_groups(pictures, drawn)
    tests = _count(group_of, drawn & (splits == "test"))
    images = _count(group_of, drawn)
    best: dict[int, tuple[tuple[bool, int, int, float, int], int]] = {}
    for row in np.flatnonzero(untrained).tolist():
        group = int(group_of[row])
        distance = _distance_from_train(uniform(f"{seed}:{pictures.contents[row]}"), shares)
        rank = (splits[row] != "train", tests[group], images[group], distance, group)
        label = int(classes[row])
        if label not in best or rank < best[label][0]:
            best[label] = (rank, group)
    return np.isin(group_of, [group for _, group in best.values()])


def _count(group_of: Integers, rows: Mask) -> Counter[int]:
    """How many rows of `rows` each group has."""
    return Counter(group_of[rows].tolist())


def _distance_from_train(number: float, shares: Shares) -> float:
    """By how much a share would have to shrink for an image with this number to train (see splits.hashed_split)."""
    return max(0.0, shares.test - number, number - (1 - shares.validation))


def kept_note(names: Sequence[str], splits: npt.NDArray[np.str_], moved: Mask) -> str | None:
    """One line about the images that train although they were drawn for validation or test; None without any.

    Args:
        names: the class of each row, (N,).
        splits: the split that was drawn for each row, (N,).
        moved: the rows that `keep_one_to_train` returned, (N,).
    """
    rows = np.flatnonzero(moved & (splits != "train")).tolist()
    if not rows:
        return None
    counts = Counter(str(splits[row]) for row in rows)
    parts = " and ".join(f"{counts[split]} of {split}" for split in ("validation", "test") if counts[split])
    classes = sorted({names[row] for row in rows})
    few = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
    back = "; those of test go back once their class has another image to train on" if counts["test"] else ""
    return f"moved to train, because their classes had no image to train on: {parts} ({few}){back}"
