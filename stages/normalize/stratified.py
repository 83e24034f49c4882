"""The stratified draw: exact shares within each class, for sets that do not grow.

The hash draw (splits.py) decides about each image alone. Adding images therefore never moves an old one, but small
classes may end up without a validation or test image: of 120 classes of 5 images, about a third. The stratified draw
considers all images together and gives every class its share of each split. The price is that an added image may move
others to another split, so use it for sets that do not grow.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.normalize.groups import Integers, Mask, connected_groups
from stages.normalize.splits import Pictures, Shares, uniform

# How many groups of nearly equal pictures a class needs before one of them goes to test or to validation. Test comes
# first: a class without a test image is not measured at all, whereas validation only chooses between epochs, by figures
# over all classes.
LEAST_TO_TEST, LEAST_TO_VALIDATE = 2, 3

ADVICE = "(use it for sets that do not grow)"


def stratified_splits(
    pictures: Pictures, classes: Integers, drawable: Mask, fixed: Mask, shares: Shares, seed: int
) -> npt.NDArray[np.str_]:
    """Draws validation and test images within each class.

    The unit of the draw is a connected group of nearly equal pictures, so that no picture is in two splits. A group
    with pictures of several classes counts for the class that has the fewest groups. A class with three groups or more
    gets images in all three splits; with two groups, one trains and the other tests; a single group trains. Nothing is
    drawn for a split whose share is 0.

    The groups of a class are ordered by a hash of the seed and a picture's content. Test takes groups from the low end
    and validation from the high end. Both skip groups that are larger than the rest of the class's share; if all groups
    are too large, they take the smallest one. Large groups therefore mostly train. The order of the rows has no effect.

    Args:
        pictures: all N rows, grouped by content.
        classes: the number of each row's class, 0 or more, (N,).
        drawable: rows that may be drawn, (N,). A group that also has a `fixed` row is not drawn: its drawable rows
            train, and `place` reports the leak.
        fixed: rows of a published validation or test split, (N,), none of them drawable.
        shares: the shares to draw; 0 for a split that the source publishes.

    Returns:
        "train", "validation" or "test" for each row, (N,); "train" for all rows that are not drawable.
    """
    group_of = connected_groups(pictures, drawable | fixed)
    rows = np.flatnonzero(drawable & ~np.isin(group_of, group_of[fixed]))
    splits = np.full(len(drawable), "train", "<U10")
    if not len(rows):
        return splits
    groups, group = np.unique(group_of[rows], return_inverse=True)
    owners = _owners(group, classes[rows])
    keys = np.array([uniform(f"{seed}:{pictures.contents[row]}") for row in pictures.first_of[groups].tolist()])
    order = np.lexsort((groups, keys, owners))
    held_out = np.full(len(groups), "train", "<U10")
    held_out[order] = _draw(owners[order], np.bincount(group)[order], keys[order], shares)
    splits[rows] = held_out[group]
    return splits


def _owners(group: Integers, classes: Integers) -> Integers:
    """The class that each group counts for: among the classes of its pictures, the one that has the fewest groups.

    Args:
        group: the group of each row, numbered from 0 without gaps, (rows,).
        classes: the class of each row, (rows,).

    Returns:
        int64 (groups,): classes numbered anew, from 0 without gaps, in the same order. A class for which no group
        counts has no number.
    """
    _, number = np.unique(classes, return_inverse=True)
    count = int(number.max()) + 1
    shown, of_class = np.divmod(np.unique(group * count + number), count)  # each class of each group once
    order = np.lexsort((of_class, np.bincount(of_class)[of_class], shown))
    owners = of_class[order][np.unique(shown[order], return_index=True)[1]]
    return np.unique(owners, return_inverse=True)[1]


def _draw(owners: Integers, sizes: Integers, keys: npt.NDArray[np.float64], shares: Shares) -> npt.NDArray[np.str_]:
    """The split of each group, (groups,).

    Args:
        owners: the class that each group counts for. Groups are sorted by class, then by key.
        sizes: how many images each group has.
        keys: the hash of each group, in [0, 1).
    """
    groups = np.bincount(owners)
    images = np.bincount(owners, weights=sizes).astype(np.int64)
    # Among classes with equal remainders, those with the lowest keys give one more image to test, and those with the
    # highest keys one more to validation. So the two splits take their extra images from different classes.
    first_keys = keys[np.unique(owners, return_index=True)[1]]
    splits = np.full(len(owners), "train", "<U10")
    if shares.test:
        room = np.where(groups >= LEAST_TO_TEST, np.maximum(1, groups - 1 - (shares.validation > 0)), 0)
        wanted = apportion(images, shares.test, room, first_keys)
        splits[_take(owners, sizes, wanted, room, splits == "train")] = "test"
    if shares.validation:
        left = groups - np.bincount(owners, weights=splits == "test").astype(np.int64)
        room = np.where(groups >= LEAST_TO_VALIDATE, left - 1, 0)
        wanted = apportion(images, shares.validation, room, -first_keys)
        backwards = _take(owners[::-1], sizes[::-1], wanted, room, splits[::-1] == "train")
        splits[backwards[::-1]] = "validation"
    return splits


def apportion(images: Integers, share: float, room: Integers, ties: npt.NDArray[np.float64]) -> Integers:
    """How many images of each class a split should get: `share` of them, rounded down or up, and at least 1.

    The classes with the largest remainders are rounded up (Hamilton's method), so that the total is `share` of all
    images. It is larger only if the minimum of 1 for each class makes it so.

    Args:
        images: how many images each class has, (classes,).
        share: of the images, 0 to 1.
        room: how many groups of each class the split may take at most, (classes,); a class with 0 gets no images.
        ties: among classes with equal remainders, those with lower values are rounded up first, (classes,).
    """
    quotas = images * share
    down = np.floor(quotas + 1e-9).astype(np.int64)  # 100 * 0.29 is 28.999999999999996
    wanted = np.where(room > 0, np.maximum(down, 1), 0)
    missing = max(0, round(float(quotas.sum())) - int(wanted.sum()))
    remainders = np.round(quotas - wanted, 9)
    order = np.lexsort((ties, -remainders))
    candidates = order[((remainders > 0) & (wanted < room))[order]]
    wanted[candidates[:missing]] += 1
    return wanted


def _take(owners: Integers, sizes: Integers, wanted: Integers, room: Integers, free: Mask) -> Mask:
    """Takes free groups in their order, skipping those that are larger than what is still wanted of their class.

    Args:
        owners: the class that each group counts for, (groups,).
        sizes: how many images each group has, (groups,).
        wanted: how many images to take of each class, (classes,).
        room: how many groups may be taken of each class, (classes,).
        free: which groups may be taken, (groups,).

    Returns:
        Which groups are taken, (groups,). Every class of which images are wanted and that has a free group gives at
        least one group; if all of them are too large, the smallest.
    """
    taken = np.zeros(len(owners), bool)
    images, groups = wanted.tolist(), room.tolist()
    every = zip(owners.tolist(), sizes.tolist(), free.tolist(), strict=True)
    for group, (owner, size, is_free) in enumerate(every):
        if is_free and size <= images[owner] and groups[owner]:
            taken[group] = True
            images[owner] -= size
            groups[owner] -= 1
    without = (wanted > 0) & (np.bincount(owners, weights=taken, minlength=len(wanted)) == 0)
    rest = np.flatnonzero(without[owners] & free)
    rest = rest[np.lexsort((rest, sizes[rest], owners[rest]))]
    taken[rest[np.unique(owners[rest], return_index=True)[1]]] = True
    return taken


def advice(classes: Integers | Sequence[str], splits: Sequence[str], shares: Shares) -> str | None:
    """One line that recommends the stratified draw if the hash draw left classes without a validation or test image.

    Args:
        classes: the class of each image that is used, (N,).
        splits: the split of each image by the hash draw, (N,).
        shares: 0 for a published split, which no draw can change.

    Returns:
        The line, or None if the stratified draw would help no class.
    """
    names, number = np.unique(np.asarray(classes), return_inverse=True)
    images = np.bincount(number, minlength=len(names))
    missing, mended, of_split = {}, False, np.asarray(splits)
    for split, share, least in (
        ("validation", shares.validation, LEAST_TO_VALIDATE),
        ("test", shares.test, LEAST_TO_TEST),
    ):
        without = np.bincount(number[of_split == split], minlength=len(names)) == 0
        if share and without.any():
            missing[split] = int(without.sum())
            mended |= bool((without & (images >= least)).any())
    if not mended:
        return None
    (split, count), *others = missing.items()
    says = f"{count} of {len(names)} classes {'has' if count == 1 else 'have'} no {split} image"
    says += "".join(f" and {count} no {split} image" for split, count in others)
    one = "one of each" if shares.validation and shares.test else "one"
    return f"{says}; normalize.draw: stratified gives every class of three images or more {one} {ADVICE}"
