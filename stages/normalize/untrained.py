"""Classes that a draw left without an image to train on get one back.

A class of one photo trains; it does not stop the run. Under the hash draw (splits.py) all images of a small class may
be drawn to validate or to test. With shares of 0.15 and 0.2, that happens to 35 % of the classes of one image.

No rule can do this and keep every image where it is when the set grows. An image that is alone in its class has to
train, whichever it is; if nothing ever moved, every image would train. So the rule here moves as little as possible:

- Nothing moves while a class has a training image of its own; that is so of nearly every class.
- Otherwise validation images are preferred. Moving between validation and train is not what law 2 forbids.
- Only a class whose images were all drawn to test gives up a test image. It goes back to test when the class gets a
  training image of its own, and so the model from before was trained on what then is a test image. That is the price:
  at most one group of nearly equal pictures a class. With a test share of 0.2, it is paid by 20 % of the classes of
  one image, 4 % of those of two and 0.8 % of those of three. `kept_note` names them, and `normalize.min_per_class`
  leaves such classes out.
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
    """The rows that train so that every class with a drawn row has an image to train on.

    What moves is a connected group of nearly equal pictures as a whole, so that no two splits share a picture; rows of
    it that were out as repeats may be used again. Of the groups of a class, the one that moves is a group that holds a
    training image already (out, because a test image repeats it), else the one with the fewest test images, then with
    the fewest images, then the one that would train first if the shares were smaller. The order of the rows changes
    nothing.

    Args:
        pictures: of all N rows.
        classes: the number of each row's class, (N,).
        splits: what was drawn for each row, (N,).
        drawn: rows that were drawn and may be used: none of a published validation or test split, and none that is
            removed for another reason than being a repeat. Rows of a source that only trains do not belong here: they
            would move images of the others.
        repeats: of those, the rows that may not be used because one of another split is nearly the same, (N,).
        shares, seed: those of the draw.

    Returns:
        The rows that train, now or still, with those of their group, (N,); all False where nothing is to be done.
        Assign "train" to them and look for repeats anew: only those of the moved groups change.
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
    """How many of the rows each group has."""
    return Counter(group_of[rows].tolist())


def _distance_from_train(number: float, shares: Shares) -> float:
    """How much smaller a share must be before an image with this number trains (see splits.hashed_split)."""
    return max(0.0, shares.test - number, number - (1 - shares.validation))


def kept_note(names: Sequence[str], splits: npt.NDArray[np.str_], moved: Mask) -> str | None:
    """One line about the images that train instead of what was drawn for them.

    Args:
        names: the class of each row, (N,).
        splits: what was drawn for each row, (N,).
        moved: what `keep_one_to_train` returned.
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
