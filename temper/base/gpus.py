"""Leases GPUs to stages: of all stages that run on one machine for one repository, no two compute on the same GPU.

A stage takes its lease before it imports Keras, because TensorFlow and JAX fill the memory of every GPU that they see.
CUDA_VISIBLE_DEVICES then shows the stage only the leased GPUs. A lease is a lock on a file, which the system releases
however the process ends, so the GPU of a killed stage is free at once. Without a GPU nothing happens.

Workers of DVC's queue and of `dvc exp run --temp` work in copies of the repository; the lock files are in the original.
They are named after the UUIDs of the GPUs, because machines that share a disk use the same numbers for their GPUs.
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
from temper.base.wishes import noted

VISIBLE = "CUDA_VISIBLE_DEVICES"
FOLDER = "TEMPER_GPUS"  # names another folder for the lock files, for several clones on one machine
_HOLDER = "TEMPER_GPU_LEASE"  # tells the child processes of a stage that they compute on its GPUs
_PAUSE = 0.5  # seconds between two attempts while all GPUs are taken

_held: list[IO[str]] = []  # the locked files, open for as long as the process lives


def hide() -> None:
    """Hides all GPUs from this process and its children, for stages that use Keras without computing much."""
    os.environ |= {VISIBLE: "-1", "JAX_PLATFORMS": "cpu"}  # with CUDA but no visible GPU, JAX would raise an error


def lease(count: int | Literal["all"] = 1, number: str | None = None) -> bool:
    """Waits until GPUs of this machine are free and leases them until this process ends; prints if it has to wait.

    It chooses among the GPUs of CUDA_VISIBLE_DEVICES or, without that variable, among all that the driver lists.

    Args:
        count: how many GPUs to lease. If the machine has fewer, all are leased, and the backend refuses later.
        number: "0", "1", ...: takes exactly this one of them; `None`: any.

    Returns:
        whether this process holds a lease.
    """
    names = gpu_numbers()
    candidates = _candidates(list(names))
    if number is not None:
        candidates = candidates[int(number) : int(number) + 1]
    if not candidates or _HOLDER in os.environ:
        return _HOLDER in os.environ
    wanted = len(candidates) if count == "all" else min(count, len(candidates))
    # Only one process at a time may collect several GPUs: two could wait for each other forever.
    with held(_folder() / "several.lock", "waiting for GPUs") if wanted > 1 else nullcontext():
        taken = _collect({name: names.get(name, name) for name in candidates}, wanted)
    os.environ[VISIBLE] = os.environ[_HOLDER] = ",".join(sorted(taken, key=candidates.index))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's order; CUDA would put the fastest first
    return True


def _candidates(numbers: list[str]) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    if VISIBLE not in os.environ:
        return numbers
    names = [name.strip() for name in os.environ[VISIBLE].split(",")]
    return [] if names[0] in ("", "-1", "NoDevFiles") else names


def _collect(candidates: dict[str, str], wanted: int) -> list[str]:
    """Takes `wanted` GPUs as soon as they are free, and returns their names.

    Args:
        candidates: the name of each GPU's lock file, by the GPU's name.
    """
    taken: list[str] = []

    def take() -> dict[str, str]:
        """Takes free GPUs, as many as are still wanted, and returns the candidates that are left."""
        left = {name: file for name, file in candidates.items() if name not in taken}
        while len(taken) < wanted and (free := _take_one_of(left)) is not None:
            taken.append(free)
            del left[free]
        return left

    left = take()
    if len(taken) < wanted:
        print(_in_words(left), flush=True)
        with noted():  # a process that computes the same now will leave its result for this one
            while len(taken) < wanted:
                time.sleep(_PAUSE)
                take()
    return taken


def _take_one_of(candidates: dict[str, str]) -> str | None:
    """Takes the first free GPU and returns its name; `None` if none is free."""
    for name, file in candidates.items():
        lock = _open(file)
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


def _in_words(awaited: dict[str, str]) -> str:
    """A message that names the processes which hold the awaited GPUs."""
    holders = []
    for name, file in awaited.items():
        with _open(file) as lock:
            lock.seek(0)
            holders.append(f"{name} is used by process {lock.read().strip() or 'unknown'}")
    return f"waiting for a GPU: {'; '.join(holders)}"


def _folder() -> Path:
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else scratch("gpus")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open(file: str) -> IO[str]:
    """Opens a GPU's lock file. It is never removed, so that all processes lock the same file; any user may open it."""
    path = _folder() / re.sub(r"[^\w.-]", "_", file)
    mode = os.O_RDWR | os.O_CREAT
    before = os.umask(0)
    try:
        return os.fdopen(os.open(path, mode, 0o666), "r+", encoding="utf-8")
    finally:
        os.umask(before)
