"""The filter of temper/base/quiet.py: copies stdin to stdout without the lines that TensorFlow and JAX always print.

    python -I -S temper/noise.py LOG < lines

Only lines that match the tables below are dropped; they are written to the file LOG instead. An unknown line is shown,
so a new version of TensorFlow may add a line to the terminal, but never hides a warning. It imports only a little of
the standard library, because the stage starts it while it imports Keras.

When memory runs out, TensorFlow aborts after hundreds of lines, or the kernel kills the stage without a message. This
process outlives the stage, and says in one line how much memory was requested and what helps.
"""

import os
import re
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# `I0000 00:00:1795282570.363227    9450 port.cc:153] ` or `2026-01-31 10:00:00.123456: I tensorflow/port.cc:153] `.
# I, W and E stand for information, warning and error. A fatal message, F, is never noise.
_ORIGIN = r"(?:[IWE]\d{4} [\d:.]+ +\d+|[\d-]{10} [\d:.]+: [IWE]) [\w/.-]+:\d+\] "

# How a line of noise begins after its origin, and why nobody needs it.
LOGGED = {
    "oneDNN custom operations are on": "the same bits follow from the same machine, which is what is promised",
    "This TensorFlow binary is optimized to use available CPU instructions": "nobody here builds TensorFlow",
    "Memory patch applied: M_TRIM_THRESHOLD=": "said at the first batch of every phase",
    "XLA service 0x[0-9a-f]+ initialized for platform": "said of each backend",
    r"  StreamExecutor (?:\[\d+\]|device \(\d+\)): ": "follows the line before",
    "Loaded cuDNN version": "requirements say which",
    "Compiled cluster using XLA!": "said once for each process",
    "disabling MLIR crash reproducer": "nobody here debugs MLIR",
    "Local rendezvous is aborting with status: OUT_OF_RANGE: End of sequence": "how a data set ends",
    "Unable to register cu(?:BLAS|DNN|FFT) factory": "the same library was loaded twice, which is harmless",
    r"successful NUMA node read from SysFS had negative value \(": "true of every virtual machine",
    r"could not open file to read NUMA node: /sys/bus/pci/devices/\S+/numa_node": "true of every container",
    "Local rendezvous is aborting with status: RESOURCE_EXHAUSTED: OOM when": "an error follows that says so too",
    r"OP_REQUIRES failed at \S+ : RESOURCE_EXHAUSTED: OOM when allocating": "an error follows that says so too",
    "NodeDef mentions attribute use_unbounded_threadpool which is not in the op definition": (
        "TensorFlow 2.21 says it of its own data sets"
    ),
    r"Number of eligible GPUs \(core count": "said when a graph is made for export, on the processor",
    "Starting new session$": "follows the line before",
    r"Ignored (?:output_format|drop_control_dependency)\.": "of the converter to LiteRT",
    "Reading SavedModel (?:debug info|from)": "the same converter, of its own files",
    "Reading meta graph with tags": "the same",
    "SavedModel load for tags .*Status: success": "the same",
    "MLIR V1 optimization pass is not enabled": "the same",
    "Estimated count of arithmetic ops": "the same",
    "Skipping runtime version metadata in the model": "the same",
    "Error occurred when finalizing GeneratorDataset iterator: FAILED_PRECONDITION: Python interpreter state is not": (
        "follows every error in a phase"
    ),
}
# The same, for machines without an NVIDIA GPU. On a machine with one, these lines say why training is slow.
LOGGED_WITHOUT_GPU = {
    "Could not find cuda drivers on your machine, GPU will not be used": "there is none",
    "failed call to cuInit": "there is none",
}
# Lines without an origin.
PLAIN = {
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$": "says nothing",
    r"To enable the following instructions: .* rebuild TensorFlow": "follows the line about CPU instructions",
    r"Your kernel may have been built without NUMA support\.$": "follows the line about numa_node",
    r"If the cause is memory fragmentation maybe the environment variable": "follows the line about the allocator",
    r"Current allocation summary follows\.$": "the same",
    r"(?:Limit|InUse|MaxInUse|NumAllocs|MaxAllocSize|Reserved|PeakReserved|LargestFreeBlock): +[\d.]+\w*$": "the same",
    # Hundreds of lines about a failed allocation; but not a line in which the allocator says that it is not a failure.
    r"[IW]\d{4} [\d:.]+ +\d+ bfc_allocator\.cc:\d+\] (?!.*not a failure)": "an error follows that says enough",
    r"WARNING:tensorflow:\d+ out of the last \d+ calls to <function TensorFlowTrainer": (
        "a model that opens further is compiled anew, on purpose"
    ),
    r"INFO: (?:Created TensorFlow Lite XNNPACK delegate|Initialized TensorFlow Lite runtime)": "how LiteRT computes",
    r"fully_quantize: \d, inference_type: \d": "the converter to LiteRT, of what it was asked",
    r"\t \[\[\{\{node PyFunc\}\}\]\]$": "follows the line about GeneratorDataset",
}
# The lines that say how much memory was requested when it ran out, and those by which a process says that it is dying.
ASKED = re.compile(
    rb"Allocator \(\S+\) ran out of memory (?P<allocator>trying to allocate \S+)(?!.*not a failure)"
    rb"|(?P<tensor>OOM when allocating tensor with shape\[[\d,]*\] and type \w+)"
    rb"|what\(\): +(?P<cpp>std::bad_alloc)|instance of '(?P<thrown>std::bad_alloc)'"
    rb"|Check failed: .*(?P<thread>Thread \S+ creation via pthread_create\(\) failed)"
    rb"|^LLVM ERROR: (?P<llvm>pthread_create failed|out of memory)"
    rb"|^F\d{4} .*?(?P<fatal>(?:[Oo]ut of memory|OOM|RESOURCE_EXHAUSTED|Failed to allocate).*)"
)
DYING = re.compile(rb"F\d{4} |[\d-]{10} [\d:.]+: F |terminate called |LLVM ERROR: |Fatal Python error: ")
_MEMORY = "error: {0}: expected more memory, received too little{1}; nothing half-written was kept: {2}"
_HELPS = "lower batch_size or image_size, choose a smaller backbone, or free some memory, and run again"
_KILLS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def has_nvidia_gpu() -> bool:
    """Whether the machine has an NVIDIA device or its driver, whether or not TensorFlow can use it."""
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/proc/driver/nvidia"))


