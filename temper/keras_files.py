"""Keras models in files: equal weights give equal bytes, so that DVC sees when nothing has changed."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold


def save(model: keras.Model, path: str | Path, beside: Mapping[str, str]) -> None:
    """Writes a model as `.keras`, without optimizer, date and times.

    Keras writes `date_saved`, memory addresses (`shared_object_id`) and, in the zip's entries, the time: a rerun with
    the same result would look like a change and rerun every stage after it.

    Args:
        beside: further entries of the file, by name; the card is one.
    """
    bare = keras.Model(model.input, model.output, name=model.name)  # the same layers, never compiled
    with atomic_file(path) as partial:
        bare.save(partial)
        with zipfile.ZipFile(partial) as stamped:
            entries = {name: stamped.read(name) for name in sorted(stamped.namelist())}
        metadata = json.loads(entries["metadata.json"])
        del metadata["date_saved"]
        entries["metadata.json"] = json.dumps(metadata).encode()
        config = json.loads(entries["config.json"])
        _renumber(config, {})
        entries["config.json"] = json.dumps(config).encode()
        entries |= {name: text.encode() for name, text in beside.items()}
        with zipfile.ZipFile(partial, "w") as plain:
            for name, content in entries.items():
                plain.writestr(zipfile.ZipInfo(name, _EPOCH), content)


def _renumber(config: Any, seen: dict[int, int]) -> None:
    """Replaces the addresses by which Keras tells shared objects apart by 0, 1, 2, ... in order of appearance."""
    if isinstance(config, dict):
        if "shared_object_id" in config:
            config["shared_object_id"] = seen.setdefault(config["shared_object_id"], len(seen))
        config = list(config.values())
    if isinstance(config, list):
        for inside in config:
            _renumber(inside, seen)


def load(path: str | Path) -> keras.Model:
    """Reads a model that `save` wrote."""
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        raise TemperError(f"{path}: expected a model written by Keras: {error}; run dvc repro") from None
