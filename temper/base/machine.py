"""The machine's processor cores and GPUs, whether or not a library uses them."""

import os
import subprocess

# Keras's variables for the number of processes that train together, on one machine or several, and for this one's id.
PROCESSES, PROCESS = "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID"
_PATIENCE = 20  # seconds that the driver may take to answer; with many GPUs it takes several


def cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_first_process() -> bool:
    """Whether this process is the first of those that train together, the only one that writes; True for one alone."""
    return os.environ.get(PROCESS, "0") == "0"


def gpu_names() -> list[str]:
    """The names of this machine's NVIDIA GPUs, from their driver; empty if no driver answers."""
    return _asked_of_the_driver("name")


def gpu_numbers() -> dict[str, str]:
    """The UUID of each of these GPUs, "GPU-8932f937-...", by its number on this machine, "0", "1", ..."""
    return {str(number): uuid for number, uuid in enumerate(_asked_of_the_driver("uuid"))}


def gpu_sizes(visible: str | None = None) -> list[str]:
    """Name and memory of each GPU, "NVIDIA L4, 23034 MiB", or of those that a value of CUDA_VISIBLE_DEVICES names."""
    return _asked_of_the_driver("name,memory.total", *([f"--id={visible}"] if visible else []))


def _asked_of_the_driver(what: str, *options: str) -> list[str]:
    """The driver's answer, a line for each GPU; empty if no driver answers."""
    asked = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader", *options]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.splitlines() if line.strip()]
