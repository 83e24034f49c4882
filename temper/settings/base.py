"""What all settings are made of: kinds of numbers and text, sections, and the settings of a stage.

Every stage depends on this module, so it holds only what all of them share.
Numbers may come as strings: `dvc exp run -S lr=3e-6` writes `lr: 3e-06`, which YAML 1.1 reads as text.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """A number that YAML 1.1 took for text (`3e-06`, `1e20`) as a float; anything else as it is."""
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
    """`none` as null: DVC writes null as an empty value, which nobody understands."""
    return None if value == "none" else value


OrNone = BeforeValidator(_nothing, json_schema_input_type=int | Literal["none"] | None)
FromText = BeforeValidator(_number)
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), FromText]
# Beyond these no network trains; they are what a slip of the pen looks like.
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
    """A mapping of params.yaml: no key but these, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StageSettings(BaseModel):
    """The top-level keys of params.yaml that one stage reads. dvc.yaml tracks the same keys, as a test compares."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
