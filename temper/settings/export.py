"""The settings of `export`: the formats to which the classifier is exported."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from temper.settings.base import Count, FromText, Magnitude, Section, Seed, StageSettings

Format = Literal["litert", "litert_float16", "litert_int8", "onnx", "saved_model", "page"]

# The packages that convert to a format or run it, and the command that installs each.
_TENSORFLOW = {"tensorflow": "pip install tensorflow-cpu"}  # `make JAX=1` leaves it out
_LITERT = _TENSORFLOW | {"ai_edge_litert": "make"}
_ONNX = dict.fromkeys(("onnx", "onnxruntime", "tf2onnx"), "make onnx")
NEEDS: dict[Format, dict[str, str]] = {
    "litert": _LITERT,
    "litert_float16": _LITERT,
    "litert_int8": _LITERT,
    "onnx": _TENSORFLOW | _ONNX,
    "saved_model": _TENSORFLOW,
    "page": _LITERT,  # and LiteRT.js, which `make page-runtime` fetches
}


def _once_each(formats: list[Format]) -> list[Format]:
    if len(set(formats)) < len(formats):
        raise ValueError("expected each format once")
    return formats


class Export(Section):
    """The formats to export the fine-tuned classifier to, and how much a file's predictions may differ from its own."""

    formats: Annotated[list[Format], AfterValidator(_once_each)] = Field(
        ["litert"],
        description="litert (LiteRT, once called TensorFlow Lite, in float32), litert_float16 (half the bytes), "
        "litert_int8 (a quarter of the bytes, calibrated on training images), onnx (`make onnx` installs what it "
        "needs), saved_model (for TensorFlow Serving) and page (a folder for any web host, in which browsers run the "
        "model; `make page-runtime` fetches what it needs); []: none",
    )
    float16_difference: Annotated[float, Field(gt=0, le=1), FromText] = Field(
        0.05, description="the most that a probability of litert_float16 may differ from the classifier's"
    )
    int8_accuracy_loss: Magnitude = Field(
        0.02, description="the most accuracy, as a fraction, that litert_int8 may lose on the images it is checked on"
    )
    calibration_images: Count = Field(
        200, description="the number of training images, drawn by `seed`, on which litert_int8 is calibrated"
    )

    @model_validator(mode="after")
    def _only_of_chosen_formats(self) -> "Export":
        owners: dict[str, Format] = {
            "float16_difference": "litert_float16",
            "int8_accuracy_loss": "litert_int8",
            "calibration_images": "litert_int8",
        }
        for key, owner in owners.items():
            if key in self.model_fields_set and owner not in self.formats:
                raise ValueError(
                    f"export.{key}: expected none where export.formats has no {owner}, received {getattr(self, key)}"
                )
        return self


class Settings(StageSettings):
    """What `export` reads."""

    seed: Seed
    export: Export = Field(description="the files that are made from the fine-tuned classifier")
