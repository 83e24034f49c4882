"""What training lowers, by the settings of temper/settings/training.py."""

import keras
import numpy as np
import numpy.typing as npt

from temper.settings.training import CrossEntropy, Loss

ClassWeights = npt.NDArray[np.float32]  # (classes,)


class Weighted(keras.losses.Loss):
    """A loss in which each image counts by the weight of its class; one of mixed classes by their mix.

    Args:
        inner: a loss of one-hot targets and probabilities, both (n, classes) -> (n,).
        weights: float32 (classes,).
    """

    def __init__(self, inner: keras.losses.Loss, weights: ClassWeights) -> None:
        super().__init__(name=inner.name)
        self._inner, self._weights = inner, weights

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """The loss of each image, (n,)."""
        of_image = keras.ops.sum(keras.ops.cast(y_true, "float32") * self._weights, axis=-1)
        return self._inner.call(y_true, y_pred) * of_image


def build(settings: Loss, weights: ClassWeights | None = None) -> keras.losses.Loss:
    """The loss that the settings name, of one-hot targets and probabilities, averaged over the batch."""
    smoothing = settings.label_smoothing
    inner: keras.losses.Loss
    if isinstance(settings, CrossEntropy):
        inner = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    else:  # alpha, a factor on the whole, would only change the rate
        inner = keras.losses.CategoricalFocalCrossentropy(1.0, settings.gamma, label_smoothing=smoothing)
    return inner if weights is None else Weighted(inner, weights)


def balanced(labels: npt.NDArray[np.int32], classes: int) -> ClassWeights:
    """The weight of each class, in inverse proportion to its images; the mean over all images is 1.

    As scikit-learn's "balanced" (King and Zeng 2001). A class without images gets 0.

    Args:
        labels: int32 (N,), each at least 0 and below `classes`.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    weights: npt.NDArray[np.float64] = np.zeros(classes)
    np.divide(len(labels), present * counts, out=weights, where=counts > 0)
    return weights.astype(np.float32)
