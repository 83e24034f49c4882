"""Folds for cross-validation: each class spread evenly, and what belongs together kept together."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def stratified_folds(
    labels: npt.NDArray[np.integer], count: int, seed: int, groups: npt.NDArray[np.integer] | None = None
) -> Integers:
    """The fold of each image: every class is spread over the folds as evenly as its groups allow.

    The groups of each class, the largest first and those of equal size in an order drawn from the seed, go one by one
    to the fold that has the fewest images of that class, and of those folds to the one with the fewest images. A class
    with fewer groups than folds is absent from some folds. A group with several classes counts for the class of its
    first image.

    Args:
        labels: (N,), 0 or more.
        count: how many folds.
        groups: (N,) any integers; images with equal ones share a fold. `None`: each image is alone.

    Returns:
        int64 (N,), 0 to count - 1.
    """
    rows = np.arange(len(labels))
    members = rows if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first, sizes = np.unique(members, return_index=True, return_counts=True)
    drawn = np.random.default_rng([seed, count]).permutation(len(sizes))
    of_class = labels[first]
    fold_of = np.empty(len(sizes), np.int64)
    images = np.zeros(count, np.int64)  # in each fold
    for label in np.unique(of_class):
        of_label = np.zeros(count, np.int64)
        mine = drawn[of_class[drawn] == label]
        for group in mine[np.argsort(-sizes[mine], kind="stable")]:
            fold = min(range(count), key=lambda fold: (of_label[fold], images[fold], fold))
            fold_of[group] = fold
            of_label[fold] += sizes[group]
            images[fold] += sizes[group]
    folds: Integers = fold_of[members]
    return folds
