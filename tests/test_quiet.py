"""What TensorFlow prints at every start is kept out, and nothing else is lost, however the process ends."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from temper import noise
from tests.toys.workspace import ROOT

STARTED = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom temper.base import quiet\nquiet.keep_out_noise()\n"
ABSL = "I0000 00:00:1795282570.363227    9450 "
WRITE = "import os; write = lambda text: os.write(2, (text + chr(10)).encode())\n"

# A sample of each line of noise; those of CPU as TensorFlow 2.21 wrote them, those of GPU as others published them.
NOISE = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    f"{ABSL}port.cc:153] oneDNN custom operations are on. You may see slightly different numerical results",
    "2025-11-12 15:56:58.1: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on. You may see",
    f"{ABSL}cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use available CPU instructions in",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate",
    f"{ABSL}generator_dataset_op.cc:213] Memory patch applied: M_TRIM_THRESHOLD=128 kb was set.",
    f"{ABSL}service.cc:153] XLA service 0x7f70940072d0 initialized for platform CUDA (this does not guarantee that",
    f"{ABSL}service.cc:161]   StreamExecutor [0]: NVIDIA GeForce RTX 3060, Compute Capability 8.6 (Driver: 13.2.0;",
    f"{ABSL}service.cc:160]   StreamExecutor device (0): NVIDIA A100-SXM4-40GB, Compute Capability 8.0",
    f"{ABSL}cuda_dnn.cc:461] Loaded cuDNN version 92100",
    f"{ABSL}device_compiler.h:208] Compiled cluster using XLA!  This line is logged at most once for the lifetime",
    f"{ABSL}dump_mlir_util.cc:269] disabling MLIR crash reproducer, set env var `MLIR_CRASH_REPRODUCER_DIRECTORY`",
    f"{ABSL}local_rendezvous.cc:407] Local rendezvous is aborting with status: OUT_OF_RANGE: End of sequence",
    "2025-10-06 00:40:57.85: E external/local_xla/xla/stream_executor/cuda/cuda_fft.cc:467] Unable to register cuFFT "
    "factory: Attempting to register factory for plugin cuFFT when one has already been registered",
    "E0000 00:00:1730273088.340289    1310 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting to register",
    f"{ABSL}cuda_executor.cc:1015] successful NUMA node read from SysFS had negative value (-1), but there must be",
    f"{ABSL}cuda_executor.cc:933] could not open file to read NUMA node: /sys/bus/pci/devices/0000:01:00.0/numa_node",
    "Your kernel may have been built without NUMA support.",
    f"{ABSL}local_rendezvous.cc:412] Local rendezvous is aborting with status: RESOURCE_EXHAUSTED: OOM when allocating",
    f"{ABSL}op_kernel.cc:1858] OP_REQUIRES failed at mkl_util.h:848 : RESOURCE_EXHAUSTED: OOM when allocating tensor "
    "with shape[64,64,64,64] and type float on /job:localhost/replica:0/task:0/device:CPU:0 by allocator mklcpu",
    f"{ABSL}generator_dataset_op.cc:113] Error occurred when finalizing GeneratorDataset iterator: "
    "FAILED_PRECONDITION: Python interpreter state is not initialized. The process may be terminated",
    "\t [[{{node PyFunc}}]]",
    "WARNING:tensorflow:5 out of the last 8 calls to <function TensorFlowTrainer._make_function.<locals>.multi_step_",
    f"{ABSL}bfc_allocator.cc:502] Allocator (mklcpu) ran out of memory trying to allocate 64.00MiB (rounded to 67108",
    f"{ABSL}bfc_allocator.cc:1056] Bin (256): \tTotal Chunks: 0, Chunks in use: 0. 0B allocated for chunks. 0B in use",
    "If the cause is memory fragmentation maybe the environment variable 'TF_GPU_ALLOCATOR=cuda_malloc_async' will",
    "Current allocation summary follows.",
    "Limit:                        23.54GiB",
    "E0000 00:00:1795301126.045109   16733 node_def_util.cc:682] NodeDef mentions attribute use_unbounded_threadpool "
    "which is not in the op definition: Op<name=MapDataset; signature=input_dataset:variant>",
    f"{ABSL}devices.cc:76] Number of eligible GPUs (core count >= 8, compute capability >= 0.0): 0 (Note: TensorFlow",
    f"{ABSL}single_machine.cc:376] Starting new session",
    "W0000 00:00:1795308560.924760   15301 tf_tfl_flatbuffer_helpers.cc:364] Ignored output_format.",
    "W0000 00:00:1795308560.924801   15301 tf_tfl_flatbuffer_helpers.cc:367] Ignored drop_control_dependency.",
    f"{ABSL}reader.cc:83] Reading SavedModel from: /tmp/tmp2z2rm71a/graph",
    f"{ABSL}reader.cc:147] Reading SavedModel debug info (if present) from: /tmp/tmp2z2rm71a/graph",
    f"{ABSL}reader.cc:52] Reading meta graph with tags {{ serve }}",
    f"{ABSL}loader.cc:471] SavedModel load for tags {{ serve }}; Status: success: OK. Took 1131 microseconds.",
    f"{ABSL}mlir_graph_optimization_pass.cc:437] MLIR V1 optimization pass is not enabled",
    f"{ABSL}flatbuffer_export.cc:4302] Estimated count of arithmetic ops: 21.945 M  ops, equivalently 10.973 M  MACs",
    "W0000 00:00:1795308005.311736   30827 flatbuffer_export.cc:3851] Skipping runtime version metadata in the model. "
    "This will be generated by the exporter.",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "INFO: Initialized TensorFlow Lite runtime.",
    "fully_quantize: 0, inference_type: 6, input_inference_type: FLOAT32, output_inference_type: FLOAT32",
]
NOISE_WITHOUT_GPU = [
    f"{ABSL}cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.",
    "E0000 00:00:1795282572.235144    9450 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed "
    "call to cuInit: UNKNOWN ERROR (303)",
]
SHOWN = [
    "",
    "oneDNN custom operations are on",  # no library says so
    "F0000 00:00:1795282570.363227    9450 port.cc:153] oneDNN custom operations are on",  # fatal
    f"{ABSL}local_rendezvous.cc:407] Local rendezvous is aborting with status: INVALID_ARGUMENT: shapes differ",
    f"{ABSL}gpu_device.cc:2020] Created device /job:localhost/replica:0/task:0/device:GPU:0 with 133333 MB memory",
    "W0000 00:00:1795282570.363227    9450 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure",
    "W0000 00:00:1795282570.363227    9450 cpu_allocator_impl.cc:84] Allocation of 99 exceeds 10% of free memory",
    "W0000 00:00:1795282570.363227    9450 bfc_allocator.cc:314] Allocator (GPU_0_bfc) ran out of memory trying to "
    "allocate 2.26GiB with freed_by_count=0. The caller indicates that this is not a failure, but this may mean that",
    "terminate called after throwing an instance of 'std::bad_alloc'",
]


@pytest.mark.parametrize("line", NOISE)
def test_noise_is_known_with_and_without_a_gpu(line: str) -> None:
    assert all(noise.noise(nvidia_gpu).match(line.encode()) for nvidia_gpu in (True, False))


@pytest.mark.parametrize("line", NOISE_WITHOUT_GPU)
def test_why_there_is_no_gpu_is_noise_only_where_there_is_none(line: str) -> None:
    assert noise.noise(nvidia_gpu=False).match(line.encode())
    assert not noise.noise(nvidia_gpu=True).match(line.encode())


@pytest.mark.parametrize("line", SHOWN)
def test_what_is_not_known_is_shown(line: str) -> None:
    assert not noise.noise(nvidia_gpu=False).match(line.encode())


def test_every_pattern_has_a_sample() -> None:
    for pattern in [*noise.LOGGED, *noise.LOGGED_WITHOUT_GPU, *noise.PLAIN]:
        assert any(re.search(pattern, line) for line in NOISE + NOISE_WITHOUT_GPU), pattern


def test_copying_separates_the_lines() -> None:
    shown, dropped = io.BytesIO(), io.BytesIO()
    lines = [f"{NOISE[0]}\n".encode(), b"kept\n", b"cut off"]
    assert noise.copy(lines, noise.noise(nvidia_gpu=False), shown, dropped) is None
    assert (shown.getvalue(), dropped.getvalue()) == (b"kept\ncut off", lines[0])


def script(folder: Path, text: str) -> Path:
    """A program that keeps the noise out and then does as `text` says."""
    path = folder / "toy_stage.py"
    path.write_text(STARTED + WRITE + text, encoding="utf-8")
    return path


def run(folder: Path, text: str) -> tuple[int, str]:
    """The exit code of such a program and all that it writes to stderr, until the last process that has it ends."""
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    done = subprocess.run(
        [sys.executable, script(folder, text)],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


needs_no_gpu = pytest.mark.skipif(noise.has_nvidia_gpu(), reason="an NVIDIA GPU may have more to say")


@needs_no_gpu
def test_keras_starts_and_trains_without_a_word(tmp_path: Path) -> None:
    """With a PyDataset and two workers, as the phases train: it prints more than the import."""
    text = """
