"""The settings that `gallery` reads: the fine-tune's augmentation, of which it draws examples."""

from pydantic import BaseModel, ConfigDict, Field

from temper.settings.base import Magnitude, Seed, StageSettings
from temper.settings.mixing import MixedAugmentation


class OfFineTune(BaseModel):
    """The keys of `fine_tune` that `gallery` draws; all others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    augmentation: MixedAugmentation = Field(MixedAugmentation())


class Settings(StageSettings):
    """What `gallery` reads."""

    seed: Seed
    aug: Magnitude
    fine_tune: OfFineTune
