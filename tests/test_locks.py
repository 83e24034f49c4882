"""Locks between processes: one at a time, however many wait, and none left behind by a killed one."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from temper.base.locks import held

SPAWN = multiprocessing.get_context("spawn")


def work(folder: Path, number: int) -> None:
    """Notes when it has the lock and when it lets go of it; nobody else may write between."""
    with held(folder / "lock", "waiting"), (folder / "log").open("a") as log:
        log.write(f"{number} begins\n")
        log.flush()
        time.sleep(0.02)
        log.write(f"{number} ends\n")


def hold(folder: Path) -> None:
    with held(folder / "lock", "waiting"):
        (folder / "held").touch()
        time.sleep(60)


def test_one_process_at_a_time_has_it(tmp_path: Path) -> None:
    processes = [SPAWN.Process(target=work, args=(tmp_path, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 12 and not (tmp_path / "lock").exists()
    for begins, ends in zip(lines[::2], lines[1::2], strict=True):
        assert begins.removesuffix(" begins") == ends.removesuffix(" ends")


def test_a_killed_process_lets_go_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = SPAWN.Process(target=hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(tmp_path / "lock", "waiting"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert not (tmp_path / "lock").exists()
    assert capsys.readouterr().out == ""


def test_an_error_inside_lets_go_of_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), held(tmp_path / "lock", "waiting"):
        raise ValueError("inside")
    assert not (tmp_path / "lock").exists()


def test_locks_that_killed_processes_left_beside_it_are_removed_and_held_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "left.lock").write_text("1234")
    with held(tmp_path / "other.lock", "waiting"), held(tmp_path / "own.lock", "waiting"):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other.lock", "own.lock"]
    assert not list(tmp_path.iterdir())
