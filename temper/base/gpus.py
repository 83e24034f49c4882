"""Leases of GPUs: of all stages that run on one machine for one repository, no two compute on the same GPU.

A stage that computes takes a lease before Keras is imported, because TensorFlow and JAX fill the memory of every GPU
that they see, and CUDA_VISIBLE_DEVICES then shows it that one GPU only. The lease is a lock on a file, which the system
takes back however the process ends, so a killed holder's GPU is free at once. Without a GPU nothing happens.

Workers of DVC's queue and `dvc exp run --temp` work in copies of the repository; the files are in the original. They
are called after the GPUs' own names, because machines that share a disk number theirs alike.
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
FOLDER = "TEMPER_GPUS"  # where the files are instead, for several clones of one machine
_HOLDER = "TEMPER_GPU_LEASE"  # tells the processes that a stage starts that they compute on its GPU
_PAUSE = 0.5  # seconds between two looks at GPUs that are all taken

_held: list[IO[str]] = []  # open as long as the process lives


def hide() -> None:
    """Lets this process, and those that it starts, see no GPU: what it does with Keras is no computing."""
    os.environ |= {VISIBLE: "-1", "JAX_PLATFORMS": "cpu"}  # JAX calls it an error to have CUDA and see no GPU


def lease(count: int | Literal["all"] = 1, number: str | None = None) -> bool:
    """Waits until GPUs of this machine are free and takes them until this process ends; says so if it has to wait.

    The GPUs are those of CUDA_VISIBLE_DEVICES or, without that variable, all that the driver names.

    Args:
        count: how many; fewer are taken where there are fewer, and the backend then refuses.
        number: the place, among them, of the one that it must be: "0", "1", ...

    Returns:
        whether this process holds any.
    """
    names = gpu_numbers()
    candidates = _candidates(list(names))
    if number is not None:
        candidates = candidates[int(number) : int(number) + 1]
    if not candidates or _HOLDER in os.environ:
        return _HOLDER in os.environ
    wanted = len(candidates) if count == "all" else min(count, len(candidates))
    # One at a time collects several: two would wait for each other's.
    with held(_folder() / "several.lock", "waiting for GPUs") if wanted > 1 else nullcontext():
        taken = _collect({name: names.get(name, name) for name in candidates}, wanted)
    os.environ[VISIBLE] = os.environ[_HOLDER] = ",".join(sorted(taken, key=candidates.index))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's, where CUDA would put the fastest first
    return True


def _candidates(numbers: list[str]) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    if VISIBLE not in os.environ:
        return numbers
    names = [name.strip() for name in os.environ[VISIBLE].split(",")]
    return [] if names[0] in ("", "-1", "NoDevFiles") else names


def _collect(candidates: dict[str, str], wanted: int) -> list[str]:
    """So many GPUs, as soon as they are free.

    Args:
        candidates: the name of each one's file, by its own.
    """
    taken: list[str] = []

    def take() -> dict[str, str]:
        """Takes what is free, and returns what is not."""
        left = {name: file for name, file in candidates.items() if name not in taken}
        while len(taken) < wanted and (free := _take_one_of(left)) is not None:
            taken.append(free)
            del left[free]
        return left

    left = take()
    if len(taken) < wanted:
        print(_in_words(left), flush=True)
        with noted():  # who computes the very same now leaves it for this process
            while len(taken) < wanted:
                time.sleep(_PAUSE)
                take()
    return taken


def _take_one_of(candidates: dict[str, str]) -> str | None:
    """The first GPU that nobody holds, which this process holds from now on."""
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
    """Who holds the GPUs that are waited for."""
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
    """The file of a GPU: never removed, so that all who wait for it wait for the same one; open to other users."""
    path = _folder() / re.sub(r"[^\w.-]", "_", file)
    mode = os.O_RDWR | os.O_CREAT
    before = os.umask(0)
    try:
        return os.fdopen(os.open(path, mode, 0o666), "r+", encoding="utf-8")
    finally:
        os.umask(before)
