"""The option `--only-skipped`, by which .ci/run runs what needs optional packages after all other tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys.workspace import ROOT

FILES = {
    "test_some.py": """
import os, pytest

needs_extra = pytest.mark.skipif("EXTRA" not in os.environ, reason="no extra")

def test_without(): pass

@pytest.mark.parametrize("number", [1, pytest.param(2, marks=needs_extra)])
def test_with(number): pass

@needs_extra
def test_broken_with(): assert False

@pytest.mark.xfail
def test_expected_to_fail(): assert False
""",
    "test_all.py": """
import os, pytest

if "EXTRA" not in os.environ:
    pytest.skip("no extra", allow_module_level=True)

def test_of_a_skipped_file(): pass
""",
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs pytest on FILES with these options; a keyword is a variable of its environment."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(ROOT)}

    def run(*options: str, **extra: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "tests.only_skipped", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=environment | extra, capture_output=True, text=True, check=False
        ).stdout

    return run


def test_what_was_skipped_runs_and_nothing_else(run: Callable[..., str]) -> None:
    assert "2 passed, 3 skipped, 1 xfailed" in run()
    for _ in range(2):  # the second time, the record is still that of the whole run
        again = run("--only-skipped", EXTRA="1")
        assert "1 failed, 2 passed" in again and "FAILED test_some.py::test_broken_with" in again
    assert "1 failed, 4 passed, 1 xfailed" in run(EXTRA="1")
    assert "passed" not in run("--only-skipped", EXTRA="1")
    assert "2 passed, 3 skipped, 1 xfailed" in run("-p", "no:cacheprovider")


def test_it_knows_what_was_skipped_in_other_processes(run: Callable[..., str]) -> None:
    assert "2 passed, 3 skipped, 1 xfailed" in run("-n", "2")
    assert "1 failed, 2 passed" in run("-n", "2", "--only-skipped", EXTRA="1")
