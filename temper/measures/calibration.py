"""How far predicted probabilities can be trusted: log loss, expected calibration error, and temperature scaling.

Probabilities are (N, classes), 0 to 1, and labels (N,), 0 to classes - 1, everywhere in this module.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

# Log loss clips probabilities at this value, as Keras does: a single confident mistake costs 16.1 instead of infinity.
EPSILON = 1e-7
BINS = 15  # as in Guo et al.
COLDEST, HOTTEST = 0.05, 20.0  # if a temperature outside this range were needed, something else would be wrong


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence: images binned by the probability of their most probable class.

    There are `BINS` bins of equal width from 0 to 1.

    Attributes:
        images: the number of images in each bin, (BINS,).
        confidence: the mean probability of their most probable class, (BINS,); 0 in an empty bin.
        accuracy: the share of them that is predicted correctly, (BINS,); 0 in an empty bin.
    """

    images: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1: the mean gap between confidence and accuracy, weighted by images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.images * gaps).sum() / self.images.sum())


def reliability(probabilities: Probabilities, labels: Labels) -> Reliability:
    """Bins images by confidence; a bin includes its upper edge, not its lower one (Guo et al. 2017, section 2)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=of, minlength=BINS) for of in (confidence, right))
    of_bin, accuracy = (total / np.maximum(images, 1) for total in sums)
    return Reliability(images, of_bin, accuracy)


def calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """The expected calibration error of the most probable class, 0 to 1 (Guo et al. 2017, arXiv:1706.04599).

    It is above 0 even for perfectly calibrated probabilities, and the fewer images there are, the larger it is.
    """
    return reliability(probabilities, labels).error


def log_losses(probabilities: Probabilities, labels: Labels) -> Floats:
    """-ln(probability of the label) of each image, (N,), 0 to 16.1."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: Floats = -np.log(np.clip(of_label, EPSILON, 1.0))
    return losses


def scale(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities after dividing the logits by the temperature; the order of the classes stays the same.

    Returns:
        an array of the same shape and type; at temperature 1, `probabilities` itself.
    """
    if temperature == 1.0:
        return probabilities
    scaled: Probabilities = _softmax(_logits(probabilities) / temperature).astype(probabilities.dtype)
    return scaled


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Fits the temperature with which to `scale` a model's probabilities, on its validation images.

    It minimizes the log loss (Guo et al. 2017) with a prior: the sum of the losses plus b - 1 - ln(b), with
    b = 1 / temperature. The prior weighs about as much as one image. Without it, a validation split without mistakes
    would send the temperature to 0. The sum is strictly convex in b, so there is one minimum.

    Log loss can fall while the calibration error grows, above all on few images. So the temperature is used only if
    neither of them gets worse on these images.

    Returns:
        0.05 to 20, with four decimals; 1.0, which changes nothing, if scaling would not help or there are no images.
    """
    if not len(labels):
        return 1.0
    temperature = likeliest_temperature(probabilities, labels)
    scaled = scale(probabilities, temperature)
    for cost in (calibration_error, lambda *of: log_losses(*of).mean()):
        if cost(scaled, labels) > cost(probabilities, labels):
            return 1.0
    return temperature


def likeliest_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature of `fit_temperature` without its check of the calibration error, 0.05 to 20; needs an image."""
    return round(1 / _inverse_temperature(_logits(probabilities), labels), 4)


def _inverse_temperature(logits: Floats, labels: Labels) -> float:
    """Finds b by Newton's method on the slope of the convex sum, kept within a bracket that contains the minimum."""
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    of_label = logits[np.arange(len(labels)), labels].sum()
    for _ in range(60):
        shares = _softmax(inverse * logits)
        means = (shares * logits).sum(axis=1)
        slope = means.sum() - of_label + 1 - 1 / inverse
        curvature = (shares * logits**2).sum() - (means**2).sum() + 1 / inverse**2
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature
        found = step if low < step < high else (low * high) ** 0.5
        if abs(found - inverse) < 1e-6 * inverse:
            break
        inverse = found
    return float(inverse)


def _logits(probabilities: Probabilities) -> Floats:
    """The logits, up to a constant per image, which does not change softmax; 0 counts as float32's smallest number."""
    logits: Floats = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny, dtype=np.float64))
    return logits


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares
