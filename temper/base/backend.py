"""Which library computes for Keras: `backbone.backend` of params.yaml, which Keras must know before it is imported.

DVC sees the choice in every stage that computes. The key belongs to the params of the stage `backbone`, whose model
says it in its card; all others depend on that model or on one made from it, and so run again with it.
"""

import importlib.util
import os
import sys
from typing import Any, Literal

from temper.base import loading
from temper.base.errors import TemperError

BACKENDS = {"tensorflow": "make", "jax": "make JAX=1"}  # and what installs each
KEY, VARIABLE = "backbone.backend", "KERAS_BACKEND"


def choose(path: str = loading.PARAMS) -> None:
    """Sets KERAS_BACKEND by params.yaml; what else is wrong with the file is said by who checks all of it.

    Raises:
        TemperError: the variable names another backend already, or the chosen one is not installed.
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
    """Lets Keras take this backend where nothing else was chosen and it is installed; for a model that any can run."""
    if importlib.util.find_spec(backend) is not None:
        os.environ.setdefault(VARIABLE, backend)


def devices(path: str = loading.PARAMS) -> int | Literal["all"]:
    """How many devices `backbone.devices` of a params file asks for; 1 where that is wrong."""
    count = (_section(path) or {}).get("devices", 1)
    return count if count == "all" or (isinstance(count, int) and count > 0) else 1


def _chosen(path: str) -> str | None:
    """The backend that a params file names, by default TensorFlow; `None` where the file or the name is wrong."""
    section = _section(path)
    backend = None if section is None else section.get("backend", "tensorflow")
    return backend if backend in BACKENDS else None


def _section(path: str) -> dict[str, Any] | None:
    """The section `backbone` of a params file; `None` where there is none."""
    try:
        section = loading.read(path).get("backbone")
    except TemperError:
        return None
    return section if isinstance(section, dict) else None
