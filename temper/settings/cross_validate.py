"""The settings of `cross_validate`: into how many folds the training and validation images are cut."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from temper.settings.base import Seed, StageSettings


def _no_single_fold(value: Any) -> Any:
    """Refuses one fold, which would leave nothing to learn from."""
    if value == 1 and not isinstance(value, bool):
        raise ValueError("cross_validate: expected 0 (off) or 2 to 100 folds, received 1")
    return value


class Settings(StageSettings):
    """What `cross_validate` reads."""

    seed: Seed
    cross_validate: Annotated[int, Field(ge=0, le=100), BeforeValidator(_no_single_fold)] = Field(
        description="folds, 5 or 10, of an estimate of a linear head by every image but the test's, with the images "
        "whose label is probably wrong; 0: off"
    )
