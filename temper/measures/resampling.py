"""The bootstrap: resamples of a test set, in each of which every image is counted 0, 1, 2, ... times at random.

The same seed and number of images give the same resamples, so that two models that were measured on the same images can
be compared resample by resample.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]

RESAMPLES = 10_000
# A limit on the random numbers drawn: with more than 10,000 images there are fewer resamples, but at least 1,000.
MOST_DRAWN = 10**8
_BLOCK = 2**19  # numbers drawn at a time: 2 MB, which fit into a processor's cache
# How often an image is counted follows a Poisson distribution with mean 1 (Chamandy et al. 2012, "Estimating
# uncertainty for massive data streams"). For shares and means this is as good as drawing a fixed number of images with
# replacement, and the counts of different images are independent. The distribution is a table of 256 equally probable
# values with a mean of exactly 1 and a variance of 1.008, so each draw costs one byte of random numbers.
_COUNTS = np.repeat(np.arange(6, dtype=np.float32), [95, 93, 47, 16, 4, 1])


def resamples_of(images: int, wanted: int = RESAMPLES) -> int:
    """How many resamples are drawn for a test set of this many images."""
    return min(wanted, max(1000, MOST_DRAWN // images))


def resample(images: int, wanted: int = RESAMPLES, seed: int = 0) -> Iterator[Weights]:
    """Yields blocks of resamples, float32 (resamples, images): how often each image is counted in each of them."""
    random = np.random.default_rng([seed, images])
    left = resamples_of(images, wanted)
    most = max(1, _BLOCK // images)
    while left:
        block = min(left, most)
        yield _COUNTS[random.integers(0, 256, (block, images), dtype=np.uint8)]
        left -= block
