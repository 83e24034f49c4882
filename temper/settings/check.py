"""Checks the whole of params.yaml before any work: every stage's settings, the chosen sources and the chosen detector.

This module only refuses, so no stage depends on it (law 7). It finds settings, sources and detectors by the
modules that are there: adding one changes nothing here.
"""

import hashlib
import importlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from temper.base import loading
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.settings import backbone, fine_tune
from temper.settings.base import Section, StageSettings
from temper.unfreezing import first_open

HERE = Path(__file__).parent
STAGES = HERE.parent.parent / "stages"


def refuse_wrong_params(path: str | Path) -> None:
    """Validates a whole params file.

    Raises:
        TemperError: a key is unknown, missing or has a wrong value; the message names it.
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
    refuse_wrong_unfreezing(path)


def refuse_settings_of_another_detector(entry: dict[str, Any], chosen: type[Section], path: str) -> None:
    """Says whose a setting is that the chosen detector does not have, and how to take it away.

    Raises:
        TemperError: there is such a setting.
    """
    strange = [key for key in entry if key not in chosen.model_fields]
    every = settings_in("stages.detect.detectors", STAGES / "detect" / "detectors") if strange else {}
    for key in strange:
        owners = [name for name, settings in every.items() if key in settings.model_fields]
        if owners:
            raise TemperError(
                f"{path}: detect.{key} is a setting of {' and '.join(owners)}, not of {entry['detector']}: remove it, "
                f"for an experiment with -S '~detect.{key}'"
            )


def refuse_wrong_unfreezing(path: str | Path) -> None:
    """Builds the backbone, once for each that is chosen, and looks for the layer that `unfreeze_from` names in it.

    Raises:
        TemperError: it cannot be built from these settings, or has no such layer.
    """
    chosen = loading.load(backbone.Settings, path)
    start = loading.load(fine_tune.Settings, path).fine_tune.unfreeze_from
    named = isinstance(start, str) and start not in ("all", "none")
    if chosen.backbone.name == "tiny" and not named:
        return  # it takes any size, and importing Keras would cost seconds
    described = chosen.model_dump(exclude={"seed": True, "backbone": {"weights", "sha256"}})
    text = json.dumps([described, metadata.version("keras")], sort_keys=True)
    kept = scratch("backbones") / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        with atomic_file(kept) as partial:
            partial.write_text(_build_backbone(), encoding="utf-8")
    first_open(json.loads(kept.read_text(encoding="utf-8")), start)


def _build_backbone() -> str:
    """What stages/backbone/layers.py prints; a process of its own, because Keras takes seconds and much memory."""
    done = subprocess.run([sys.executable, "-m", "stages.backbone.layers"], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "nothing")
        raise TemperError(said.removeprefix("error: "))
    return done.stdout.strip().splitlines()[-1]


def stage_settings() -> dict[str, type[StageSettings]]:
    """The settings of each stage that has any, by the stage's name."""
    found = {}
    for name in names_in(HERE):
        settings = getattr(importlib.import_module(f"temper.settings.{name}"), "Settings", None)
        if settings is not None:
            found[name] = settings
    return found


def chosen_source(entry: dict[str, Any], key: str) -> type[Section]:
    """The settings of the source that an entry of `fetch` chooses."""
    return _chosen(entry.get("source"), f"{key}.source", "stages.fetch.sources", STAGES / "fetch" / "sources")


def chosen_detector(entry: dict[str, Any], key: str) -> type[Section]:
    """The settings of the detector that `detect` chooses."""
    return _chosen(entry.get("detector"), f"{key}.detector", "stages.detect.detectors", STAGES / "detect" / "detectors")


def names_in(folder: Path) -> list[str]:
    """The names of the modules in a folder."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def settings_in(package: str, folder: Path) -> dict[str, type[Section]]:
    """The settings of each source, or of each detector, by its name."""
    found = {}
    for name in names_in(folder):
        settings = getattr(importlib.import_module(f"{package}.{name}"), "Settings", None)
        if settings is not None:
            found[name] = settings
    return found


def _chosen(name: object, key: str, package: str, folder: Path) -> type[Section]:
    if name in names_in(folder):
        settings: type[Section] | None = getattr(importlib.import_module(f"{package}.{name}"), "Settings", None)
        if settings is not None:
            return settings
    raise TemperError(f"{key}: expected one of {', '.join(settings_in(package, folder))}, received {name!r}")
