"""Simulates sweeps with and without pruning, on curves like those of a sweep that was run; benchmarks.sweep uses it.

Two sweeps with the same seed of the sampler try different values as soon as one trial is pruned, so their best values
differ by luck as well as by the pruner. Only many pairs of sweeps show what the pruner does, and each real pair takes
most of an hour. Here a Gaussian process, fitted to the recorded curves, says which curve a trial would have.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from apps.sweep.pruning import EPOCHS, pruner_of
from apps.sweep.settings import Median, Reach

OF_A_TRIAL = 0.01  # standard deviation of the accuracy of a trial that is repeated with hardly different values
OF_AN_EPOCH = 0.006  # that of the accuracy of one epoch around a smooth curve


def normalized(values: dict[str, float], space: dict[str, FloatDistribution]) -> list[float]:
    """Values of parameters, each as its place between the ends of its range (0 to 1)."""
    place = []
    for name, value in values.items():
        scale = math.log if space[name].log else float
        low, high = scale(space[name].low), scale(space[name].high)
        place.append((scale(value) - low) / (high - low))
    return place


@dataclass
class Surface:
    """Learning curves at any values of the parameters, interpolated between those of trials that ran to their end.

    Attributes:
        space: the range of each parameter, in the order in which trials choose them.
    """

    trials: Sequence[FrozenTrial]
    space: dict[str, FloatDistribution] = field(init=False)

    def __post_init__(self) -> None:
        ranges = self.trials[0].distributions
        self.space = {name: one for name, one in ranges.items() if isinstance(one, FloatDistribution)}
        places = [normalized({name: one.params[name] for name in self.space}, self.space) for one in self.trials]
        curves = np.array([list(one.intermediate_values.values()) for one in self.trials])
        kernel = ConstantKernel(1.0) * RBF([0.2] * len(self.space), (0.05, 5)) + WhiteKernel(0.01, (1e-4, 1))
        self._mean, self._scale = curves.mean(0), curves.std()
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=3, random_state=0)
        self._process = process.fit(np.array(places), (curves - self._mean) / self._scale)

    def curve(self, values: dict[str, float]) -> np.ndarray:
        """The expected accuracy of each epoch."""
        found: np.ndarray = self._process.predict(np.array([normalized(values, self.space)]))[0]
        return np.asarray(np.clip(found * self._scale + self._mean, 0, 1))


def train(study: optuna.Study, trial: optuna.Trial, curve: Sequence[float], value: float, epochs: int) -> int:
    """Ends a trial as if it had been trained: its curve is reported epoch by epoch until the pruner ends it.

    Args:
        curve: the accuracy of each epoch that the trial has without pruning.
        value: the objective, if the trial is not pruned.
        epochs: the maximum number of epochs of a trial.

    Returns:
        The number of epochs that the trial would have trained.
    """
    trial.set_user_attr(EPOCHS, epochs)
    for epoch, accuracy in enumerate(curve, start=1):
        trial.report(accuracy, epoch)
        if epoch < epochs and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, value)
    return len(curve)


def sweep(surface: Surface, pruning: Median | Reach | None, seed: int, trials: int) -> tuple[float, float]:
    """Simulates a sweep with Optuna's TPE sampler.

    Returns:
        The share of its epochs that it spends, and the expected accuracy of the trial that looks best.
    """
    study = optuna.create_study(direction="maximize", pruner=pruner_of(pruning))
    spent, most, expected = 0, 0, {}
    for number in range(trials):
        study.sampler = TPESampler(seed=random.Random(f"{seed} {number}").getrandbits(32))  # as apps/sweep/search.py
        trial = study.ask(dict(surface.space))
        curve = surface.curve(trial.params)
        chance = np.random.default_rng([seed, *(int(1e6 * place) for place in normalized(trial.params, surface.space))])
        seen = np.clip(curve + chance.normal(0, OF_A_TRIAL) + chance.normal(0, OF_AN_EPOCH, len(curve)), 0, 1)
        spent += train(study, trial, seen.tolist(), float(seen.max()), len(curve))
        most += len(curve)
        expected[number] = float(curve[seen.argmax()])
    return spent / most, expected[study.best_trial.number]


def compare(surface: Surface, prunings: Sequence[Median | Reach], seeds: int, trials: int) -> None:
    """Prints what each pruner saves and loses over sweeps of many seeds of the sampler, against the same without it."""
    whole = np.array([sweep(surface, None, seed, trials)[1] for seed in range(seeds)])
    for pruning in prunings:
        shares, best = np.array([sweep(surface, pruning, seed, trials) for seed in range(seeds)]).T
        lost = 100 * (whole - best)
        print(
            f"{pruning}: in {seeds} simulated sweeps {shares.mean():.2f} of the epochs; the best trial is "
            f"{lost.mean():.2f} ± {1.96 * lost.std() / math.sqrt(seeds):.2f} points worse on average, and the "
            f"differences of single pairs have a standard deviation of {lost.std():.1f}",
            flush=True,
        )
