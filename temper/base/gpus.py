"""Leases of GPUs: of all stages that run on one machine for one repository, no two compute on the same GPU.

A stage that computes takes a lease before Keras is imported, because TensorFlow and JAX fill the memory of every GPU
that they see, and CUDA_VISIBLE_DEVICES then shows it that one GPU only. The lease is a lock on a file, which the system
takes back however the process ends, so a killed holder's GPU is free at once. Without a GPU nothing happens.

Workers of DVC's queue and `dvc exp run --temp` work in copies of the repository; the files are in the original.
"""

import fcntl
import os
import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Literal

from temper.base.locks import held
from temper.base.machine import gpu_numbers
from temper.base.paths import scratch

VISIBLE = "CUDA_VISIBLE_DEVICES"
FOLDER = "TEMPER_GPUS"  # where the files are instead, for several clones of one machine
_HOLDER = "TEMPER_GPU_LEASE"  # tells the processes that a stage starts that they compute on its GPU
_PAUSE = 0.5  # seconds between two looks at GPUs that are all taken

_held: list[IO[str]] = []  # open as long as the process lives


def hide() -> None:
    """Lets this process, and those that it starts, see no GPU: what it does with Keras is no computing."""
    os.environ[VISIBLE] = "-1"


def lease(count: int | Literal["all"] = 1) -> None:
    """Waits until GPUs of this machine are free and takes them until this process ends; says so if it has to wait.

    The GPUs are those of CUDA_VISIBLE_DEVICES or, without that variable, all that the driver names.

    Args:
        count: how many; fewer are taken where there are fewer, and the backend then refuses.
    """
    candidates = _candidates()
    if not candidates or _HOLDER in os.environ:
        return
    wanted = len(candidates) if count == "all" else min(count, len(candidates))
    # One at a time collects several: two would wait for each other's.
    with held(_folder() / "several.lock", "waiting for GPUs") if wanted > 1 else nullcontext():
        taken: list[str] = []
        said = False
        while len(taken) < wanted:
            free = _take_one_of([name for name in candidates if name not in taken])
            if free is not None:
                taken.append(free)
                continue
            if not said:
                print(_in_words([name for name in candidates if name not in taken]), flush=True)
            said = True
            time.sleep(_PAUSE)
    os.environ[VISIBLE] = os.environ[_HOLDER] = ",".join(sorted(taken, key=candidates.index))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's, where CUDA would put the fastest first


def _candidates() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    if VISIBLE not in os.environ:
        return gpu_numbers()
    names = [name.strip() for name in os.environ[VISIBLE].split(",")]
    return [] if names[0] in ("", "-1", "NoDevFiles") else names


def _take_one_of(candidates: list[str]) -> str | None:
    """The first GPU that nobody holds, which this process holds from now on."""
    for name in candidates:
        lock = _open(name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _held.append(lock)
        return name
    return None


def _in_words(awaited: list[str]) -> str:
    """Who holds the GPUs that are waited for."""
    holders = []
    for name in awaited:
        with _open(name) as lock:
            lock.seek(0)
            holders.append(f"{name} is used by process {lock.read().strip() or 'unknown'}")
    return f"waiting for a GPU: {'; '.join(holders)}"


def _folder() -> Path:
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else scratch("gpus")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open(name: str) -> IO[str]:
    """The file of a GPU: never removed, so that all who wait for it wait for the same one."""
    return (_folder() / ("gpu-" + re.sub(r"[^\w.-]", "_", name))).open("a+", encoding="utf-8")
