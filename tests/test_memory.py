"""Where memory ends, a stage ends in one line that says what was asked for and what helps, whoever noticed it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from temper import noise
from temper.base import memory
from tests.toys.workspace import ROOT


class ResourceExhaustedError(Exception):
    """As TensorFlow's is called."""


class JaxRuntimeError(RuntimeError):
    """As JAX's is called."""


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called."""


class error(Exception):
    """As OpenCV's is called."""


IN_A_GRAPH = """Graph execution error:

Detected at node conv/Conv2D defined at (most recent call last):
  File "stages/fine_tune/__main__.py", line 78, in <module>
OOM when allocating tensor with shape[32,224,224,64] and type float on /job:localhost/replica:0/device:CPU:0 by mklcpu
\t [[{{node conv/Conv2D}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add report_tensor_allocations_upon_oom"""

LACKS = [
    (ResourceExhaustedError(IN_A_GRAPH), ": OOM when allocating tensor with shape[32,224,224,64] and type float;"),
    (
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes."),
        ": Out of memory while trying to allocate 34359738368 bytes;",
    ),
    (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), ": Tried to allocate 2.00 GiB;"),
    (
        error("OpenCV(5.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes in function 'x'"),
        ": Failed to allocate 9 bytes;",
    ),
    (MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"), ": Unable to allocate 7.45 GiB"),
    (MemoryError(), "expected more memory, received too little; nothing"),
    (MemoryError("expected the memory to decode a PNG"), ": expected the memory to decode a PNG; nothing"),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "Cannot allocate memory; nothing"),
    (ImportError("x.so: failed to map segment from shared object"), "failed to map segment"),
    (RuntimeError("can't start new thread"), ": can't start new thread;"),
]


@pytest.mark.parametrize(("lack", "expected"), LACKS, ids=lambda value: type(value).__name__)
def test_a_lack_of_memory_is_known_whoever_raises_it(lack: Exception, expected: str) -> None:
    line = memory.in_one_line(lack)
    assert line is not None and "\n" not in line and expected in line
    assert "nothing half-written was kept" in line and line.endswith("free some memory, and run again")


def test_a_lack_that_keeps_from_tidying_up_is_known() -> None:
    try:
        try:
            raise MemoryError("Unable to allocate 2 GiB")
        finally:
            raise RuntimeError("no log was closed")
    except RuntimeError as raised:
        assert "Unable to allocate 2 GiB" in str(memory.in_one_line(raised))


@pytest.mark.parametrize(
    "other", [ValueError("9 bytes"), OSError(errno.ENOSPC, "No space left on device"), KeyError(1)]
)
def test_other_errors_are_none(other: Exception) -> None:
    assert memory.in_one_line(other) is None


# A stage with the words of `main`, which may take little memory more than it has when it starts.
STAGE = """
import resource, sys
sys.path.insert(0, {root!r})
from temper.base import starting
starting.begin(with_keras={keras})
{imports}
from temper.base import running
from temper.settings.fetch import Settings

def leave(mebibytes):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * 2**20,) * 2)

{main}
"""


def last_words(folder: Path, imports: str, main: str) -> tuple[int, list[str]]:
    """The exit code and stderr of such a stage, in a folder with params."""
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    program = folder / "toy_stage.py"
    text = STAGE.format(root=str(ROOT), keras="keras" in imports, imports=imports, main=main)
    program.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, program], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()


BEGINS = "error: toy_stage: expected more memory"
RUN = "\nrunning.run(main, Settings)\n"


def test_an_array_that_is_too_large_ends_in_one_line(tmp_path: Path) -> None:
    main = "import numpy\ndef main(settings):\n    leave(50)\n    numpy.ones(10**9)\n"
    code, lines = last_words(tmp_path, "", main + RUN)
    assert code == 1 and len(lines) == 1, lines
    assert lines[0].startswith(f"{BEGINS}, received too little: Unable to allocate 7.45 GiB")


def test_an_import_without_memory_ends_in_one_line(tmp_path: Path) -> None:
    code, lines = last_words(tmp_path, "raise MemoryError", RUN)
    assert code == 1 and len(lines) == 1 and lines[0].startswith(BEGINS), lines


@pytest.mark.slow
def test_a_tensor_that_is_too_large_ends_in_one_line(tmp_path: Path) -> None:
    main = "def main(settings):\n    leave(300)\n    keras.layers.Dense(65536).build((None, 65536))\n"
    code, lines = last_words(tmp_path, "import keras\nkeras.ops.add(1, 2)", main + RUN)
    assert code == 1 and len(lines) == 1, lines
    assert "OOM when allocating tensor with shape[65536,65536] and type float; nothing half-written" in lines[0]
    assert "lower batch_size or image_size, choose a smaller backbone, or free some memory" in lines[0]


def test_an_abort_of_tensorflow_ends_in_one_line(tmp_path: Path) -> None:
    """It aborts where it cannot start a thread. The trace is in the log."""
    main = """
import numpy
class Batches(keras.utils.PyDataset):
    def __len__(self): return 2
    def __getitem__(self, index): return numpy.ones((4, 3)), numpy.ones((4, 2))

def main(settings):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("adam", "mse")
    keras.ops.add(1, 2)
    leave(5)
    model.fit(Batches(), verbose=0)
"""
    code, lines = last_words(tmp_path, "import keras", main + RUN)
    assert code != 0 and len(lines) == 1, lines
    assert lines[0].startswith(BEGINS) and "batch_size" in lines[0]


ABORTS = [
    "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
    "F0000 00:00:1.1    7 env.cc:84] Check failed: ret == 0 Thread x creation via pthread_create() failed.\n",
    "LLVM ERROR: pthread_create failed: Resource temporarily unavailable\n",
    "F0000 00:00:1.1    7 tensor.cc:9] Check failed: x OOM when allocating tensor with shape[3,4] and type float\n",
]


@pytest.mark.parametrize("words", ABORTS)
def test_the_words_of_an_abort_become_one_line(tmp_path: Path, words: str) -> None:
    main = f"starting.begin(with_keras=True)\nimport os\nos.write(2, {words!r}.encode())\nos.abort()\n"
    code, lines = last_words(tmp_path, "", main)
    assert code != 0 and len(lines) == 1 and lines[0].startswith(BEGINS), lines
    log = (tmp_path / ".temper/logs/toy_stage.txt").read_text(encoding="utf-8")
    assert words.splitlines()[0] in log and "Fatal Python error: Aborted" in log


def test_a_kill_by_the_kernel_is_said(tmp_path: Path) -> None:
    """A counter of such kills that rises stands in for the kernel. Other kills are no news."""
    counter = tmp_path / "memory.events"
    text = Path(noise.__file__).read_text(encoding="utf-8").replace('"/proc/vmstat"', repr(str(counter)))
    (tmp_path / "noise.py").write_text(text, encoding="utf-8")
    script = """
import os, time
from temper.base import quiet
quiet.FILTER = {filter!r}
starting.begin(with_keras=True)
time.sleep(0.5)  # the filter has read the counter by then
open({counter!r}, "w").write("oom_kill {kills}\\n")
os.kill(os.getpid(), 9)
"""
    for kills, expected in ((3, 0), (4, 1)):
        counter.write_text("low 0\noom_kill 3\n", encoding="ascii")
        filled = script.format(filter=str(tmp_path / "noise.py"), counter=str(counter), kills=kills)
        code, lines = last_words(tmp_path, "", filled)
        assert code == -9 and len(lines) == expected, lines
    assert lines[0].startswith(f"{BEGINS}, received too little: the kernel killed a process, probably this one")
