"""The line that says what a stage computes on: seen on this machine, and with drivers and devices put in its place."""

import re
from pathlib import Path

import keras
import pytest

from temper import devices
from temper.base.machine import cores, gpu_names


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
