"""Sets the backend of Keras from `backbone.backend` of params.yaml, which must be done before Keras is imported.

DVC notices a change of the backend in every stage that computes: the key is one of the params of the stage `backbone`,
which writes it into the card of its model, and all other stages depend on that model or on one made from it.
"""

import importlib.util
import os
import sys
from typing import Any, Literal

from temper.base import loading
from temper.base.errors import TemperError

BACKENDS = {"tensorflow": "make", "jax": "make JAX=1"}  # each with the command that installs it
KEY, VARIABLE = "backbone.backend", "KERAS_BACKEND"


def choose(path: str = loading.PARAMS) -> None:
    """Sets KERAS_BACKEND from params.yaml. If the file is wrong, nothing is set: the check of all settings reports it.

    Raises:
        TemperError: the variable already names another backend, or the chosen one is not installed.
    """
    backend = _chosen(path)
    if backend is None:
        return
    if os.environ.get(VARIABLE, backend) != backend:
        raise TemperError(
            f"the environment variable {VARIABLE}: expected {backend}, as {KEY} of {path} says (tensorflow if it is "
            f"not there), received {os.environ[VARIABLE]}; unset the variable, or change {KEY}, which DVC sees"
        )
    if importlib.util.find_spec(backend) is None:
        raise TemperError(
            f"{path}: {KEY}: expected {backend} to be installed, found none in {sys.prefix}; {BACKENDS[backend]} "
            "installs it in an environment of its own"
        )
    os.environ[VARIABLE] = backend


def prefer(backend: str) -> None:
    """Chooses a backend if it is installed and no other was chosen; for models that run on any backend."""
    if importlib.util.find_spec(backend) is not None:
        os.environ.setdefault(VARIABLE, backend)


def devices(path: str = loading.PARAMS) -> int | Literal["all"]:
    """`backbone.devices` of a params file; 1 if it is missing or wrong."""
    count = (_section(path) or {}).get("devices", 1)
    return count if count == "all" or (isinstance(count, int) and count > 0) else 1


def _chosen(path: str) -> str | None:
    """The backend that a params file names, by default TensorFlow; `None` if the file or the name is wrong."""
    section = _section(path)
    backend = None if section is None else section.get("backend", "tensorflow")
    return backend if backend in BACKENDS else None


def _section(path: str) -> dict[str, Any] | None:
    """The section `backbone` of a params file; `None` if there is none."""
    try:
        section = loading.read(path).get("backbone")
    except TemperError:
        return None
    return section if isinstance(section, dict) else None
