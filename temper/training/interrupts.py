"""Ctrl-C as a request: a phase that should keep what it has is asked to end, not killed."""

import signal
from types import FrameType, TracebackType


class Interrupts:
    """Within its block the first Ctrl-C only sets `asked`; the second one acts as ever.

    Args:
        wanted: False leaves Ctrl-C alone.
    """

    def __init__(self, wanted: bool) -> None:
        self.asked = False
        self._wanted = wanted

    def __enter__(self) -> "Interrupts":
        self._before = signal.getsignal(signal.SIGINT)
        if self._wanted and self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        self.asked = True
        print("interrupted: the phase ends with the best epoch so far; Ctrl-C once more stops at once", flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
