"""The filter of temper/base/quiet.py: copies stdin to stdout without what TensorFlow and JAX print at every start.

    python -I -S temper/noise.py LOG < lines

Only lines in the table are dropped, and written to the file LOG instead. A line that is not known is shown, so a new
version of TensorFlow costs a new line on the terminal, never a warning. Imports only the standard library, and little
of it: the stage starts it while it imports keras.
"""

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# `I0000 00:00:1795282570.363227    9450 port.cc:153] ` or `2026-01-31 10:00:00.123456: I tensorflow/port.cc:153] `.
# I, W and E stand for information, warning and error. A fatal one, F, is never noise.
_ORIGIN = r"(?:[IWE]\d{4} [\d:.]+ +\d+|[\d-]{10} [\d:.]+: [IWE]) [\w/.-]+:\d+\] "

# How a line of noise begins, after its origin, and why nobody needs it.
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
}
# The same, where the machine has no NVIDIA GPU. Where it has one, these lines say why training is slow.
LOGGED_WITHOUT_GPU = {
    "Could not find cuda drivers on your machine, GPU will not be used": "there is none",
    "failed call to cuInit": "there is none",
}
# Lines without an origin.
PLAIN = {
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$": "says nothing",
    r"To enable the following instructions: .* rebuild TensorFlow": "follows the line about CPU instructions",
    r"Your kernel may have been built without NUMA support\.$": "follows the line about numa_node",
}


def has_nvidia_gpu() -> bool:
    """Whether the machine shows an NVIDIA device or its driver, whatever TensorFlow makes of it."""
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/proc/driver/nvidia"))


def noise(nvidia_gpu: bool) -> re.Pattern[bytes]:
    """What a line of noise begins with."""
    logged = LOGGED if nvidia_gpu else LOGGED | LOGGED_WITHOUT_GPU
    return re.compile(f"{_ORIGIN}(?:{'|'.join(logged)})|{'|'.join(PLAIN)}".encode())


def copy(lines: Iterable[bytes], known: re.Pattern[bytes], shown: BinaryIO, dropped: BinaryIO) -> None:
    """Writes each line as soon as it is whole: noise to `dropped`, all else to `shown`."""
    for line in lines:
        file = dropped if known.match(line) else shown
        file.write(line)
        file.flush()


def open_log(path: Path) -> BinaryIO:
    """The file of the dropped lines; a log that cannot be written does not stop a stage."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def main() -> None:
    """Copies until the last process that has the pipe has ended, or nobody reads what is shown."""
    with suppress(BrokenPipeError), open_log(Path(sys.argv[1])) as dropped:
        copy(sys.stdin.buffer, noise(has_nvidia_gpu()), sys.stdout.buffer, dropped)


if __name__ == "__main__":
    main()
