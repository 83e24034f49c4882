"""The settings of `backbone`: a model of keras.applications by its class name, `tiny`, or a published preset."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from temper.settings.base import ImageSize, Section, Seed, Sha256, StageSettings, Text

Commit = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]

# A test compares this list with keras.applications: importing Keras here would make every check take seconds.
# fmt: off
BackboneName = Literal[
    "tiny", "hub", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121",
    "DenseNet169", "DenseNet201", "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3",
    "EfficientNetB4", "EfficientNetB5", "EfficientNetB6", "EfficientNetB7", "EfficientNetV2B0", "EfficientNetV2B1",
    "EfficientNetV2B2", "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S",
    "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small",
    "NASNetLarge", "NASNetMobile", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2",
    "VGG16", "VGG19", "Xception",
]
# fmt: on
Pooling = Literal["avg", "max", "concat", "class_token"]
HUB = "hub"
_HUGGING_FACE, _KAGGLE = r"hf://[\w.-]+/[\w.-]+", r"kaggle://[\w.-]+/[\w.-]+/\w+/[\w.-]+/[0-9]+"


class Backbone(Section):
    """The part of the classifier that is usually pretrained."""

    name: BackboneName = Field(
        "MobileNetV2", description="a class of keras.applications, tiny, or hub for a published preset"
    )
    arguments: dict[str, Any] = Field({}, description="keyword arguments of that class, such as alpha")
    weights: Text = Field(
        "imagenet",
        description="imagenet (downloaded once), none, or the path of a weights file; with hub: hf://OWNER/NAME, "
        "kaggle://OWNER/MODEL/FRAMEWORK/VARIATION/VERSION, or the folder of a preset",
    )
    revision: Commit | None = Field(None, description="with hf://: the commit to download, 40 hex digits")
    sha256: Sha256 | None = Field(
        None,
        description="the checksum of the weights file, or of the weights file of a preset; if it is given, a changed "
        "file at the same path is noticed",
    )
    environment: Text = Field(".venv-hub", description="with hub: the folder of the Python environment of KerasHub")
    pooling: Pooling | None = Field(
        None,
        description="how each feature becomes one number for the whole image: its average (avg), its maximum (max), or "
        "both, which gives twice as many numbers (concat); class_token, for transformers that have one, takes their "
        "class token instead; null: class_token if there is one, else avg",
    )
    backend: Literal["tensorflow", "jax"] = Field(
        "tensorflow", description="the backend of Keras in all stages; jax needs `make JAX=1`"
    )
    devices: Annotated[int, Field(ge=1, le=4096)] | Literal["all"] = Field(
        1,
        description="the number of devices over which embed, fine_tune and evaluate spread each batch, or all; any "
        "value but 1 needs backend: jax",
    )
    input_size: ImageSize | None = Field(
        None,
        description="images are resized to this size inside the model, so that the packed images can stay small; null: "
        "image_size",
    )

    @model_validator(mode="after")
    def _devices_have_a_backend(self) -> "Backbone":
        if self.devices != 1 and self.backend != "jax":
            raise ValueError(
                f"devices: expected 1 with backend: {self.backend}, on which a model trains on one device, received "
                f"{self.devices}; several need backend: jax and `make JAX=1`"
            )
        return self

    @model_validator(mode="after")
    def _no_setting_without_use(self) -> "Backbone":
        if self.name == HUB:
            self._require_a_preset()
            return self
        if self.name == "tiny" and (self.arguments or self.weights != "none"):
            raise ValueError(
                "tiny has neither arguments nor published weights: expected arguments: {} and weights: none, "
                f"received {self.arguments} and {self.weights}"
            )
        if self.sha256 and self.weights in ("imagenet", "none"):
            raise ValueError(f"sha256 belongs to a weights file, received weights: {self.weights}; remove sha256")
        for key, unused in (("revision", self.revision), ("environment", self.environment != ".venv-hub")):
            if unused:
                raise ValueError(f"{key} is a setting of name: hub, not of {self.name}: remove it")
        if self.pooling == "class_token":
            raise ValueError(f"pooling: expected avg, max or concat with {self.name}, which has no class token")
        return self

    def _require_a_preset(self) -> None:
        place = self.weights
        if self.arguments:
            raise ValueError(
                f"arguments: expected {{}} with hub, whose presets have their own, received {self.arguments}"
            )
        if place in ("imagenet", "none") or ("://" in place and not re.fullmatch(f"{_HUGGING_FACE}|{_KAGGLE}", place)):
            raise ValueError(
                "weights: expected with hub hf://OWNER/NAME, kaggle://OWNER/MODEL/FRAMEWORK/VARIATION/VERSION or the "
                f"folder of a preset, received {place}"
            )
        if place.startswith("hf://") != (self.revision is not None):
            raise ValueError(
                "revision: expected a commit, 40 hex digits, if weights is hf://..., and null otherwise, "
                f"received {self.revision} with {place}"
            )


class Settings(StageSettings):
    """What `backbone` reads."""

    seed: Seed
    image_size: ImageSize
    backbone: Backbone = Field(description="the network below the head, with its weights")
