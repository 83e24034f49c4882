"""The gate: an exported file answers as the classifier does, on real images, or it is not let out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.export.artefact import Artefact, Images
from temper.base.errors import TemperError
from temper.measures.calibration import Labels, Probabilities

MOST = 500  # images; each is also shown alone
TOGETHER = 16  # images of which the answers are asked for a second time, in other company
REPEATED = 1e-4  # by how much these may differ: sums of floats depend on their order
NAMED = 3  # images in a message


@dataclass(frozen=True)
class Limit:
    """How far a file may differ from the classifier.

    Attributes:
        difference: of each probability, 0 to 1; the most probable class must be the same too, except where the
            classifier itself puts two classes that close together. `None`: any.
        accuracy_loss: on the images compared, 0 to 1. `None`: any.
        key: the setting that says so, if there is one.
    """

    difference: float | None = None
    accuracy_loss: float | None = None
    key: str | None = None

    @property
    def set_by(self) -> str:
        """The end of a message that names the key."""
        return f" ({self.key})" if self.key else ""


@dataclass(frozen=True)
class Reference:
    """What the classifier itself says.

    Attributes:
        split: which images these are.
        images: (n, height, width, 3).
        names: of the images, for messages.
        labels: (n,).
        probabilities: (n, classes), of `predict`.
        card: as JSON.
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
    """How a file did.

    Attributes:
        agreement: the share of images with the same most probable class.
        largest_difference: of any probability.
        accuracy: of the file.
    """

    agreement: float
    largest_difference: float
    accuracy: float


def pass_through(artefact: Artefact, reference: Reference, limit: Limit) -> Comparison:
    """Compares a file with the classifier.

    Raises:
        TemperError: it has not one input, another card, an answer that depends on the images beside it, or answers too
            far from the classifier's; the message names the images.
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
    """Asks again for some images, together or, where a file takes one image, in reverse order."""
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
    # Of two classes that the classifier puts as near to each other as the limit, a file may choose the other one.
    chosen = reference.probabilities[np.arange(len(alone)), alone.argmax(axis=1)]
    behind = reference.probabilities.max(axis=1) - chosen
    _refuse(
        reference,
        # Not `>`, which is false of what is not a number.
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
    """Raises an error that names the images of `rows`, if there are any."""
    if len(rows):
        named = ", ".join(reference.names[row] for row in rows[:NAMED].tolist())
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        of = f"{len(rows)} of {len(reference.names)} {reference.split} images"
        raise TemperError(f"expected {expected} for {of}: {named}{more}")
