"""The rule that decides whether a new model replaces the old one. It only evaluates figures and changes nothing."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from apps.retrain.shares import difference
from temper.comparing.paired import Discordance, may_replace
from temper.measures.intervals import Interval

MARGIN = 0.02  # a new model may be worse by less than this share of the images (accuracy)
LABEL_GAP = 0.1  # by how much the share of new labels that contradict the old model may exceed that of old labels
_MOST_TIMES = 2**14  # a message never asks for more than this many times the present number of test images

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Compared:
    """The results of both models on some of the test images.

    Attributes:
        name: says in words which images these are.
        old_right, new_right: whether each model is right on each image, bool (N,).
        decides: whether the new model must pass the rule on these images; otherwise they are only reported.
    """

    name: str
    old_right: Flags
    new_right: Flags
    decides: bool = False

    @cached_property
    def discordance(self) -> Discordance:
        """On how many images only one of the two models is right."""
        return Discordance.of(self.old_right, self.new_right)

    def may_replace(self, margin: float) -> bool:
        """Whether the new model is good enough on these images; False without images."""
        return len(self.old_right) > 0 and may_replace(self.discordance.difference, margin)

    def images_needed(self, margin: float) -> int | None:
        """How many images with the same shares of results would let the new model pass; `None`: no number would."""
        found = self.discordance
        if not found.images or found.difference.value <= -margin:
            return None
        low, high = 1.0, 2.0
        while not self._passes(high, margin):
            low, high = high, 2 * high
            if high > _MOST_TIMES:
                return None
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if self._passes(middle, margin) else (middle, high)
        return int(np.ceil(high * found.images))

    def _passes(self, times: float, margin: float) -> bool:
        counts = self.discordance.gained, self.discordance.lost, self.discordance.images
        return may_replace(Discordance(*(round(times * count) for count in counts)).difference, margin)


@dataclass(frozen=True)
class LabelCheck:
    """How often labels contradict the old model, which was trained on none of these photos.

    Attributes:
        old_wrong, old_images: how many of its test images it gets wrong, and how many there are.
        new_wrong, new_images: the same for the new photos, without those of classes that it does not know and those
            that are unlike its training photos.
    """

    old_wrong: int
    old_images: int
    new_wrong: int
    new_images: int

    @property
    def gap(self) -> tuple[float, Interval] | None:
        """The share of contradicting labels among the new photos minus that among the old ones, with its 95 % interval.

        From -1 to 1; `None` without photos.
        """
        if not self.old_images or not self.new_images:
            return None
        return difference(self.old_wrong, self.old_images, self.new_wrong, self.new_images)

    @property
    def is_suspicious(self) -> bool:
        """Whether the new labels contradict the model more often by more than `LABEL_GAP`, beyond chance."""
        return self.gap is not None and self.gap[1][0] > LABEL_GAP


@dataclass(frozen=True)
class Verdict:
    """The decision and its reasons.

    Attributes:
        promote: whether the new model replaces the old one.
        reasons: complete sentences.
    """

    promote: bool
    reasons: list[str] = field(default_factory=list)


def decide(compared: list[Compared], labels: LabelCheck, margin: float, trust_labels: bool = False) -> Verdict:
    """Decides whether the new model replaces the old one.

    It does if both conditions hold:

    - The lower bound of the paired difference of the accuracies (new minus old) is above -`margin` on all test images
      and, if the models have different classes, also on the images of the classes that both know. Otherwise a new
      class, on which the old model is always wrong, could hide losses on the other classes.
    - The labels of the new photos do not contradict the old model far more often than labels did before. If they are
      wrong, so are the labels of the new test images, and a comparison on these shows nothing.

    Args:
        compared: the results on all test images and on parts of them.
        labels: how often labels contradict the old model.
        margin: by how much of the accuracy the new model may be worse, 0 to 1.
        trust_labels: whether a person has checked the labels, so that the second condition does not apply.
    """
    reasons = []
    for one in compared:
        if one.decides and not one.may_replace(margin):
            reasons.append(_refused(one, margin))
    if labels.is_suspicious and not trust_labels:
        reasons.append(
            f"The labels of the new photos contradict the old model far more often ({labels.new_wrong:,} of "
            f"{labels.new_images:,}) than those of its test images ({labels.old_wrong:,} of {labels.old_images:,}): "
            "many are probably wrong. Look at them, and if they are right, run it again with --trust-labels."
        )
    if reasons:
        return Verdict(False, reasons)
    return Verdict(True, [f"The new model is not worse by {margin:.1%} or more, chance included."])


def _refused(compared: Compared, margin: float) -> str:
    """A sentence that says why the new model does not pass the rule on these images."""
    if not len(compared.old_right):
        return f"On {compared.name} nothing can be compared: there is none."
    found = compared.discordance.difference
    low, high = found.interval
    what = "is worse" if high < 0 else "may be worse"
    text = (
        f"On {compared.name} the new model {what}: the lower bound of the difference, {low:+.1%}, is not above "
        f"{-margin:+.1%}."
    )
    needed = compared.images_needed(margin)
    if needed:
        text += f" If it goes on as here, {needed:,} test images would show that it is good enough."
    return text
