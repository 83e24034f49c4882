"""Stratified folds for cross-validation: each class is spread evenly, and groups of images stay together."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def stratified_folds(
    labels: npt.NDArray[np.integer], count: int, seed: int, groups: npt.NDArray[np.integer] | None = None
) -> Integers:
    """Assigns a fold to each image; every class is spread over the folds as evenly as its groups allow.

    The groups of a class are assigned one by one, the largest first, groups of equal size in an order drawn from the
    seed. Each goes to the fold with the fewest images of that class; on ties, to the one with the fewest images in all.
    A class with fewer groups than folds is absent from some folds. A group with several classes counts for the class
    of its first image.

    Args:
        labels: (N,), 0 or more.
        count: the number of folds.
        groups: (N,) any integers; images with equal values share a fold. `None`: each image is its own group.

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
