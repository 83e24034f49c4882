"""What a stage computes on: the line that says it, with drivers and devices put in place, and how a batch is shared.

That several devices and several processes come to the figures of one is in tests/test_jax.py.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from temper import card, devices
from temper.base.errors import TemperError
from temper.base.machine import cores, gpu_names
from temper.devices import Spread
from temper.settings.backbone import Backbone
from tests.toys.workspace import ROOT


def put_driver(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program `nvidia-smi` that is found before any other."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo NVIDIA H200", ["NVIDIA H200"]),
        ('echo NVIDIA L4; echo; echo "NVIDIA L4"', ["NVIDIA L4", "NVIDIA L4"]),
        ("echo NVIDIA-SMI has failed; exit 9", []),  # a library without its driver
    ],
)
def test_gpus_are_those_that_the_driver_names(
    script: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_driver(tmp_path, script, monkeypatch)
    assert gpu_names() == expected


def test_without_a_driver_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_names() == []


def test_this_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pattern = rf"device: (\d+ x )?(CPU, {cores()} cores|[GT]PU), {keras.backend.backend()} \d+\.\d+\.\d+\S*"
    assert re.fullmatch(pattern, devices.described())


@pytest.mark.parametrize(
    ("found", "names", "expected"),
    [
        (["cpu:0"], [], "device: CPU, 2 cores, "),
        (["cpu:0", "cpu:1"], [], "device: 2 x CPU, 2 cores, "),
        (["gpu:0"], ["NVIDIA H200"], "device: GPU NVIDIA H200, "),
        (["gpu:0", "gpu:1"], ["NVIDIA L4", "NVIDIA L4"], "device: 2 x GPU NVIDIA L4, "),
        (["gpu:0"], [], "device: GPU, "),  # of another maker
        (["cpu:0"], ["NVIDIA L4"], "; the GPU of this machine is not used: NVIDIA L4, see docs/training.md"),
    ],
)
def test_devices_are_described(
    found: list[str], names: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: found)
    monkeypatch.setattr(devices, "gpu_names", lambda: names)
    monkeypatch.setattr(devices, "cores", lambda: 2)
    line = devices.described()
    assert "\n" not in line and expected in line
    assert line.startswith("device: ") and ("not used" in line) == ("not used" in expected)


@pytest.mark.parametrize(
    ("rows", "how", "expected"),
    [
        (4, Spread(2), [0, 1, 2, 3]),
        (5, Spread(2), [0, 1, 2, 3, 4, 5]),
        (1, Spread(4), [0, 1, 2, 3]),
        (5, Spread(2, 2, 0), [0, 1, 2]),
        (5, Spread(2, 2, 1), [3, 4, 5]),
        (6, Spread(4, 2, 1), [4, 5, 6, 7]),
    ],
)
def test_each_process_reads_an_equal_share(rows: int, how: Spread, expected: list[int]) -> None:
    assert how.share(rows).tolist() == expected


@pytest.mark.parametrize(
    ("asked", "environment", "message"),
    [
        (3, {}, "^backbone.devices: expected at most 2, for .* finds gpu:0, gpu:1, received 3; lower it, or say all$"),
        (1, {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "expected all where processes train together, received 1$"),
    ],
)
def test_devices_that_are_not_there_end_in_one_line(
    asked: int, environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TemperError, match=message):
        devices.use(asked)
    assert devices.spread() == Spread()


def test_several_devices_are_refused_on_tensorflow() -> None:
    with pytest.raises(ValueError, match=r"devices: expected 1 with backend: tensorflow, .*received all; .*make JAX=1"):
        Backbone(name="tiny", weights="none", devices="all")


def test_a_card_says_only_more_devices_than_one() -> None:
    """As it does of the backend: models made before the key was there keep their bytes (law 10)."""
    one = card.Backbone(name="tiny", arguments={}, weights="none", sha256=None, backend="jax")
    assert "devices" not in one.as_entry()[card.NAME]
    both = one.model_copy(update={"devices": "all"})
    assert card.Backbone.model_validate_json(both.as_entry()[card.NAME]) == both


def run_process(stage: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_second_process_of_a_stage_that_runs_alone_ends_in_one_line(tmp_path: Path) -> None:
    """It would otherwise write into the outputs of the first one."""
    done = run_process("gallery", tmp_path, KERAS_DISTRIBUTION_PROCESS_ID="1")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr == (
        "error: gallery: expected process 0 alone, received KERAS_DISTRIBUTION_PROCESS_ID=1; only fine_tune is run by "
        "several processes together (docs/scale.md)\n"
    )
