"""The settings of augmentation where images are also mixed with one another, which only training in batches can do."""

from typing import Annotated

from pydantic import Field

from temper.settings.augmentation import Augmentation
from temper.settings.base import FromText

Alpha = Annotated[float, Field(ge=0, le=100), FromText]


class MixedAugmentation(Augmentation):
    """Each transformation alone, and the mixing of two images and their targets."""

    mixup: Alpha = Field(
        0.0,
        description="alpha of MixUp (Zhang et al., arXiv:1710.09412): an image is blended with another one of its "
        "batch, by a share from Beta(alpha, alpha); 0.2 is usual; 0: off",
    )
    cutmix: Alpha = Field(
        0.0,
        description="alpha of CutMix (Yun et al., arXiv:1905.04899): a rectangle comes from another image of the "
        "batch; 1 is usual; with mixup too, each batch has one of both; 0: off",
    )
