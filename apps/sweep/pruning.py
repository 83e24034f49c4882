"""Pruners: they end a trial early if its learning curve makes it unlikely to become the best."""

import math

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from apps.sweep.settings import Median, Reach

EPOCHS = "epochs"  # user attribute of a trial: the maximum number of epochs that it trains
_LEAST = 1e-12  # smaller losses are raised to this before the logarithm is taken


def pruner_of(pruning: Median | Reach | None) -> BasePruner:
    """The pruner with these settings; without settings, one that prunes nothing."""
    if pruning is None:
        return NopPruner()
    if isinstance(pruning, Median):
        return MedianPruner(pruning.after_trials, pruning.after_epochs + 1)  # Optuna counts steps from 0
    return ReachPruner(pruning)


class ReachPruner(BasePruner):
    """Prunes a trial if its curve, extrapolated to its last epoch, stays below the best finished trial.

    The extrapolation is a straight line from the value of the first epoch to the best value so far, placed at the
    current epoch. Learning curves flatten out, so the line is optimistic, and that is intended: a curve that rises fast
    from a low start, as with high learning rates, is not pruned; one that has flattened below the best trial is. For a
    loss, the line is drawn through the negative logarithm, because a loss falls fastest at first.
    """

    def __init__(self, settings: Reach) -> None:
        self._settings = settings

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to prune the trial; never if its maximum number of epochs is unknown."""
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
    """Turns an objective into a value that is higher in better trials: itself, or for a loss its negative logarithm.

    `None` if the objective is missing or not finite.
    """
    if value is None or not math.isfinite(value):
        return None
    return value if direction == StudyDirection.MAXIMIZE else -math.log(max(value, _LEAST))


def reached(curve: list[tuple[int, float | None]], epochs: int) -> float:
    """The height that a curve would reach in epoch `epochs`, by the straight line that ReachPruner describes.

    Args:
        curve: (epoch, height) of the epochs so far.
    """
    heights = [(step, value) for step, value in curve if value is not None]
    if not heights:
        return -math.inf
    (first, start), best, last = heights[0], max(value for _, value in heights), curve[-1][0]
    slope = (best - start) / (last - first) if last > first else 0.0
    return best + slope * (epochs - last)
