"""Reads the query of a request: which models, how many classes, and further options."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from apps.serve.answers import Wish
from apps.serve.limits import Refusal
from apps.serve.models import Model


class Question(BaseModel):
    """The query of a request to /predict."""

    model: list[str] = Field([], description="A model's name; several may be given. The first model if none.")
    top: int = Field(5, ge=1, le=1000, description="How many classes are named.")
    look: bool = Field(False, description="Whether to find out where the model looked; for one photo.")
    calibrated: bool = Field(False, description="Whether probabilities are scaled so that they can be believed.")


def read(query: Mapping[str, Sequence[str]]) -> Question:
    """Validates a query, in which each key has one or more values. Only `model` takes several; else the last counts.

    Raises:
        Refusal: a value is not allowed for its key.
    """
    several = {"model"}
    try:
        return Question.model_validate(
            {key: [*values] if key in several else values[-1] for key, values in query.items() if values}
        )
    except ValidationError as error:
        raise wrong(error.errors(include_url=False)[0]) from None


def wrong(problem: Mapping[str, Any]) -> Refusal:
    """The refusal of a query with this error, as pydantic describes it."""
    return Refusal(400, f"the query's {problem['loc'][-1]}: {problem['msg'][0].lower()}{problem['msg'][1:]}")


def wish(question: Question, models: Sequence[Model]) -> Wish:
    """What to compute for each photo, with the models that are served now.

    Raises:
        Refusal: the query names a model that is not served.
    """
    now = {model.name: model for model in models}
    for name in question.model:
        if name not in now:
            raise Refusal(404, f"expected the name of a model ({', '.join(now)}), received another one")
    named = [now[name] for name in dict.fromkeys(question.model)] or [models[0]]
    return Wish(named, question.top, question.calibrated, question.look)
