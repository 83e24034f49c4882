"""Which trials are ended early: those that would not come up to the best one, going on as they have so far."""

import math

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from apps.sweep.settings import Median, Reach

EPOCHS = "epochs"  # of a trial, in its user attributes: the most that it trains
_LEAST = 1e-12  # of a loss whose logarithm is taken


def pruner_of(pruning: Median | Reach | None) -> BasePruner:
    """Optuna's pruner with these settings."""
    if pruning is None:
        return NopPruner()
    if isinstance(pruning, Median):
        return MedianPruner(pruning.after_trials, pruning.after_epochs + 1)  # it counts from 0
    return ReachPruner(pruning)


class ReachPruner(BasePruner):
    """Ends a trial whose curve, continued in a straight line to its last epoch, stays below the best finished trial.

    The line goes through the first epoch and, at the epoch that it has come to, the best so far. Learning curves
    flatten out, so the line is rather too hopeful: what rises fast from a low start goes on, as high rates do, and what
    stands still below the best ends. A loss is compared by its logarithm, for it falls fastest at first.
    """

    def __init__(self, settings: Reach) -> None:
        self._settings = settings

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end; only of one whose epochs are known."""
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        finished = [value for one in known if (value := height(one.value, study.direction)) is not None]
        epochs = trial.user_attrs.get(EPOCHS)
        if epochs is None or len(finished) < self._settings.after_trials or not trial.intermediate_values:
            return False
        curve = [(step, height(value, study.direction)) for step, value in sorted(trial.intermediate_values.items())]
        last = curve[-1][0]
        if last <= self._settings.after_epochs or last >= epochs:
            return False
        return reached(curve, epochs) < max(finished)


def height(value: float | None, direction: StudyDirection) -> float | None:
    """A figure that is higher in better trials and rises evenly enough for a line; `None` of what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return value if direction == StudyDirection.MAXIMIZE else -math.log(max(value, _LEAST))


def reached(curve: list[tuple[int, float | None]], epochs: int) -> float:
    """What a curve reaches at its last epoch, in a straight line from its first epoch through its best so far."""
    heights = [(step, value) for step, value in curve if value is not None]
    if not heights:
        return -math.inf
    (first, start), best, last = heights[0], max(value for _, value in heights), curve[-1][0]
    slope = (best - start) / (last - first) if last > first else 0.0
    return best + slope * (epochs - last)
