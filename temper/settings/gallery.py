"""What `gallery` reads of the settings: how the fine-tune will augment, which it draws."""

from pydantic import BaseModel, ConfigDict, Field

from temper.settings.base import Magnitude, Seed, StageSettings
from temper.settings.mixing import MixedAugmentation


class OfFineTune(BaseModel):
    """The part of `fine_tune` that is drawn; its other keys are the fine-tune's own."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    augmentation: MixedAugmentation = Field(MixedAugmentation())


class Settings(StageSettings):
    """What `gallery` reads."""

    seed: Seed
    aug: Magnitude
    fine_tune: OfFineTune
