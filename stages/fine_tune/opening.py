"""When more of the backbone opens: a function of the finished epochs' records, as the rate is (schedules.py).

So a run that was killed opens the same at the same epoch.
"""

from collections.abc import Sequence

from temper.settings.fine_tune import Every, Further, OnPlateau
from temper.settings.training import Select
from temper.training.schedules import Record, improved


def openings_due(further: Further, select: Select, history: Sequence[Record], start: Record | None) -> int:
    """How many openings come before the epoch that follows `history`; never fewer than before an earlier epoch.

    On a plateau, an epoch improves if it is better than all before it, those before the last opening too.

    Args:
        start: the figures before the first epoch, where they count.
    """
    match further:
        case Every():
            return len(history) // further.epochs
        case OnPlateau():
            opened = waited = 0
            for gain in improved(history, select, further.min_delta, start):
                waited = 0 if gain else waited + 1
                if waited == further.patience:
                    opened, waited = opened + 1, 0
            return opened
    raise AssertionError(further)
