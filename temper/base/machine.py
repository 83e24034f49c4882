"""What the machine has: processor cores and GPUs, whatever a library makes of them."""

import os
import subprocess

# Keras's names for how many processes train together, on one machine or on several, and which of them this one is.
PROCESSES, PROCESS = "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID"
_PATIENCE = 20  # seconds that the driver has for an answer; with many GPUs it takes some


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_first_process() -> bool:
    """Whether this process is the one that writes, of those that train together; alone it is."""
    return os.environ.get(PROCESS, "0") == "0"


def gpu_names() -> list[str]:
    """The NVIDIA GPUs of this machine, as their driver names them; none where there is no driver that answers."""
    return _asked_of_the_driver("name")


def gpu_numbers() -> dict[str, str]:
    """What makes each of these GPUs known anywhere, "GPU-8932f937-...", by its number here, "0", "1", ..."""
    return {str(number): uuid for number, uuid in enumerate(_asked_of_the_driver("uuid"))}


def gpu_sizes(visible: str | None = None) -> list[str]:
    """Name and memory of each GPU, or of those that a CUDA_VISIBLE_DEVICES names: "NVIDIA L4, 23034 MiB"."""
    return _asked_of_the_driver("name,memory.total", *([f"--id={visible}"] if visible else []))


def _asked_of_the_driver(what: str, *options: str) -> list[str]:
    """A line for each GPU; none where there is no driver that answers."""
    asked = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader", *options]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.splitlines() if line.strip()]
