"""Saves and loads Keras models. Equal weights give equal bytes, so that DVC sees when nothing has changed."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from temper.base.atomic import atomic_file
from temper.base.checksums import MEND
from temper.base.errors import TemperError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store


def save(model: keras.Model, path: str | Path, beside: Mapping[str, str]) -> None:
    """Writes a model as `.keras`, without optimizer, date and times.

    Keras writes the date (`date_saved`), memory addresses (`shared_object_id`) and the time of each entry of the zip. A
    rerun with the same result would then look like a change, and every later stage would run again.

    Args:
        beside: further entries of the file, by name, such as the card.
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
    """Replaces the addresses by which Keras identifies shared objects with 0, 1, 2, ... in order of appearance."""
    if isinstance(config, dict):
        if "shared_object_id" in config:
            config["shared_object_id"] = seen.setdefault(config["shared_object_id"], len(seen))
        config = list(config.values())
    if isinstance(config, list):
        for inside in config:
            _renumber(inside, seen)


def load(path: str | Path) -> keras.Model:
    """Reads a model that `save` wrote.

    Raises:
        TemperError: the file is missing, damaged, or not a model that this version of Keras can build.
    """
    _require_whole(path)
    try:
        return keras.saving.load_model(path, compile=False)
    # The errors that a wrong configuration can cause. Not MemoryError, which is not the file's fault:
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, RecursionError) as error:
        raise _refused(path, error) from None


def _require_whole(path: str | Path) -> None:
    """Verifies every entry of the zip by its checksum, which Keras does not do when it reads weights."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        # ValueError and RuntimeError: a flag or a size in the zip that no writer produces
        raise _refused(path, error) from None
    if damaged is not None:
        raise TemperError(
            f"{path}: damaged: its entry {damaged} does not have the checksum it was written with; {MEND}"
        )


def _refused(path: str | Path, error: Exception) -> TemperError:
    problem = f"{type(error).__name__}: {str(error).strip()}".split("\n", 1)[0][:200]
    return TemperError(
        f"{path}: expected a model written by Keras, received {problem}; if it is damaged, {MEND}; or run dvc repro"
    )
