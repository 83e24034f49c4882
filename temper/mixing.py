"""MixUp (Zhang et al., arXiv:1710.09412) and CutMix (Yun et al., arXiv:1905.04899): mix pairs of images and targets.

Every image of a batch gets a partner in the same batch and its own share of the mix. Both follow from the seed, the
epoch and the batch's number, so a batch is mixed in the same way on any thread and after a kill.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from temper.settings.mixing import MixedAugmentation

Images = npt.NDArray[np.uint8]  # (n, height, width, 3)
Targets = npt.NDArray[np.float32]  # (n, classes); each row sums to 1
# Keeps the random numbers of a batch apart from those of the image with the same number.
STREAM = 2**32 - 1


@dataclass(frozen=True)
class Plan:
    """How the images of a batch are mixed.

    Attributes:
        partners: int64 (n,), for each image the index of another one in the batch; each is the partner of exactly one.
        shares: float64 (n,), from 0 to 1: how much of each image and of its target is kept; the rest is its partner's.
        rectangles: int64 (n, 4), for CutMix: top, bottom, left and right of the partner's part; `None`: MixUp.
    """

    partners: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    rectangles: npt.NDArray[np.int64] | None


def plan(
    count: int, height: int, width: int, chosen: MixedAugmentation, seed: int, epoch: int, batch: int
) -> Plan | None:
    """Decides how a batch is mixed; `None`: not at all. If MixUp and CutMix are both on, each has a chance of 1/2.

    Args:
        count: the number of images in the batch.
        batch: the number of the batch in its epoch.
    """
    if not chosen.mixes or count < 2:
        return None
    random = np.random.default_rng([seed, epoch, batch, STREAM])
    by_mixup = bool(chosen.mixup) and (not chosen.cutmix or random.random() < 0.5)
    alpha = chosen.mixup if by_mixup else chosen.cutmix
    circle, partners = random.permutation(count), np.empty(count, np.int64)
    partners[circle] = np.roll(circle, 1)  # a plain permutation pairs, on average, one image of a batch with itself
    shares = random.beta(alpha, alpha, count)
    if by_mixup:
        return Plan(partners, shares, None)
    rectangles = cut(shares, random.random((count, 2)), height, width)
    heights, widths = rectangles[:, 1] - rectangles[:, 0], rectangles[:, 3] - rectangles[:, 2]
    return Plan(partners, 1 - heights * widths / (height * width), rectangles)


def cut(
    shares: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], height: int, width: int
) -> npt.NDArray[np.int64]:
    """Rectangles, outside of which about these shares of the images are kept: int64 (n, 4), top, bottom, left, right.

    As in the paper, a rectangle has the image's proportions, and its centre may lie anywhere. What lies outside the
    image is cut off, so more of an image may be kept than its share says.

    Args:
        centres: float64 (n, 2), from 0 to 1: vertical and horizontal.
    """
    sides = np.array([height, width])
    middle, half = centres * sides, np.sqrt(1 - shares)[:, None] * sides / 2
    start, end = (np.clip(np.rint(edge), 0, sides).astype(np.int64) for edge in (middle - half, middle + half))
    return np.stack([start[:, 0], end[:, 0], start[:, 1], end[:, 1]], axis=1)


def mix_images(images: Images, planned: Plan) -> None:
    """Mixes the images of a batch in place."""
    before = images.copy()
    for place, partner in enumerate(planned.partners.tolist()):
        if planned.rectangles is None:
            share = float(planned.shares[place])
            cv2.addWeighted(before[place], share, before[partner], 1 - share, 0, dst=images[place])
        else:
            top, bottom, left, right = planned.rectangles[place].tolist()
            images[place, top:bottom, left:right] = before[partner, top:bottom, left:right]


def mixed_targets(targets: Targets, planned: Plan) -> Targets:
    """The targets of a batch, mixed by the same shares as the images; every row still sums to 1."""
    own = planned.shares.astype(np.float32)[:, None]
    return own * targets + (1 - own) * targets[planned.partners]
