"""Measures one model on one split: its figures and their intervals, before and after temperature scaling."""

from collections.abc import Mapping
from dataclasses import dataclass

from temper.measures.calibration import Labels, Probabilities, calibration_error, log_losses, scale
from temper.measures.intervals import Interval, intervals, probability_intervals
from temper.measures.metrics import measure


@dataclass(frozen=True)
class Figures:
    """Figures by name, and the 95 % intervals of those that have one, under the same names."""

    values: Mapping[str, float]
    intervals: Mapping[str, Interval]

    @property
    def rounded(self) -> dict[str, dict[str, float]]:
        """The intervals for a file, with six decimals: all further ones are noise of the resampling."""
        return {name: {"low": round(low, 6), "high": round(high, 6)} for name, (low, high) in self.intervals.items()}


@dataclass(frozen=True)
class Measured(Figures):
    """The figures of a model on a split, with the predictions behind them.

    Attributes:
        probabilities: the model's output without temperature scaling, (N, classes).
        labels: (N,).
        temperature: from the model's card.
    """

    probabilities: Probabilities
    labels: Labels
    temperature: float

    @property
    def scaled(self) -> Probabilities:
        """The probabilities after temperature scaling."""
        return scale(self.probabilities, self.temperature)


def measured(probabilities: Probabilities, labels: Labels, temperature: float) -> Measured:
    """Measures a model on the images of a split.

    Returns:
        the figures of `metrics.measure`, and `scaled_loss` and `scaled_calibration_error`, the only ones that
        temperature scaling changes.
    """
    values, found = measure(probabilities, labels), intervals(probabilities, labels)
    scaled = scale(probabilities, temperature)
    values["scaled_loss"] = float(log_losses(scaled, labels).mean())
    values["scaled_calibration_error"] = calibration_error(scaled, labels)
    found |= {f"scaled_{name}": interval for name, interval in probability_intervals(scaled, labels).items()}
    return Measured(values, found, probabilities, labels, temperature)
