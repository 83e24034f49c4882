"""The settings of `backbone`: a model of keras.applications by its class name, or `tiny`."""

from typing import Any, Literal

from pydantic import Field, model_validator

from temper.settings.base import ImageSize, Section, Seed, Sha256, StageSettings, Text

# Checked against keras.applications by a test: importing Keras here would cost every check seconds.
# fmt: off
BackboneName = Literal[
    "tiny", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121",
    "DenseNet169", "DenseNet201", "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3",
    "EfficientNetB4", "EfficientNetB5", "EfficientNetB6", "EfficientNetB7", "EfficientNetV2B0", "EfficientNetV2B1",
    "EfficientNetV2B2", "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S",
    "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small",
    "NASNetLarge", "NASNetMobile", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2",
    "VGG16", "VGG19", "Xception",
]
# fmt: on
Pooling = Literal["avg", "max", "concat"]


class Backbone(Section):
    """The part of the classifier that is usually pretrained."""

    name: BackboneName = Field("MobileNetV2", description="a class of keras.applications, or tiny")
    arguments: dict[str, Any] = Field({}, description="of that class, such as alpha")
    weights: Text = Field("imagenet", description="imagenet (downloaded once), none, or the path of a weights file")
    sha256: Sha256 | None = Field(None, description="of the weights file: with it a new file at the path is noticed")
    pooling: Pooling = Field(
        "avg",
        description="of each feature its average over the image, its maximum (max), or both, which are twice as many "
        "(concat)",
    )
    backend: Literal["tensorflow", "jax"] = Field(
        "tensorflow", description="what Keras computes with, in all stages; jax needs `make JAX=1`"
    )
    input_size: ImageSize | None = Field(
        None,
        description="images are resized to this inside the model: packed data stay small; null: image_size",
    )

    @model_validator(mode="after")
    def _no_setting_without_use(self) -> "Backbone":
        if self.name == "tiny" and (self.arguments or self.weights != "none"):
            raise ValueError(
                "tiny has neither arguments nor published weights: expected arguments: {} and weights: none, "
                f"received {self.arguments} and {self.weights}"
            )
        if self.sha256 and self.weights in ("imagenet", "none"):
            raise ValueError(f"sha256 belongs to a weights file, received weights: {self.weights}; remove sha256")
        return self


class Settings(StageSettings):
    """What `backbone` reads."""

    seed: Seed
    image_size: ImageSize
    backbone: Backbone = Field(description="the network below the head, and its weights")
