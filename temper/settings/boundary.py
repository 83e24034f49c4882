"""What `boundary` reads of the settings: what the activations at the boundary of the frozen part depend on."""

from pydantic import BaseModel, ConfigDict, Field

from temper.settings.augmentation import Augmentation
from temper.settings.base import Magnitude, Seed, StageSettings, Whole
from temper.settings.place import Place


class UnmixedAugmentation(Augmentation):
    """Each transformation alone; the mixing of images is the fine-tune's own, and refused beside `views`."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class OfFineTune(BaseModel):
    """The part of `fine_tune` that counts; its other keys are the fine-tune's own."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    unfreeze_from: Place = Field("all")
    views: Whole = Field(0)
    augmentation: UnmixedAugmentation = Field(UnmixedAugmentation())


class Settings(StageSettings):
    """What `boundary` reads."""

    seed: Seed
    aug: Magnitude
    fine_tune: OfFineTune
