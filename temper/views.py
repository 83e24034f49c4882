"""Test-time augmentation: the views of an image whose predictions are averaged. Nothing here is random.

The crops and mirror images are the ten views of AlexNet (Krizhevsky et al. 2012), but with larger crops, because a
classifier that was trained on whole photos should see most of the photo.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # (n, height, width, 3)
Probabilities = npt.NDArray[np.float32]  # (n, classes)

SIDE = 7 / 8  # the side of a crop, as a fraction of the image's side: the usual 224 of 256
# Where a crop lies, (vertical, horizontal): 0 is the top or the left, 1 the bottom or the right.
PLACES = ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1))
MOST = 1 + len(PLACES)  # views, not counting mirror images


@dataclass(frozen=True)
class View:
    """One way to look at an image.

    Attributes:
        crop: where the crop lies, vertically and horizontally, from 0 to 1; `None`: the whole image.
        mirrored: whether it is mirrored left to right.
    """

    crop: tuple[float, float] | None = None
    mirrored: bool = False


def views(count: int, mirrored: bool = False) -> list[View]:
    """The first `count` views: the whole image, then the crops of its centre and corners.

    Args:
        count: how many, 1 to MOST.
        mirrored: whether each view is followed by its mirror image, which doubles their number. Not for images that
            change their class when they are mirrored, such as digits.

    Raises:
        ValueError: `count` is out of range.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"expected 1 to {MOST} views, received {count}")
    crops = [None, *PLACES][:count]
    return [View(crop, side) for crop in crops for side in ((False, True) if mirrored else (False,))]


def seen(images: Images, view: View) -> Images:
    """A view of each image, of the same shape, uint8 (n, height, width, 3); `images` itself is not changed."""
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
        predict: given a view, returns the probabilities of all images `seen` in that view, (n, classes). It is called
            once per view, so that it can read the images in batches.
        chosen: at least one view. With the whole image alone, the result has the same bits as that of `predict`.
    """
    total = np.sum([predict(view) for view in chosen], axis=0, dtype=np.float64)
    mean: Probabilities = np.asarray(total / len(chosen), np.float32)
    return mean