import keras
import numpy as np

class Batches(keras.utils.PyDataset):
    def __len__(self): return 2
    def __getitem__(self, index): return np.ones((4, 3)), np.ones((4, 2))

model = keras.Sequential([keras.layers.Dense(2)])
model.compile("adam", "mse")
model.fit(Batches(workers=2), verbose=0)
"""
    assert run(tmp_path, text) == (0, "")
    log = (tmp_path / ".temper" / "logs" / "toy_stage.txt").read_text(encoding="utf-8")
    assert "This TensorFlow binary is optimized" in log and "M_TRIM_THRESHOLD" in log


def test_an_error_after_the_import_keeps_its_traceback(tmp_path: Path) -> None:
    code, stderr = run(tmp_path, "import keras\nkeras.ops.add(1, 2)\nraise ValueError('told')\n")
    assert code == 1 and stderr.startswith("Traceback") and stderr.endswith("ValueError: told\n")


def test_warnings_and_messages_appear_in_their_order(tmp_path: Path) -> None:
    text = """
import warnings
write('W0000 00:00:1.1    7 allocator.cc:84] Allocation of 99 exceeds 10% of free system memory.')
warnings.warn('of Python')
write('I0000 00:00:1.1    7 port.cc:153] oneDNN custom operations are on. You may')
sys.exit('error: mend it')
"""
    code, stderr = run(tmp_path, text)
    assert code == 1 and "oneDNN" not in stderr
    assert all(words in stderr for words in ("Allocation of 99", "UserWarning: of Python", "error: mend it\n"))


@pytest.mark.parametrize("imported", ["", "import keras\nkeras.ops.add(1, 2)\n"], ids=["at once", "after the import"])
def test_an_abort_shows_the_last_words_and_where_it_was(tmp_path: Path, imported: str) -> None:
    code, stderr = run(tmp_path, f"{imported}write('F0000 00:00:1.1    7 status.cc:9] Check failed: x')\nos.abort()\n")
    assert code == -signal.SIGABRT
    assert "Check failed: x" in stderr and "Fatal Python error: Aborted" in stderr and "toy_stage.py" in stderr


def test_a_crash_shows_where_it_was(tmp_path: Path) -> None:
    code, stderr = run(tmp_path, "import ctypes\nctypes.string_at(0)\n")
    assert code == -signal.SIGSEGV and "Fatal Python error: Segmentation fault" in stderr and "string_at" in stderr


def test_the_last_words_of_a_killed_process_appear(tmp_path: Path) -> None:
    """Also half a line. `run` returns, so the filter has ended as well."""
    code, stderr = run(
        tmp_path, f"write('whole')\nos.write(2, b'half')\nos.kill(os.getpid(), {signal.SIGKILL.value})\n"
    )
    assert (code, stderr) == (-signal.SIGKILL, "whole\nhalf")


def test_a_kill_during_the_import_leaves_only_the_log(tmp_path: Path) -> None:
    program = script(tmp_path, "write('ready')\nimport keras\nwrite('imported')\n")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, program], cwd=tmp_path, env=os.environ | {"TMPDIR": str(temporary)}, stderr=subprocess.PIPE
    )
    assert process.stderr is not None and process.stderr.readline() == b"ready\n"
    time.sleep(0.3)
    process.kill()
    assert process.communicate()[1] == b""  # not yet imported: "ready" came at once; and the filter has ended too
    assert not list(temporary.iterdir())


def test_progress_bars_still_see_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    code = "sys.exit(0 if sys.stderr.isatty() and not os.isatty(2) else 1)\n"
    assert (
        subprocess.run([sys.executable, script(tmp_path, code)], cwd=tmp_path, stderr=theirs, check=False).returncode
        == 0
    )
    os.close(ours)
    os.close(theirs)


def test_what_starts_next_does_not_write_before_the_last_lines(tmp_path: Path) -> None:
    program = script(tmp_path, "for number in range(9_000): write(f'line {number}')\n")
    command = f"{sys.executable} {program} 2>&1; echo next"
    process = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)  # both pipes are full by then
    lines = process.communicate()[0].splitlines()
    assert lines == [*(f"line {number}" for number in range(9_000)), "next"]


def test_where_the_filter_cannot_be_started_everything_is_shown(tmp_path: Path) -> None:
    path = script(tmp_path, "write('low level')\nsys.exit('done')\n")
    path.write_text(path.read_text(encoding="utf-8").replace("quiet.keep", "sys.executable = '/none'\nquiet.keep"))
    done = subprocess.run([sys.executable, path], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "low level\ndone\n")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ".temper").write_text("a file where the folder should be")
    assert run(tmp_path, f"write({NOISE[1]!r})\nwrite('shown')\n") == (0, "shown\n")
