"""`fine_tune.batch_size: auto`: the largest batch that fits, by a made-up limit, for no GPU is needed to count."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.fine_tune import batch_size
from temper.base.errors import TemperError
from temper.settings import check
from temper.settings.fine_tune import Settings
from tests.toys.workspace import ROOT, Workspace

# Takes 64 MB an image, and may have less than 600 MB.
UNDER_A_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20,) * 2)
bytearray(int(sys.argv[1]) * 64 * 2**20)
"""
KILLED = "import os, sys; int(sys.argv[1]) > 2 and os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("limit", "most", "expected"),
    [(1000, 10_000, 512), (1, 100, 1), (5, 100, 4), (8, 100, 8), (15, 100, 8), (10**9, 100, 64), (10**9, 3, 2)],
)
def test_the_largest_power_of_two_is_found_and_none_is_tried_twice(limit: int, most: int, expected: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert batch_size.largest(fits, most) == expected
    assert len(set(tried)) == len(tried) and max(tried) <= most


def test_where_nothing_fits_one_line_says_what_helps() -> None:
    with pytest.raises(TemperError, match="not even one image fits .* lower image_size"):
        batch_size.largest(lambda size: False, 100)


@pytest.mark.parametrize(("program", "expected"), [(UNDER_A_LIMIT, 8), (KILLED, 2)], ids=["no memory", "killed"])
def test_a_process_that_dies_of_memory_had_too_many(program: str, expected: int) -> None:
    def fits(size: int) -> bool:
        return batch_size.fits_in_child([sys.executable, "-c", program], size)

    assert batch_size.largest(fits, 16) == expected


def test_a_process_that_dies_of_something_else_is_no_answer() -> None:
    program = "from temper.base.errors import TemperError; raise TemperError('expected a GPU')"
    with pytest.raises(TemperError, match="for lack of memory, received: expected a GPU$"):
        batch_size.fits_in_child([sys.executable, "-c", program], 8)


def test_the_same_gpus_and_params_ask_once(in_tmp_path: Path) -> None:
    answers = iter([64, 32])
    found = [batch_size.kept(described, lambda: next(answers)) for described in (["H200"], ["H200"], ["L4"], ["H200"])]
    assert found == [64, 64, 32, 64]


def test_without_a_gpu_it_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = json.dumps({"seed": 0, "batch_size": 8, "lr": 0.1, "aug": 0, "fine_tune": {"batch_size": "auto"}})
    (tmp_path / "params.yaml").write_text(params)
    monkeypatch.setattr(check, "gpu_names", list)
    with pytest.raises(TemperError, match="^.*: fine_tune.batch_size: expected a number, or null .* received auto: "):
        check.refuse_a_size_that_cannot_be_found(tmp_path / "params.yaml")
    monkeypatch.setattr(check, "gpu_names", lambda: ["NVIDIA L4"])
    check.refuse_a_size_that_cannot_be_found(tmp_path / "params.yaml")


@pytest.mark.parametrize(("own", "expected"), [(None, 8), (16, 16), ("auto", "auto")])
def test_the_fine_tune_can_have_a_size_of_its_own(own: int | str | None, expected: int | str) -> None:
    content = {"seed": 0, "batch_size": 8, "lr": 0.1, "aug": 0, "fine_tune": {"batch_size": own}}
    assert Settings.model_validate(content).images_in_a_batch == expected


# Steps are really trained; a GPU and its limit of 8 images are put in their place.
TRIED = """
import sys
import keras
from stages.fine_tune import __main__ as fine_tune
from temper.base import loading
from stages.fine_tune import batch_size

keras.distribution.list_devices = lambda: ["gpu:0"]
if sys.argv[1:]:
    fine_tune.try_batches_of(int(sys.argv[1]))
    sys.exit("RESOURCE_EXHAUSTED: Out of memory" if int(sys.argv[1]) > 8 else 0)
batch_size.command = lambda *names: [sys.executable, "tried.py"]
fine_tune.gpu_names = lambda: ["NVIDIA Toy"]
fine_tune.main(loading.load(fine_tune.Settings))
"""


@pytest.mark.slow
def test_the_size_that_was_found_is_what_is_trained_with_and_written_down(pipeline: Workspace) -> None:
    pipeline.set(fine_tune__batch_size="auto", fine_tune__epochs=1)
    (pipeline.folder / "tried.py").write_text(TRIED)
    pipeline.environment["PYTHONPATH"] = str(ROOT)
    said = pipeline.run("python tried.py")
    assert "batch_size 8: fits" in said and "batch_size 16: too large" in said
    metrics = json.loads((pipeline.folder / "metrics/fine_tune/metrics.json").read_text(encoding="utf-8"))
    assert metrics["fine_tune_batch_size"] == 8
    again = pipeline.run("python tried.py")
    assert "batch_size 8: the largest" in again and "fits\n" not in again


def test_a_try_dies_with_the_stage_that_started_it(tmp_path: Path) -> None:
    """Law 12: it would go on computing on a GPU that is free for others."""
    program = """
import subprocess
from stages.fine_tune import batch_size
child = subprocess.Popen([*batch_size.command("time", "sleep"), "60"])
print(child.pid, flush=True)
child.wait()
"""
    stage = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"DVC_STAGE": "fine_tune", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout is not None
    child = Path("/proc") / stage.stdout.readline().strip()
    time.sleep(0.5)  # it has begun, or sees at its beginning that its parent is gone
    stage.kill()
    stage.wait()  # its pipe may be open in the child
    until = time.monotonic() + 10
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_kept_size_that_cannot_be_read_is_found_anew(in_tmp_path: Path) -> None:
    assert batch_size.kept("a", lambda: 64) == 64
    (kept,) = Path(".temper/batch_sizes").iterdir()
    kept.write_text("")
    assert batch_size.kept("a", lambda: 32) == 32 == batch_size.kept("a", lambda: 16)
