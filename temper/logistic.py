"""Multinomial logistic regression on embeddings, at several values of C: the best that a linear head can do.

The objective is scikit-learn's: C times the sum of all images' log losses, plus half the squared weights. So a small C
is a strong penalty. If an image has several views, each view has the weight 1 / views. All of it runs on one thread,
because sums on several threads differ in their last bits from machine to machine.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

Features = npt.NDArray[np.float32]  # (N, features)
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]  # (N,), 0 to classes - 1

# Log loss clips probabilities at this value, as in Keras.
EPSILON = 1e-7
# L-BFGS stops when no derivative of the mean loss is larger than this. On CIFAR-100 (5,000 embeddings of 1,024 numbers,
# 100 classes), 3e-4 takes a quarter longer and changes the lowest validation loss of the path by 0.0001.
TOLERANCE = 5e-4
# A limit is needed because classes that are linearly separable have no finite optimum when the penalty is weak.
MOST_STEPS = 500
# The path ends after this many values of C in a row that were no better than the best one before them.
PATIENCE = 2


@dataclass(frozen=True)
class Images:
    """The training data of one regression: all views of some images.

    Attributes:
        views: float32 (N, views, features).
        labels: (N,).
    """

    views: Features
    labels: Labels

    def take(self, rows: npt.NDArray[np.int64]) -> "Images":
        """The images in these rows, with all their views."""
        return Images(self.views[rows], self.labels[rows])

    @property
    def plain(self) -> Features:
        """View 0 of each image, (N, features)."""
        return self.views[:, 0]


@dataclass(frozen=True)
class Linear:
    """A linear classifier: the softmax of `embeddings @ kernel + bias`.

    Attributes:
        kernel: float64 (features, classes).
        bias: float64 (classes,).
    """

    kernel: Floats
    bias: Floats

    def probabilities(self, embeddings: Features) -> Floats:
        """The probabilities of embeddings: (N, features) -> (N, classes)."""
        with one_thread():
            logits = (embeddings @ self.kernel.astype(np.float32) + self.bias).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        found: Floats = odds / odds.sum(axis=1, keepdims=True)
        return found


def path(images: Images, classes: int, strengths: Sequence[float]) -> Iterator[Linear]:
    """Yields a classifier for each value of C, in order; each regression starts from the solution of the one before.

    The embeddings are centred and divided by a single number, the root mean square of all their features. So C has the
    same meaning for every backbone, and a feature that hardly varies stays small. The classifiers take the embeddings
    without this scaling. A class without images gets a probability of at most 1e-7 on each of the images.

    Args:
        images: float32; a scaled copy of all views is made.
        classes: the number of classes, including those without images.
        strengths: values of C; rising values take the least time.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - it takes seconds, and not every stage needs it

    count, views, features = images.views.shape
    rows = images.views.reshape(count * views, features)
    centre = rows.mean(axis=0, dtype=np.float64)
    scaled = rows - centre.astype(np.float32)
    with one_thread():
        scale = float(np.linalg.norm(scaled)) / max(scaled.size, 1) ** 0.5 or 1.0  # the norm is 0 if all are equal
    scaled /= np.float32(scale)
    labels, weights = np.repeat(images.labels, views), np.full(len(rows), 1 / views, np.float32)
    present = np.unique(labels)
    model = LogisticRegression(tol=TOLERANCE, max_iter=MOST_STEPS, warm_start=True)
    for strength in strengths:
        found = Linear(np.zeros((features, 1)), np.zeros(1))  # the classifier if only one class has images
        if len(present) > 1:
            with one_thread(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the warning that it stopped at MOST_STEPS
                model.set_params(C=strength).fit(scaled, labels, sample_weight=weights)
            found = _unscaled(model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64), centre, scale)
        yield _with_absent(found, present, classes, rows)


def one_thread() -> Any:
    """A context manager within which NumPy, SciPy and scikit-learn compute on one thread."""
    return _threadpools().limit(limits=1)


@cache
def _threadpools() -> ThreadpoolController:
    """The libraries with thread pools. Cached, because finding them takes longer than a small regression."""
    import sklearn.linear_model  # noqa: F401, PLC0415 - first, or the libraries that it loads would not be found

    return ThreadpoolController()


def _unscaled(kernel: Floats, bias: Floats, centre: Floats, scale: float) -> Linear:
    """Turns scikit-learn's classifier of scaled embeddings into one of unscaled embeddings.

    For two classes scikit-learn has a single column, for the second class against the first. Half of it for the second
    class and minus half of it for the first give the same probabilities.
    """
    if kernel.shape[1] == 1:
        kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
    kernel = kernel / scale
    with one_thread():
        return Linear(kernel, bias - centre @ kernel)


def _with_absent(found: Linear, present: Labels, classes: int, rows: Features) -> Linear:
    """Extends the classifier of the classes that have images to all classes."""
    if len(present) == classes:
        return found
    with one_thread():
        logits = (rows @ found.kernel.astype(np.float32) + found.bias).astype(np.float64)
    most = logits.max(axis=1, keepdims=True)
    totals = most[:, 0] + np.log(np.exp(logits - most).sum(axis=1))
    kernel = np.zeros((len(found.kernel), classes))
    bias = np.full(classes, totals.min() + np.log(EPSILON))
    kernel[:, present], bias[present] = found.kernel, found.bias
    return Linear(kernel, bias)


def log_losses(probabilities: Floats, labels: Labels) -> Floats:
    """The loss of each image, -ln(probability of its label), with the probability clipped at 1e-7: (N,)."""
    of_label = probabilities[np.arange(len(labels)), labels]
    losses: Floats = -np.log(np.maximum(of_label, EPSILON))
    return losses


@dataclass(frozen=True)
class Trial:
    """Training images, and other images (the judges) on which the regression is measured."""

    train: Images
    judges: Features  # (n, features), n may be 0
    labels: Labels  # (n,)


def fold_trials(images: Images, folds: npt.NDArray[np.int64]) -> list[Trial]:
    """A trial for each fold: the fold's plain images judge the regression on all views of the other folds."""
    trials = []
    for fold in np.unique(folds):
        inside = folds == fold
        judges = images.take(np.flatnonzero(inside))
        if not inside.all():
            trials.append(Trial(images.take(np.flatnonzero(~inside)), judges.plain, judges.labels))
    return trials


def judged(trials: Sequence[Trial], classes: int, strengths: Sequence[float]) -> Iterator[tuple[float, list[Linear]]]:
    """Yields for each value of C the mean log loss of all judges, and the classifier of each trial.

    It ends early when `PATIENCE` values of C in a row were no better than the best.
    """
    paths = [path(trial.train, classes, strengths) for trial in trials]
    count = sum(len(trial.labels) for trial in trials)
    best, waited = np.inf, 0
    for found in zip(*paths, strict=True):
        losses = [
            log_losses(linear.probabilities(trial.judges), trial.labels).sum()
            for linear, trial in zip(found, trials, strict=True)
        ]
        loss = float(np.sum(losses) / count)
        yield loss, list(found)
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == PATIENCE:
            return
