"""Photos that are unlike those a model was trained on: how far their embeddings are from all training embeddings.

The distance of a photo is that to its fifth nearest training photo (Sun et al. 2022, "Out-of-distribution detection
with deep nearest neighbors"), 1 minus the cosine of the angle between two embeddings. docs/retrain.md has what it finds
of other kinds of photos, beside the other distances that were tried.

What is far is calibrated on validation photos, which the model was not trained on either: new photos of the same kind
are as far from the training photos as these are, whatever the backbone.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 5
QUANTILE = 0.99  # of photos like the training photos, so many are no farther than the limit
SIGNIFICANT = 0.01  # a count above the limit that is this improbable among photos of the same kind is no chance
_BLOCK = 256  # photos whose distances to all training photos are in memory at once

Floats = npt.NDArray[np.float32]


def distances(training: npt.NDArray[np.floating[Any]], photos: npt.NDArray[np.floating[Any]]) -> Floats:
    """The distance of each photo to its fifth nearest training photo, float32 (n,), 0 to 2.

    Args:
        training: embeddings of the training photos, (N, features); of fewer than five, the farthest counts.
        photos: embeddings of others, (n, features).

    Raises:
        ValueError: there is no training photo, or the numbers of features differ.
    """
    if not len(training) or training.shape[1:] != photos.shape[1:]:
        raise ValueError(
            f"expected embeddings of training photos, and others of as many features, received {training.shape} and "
            f"{photos.shape}"
        )
    known = _unit(training)
    nearest = min(NEIGHBOURS, len(known))
    found = np.empty(len(photos), np.float32)
    for start in range(0, len(photos), _BLOCK):
        cosines = _unit(photos[start : start + _BLOCK]) @ known.T
        found[start : start + _BLOCK] = 1 - np.partition(cosines, -nearest, axis=1)[:, -nearest]
    return np.maximum(found, 0)


def _unit(embeddings: npt.NDArray[np.floating[Any]]) -> Floats:
    """Embeddings of length 1."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: Floats = (embeddings / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


@dataclass(frozen=True)
class Limit:
    """The distance beyond which a photo counts as unlike the training photos.

    Attributes:
        distance: that of a validation photo.
        rank: how many validation photos are no farther.
        images: how many validation photos there are.
    """

    distance: float
    rank: int
    images: int

    @classmethod
    def of(cls, validation: npt.NDArray[np.floating[Any]], quantile: float = QUANTILE) -> "Limit":
        """The limit of these distances of validation photos.

        It is the distance that a further photo of the same kind keeps with a probability of at least `quantile`, or
        the largest one where there are too few photos for that (split conformal prediction: Vovk et al. 2005).

        Raises:
            ValueError: there is no photo.
        """
        if not len(validation):
            raise ValueError("expected distances of validation photos, received none")
        rank = min(math.ceil((len(validation) + 1) * quantile), len(validation))
        return cls(float(np.sort(validation)[rank - 1]), rank, len(validation))

    @property
    def chance(self) -> float:
        """The share of photos of the same kind that is expected above the limit, 0 to 1."""
        return (self.images + 1 - self.rank) / (self.images + 1)

    def probability(self, above: int, photos: int) -> float:
        """How probable it is that of so many photos of the same kind at least `above` are above the limit.

        The limit is itself one of a few photos, so the count varies more than a binomial one: its distribution is
        beta-binomial.
        """
        from scipy.stats import betabinom  # noqa: PLC0415 (half a second, and only who asks needs it)

        return float(betabinom.sf(above - 1, photos, self.images + 1 - self.rank, self.rank))

    def is_flagged(self, above: int, photos: int) -> bool:
        """Whether more photos are above the limit than chance allows."""
        return above > 0 and self.probability(above, photos) < SIGNIFICANT
