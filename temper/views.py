"""Test-time augmentation: the views of an image whose predictions are averaged. Nothing in it is random.

Ten views of crops and mirror images are those of AlexNet (Krizhevsky et al. 2012), with larger crops: a classifier that
learned on whole photos should see most of one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # (n, height, width, 3)
Probabilities = npt.NDArray[np.float32]  # (n, classes)

SIDE = 7 / 8  # of a crop, as a share of the image's; 224 of 256, as usual
# Where a crop lies, from 0, at the top or left, to 1.
PLACES = ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1))
MOST = 1 + len(PLACES)  # views, not counting mirror images


@dataclass(frozen=True)
class View:
    """One way to look at an image.

    Attributes:
        crop: where the crop lies, down and across, from 0 to 1; `None`: the whole image.
        mirrored: whether it is mirrored left to right.
    """

    crop: tuple[float, float] | None = None
    mirrored: bool = False


def views(count: int, mirrored: bool = False) -> list[View]:
    """The whole image first, then the crops of its centre and corners.

    Args:
        count: how many, 1 to MOST.
        mirrored: with the mirror image of each, which follows it: twice as many. Not for classes that a mirror image
            leaves, such as digits.

    Raises:
        ValueError: there are not as many.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"expected 1 to {MOST} views, received {count}")
    crops = [None, *PLACES][:count]
    return [View(crop, side) for crop in crops for side in ((False, True) if mirrored else (False,))]


def seen(images: Images, view: View) -> Images:
    """Images as a view shows them, of the same shape: uint8 (n, height, width, 3); `images` stay as they are."""
    height, width = images.shape[1:3]
    if view.crop is not None:
        rows, columns = max(1, round(SIDE * height)), max(1, round(SIDE * width))
        top, left = (round(at * rest) for at, rest in zip(view.crop, (height - rows, width - columns), strict=True))
        crops = images[:, top : top + rows, left : left + columns]
        images = np.stack([cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR) for crop in crops])
    return np.ascontiguousarray(images[:, :, ::-1]) if view.mirrored else images


def averaged(predict: Callable[[View], Probabilities], chosen: Sequence[View]) -> Probabilities:
    """The mean of the probabilities of all views: float32 (n, classes).

    Args:
        predict: the probabilities of all images, (n, classes), each as `seen` by a view. It is called once a view, so
            that it can read the images in batches.
        chosen: at least one view. With the whole image alone, the result is what `predict` says, to the bit.
    """
    total = np.sum([predict(view) for view in chosen], axis=0, dtype=np.float64)
    mean: Probabilities = np.asarray(total / len(chosen), np.float32)
    return mean
