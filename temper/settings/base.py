"""The building blocks of all settings: types of numbers and text with their ranges, and two base classes.

Every stage depends on this module, so it holds only what all of them share.
Numbers may arrive as strings: `dvc exp run -S lr=3e-6` writes `lr: 3e-06`, which YAML 1.1 reads as text.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """Turns a number that YAML 1.1 took for text (`3e-06`, `1e20`) into a float; returns anything else unchanged."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _height_width(value: Any) -> Any:
    """`224` as (224, 224), `[320, 380]` as (320, 380)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    return tuple(value) if isinstance(value, list) else value


def _nothing(value: Any) -> Any:
    """Reads `none` as null: DVC writes null as an empty value, which nobody understands."""
    return None if value == "none" else value


OrNone = BeforeValidator(_nothing, json_schema_input_type=int | Literal["none"] | None)
FromText = BeforeValidator(_number)
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), FromText]
# No network trains at a learning rate outside this range, so such a value must be a typing error.
Rate = Annotated[float, Field(ge=1e-12, le=1e3), FromText]
Share = Annotated[float, Field(gt=0, lt=1), FromText]
Fraction = Annotated[float, Field(ge=0, lt=1), FromText]
Magnitude = Annotated[float, Field(ge=0, le=1), FromText]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # of a layer, or of a batch
Pixels = Annotated[int, Field(ge=8, le=4096)]
HeightWidth = tuple[Pixels, Pixels]
ImageSize = Annotated[HeightWidth, BeforeValidator(_height_width, json_schema_input_type=Pixels | HeightWidth)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A mapping in params.yaml. Unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StageSettings(BaseModel):
    """The top-level keys of params.yaml that one stage reads; a test checks that dvc.yaml tracks the same keys."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
