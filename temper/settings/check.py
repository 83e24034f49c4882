"""Checks the whole of params.yaml before any work: every stage's settings, the chosen sources and the chosen detector.

This module can only refuse a file and changes no output, so no stage depends on it (law 7). It finds settings, sources
and detectors by listing the modules in their packages, so adding one needs no change here.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from temper.base import loading
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.machine import gpu_names
from temper.base.paths import existing, repository, scratch
from temper.explanations.layer_names import require_layers
from temper.freezing.unfreezing import first_open, openings
from temper.page import runtime
from temper.settings import backbone, evaluate, export, fine_tune

ROOT = Path(__file__).parent.parent.parent
SOURCES, DETECTORS = "stages.fetch.sources", "stages.detect.detectors"


def refuse_wrong_params(path: str | Path) -> None:
    """Checks a whole params file: every stage's settings, the sources, the detector, and what only they together show.

    Raises:
        TemperError: a key is unknown or missing or has a wrong value, or a needed package or GPU is missing; the
            message names it.
    """
    content = loading.read(path)
    stages = stage_settings()
    known = sorted({name for settings in stages.values() for name in settings.model_fields})
    for key in content:
        if key not in known:
            raise TemperError(f"{path}: {loading.unknown_key(str(key), known)}")
    for settings in stages.values():
        loading.validate(settings, content, str(path))
    for name, entry in content["fetch"].items():
        loading.validate(chosen_source(entry, f"{path}: fetch.{name}"), entry, str(path), f"fetch.{name}.")
    detector = chosen_detector(content["detect"], f"{path}: detect")
    refuse_settings_of_another_detector(content["detect"], detector, str(path))
    loading.validate(detector, content["detect"], str(path), "detect.")
    refuse_missing_exporters(content, str(path))
    refuse_wrong_unfreezing(path)
    refuse_a_size_that_cannot_be_found(path)


def refuse_missing_exporters(content: dict[str, Any], path: str) -> None:
    """Checks before hours of training that the packages which convert its result are installed.

    Raises:
        TemperError: a package for one of `export.formats` is missing, or the runtime that browsers need for `page`.
    """
    for name in loading.validate(export.Settings, content, path).export.formats:
        for package, command in export.NEEDS[name].items():
            if importlib.util.find_spec(package) is None:
                raise TemperError(
                    f"{path}: export.formats: expected {package} to be installed, without which there is no {name}, "
                    f"found none in {sys.prefix}; {command} installs it; or leave {name} out"
                )
        if name == "page":
            runtime.archives()


def refuse_a_size_that_cannot_be_found(path: str | Path) -> None:
    """Checks before any work that there is a GPU if `fine_tune.batch_size` is auto.

    Raises:
        TemperError: it is auto, and there is no GPU.
    """
    if loading.load(fine_tune.Settings, path).images_in_a_batch == "auto" and not gpu_names():
        raise TemperError(
            f"{path}: fine_tune.batch_size: expected a number, or null for the top-level batch_size, on a machine "
            "without an NVIDIA GPU, received auto: a processor shares its memory with other programs, so that what "
            "fits now may not fit later"
        )


def refuse_settings_of_another_detector(entry: dict[str, Any], chosen: type[BaseModel], path: str) -> None:
    """Refuses a setting that only other detectors have.

    Raises:
        TemperError: there is such a setting; the message says which detectors have it and how to remove it.
    """
    strange = [key for key in entry if key not in chosen.model_fields]
    every = settings_in(DETECTORS) if strange else {}
    for key in strange:
        owners = [name for name, settings in every.items() if key in settings.model_fields]
        if owners:
            raise TemperError(
                f"{path}: detect.{key} is a setting of {' and '.join(owners)}, not of {entry['detector']}: remove it, "
                f"for an experiment with -S '~detect.{key}'"
            )


def refuse_wrong_unfreezing(path: str | Path) -> None:
    """Checks that the backbone has the layers that the settings unfreeze and draw.

    For this the backbone is built in a process of its own; the names of its layers are kept, so that each choice of
    backbone is built only once.

    Raises:
        TemperError: the backbone cannot be built from these settings, or has no such layer.
    """
    chosen = loading.load(backbone.Settings, path)
    phase = loading.load(fine_tune.Settings, path).fine_tune
    start, further = phase.unfreeze_from, phase.unfreeze_further
    at_once = isinstance(further, fine_tune.Never)
    filters = loading.load(evaluate.Settings, path).evaluate.filters
    named = isinstance(start, str) and start not in ("all", "none")
    stores = phase.views > 0 and start != "none"
    if chosen.backbone.name == "tiny" and at_once and not named and not stores and not filters:
        return  # tiny can be built at any size, and importing Keras would take seconds
    no_shape = {"weights", "sha256", "backend", "devices"}
    described: dict[str, Any] = chosen.model_dump(exclude={"seed": True, "backbone": no_shape})
    if chosen.backbone.name == backbone.HUB:
        described |= {"preset": chosen.backbone.weights, "configuration": _configuration(chosen.backbone.weights)}
    text = json.dumps([described, metadata.version("keras")], sort_keys=True)
    kept = scratch("backbones") / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        # True after `dvc pull`, for example, when neither KerasHub nor the network is needed.
        pulled = chosen.backbone.name == backbone.HUB and Path("models/backbone.keras").exists()
        if pulled and not (repository() / chosen.backbone.environment).exists():
            return
        try:
            layers = _build_backbone(path)
        except TemperError:
            if pulled:
                return
            raise
        with atomic_file(kept) as partial:
            partial.write_text(layers, encoding="utf-8")
    names = json.loads(kept.read_text(encoding="utf-8"))
    require_layers("evaluate.filters", filters, [name for name, _ in names])
    if isinstance(further, fine_tune.Never):
        first = first_open(names, start)
        if stores and not any(has_weights for _, has_weights in names[:first]):
            raise TemperError(
                f"fine_tune.views: expected 0, or an unfreeze_from that leaves layers with weights frozen; received "
                f"{phase.views} with unfreeze_from: {start}, from where on the whole backbone trains"
            )
    else:
        openings(names, start, further.down_to, further.blocks)


def _configuration(preset: str) -> str:
    """The config.json of a preset in a folder; "" for a preset that is downloaded, whose address has its version."""
    try:
        return existing(f"{preset}/config.json").read_text(encoding="utf-8", errors="replace")
    except (TemperError, OSError):
        return ""


def _build_backbone(path: str | Path) -> str:
    """Runs stages/backbone/layers.py and returns its output; a separate process, because Keras needs much memory."""
    command = [sys.executable, "-m", "stages.backbone.layers", str(path)]
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # from any folder
    environment = os.environ | {"PYTHONPATH": python_path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "nothing")
        raise TemperError(said.removeprefix("error: "))
    return done.stdout.strip().splitlines()[-1]


def stage_settings() -> dict[str, type[BaseModel]]:
    """The settings of each stage that has any, by the stage's name."""
    return settings_in("temper.settings")


