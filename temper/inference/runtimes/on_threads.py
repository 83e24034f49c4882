"""Runs a model on one photo at a time, on as many threads as there are cores.

For small networks, one photo per core is faster than splitting each layer over the cores. And the result for a photo
never depends on the other photos.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from temper.base.machine import cores
from temper.photos import Pixels


class OnThreads:
    """Applies a function of one photo to several photos on threads, with the results in order.

    Args:
        of_one: takes a photo, (height, width, 3), and returns its probabilities, (classes,). Several threads call it at
            once, so it should release Python's global interpreter lock (GIL) while it computes.
    """

    def __init__(self, of_one: Callable[[Pixels], npt.NDArray[np.float32]]) -> None:
        self._of_one = of_one
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of all photos, float32 (n, classes)."""
        if len(photos) == 1:  # without the pool, whose threads must be started and load models of their own
            return self._of_one(photos[0])[None]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(cores())
        return np.stack(list(self._pool.map(self._of_one, photos)))
