"""Measures whether the fine-tuned model beats the warm-up by more than chance on the validation images."""

import math
from dataclasses import dataclass

from temper.measures import calibration
from temper.measures.calibration import Floats, Labels, Probabilities


@dataclass(frozen=True)
class Gain:
    """How much one model improves on another: the mean decrease of the log loss over the same images.

    Attributes:
        mean: in nats; negative if the second model is worse.
        standard_error: of the mean, over the images.
    """

    mean: float
    standard_error: float

    @property
    def in_standard_errors(self) -> float:
        """The mean divided by its standard error; 0 if nothing changed, or if there is only one image."""
        if not self.standard_error:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / self.standard_error


def gain(before: Probabilities, after: Probabilities, labels: Labels) -> Gain:
    """How much the second model improves on the first one, on the same images.

    Each model's probabilities are calibrated first, with a temperature of its own. Otherwise a model that is merely
    more confident in the same answers could count as better, and temperature scaling gives that without training.

    Args:
        before, after: the probabilities of the first and of the second model, (N, classes), 0 to 1.
        labels: the class of each image, (N,).
    """
    fall = _scaled_losses(before, labels) - _scaled_losses(after, labels)
    return Gain(float(fall.mean()), float(fall.std(ddof=1) / math.sqrt(len(fall))) if len(fall) > 1 else math.inf)


def _scaled_losses(probabilities: Probabilities, labels: Labels) -> Floats:
    """The log loss of each image, (N,), at the temperature that fits these images best."""
    scaled = calibration.scale(probabilities, calibration.likeliest_temperature(probabilities, labels))
    return calibration.log_losses(scaled, labels)
