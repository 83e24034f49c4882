"""Ctrl-C ends a stage without a traceback, at whatever moment it comes, and leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.toys.workspace import ROOT

# It says where it is by files, and stays there for a while.
STAGE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from temper.base import starting
starting.begin()

def stay(where):
    Path(where).touch()
    time.sleep(2)

if {where!r} == "imports":
    try:
        stay("imports")
    except BaseException as error:  # as NumPy does
        raise ImportError("the extension modules could not be imported") from error
from temper.base import running
from temper.base.atomic import atomic_file
from temper.settings.fetch import Settings

class Destroyed:
    def __del__(self):
        stay("destructor")

def main(settings):
    with atomic_file("output") as partial:
        partial.write_text("half")
        if {where!r} == "main":
            stay("main")
        if {where!r} == "destructor":
            Destroyed()
            time.sleep(20)

running.run(main, Settings)
if {where!r} == "end":
    stay("end")
"""


def interrupted(folder: Path, where: str, before: str = "", twice: bool = False) -> tuple[int, str]:
    """The exit code and output of a stage that gets Ctrl-C when it says that it is `where`."""
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    program = folder / "toy_stage.py"
    program.write_text(STAGE.format(root=str(ROOT), where=where), encoding="utf-8")
    process = subprocess.Popen(
        ["sh", "-c", f"{before} exec {sys.executable} {program}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (folder / where).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    if twice:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    return process.returncode, output


@pytest.mark.parametrize(
    ("where", "code"), [("imports", -signal.SIGINT), ("main", 130), ("destructor", 130), ("end", -signal.SIGINT)]
)
def test_ctrl_c_ends_a_stage_without_a_word(tmp_path: Path, where: str, code: int) -> None:
    assert interrupted(tmp_path, where) == (code, "")
    assert not list(tmp_path.glob(".partial-*")) and not list(tmp_path.glob(".temper/locks/*"))
    assert (tmp_path / "output").exists() == (where == "end")


def test_ctrl_c_twice_is_as_quiet(tmp_path: Path) -> None:
    code, output = interrupted(tmp_path, "main", twice=True)
    assert code in (130, -signal.SIGINT) and output == ""


@pytest.mark.parametrize("where", ["imports", "main"])
def test_a_stage_that_is_started_to_ignore_ctrl_c_ignores_it(tmp_path: Path, where: str) -> None:
    """As of `nohup` and of a shell's background jobs."""
    assert interrupted(tmp_path, where, "trap '' INT;") == (0, "")
    assert (tmp_path / "output").read_text(encoding="utf-8") == "half"


def test_ctrl_c_at_moments_of_the_start_of_a_real_stage(tmp_path: Path) -> None:
    """From the first moment at which Python has left its own start behind."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    moments = (0.0, 0.02, 0.1, 0.4, 1.0)
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "stages.normalize"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while "temper.base.starting" not in (line := process.stderr.readline()):
            assert line
        time.sleep(moment + 0.003)  # until `begin`, which is the next thing
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
        assert process.returncode in (-signal.SIGINT, 130, 1), stderr  # 1: there is no data
        assert "Traceback" not in stderr and "KeyboardInterrupt" not in stderr
