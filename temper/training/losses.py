"""Builds the training loss that the settings in temper/settings/training.py name."""

import keras
import numpy as np
import numpy.typing as npt

from temper.settings.training import CrossEntropy, Loss

ClassWeights = npt.NDArray[np.float32]  # (classes,)


class Weighted(keras.losses.Loss):
    """Multiplies the loss of each image by the weight of its class.

    An image whose target mixes classes (MixUp, CutMix) gets the mean of their weights, in the proportions of the mix.

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
    """Builds the loss for one-hot targets and predicted probabilities; it is averaged over the batch."""
    smoothing = settings.label_smoothing
    inner: keras.losses.Loss
    if isinstance(settings, CrossEntropy):
        inner = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    else:  # alpha is fixed at 1: as a factor on the whole loss, it would only rescale the gradients
        inner = keras.losses.CategoricalFocalCrossentropy(1.0, settings.gamma, label_smoothing=smoothing)
    return inner if weights is None else Weighted(inner, weights)


def balanced(labels: npt.NDArray[np.int32], classes: int) -> ClassWeights:
    """The weight of each class, inversely proportional to its number of images; the mean over all images is 1.

    The same as scikit-learn's "balanced" (King and Zeng 2001). A class without images gets weight 0.

    Args:
        labels: int32 (N,), each at least 0 and below `classes`.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    weights: npt.NDArray[np.float64] = np.zeros(classes)
    np.divide(len(labels), present * counts, out=weights, where=counts > 0)
    return weights.astype(np.float32)
