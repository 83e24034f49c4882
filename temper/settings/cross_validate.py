"""The settings of `cross_validate`: the number of folds into which the training and validation images are divided."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from temper.settings.base import Seed, StageSettings


def _no_single_fold(value: Any) -> Any:
    """Refuses a single fold, which would leave no images to learn from."""
    if value == 1 and not isinstance(value, bool):
        raise ValueError("cross_validate: expected 0 (off) or 2 to 100 folds, received 1")
    return value


class Settings(StageSettings):
    """What `cross_validate` reads."""

    seed: Seed
    cross_validate: Annotated[int, Field(ge=0, le=100), BeforeValidator(_no_single_fold)] = Field(
        description="the number of folds, usually 5 or 10, of a cross-validation that estimates a linear head on all "
        "images but the test split's and lists images whose label is probably wrong; 0: off"
    )
