"""Finds photos that are unlike those a model was trained on, by the distance of their embeddings to the training set.

The distance of a photo is that to its fifth nearest training photo (Sun et al. 2022, "Out-of-distribution detection
with deep nearest neighbors"), measured as 1 minus the cosine of the angle between two embeddings. docs/retrain.md
reports how many photos of other kinds it detects, compared with other distances that were tried.

The limit is calibrated on validation photos, on which the model was not trained either: with any backbone, new photos
of the same kind are as far from the training photos as the validation photos are.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 5
QUANTILE = 0.99  # the share of photos like the training photos that lies within the limit
SIGNIFICANT = 0.01  # photos are flagged if the probability of so many beyond the limit by chance is below this
_BLOCK = 256  # how many photos' distances to all training photos are in memory at a time

Floats = npt.NDArray[np.float32]


def distances(training: npt.NDArray[np.floating[Any]], photos: npt.NDArray[np.floating[Any]]) -> Floats:
    """The distance of each photo to its fifth nearest training photo, float32 (n,), 0 to 2.

    Args:
        training: embeddings of the training photos, (N, features); with fewer than five, the farthest one counts.
        photos: embeddings of the photos to measure, (n, features).

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
    """Embeddings scaled to length 1."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: Floats = (embeddings / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


@dataclass(frozen=True)
class Limit:
    """The distance beyond which a photo counts as unlike the training photos.

    Attributes:
        distance: the distance of one of the validation photos.
        rank: the place of that photo among the validation photos ordered by distance, from 1.
        images: how many validation photos there are.
    """

    distance: float
    rank: int
    images: int

    @classmethod
    def of(cls, validation: npt.NDArray[np.floating[Any]], quantile: float = QUANTILE) -> "Limit":
        """The limit that follows from the distances of the validation photos.

        Another photo of the same kind lies within the limit with a probability of at least `quantile` (split conformal
        prediction: Vovk et al. 2005). If there are too few photos for that, the limit is the largest distance.

        Raises:
            ValueError: there is no photo.
        """
        if not len(validation):
            raise ValueError("expected distances of validation photos, received none")
        rank = min(math.ceil((len(validation) + 1) * quantile), len(validation))
        return cls(float(np.sort(validation)[rank - 1]), rank, len(validation))

    @property
    def chance(self) -> float:
        """The expected share of photos of the same kind beyond the limit, 0 to 1."""
        return (self.images + 1 - self.rank) / (self.images + 1)

    def probability(self, above: int, photos: int) -> float:
        """The probability that at least `above` of `photos` photos of the same kind lie beyond the limit.

        The limit itself comes from a sample, so the count varies more than a binomial one: it is beta-binomial.
        """
        from scipy.stats import betabinom  # noqa: PLC0415 (half a second, and rarely needed)

        return float(betabinom.sf(above - 1, photos, self.images + 1 - self.rank, self.rank))

    def is_flagged(self, above: int, photos: int) -> bool:
        """Whether more photos lie beyond the limit than chance allows."""
        return above > 0 and self.probability(above, photos) < SIGNIFICANT
