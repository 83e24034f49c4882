"""The settings of `detect`: the detector. A detector's own keys are in stages/detect/detectors/NAME.py."""

from typing import Any, Literal

from pydantic import Field, model_validator

from temper.settings.base import Count, NotNegative, Section, StageSettings, Text


class DetectorSettings(Section):
    """The settings that every detector has."""

    detector: Text = Field(description="none, published, yolox or detectron2: a module in stages/detect/detectors")


class EngineSettings(DetectorSettings):
    """Where a detector that looks at photos runs; the boxes are the same everywhere."""

    engine: Literal["local", "ray"] = Field(
        "local", description="where the detector runs: on this machine (local) or on a Ray cluster (ray)"
    )
    actors: Count = Field(1, description="with ray: how many detectors run in parallel, each on a core of its own")
    gpus: NotNegative = Field(0.0, description="with ray: GPUs of each actor; 0.5 puts two actors on one GPU")

    @model_validator(mode="after")
    def _ray_alone_has_actors(self) -> "EngineSettings":
        unused = sorted({"actors", "gpus"} & self.model_fields_set)
        if self.engine == "local" and unused:
            raise ValueError(f"engine: local does not use {' and '.join(unused)}: remove them, or choose ray")
        return self


class Settings(StageSettings):
    """What `detect` reads."""

    detect: dict[str, Any] = Field(description="the detector that finds the main object, with its own settings")
