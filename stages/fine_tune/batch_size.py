"""`fine_tune.batch_size: auto`: finds the largest batch that fits on the GPUs, trying each size in a child process.

A process that has run out of GPU memory cannot go on, and one that has merely initialized the GPU may hold all of its
memory. So the calling process must not compute anything before it has the answer. The answer is cached: the same GPUs
and params give the same batch size, and therefore the same trained weights.
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
_ENDED_BY_KERNEL = -9  # SIGKILL, which Linux sends when the machine runs out of memory


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two that fits, found by doubling from `FIRST`, or by halving if that is too large.

    Args:
        most: the largest size to try, at least 1. `MOST` limits it further.

    Raises:
        TemperError: not even a batch of 1 fits.
    """
    size = min(FIRST, 1 << (most.bit_length() - 1))
    while not fits(size):
        if size == 1:
            raise TemperError(
                "fine_tune.batch_size: auto: not even one image fits into the memory; lower image_size, choose a "
                "smaller backbone, or open less of it by unfreeze_from"
            )
        size //= 2
        most = min(most, size)  # twice this size did not fit
    while 2 * size <= min(most, MOST) and fits(2 * size):
        size *= 2
    return size


def fits_in_child(started: Sequence[str], size: int) -> bool:
    """Whether a child process can train a few steps with this batch size.

    Args:
        started: the command of the child process; the size is appended as its last argument.

    Raises:
        TemperError: the child process failed for another reason than lack of memory.
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
    """Returns `find()`, or the result of an earlier run for the same description, cached in .temper/batch_sizes/.

    Args:
        described: everything that the batch size depends on; must be serializable as JSON.
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
    """A command that calls `module.function(size)`; append the size as the last argument."""
    # Ends the child when this process ends: a run that is killed must not leave a process on the GPU.
    dies_with_us = "from temper.base import starting; starting.begin()"
    code = f"import sys; {dies_with_us}; from {module} import {function}; {function}(int(sys.argv[1]))"
    return [sys.executable, "-c", code]
