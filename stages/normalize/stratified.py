"""The stratified draw: exact shares within each class, for sets that do not grow.

The hash draw (splits.py) decides each image alone. Added images therefore move no old one, but small classes may have
no validation or test image: of 120 classes of 5 images, about a third. This draw looks at the whole set. It gives every
class its share of each split, and in return an added image may move others; hence it is for sets that do not grow.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.normalize.groups import Integers, Mask, connected_groups
from stages.normalize.splits import Pictures, Shares, uniform

# How many groups of nearly equal pictures a class must have before one of them is drawn. The test split comes first: a
# class without a test image is not measured at all, whereas validation only chooses between epochs, over all classes.
LEAST_TO_TEST, LEAST_TO_VALIDATE = 2, 3

ADVICE = "(use it for sets that do not grow)"


def stratified_splits(
    pictures: Pictures, classes: Integers, drawable: Mask, fixed: Mask, shares: Shares, seed: int
) -> npt.NDArray[np.str_]:
    """Draws validation and test images within each class.

    What is drawn is a connected group of nearly equal pictures, so that no two splits share one. A group that shows
    pictures of several classes is drawn as one of the class with the fewest groups. A class with three groups or more
    has images in all three splits; with two, one group trains and the other tests; with one, it trains. A share of 0
    draws nothing.

    Within a class, groups are ordered by a hash of the seed and a picture's content. Test takes from the low end,
    validation from the high end, both skip groups larger than what is left of the class's share, and where all groups
    are too large they take the smallest. Hence large groups mostly train. The order of the rows changes nothing.

    Args:
        pictures: of all N rows.
        classes: the number of each row's class, 0 or more, (N,).
        drawable: rows that may be drawn. A group that also holds a `fixed` row is not drawn: it trains, as the source
            published it, and `place` reports the leak.
        fixed: rows of a published validation or test split, (N,), none of them drawable.
        shares: 0 for a split that the source publishes.

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
    """Of each group, the class it is drawn as, from 0 on: of the classes that it shows, the one with fewest groups.

    Args:
        group: the group of each row, from 0 on without gaps, (rows,).
        classes: the class of each row, (rows,).

    Returns:
        int64 (groups,), numbered without gaps in the order of `classes`.
    """
    _, number = np.unique(classes, return_inverse=True)
    count = int(number.max()) + 1
    shown, of_class = np.divmod(np.unique(group * count + number), count)  # each class of each group once
    order = np.lexsort((of_class, np.bincount(of_class)[of_class], shown))
    owners = of_class[order][np.unique(shown[order], return_index=True)[1]]
    return np.unique(owners, return_inverse=True)[1]  # a class that owns no group has no number


def _draw(owners: Integers, sizes: Integers, keys: npt.NDArray[np.float64], shares: Shares) -> npt.NDArray[np.str_]:
    """The split of each group; groups come sorted by class and then by key, with their sizes in images."""
    groups = np.bincount(owners)
    images = np.bincount(owners, weights=sizes).astype(np.int64)
    # Of classes with equal remainders, those with the lowest keys test one image more, those with the highest validate
    # one more: so the classes that gave nothing to one split give to the other.
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
    """How many images of each class a split should have: `share` of them, rounded down or up, and at least 1.

    Which classes are rounded up is decided by the largest remainders (Hamilton's method), so that the total is that of
    all images together; it is larger only where the least of 1 makes it so.

    Args:
        images: of each class, (classes,).
        room: how many groups of a class the split may have at most; a class with room for 0 gets 0.
        ties: of classes with equal remainders, those with the lower values are rounded up first.
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
    """Takes free groups in their order, as long as they fit into what their class still has to give.

    Args:
        wanted: images to be taken of each class.
        room: groups that may be taken of each class.

    Returns:
        Which groups are taken: one at least of each class with something wanted and a free group.
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
    """One line that recommends the stratified draw where the hash draw left classes without an image of a split.

    Args:
        classes: the class of each image that is used, (N,).
        splits: what the hash draw made of each, (N,).
        shares: 0 for a published split, about which no draw can do anything.

    Returns:
        None where the stratified draw would mend no class.
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
