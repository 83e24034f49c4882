"""The settings of augmentation for training in batches, which can also mix the images of a batch with one another."""

from typing import Annotated

from pydantic import Field

from temper.settings.augmentation import Augmentation
from temper.settings.base import FromText

Alpha = Annotated[float, Field(ge=0, le=100), FromText]


class MixedAugmentation(Augmentation):
    """The magnitude of each transformation, and the mixing of two images and their targets."""

    mixup: Alpha = Field(
        0.0,
        description="alpha of MixUp (Zhang et al., arXiv:1710.09412): each image is blended with another one of its "
        "batch, by a share drawn from Beta(alpha, alpha); 0.2 is usual; 0: off",
    )
    cutmix: Alpha = Field(
        0.0,
        description="alpha of CutMix (Yun et al., arXiv:1905.04899): a rectangle of each image comes from another "
        "image of its batch; 1 is usual; if mixup is on too, each batch is mixed by one of the two; 0: off",
    )

    @property
    def mixes(self) -> bool:
        """Whether the images of a batch are mixed with one another."""
        return bool(self.mixup or self.cutmix)
