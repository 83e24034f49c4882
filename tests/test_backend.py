"""`backbone.backend`: what Keras computes with, known before it is imported, and seen by DVC in every stage."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from temper import card
from temper.base import backend
from temper.base.errors import TemperError
from tests.toys.workspace import ROOT, Workspace

JAX = "backbone: {name: tiny, weights: none, backend: jax}\n"
TENSORFLOW = "backbone: {name: tiny, weights: none}\n"


@pytest.fixture
def chosen_by(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A folder for params.yaml, with both libraries installed and no backend chosen."""
    monkeypatch.setenv(backend.VARIABLE, "")  # so that it is put back at the end
    monkeypatch.delenv(backend.VARIABLE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    return monkeypatch


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (JAX, "jax"),
        (TENSORFLOW, "tensorflow"),  # by default, whatever ~/.keras/keras.json says
        ("backbone: {backend: torch}\n", None),  # wrong: the check of the whole file will say so
        ("backbone: [1]\n", None),
        ("backbone: {\n", None),
        (None, None),
    ],
)
def test_the_backend_is_that_of_the_params(
    params: str | None, expected: str | None, chosen_by: pytest.MonkeyPatch
) -> None:
    if params is not None:
        Path("params.yaml").write_text(params)
    backend.choose()
    assert os.environ.get(backend.VARIABLE) == expected


def test_a_variable_that_agrees_stays(chosen_by: pytest.MonkeyPatch) -> None:
    Path("params.yaml").write_text(JAX)
    chosen_by.setenv(backend.VARIABLE, "jax")
    backend.choose()
    assert os.environ[backend.VARIABLE] == "jax"


def test_a_library_that_is_missing_is_named_with_what_installs_it(chosen_by: pytest.MonkeyPatch) -> None:
    Path("params.yaml").write_text(JAX)
    chosen_by.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TemperError, match="^params.yaml: backbone.backend: expected jax to be .*; make JAX=1 installs"):
        backend.choose()


@pytest.mark.parametrize("stage", ["backbone", "embed", "warm_up", "fine_tune", "evaluate"])
def test_a_variable_that_contradicts_ends_a_stage_in_one_line(stage: str, tmp_path: Path) -> None:
    """DVC does not see the variable: a run with it would stand in the cache as one of the other backend."""
    (tmp_path / "params.yaml").write_text(TENSORFLOW)
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"stages.{stage}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the environment variable KERAS_BACKEND: expected tensorflow, as backbone.backend of params.yaml says "
        "(tensorflow if it is not there), received jax; unset the variable, or change backbone.backend, "
        "which DVC sees\n"
    )


@pytest.mark.parametrize(
    ("installed", "before", "expected"), [(True, None, "jax"), (False, None, None), (True, "a", "a")]
)
def test_a_model_prefers_the_backend_it_was_trained_with(
    installed: bool, before: str | None, expected: str | None, chosen_by: pytest.MonkeyPatch
) -> None:
    chosen_by.setattr(importlib.util, "find_spec", lambda name: name if installed else None)
    if before:
        chosen_by.setenv(backend.VARIABLE, before)
    backend.prefer("jax")
    assert os.environ.get(backend.VARIABLE) == expected


def test_a_card_says_only_another_backend_than_the_default() -> None:
    """So that models made before the key was there keep their bytes, and those on JAX have others (law 10)."""
    common: dict[str, Any] = {"name": "tiny", "arguments": {}, "weights": "none", "sha256": None}
    plain, jax = card.Backbone(**common), card.Backbone(**common, backend="jax")
    assert json.loads(plain.as_entry()[card.NAME]) == common
    assert json.loads(jax.as_entry()[card.NAME]) == common | {"backend": "jax"}
    assert card.Backbone.model_validate_json(jax.as_entry()[card.NAME]) == jax


@pytest.mark.slow
def test_dvc_sees_the_backend(toy_pipeline: Workspace, tmp_path: Path) -> None:
    """The stages after `backbone` follow by its model, whose card says the backend."""
    pipeline = toy_pipeline.copy(tmp_path / "pipeline")
    pipeline.set(backbone__backend="tensorflow")  # the default, written out: the same result, so nothing follows
    assert list(json.loads(pipeline.run("dvc status --json"))) == ["backbone"]
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert "backbone" in declared["backbone"]["params"]
    for stage in ("embed", "warm_up", "activations", "fine_tune", "evaluate"):
        assert any(str(path).endswith(".keras") for path in declared[stage]["deps"]), stage
