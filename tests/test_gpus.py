"""Leases of GPUs: one process on each at a time, and a killed one's is free. The driver here is a program of ours."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from temper.base import gpus, wishes
from tests.toys.workspace import ROOT

# It writes when it has a GPU and when it lets go of it, and stays on it meanwhile.
HOLDER = """
import os, sys, time
from temper.base import starting
starting.begin(with_keras=True, on_gpu=True)
def note(what):
    with open("log", "a") as log:
        print(what, sys.argv[1], os.environ.get("CUDA_VISIBLE_DEVICES"), file=log)
note("takes")
time.sleep(float(sys.argv[2]))
note("leaves")
os.kill(os.getpid(), 9)  # no clean end is needed
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a params.yaml, on a machine whose driver names two GPUs."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho GPU-a; echo GPU-b\n")
    driver.chmod(0o755)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in (gpus.VISIBLE, gpus.FOLDER, "DVC_ROOT", "DVC_STAGE", "TEMPER_GPU_LEASE", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def start(folder: Path, name: str, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, name, str(seconds)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def log_of(folder: Path) -> list[tuple[str, str, str]]:
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(what, name, gpu) for what, name, gpu in map(str.split, lines)]


def test_six_processes_never_share_two_gpus_and_a_killed_ones_is_free(machine: Path) -> None:
    killed = start(machine, "killed", 60)
    while not log_of(machine):
        assert killed.poll() is None
        time.sleep(0.02)
    others = [start(machine, str(number), 1.0) for number in range(5)]  # so long that, on a busy machine too, some wait
    while not any(name != "killed" and what == "leaves" for what, name, _ in log_of(machine)):
        time.sleep(0.02)
    killed.kill()
    said = [process.communicate()[0] for process in others]
    holder: dict[str, str | None] = defaultdict(lambda: None)
    finished = set()
    for what, name, gpu in log_of(machine):
        if what == "takes":
            assert holder[gpu] in (None, "killed"), log_of(machine)
            holder[gpu] = name
        else:
            assert holder[gpu] == name, log_of(machine)
            holder[gpu] = None
            finished.add(name)
    assert finished == {"0", "1", "2", "3", "4"} and set(holder) == {"0", "1"}
    waited = [text for text in said if "waiting for a GPU" in text]
    assert waited and f"0 is used by process {killed.pid}; 1 is used by process " in waited[0]


@pytest.mark.parametrize(
    ("visible", "taken"),
    [
        (None, "0"),  # of all that the driver names
        ("1", "1"),
        ("1,0", "1"),
        (" GPU-8932f937-d72c, 1", "GPU-8932f937-d72c"),
        ("-1", None),
        ("", None),
        ("NoDevFiles", None),  # of a batch system, for a job without a GPU
    ],
)
def test_a_gpu_is_taken_of_those_that_cuda_would_show(
    visible: str | None, taken: str | None, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(machine)
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.setattr(os, "environ", os.environ | ({} if visible is None else {gpus.VISIBLE: visible}))
    gpus.lease()
    gpus.lease()  # asks for no second one
    assert os.environ.get(gpus.VISIBLE) == (visible if taken is None else taken)
    locks = [path.name for path in machine.glob(".temper/gpus/*")]
    names = {"0": "GPU-a", "1": "GPU-b"}  # what the driver calls them
    assert locks == ([] if taken is None else [names.get(taken, taken)])


@pytest.mark.parametrize(("count", "taken"), [(1, "1"), (2, "1,0"), ("all", "1,0,2"), (9, "1,0,2")])
def test_several_gpus_are_taken_where_the_params_ask_for_them(
    count: Any, taken: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(machine)
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.setattr(os, "environ", os.environ | {gpus.VISIBLE: "1,0,2"})
    gpus.lease(count)
    assert os.environ[gpus.VISIBLE] == taken


def test_two_that_want_all_gpus_take_turns(machine: Path) -> None:
    params = yaml.safe_load((machine / "params.yaml").read_text())
    params["backbone"] |= {"devices": "all"}
    (machine / "params.yaml").write_text(yaml.safe_dump(params))
    both = [start(machine, name, 0.3) for name in "ab"]
    for process in both:
        process.communicate(timeout=60)
    assert [(what, gpu) for what, _, gpu in log_of(machine)] == [("takes", "0,1"), ("leaves", "0,1")] * 2


def test_without_a_gpu_nothing_changes(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine)
    (machine / "nvidia-smi").unlink()
    gpus.lease()
    assert gpus.VISIBLE not in os.environ and not Path(".temper").exists()


def test_clones_of_one_machine_share_a_folder(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine)
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.setattr(os, "environ", os.environ | {gpus.FOLDER: str(machine / "shared")})
    gpus.lease()
    assert [path.name for path in machine.glob("shared/*")] == ["GPU-a"] and not Path(".temper").exists()


def test_what_does_not_compute_sees_no_gpu_and_waits_for_none(machine: Path) -> None:
    holders = [start(machine, name, 60) for name in "ab"]
    code = HOLDER.replace(", on_gpu=True", "")
    process = subprocess.run(
        [sys.executable, "-c", code, "c", "0"], cwd=machine, capture_output=True, text=True, check=False
    )
    for holder in holders:
        holder.kill()
        holder.communicate()
    assert process.stdout == "" and ("takes", "c", "-1") in log_of(machine)


def test_who_waits_for_a_gpu_says_for_which_params(machine: Path) -> None:
    """So that who computes the very same leaves its result, and who computes something else does not."""
    (machine / "dvc.yaml").write_text("stages: {-c-c: {params: [lr, fine_tune.epochs]}}")
    params = {"lr": 0.5, "fine_tune": {"epochs": 2}, "aug": 0}
    holders = [start(machine, name, 60) for name in "ab"]
    while len(log_of(machine)) < 2:
        time.sleep(0.02)
    right = (machine / "params.yaml").read_text()
    (machine / "params.yaml").write_text(f"{right}lrr: 1\n")
    wrong = start(machine, "wrong", 0)
    assert "did you mean lr?" in wrong.communicate(timeout=60)[0] and wrong.returncode == 1, "it does not wait for that"
    (machine / "params.yaml").write_text(right)
    waiting = start(machine, "c", 0)
    try:
        while not (notes := list(machine.glob(".temper/unfinished/*.waiting-*"))):
            assert waiting.poll() is None
            time.sleep(0.02)
        with contextlib.chdir(machine):
            assert [note.name for note in notes] == [f"{wishes.name_of('-c-c')}.waiting-{waiting.pid}"]
            Path("params.yaml").write_text(yaml.safe_dump(params))
            first = wishes.name_of("-c-c")
            Path("params.yaml").write_text(yaml.safe_dump(params | {"aug": 1}))
            assert wishes.name_of("-c-c") == first
            Path("params.yaml").write_text(yaml.safe_dump(params | {"lr": 0.25}))
            assert wishes.name_of("-c-c") != first
    finally:
        for process in (*holders, waiting):
            process.kill()
            process.communicate()


def test_a_folder_that_cannot_be_had_ends_in_one_line(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.FOLDER, str(machine / "params.yaml"))
    said = start(machine, "a", 0).communicate()[0]
    assert re.fullmatch(r"error: .*File exists: .*params.yaml'\n", said)


def test_one_gpu_by_its_number(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine)
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert gpus.lease(number="1") and os.environ[gpus.VISIBLE] == "1"
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if "GPU" not in name})
    monkeypatch.delenv(gpus.VISIBLE)
    assert not gpus.lease(number="2"), "there are two"
