"""Decides when more of the backbone is unfrozen, from the records of the finished epochs alone.

Nothing else is remembered (the learning rate in schedules.py works the same way), so a run that was killed and started
again unfreezes the same layers at the same epoch.
"""

from collections.abc import Sequence

from temper.settings.fine_tune import Every, Further, OnPlateau
from temper.settings.training import Select
from temper.training.schedules import Record, improved


def openings_due(further: Further, select: Select, history: Sequence[Record], start: Record | None) -> int:
    """How many openings (steps of unfreezing) should have happened before the next epoch; this number never falls.

    On a plateau, an epoch counts as an improvement if it is better than all epochs before it, including those before
    the last opening.

    Args:
        history: the records of the finished epochs.
        start: the record of the warm-up if it counts as epoch 0, else None.
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
