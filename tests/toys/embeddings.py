"""Embeddings as a backbone might output them: a cloud around a centre for each class."""

import numpy as np

from temper.logistic import Images


def toy_images(count: int, features: int, classes: int, views: int = 1, noise: float = 1.0, seed: int = 0) -> Images:
    """Images of all classes in turn, whose centres are the same for every seed; further views are near the first."""
    centres = np.random.default_rng([9, classes, features]).normal(size=(classes, features))
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    plain = centres[labels][:, None] + noise * rng.normal(size=(count, 1, features))
    near = plain + 0.1 * rng.normal(size=(count, views, features)) * (np.arange(views) > 0)[:, None]
    return Images(near.astype(np.float32), labels)