def noise(nvidia_gpu: bool) -> re.Pattern[bytes]:
    """The pattern that the beginning of every line of noise matches."""
    logged = LOGGED if nvidia_gpu else LOGGED | LOGGED_WITHOUT_GPU
    return re.compile(f"{_ORIGIN}(?:{'|'.join(logged)})|{'|'.join(PLAIN)}".encode())


def copy(lines: Iterable[bytes], known: re.Pattern[bytes], shown: BinaryIO, dropped: BinaryIO) -> str | None:
    """Writes each line as soon as it is complete: noise to `dropped`, all others to `shown`.

    If a process dies because memory ran out, its last lines (a stack trace and a dump) go to `dropped` too.

    Returns:
        the request for memory on which such a process died; `None` if it did not die of that.
    """
    asked, dying = "", False
    for line in lines:
        found = ASKED.search(line)
        if found:
            asked = next(filter(None, found.groups())).decode(errors="replace").strip()
        dying = dying or DYING.match(line) is not None
        last = asked and (dying or line.isspace())  # a line of a stack trace, or between the parts of a dump
        file = dropped if known.match(line) or last else shown
        file.write(line)
        file.flush()
    return asked if asked and dying else None


def kills() -> list[str]:
    """How often the kernel has killed a process because memory ran out, from each file that counts it."""
    found = []
    for path in _KILLS:
        with suppress(OSError):
            found += re.findall(r"^oom_kill \d+$", Path(path).read_text(encoding="ascii"), re.MULTILINE)
    return found


def is_gone(parent: int) -> bool:
    """Whether the stage was killed. A stage that ends by itself waits for this process; a killed one is soon gone."""
    deadline = time.monotonic() + 0.2
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getppid() != parent


def open_log(path: Path) -> BinaryIO:
    """Opens the file for the dropped lines. If it cannot be written, the lines are discarded and the stage goes on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def main() -> None:
    """Copies lines until the last process that holds the pipe has ended, or until nobody reads the output."""
    log, parent, before = Path(sys.argv[1]), os.getppid(), kills()
    with suppress(BrokenPipeError):
        with open_log(log) as dropped:
            asked = copy(sys.stdin.buffer, noise(has_nvidia_gpu()), sys.stdout.buffer, dropped)
        if asked is not None:
            print(_MEMORY.format(log.stem, f": {asked}", f"{_HELPS}; what it said last is in .temper/logs/{log.name}"))
        elif kills() != before and is_gone(parent):
            print(_MEMORY.format(log.stem, ": the kernel killed a process, probably this one", _HELPS))


if __name__ == "__main__":
    main()
