"""The settings of trackers, which follow experiments beside DVC. No stage depends on them: an edit reruns nothing."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from temper.settings.base import Section, StageSettings, Text


def _nothing(value: Any) -> Any:
    """Reads `none` as null, as everywhere in params.yaml."""
    return None if value == "none" else value


def _without_password(uri: str) -> str:
    if urlsplit(uri).username is not None:
        raise ValueError(
            "expected an address without user and password, for params.yaml goes into git; set the environment "
            "variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


Uri = Annotated[Text, AfterValidator(_without_password)]
TextOrNone = BeforeValidator(_nothing, json_schema_input_type=Text | None)


class Mlflow(Section):
    """The MLflow server to which finished experiments are logged, and what is logged."""

    uri: Annotated[Uri | None, TextOrNone] = Field(
        None,
        description="the server's address, such as http://localhost:5000; null: that in the environment variable "
        "MLFLOW_TRACKING_URI",
    )
    experiment: Text = Field("temper", description="the name of MLflow's experiment, which is created if it is missing")
    model: bool = Field(True, description="whether models/fine_tune.keras is uploaded, with its card")
    register_as: Annotated[Text | None, TextOrNone] = Field(
        None,
        description="the name of a registered model, of which each run's model becomes a new version; null: none",
    )

    @model_validator(mode="after")
    def _registers_what_is_uploaded(self) -> "Mlflow":
        if self.register_as is not None and not self.model:
            raise ValueError(
                "trackers.mlflow.register_as: expected none where trackers.mlflow.model is false, "
                f"received {self.register_as!r}: only an uploaded model can be registered"
            )
        return self


class Trackers(Section):
    """The trackers that follow experiments beside DVC."""

    tensorboard: bool = Field(
        False, description="whether both phases write their curves for TensorBoard into .temper/tensorboard/"
    )
    mlflow: Annotated[
        Mlflow | None, BeforeValidator(_nothing, json_schema_input_type=Mlflow | Literal["none"] | None)
    ] = Field(None, description="the MLflow server to which finished experiments are logged; null: none")


class Settings(StageSettings):
    """What the trackers read."""

    trackers: Trackers = Field(
        Trackers(),
        description="the trackers that follow experiments beside DVC; no stage depends on them, and the section may be "
        "left out",
    )
