"""Models that see one photo at a time, on as many threads as there are cores.

Small networks gain more from a photo for each core than from splitting their layers over the cores. And the answer for
a photo never depends on which others are beside it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from temper.base.machine import cores
from temper.photos import Pixels


class OnThreads:
    """Runs a function of one photo on several, in order.

    Args:
        of_one: takes a photo (height, width, 3) and returns its probabilities, (classes,); it may be called by several
            threads at once, and should release Python's lock while it computes.
    """

    def __init__(self, of_one: Callable[[Pixels], npt.NDArray[np.float32]]) -> None:
        self._of_one = of_one
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of all photos, float32 (n, classes)."""
        if len(photos) == 1:  # without the pool, whose threads have to be started and have models of their own
            return self._of_one(photos[0])[None]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(cores())
        return np.stack(list(self._pool.map(self._of_one, photos)))
