"""The gate: an exported file is accepted only if it gives the classifier's answers on real images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.export.artefact import Artefact, Images
from temper.base.errors import TemperError
from temper.measures.calibration import Labels, Probabilities

MOST = 500  # how many images are compared, one at a time
TOGETHER = 16  # how many of them are predicted a second time, together or in another order
REPEATED = 1e-4  # allowed difference of the two answers: sums of floats depend on their order
NAMED = 3  # how many images a message names


@dataclass(frozen=True)
class Limit:
    """How far a file may differ from the classifier.

    Attributes:
        difference: the largest difference of a probability, 0 to 1. The most probable class must be the same as well,
            unless the classifier's probabilities of the two classes are within this difference. `None`: no limit.
        accuracy_loss: the largest loss of accuracy on the compared images, 0 to 1. `None`: no limit.
        key: the setting that defines the limit, if there is one.
    """

    difference: float | None = None
    accuracy_loss: float | None = None
    key: str | None = None

    @property
    def set_by(self) -> str:
        """The name of the setting in parentheses, for messages; empty without one."""
        return f" ({self.key})" if self.key else ""


@dataclass(frozen=True)
class Reference:
    """The classifier's own answers, with which files are compared.

    Attributes:
        split: the split that the images come from.
        images: uint8 (n, height, width, 3).
        names: the paths of the images, for messages.
        labels: the true class of each image, (n,).
        probabilities: the classifier's probabilities, (n, classes).
        card: the classifier's card, as JSON.
    """

    split: str
    images: Images
    names: list[str]
    labels: Labels
    probabilities: Probabilities
    card: str

    @property
    def answers(self) -> npt.NDArray[np.intp]:
        """The most probable class of each image."""
        found: npt.NDArray[np.intp] = self.probabilities.argmax(axis=1)
        return found


@dataclass(frozen=True)
class Comparison:
    """How close a file comes to the classifier.

    Attributes:
        agreement: the share of images with the same most probable class, 0 to 1.
        largest_difference: the largest difference of any probability, 0 to 1.
        accuracy: the file's accuracy on the images, 0 to 1.
    """

    agreement: float
    largest_difference: float
    accuracy: float


def pass_through(artefact: Artefact, reference: Reference, limit: Limit) -> Comparison:
    """Compares a file with the classifier.

    Raises:
        TemperError: the file does not have exactly one input, or has another card; its answer for an image depends on
            the other images of the batch; or its answers differ too much from the classifier's. The message names the
            images.
    """
    _require_one_input(artefact, reference)
    if artefact.card != reference.card:
        raise TemperError("expected the classifier's card inside, received another one, or none")
    alone = np.concatenate([artefact.predict(image[np.newaxis]) for image in reference.images])
    if alone.shape != reference.probabilities.shape or alone.dtype != np.float32:
        raise TemperError(
            f"expected probabilities of shape {reference.probabilities.shape} in float32, received {alone.shape} in "
            f"{alone.dtype}"
        )
    _require_independence(artefact, reference, alone)
    found = Comparison(
        agreement=float((alone.argmax(axis=1) == reference.answers).mean()),
        largest_difference=float(np.abs(alone - reference.probabilities).max()),
        accuracy=float((alone.argmax(axis=1) == reference.labels).mean()),
    )
    _require_nearness(alone, reference, limit, found)
    _require_accuracy(alone, reference, limit, found)
    return found


def _require_one_input(artefact: Artefact, reference: Reference) -> None:
    expected = reference.images.shape[1:]
    if len(artefact.inputs) != 1 or tuple(artefact.inputs[0][1:]) != expected:
        raise TemperError(
            f"expected one input, of images {expected}, received {len(artefact.inputs)}: "
            f"{', '.join(map(str, artefact.inputs))}"
        )


def _require_independence(artefact: Artefact, reference: Reference, alone: Probabilities) -> None:
    """Predicts some images again, in reverse order: in one batch, or one by one if the file takes a single image."""
    rows = np.arange(min(TOGETHER, len(alone)))[::-1]
    if artefact.any_batch:
        again = artefact.predict(reference.images[rows])
    else:
        again = np.concatenate([artefact.predict(reference.images[row][np.newaxis]) for row in rows])
    difference = np.abs(again - alone[rows]).max(axis=1)
    _refuse(
        reference,
        rows[~(difference <= REPEATED)],
        f"the same answer of an image beside any others, received answers that differ by {difference.max():.2g}",
    )


def _require_nearness(alone: Probabilities, reference: Reference, limit: Limit, found: Comparison) -> None:
    if limit.difference is None:
        return
    difference = np.abs(alone - reference.probabilities).max(axis=1)
    # If the classifier's probabilities of two classes differ by no more than the limit, the file may choose either.
    chosen = reference.probabilities[np.arange(len(alone)), alone.argmax(axis=1)]
    behind = reference.probabilities.max(axis=1) - chosen
    _refuse(
        reference,
        # Not `>`, which would be false for NaN.
        np.flatnonzero(~(difference <= limit.difference) | ~(behind <= limit.difference)),
        f"the classifier's probabilities to within {limit.difference:g}{limit.set_by} and its most probable class, "
        f"received ones that differ by up to {found.largest_difference:.2g}",
    )


def _require_accuracy(alone: Probabilities, reference: Reference, limit: Limit, found: Comparison) -> None:
    if limit.accuracy_loss is None:
        return
    before = float((reference.answers == reference.labels).mean())
    if before - found.accuracy > limit.accuracy_loss:
        _refuse(
            reference,
            np.flatnonzero(alone.argmax(axis=1) != reference.answers),
            f"to lose at most {limit.accuracy_loss:g} of the classifier's accuracy of {before:.4f}{limit.set_by}, "
            f"received {found.accuracy:.4f}, with other answers",
        )


def _refuse(reference: Reference, rows: npt.NDArray[np.intp], expected: str) -> None:
    """Raises a TemperError that names the images of `rows`; does nothing if `rows` is empty."""
    if len(rows):
        named = ", ".join(reference.names[row] for row in rows[:NAMED].tolist())
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        of = f"{len(rows)} of {len(reference.names)} {reference.split} images"
        raise TemperError(f"expected {expected} for {of}: {named}{more}")
