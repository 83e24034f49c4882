"""Whether a fine-tune is better than the warm-up that it started from, or only seems so on a few validation images."""

import math
from dataclasses import dataclass

from temper.measures import calibration
from temper.measures.calibration import Floats, Labels, Probabilities


@dataclass(frozen=True)
class Gain:
    """What was gained on some images: the mean fall of their log loss.

    Attributes:
        mean: in nats; below 0 where it got worse.
        standard_error: of the mean, over images.
    """

    mean: float
    standard_error: float

    @property
    def in_standard_errors(self) -> float:
        """The mean over its standard error; 0 where nothing changed, and of a single image."""
        if not self.standard_error:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / self.standard_error


def gain(before: Probabilities, after: Probabilities, labels: Labels) -> Gain:
    """What the same images gained from one model to another.

    Each model's probabilities are scaled by its own temperature first. Otherwise a model would count as better that
    only became surer of the same answers, which temperature scaling gives for nothing.

    Args:
        before, after: (N, classes), 0 to 1.
        labels: (N,).
    """
    fall = _scaled_losses(before, labels) - _scaled_losses(after, labels)
    return Gain(float(fall.mean()), float(fall.std(ddof=1) / math.sqrt(len(fall))) if len(fall) > 1 else math.inf)


def _scaled_losses(probabilities: Probabilities, labels: Labels) -> Floats:
    """The log loss of each image, (N,), after temperature scaling on these images."""
    scaled = calibration.scale(probabilities, calibration.likeliest_temperature(probabilities, labels))
    return calibration.log_losses(scaled, labels)
