"""One model on one split: its figures and their intervals, before and after temperature scaling."""

from collections.abc import Mapping
from dataclasses import dataclass

from temper.measures.calibration import Labels, Probabilities, calibration_error, log_losses, scale
from temper.measures.intervals import Interval, intervals, probability_intervals
from temper.measures.metrics import measure


@dataclass(frozen=True)
class Figures:
    """Figures and, of those that have one, the 95 % interval, under the same names."""

    values: Mapping[str, float]
    intervals: Mapping[str, Interval]

    @property
    def rounded(self) -> dict[str, dict[str, float]]:
        """The intervals, for a file: six decimals, for the rest is the chance of the resamples."""
        return {name: {"low": round(low, 6), "high": round(high, 6)} for name, (low, high) in self.intervals.items()}


@dataclass(frozen=True)
class Measured(Figures):
    """A model on a split.

    Attributes:
        probabilities: as the model gives them, (N, classes).
        labels: (N,).
        temperature: the one of its card.
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
        the figures of `measures.measure`, and after scaling, which leaves all others as they are, `scaled_loss` and
        `scaled_calibration_error`.
    """
    values, found = measure(probabilities, labels), intervals(probabilities, labels)
    scaled = scale(probabilities, temperature)
    values["scaled_loss"] = float(log_losses(scaled, labels).mean())
    values["scaled_calibration_error"] = calibration_error(scaled, labels)
    found |= {f"scaled_{name}": interval for name, interval in probability_intervals(scaled, labels).items()}
    return Measured(values, found, probabilities, labels, temperature)
