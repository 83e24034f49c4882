"""The settings that `boundary` reads: those on which the stored activations of the backbone's frozen part depend."""

from pydantic import BaseModel, ConfigDict, Field

from temper.settings.augmentation import Augmentation
from temper.settings.base import Magnitude, Seed, StageSettings, Whole
from temper.settings.place import Place


class UnmixedAugmentation(Augmentation):
    """The magnitude of each transformation. MixUp and CutMix are ignored: `fine_tune` refuses them with `views`."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class OfFineTune(BaseModel):
    """The keys of `fine_tune` that stored activations depend on; all others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    unfreeze_from: Place = Field("all")
    views: Whole = Field(0)
    augmentation: UnmixedAugmentation = Field(UnmixedAugmentation())


class Settings(StageSettings):
    """What `boundary` reads."""

    seed: Seed
    aug: Magnitude
    fine_tune: OfFineTune