def chosen_source(entry: dict[str, Any], key: str) -> type[BaseModel]:
    """The settings of the source that an entry of `fetch` chooses."""
    return _chosen(entry.get("source"), f"{key}.source", SOURCES)


def chosen_detector(entry: dict[str, Any], key: str) -> type[BaseModel]:
    """The settings of the detector that `detect` chooses."""
    return _chosen(entry.get("detector"), f"{key}.detector", DETECTORS)


def names_in(package: str) -> list[str]:
    """The names of the modules in a package."""
    folder = ROOT / package.replace(".", "/")
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def settings_in(package: str) -> dict[str, type[BaseModel]]:
    """The class `Settings` of each module in a package that has one, by the module's name."""
    every = {name: _settings_of(package, name) for name in names_in(package)}
    return {name: settings for name, settings in every.items() if settings is not None}


def _chosen(name: object, key: str, package: str) -> type[BaseModel]:
    """The settings of the module `name`. No other module is imported, unless the name is wrong."""
    settings = _settings_of(package, str(name)) if name in names_in(package) else None
    if settings is None:
        raise TemperError(f"{key}: expected one of {', '.join(settings_in(package))}, received {name!r}")
    return settings


def _settings_of(package: str, name: str) -> type[BaseModel] | None:
    settings: type[BaseModel] | None = getattr(importlib.import_module(f"{package}.{name}"), "Settings", None)
    return settings
