"""The settings of `backbone`: a model of keras.applications by its class name, `tiny`, or a published preset."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from temper.settings.base import ImageSize, Section, Seed, Sha256, StageSettings, Text

Commit = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]

# Checked against keras.applications by a test: importing Keras here would cost every check seconds.
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
    arguments: dict[str, Any] = Field({}, description="of that class, such as alpha")
    weights: Text = Field(
        "imagenet",
        description="imagenet (downloaded once), none, or the path of a weights file; with hub: hf://OWNER/NAME, "
        "kaggle://OWNER/MODEL/FRAMEWORK/VARIATION/VERSION, or the folder of a preset",
    )
    revision: Commit | None = Field(None, description="of hf://: the commit that is downloaded, 40 hex digits")
    sha256: Sha256 | None = Field(
        None, description="of the weights file, also of that of a preset: with it a new file at the path is noticed"
    )
    environment: Text = Field(".venv-hub", description="of hub: the folder of its Python environment")
    pooling: Pooling | None = Field(
        None,
        description="of each feature its average over the image (avg), its maximum (max), or both, which are twice as "
        "many (concat); of transformers also their class token (class_token); null: class_token where there is one, "
        "else avg",
    )
    backend: Literal["tensorflow", "jax"] = Field(
        "tensorflow", description="what Keras computes with, in all stages; jax needs `make JAX=1`"
    )
    devices: Annotated[int, Field(ge=1, le=4096)] | Literal["all"] = Field(
        1,
        description="over how many devices embed, fine_tune and evaluate spread each batch; more than 1, or all, with "
        "backend: jax only",
    )
    input_size: ImageSize | None = Field(
        None,
        description="images are resized to this inside the model: packed data stay small; null: image_size",
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
                "revision: expected the commit that hf:// is pinned to, 40 hex digits, and none with anything else, "
                f"received {self.revision} with {place}"
            )


class Settings(StageSettings):
    """What `backbone` reads."""

    seed: Seed
    image_size: ImageSize
    backbone: Backbone = Field(description="the network below the head, and its weights")
