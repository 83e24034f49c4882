"""`fine_tune.batch_size: auto`: the largest batch that fits on the GPUs, tried in processes of their own.

A process in which the memory of a GPU ended is of no further use, and one that only looked at it may hold all of it. So
the process that asks computes nothing before it has its answer. The answer is kept: the same GPUs and params give the
same size, and so the same bits (law 5).
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from temper.base import memory
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.paths import scratch

FIRST, MOST = 8, 4096
_ENDED_BY_KERNEL = -9  # what the kernel sends where the memory of the machine ends


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two that fits, found by doubling, or by halving if not even the first one does.

    Args:
        most: none is tried beyond it; at least 1.

    Raises:
        TemperError: not even 1 fits.
    """
    size = min(FIRST, 1 << (most.bit_length() - 1))
    while not fits(size):
        if size == 1:
            raise TemperError(
                "fine_tune.batch_size: auto: not even one image fits into the memory; lower image_size, choose a "
                "smaller backbone, or open less of it by unfreeze_from"
            )
        size //= 2
        most = min(most, size)  # twice of it was tried
    while 2 * size <= min(most, MOST) and fits(2 * size):
        size *= 2
    return size


def fits_in_child(started: Sequence[str], size: int) -> bool:
    """Whether a process that trains some steps with such a batch ends well; the size is its last argument.

    Raises:
        TemperError: it ended of something else than a lack of memory.
    """
    done = subprocess.run(
        [*started, str(size)], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    said = f"{done.stdout}\n{done.stderr}"
    lacks = done.returncode != 0 and (done.returncode == _ENDED_BY_KERNEL or memory.says_so(said))
    if done.returncode and not lacks:
        last = (said.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TemperError(
            f"fine_tune.batch_size: auto: expected a few steps with {size} images to end well or for lack of memory, "
            f"received: {last.split('TemperError: ')[-1]}"
        )
    print(f"batch_size {size}: {'too large' if lacks else 'fits'}", flush=True)
    return not lacks


def kept(described: Any, find: Callable[[], int]) -> int:
    """What `find` finds, or found before for what is described so: in .temper/batch_sizes/ of the repository.

    Args:
        described: all that the size depends on, as JSON takes it.
    """
    text = json.dumps(described, sort_keys=True)
    path = scratch("batch_sizes") / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    written = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if written.isdecimal():
        print(f"batch_size {written}: found before, {path}")
        return int(written)
    size = find()
    with atomic_file(path) as partial:
        partial.write_text(f"{size}\n", encoding="utf-8")
    return size


def command(module: str, function: str) -> list[str]:
    """The command that calls a function of a module with the size that is put behind it."""
    dies_with_us = "from temper.base import starting; starting.begin()"  # law 12
    code = f"import sys; {dies_with_us}; from {module} import {function}; {function}(int(sys.argv[1]))"
    return [sys.executable, "-c", code]
