"""Turns the first Ctrl-C into a request to stop, so that a phase can end with its best epoch so far."""

import signal
from types import FrameType, TracebackType


class Interrupts:
    """Context manager: the first Ctrl-C inside its block only sets `asked`; a second one interrupts as usual.

    Args:
        wanted: whether to catch Ctrl-C at all; if False, the first one interrupts as usual.
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
