"""The rule by which a new model takes the place of the old one. It looks at figures alone and changes nothing."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from apps.retrain.shares import difference
from temper.comparing.paired import Discordance, may_replace
from temper.measures.intervals import Interval

MARGIN = 0.02  # of accuracy: by less than this, a new model may be worse
LABEL_GAP = 0.1  # by how much more often new labels may contradict the old model than old ones did
_MOST_TIMES = 2**14  # as many test images as there are, and no more, are ever asked for

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Compared:
    """Both models on some of the test images.

    Attributes:
        name: which images.
        old_right, new_right: on which of them each model is right, (N,).
        decides: whether the rule holds for these images, too.
    """

    name: str
    old_right: Flags
    new_right: Flags
    decides: bool = False

    @cached_property
    def discordance(self) -> Discordance:
        """How many images changed sides."""
        return Discordance.of(self.old_right, self.new_right)

    def may_replace(self, margin: float) -> bool:
        """Whether the new model is good enough on these images; not without any image."""
        return len(self.old_right) > 0 and may_replace(self.discordance.difference, margin)

    def images_needed(self, margin: float) -> int | None:
        """How many images would let the new model pass, if it went on as on these; `None`: no number would."""
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
        old_wrong, old_images: of its test images.
        new_wrong, new_images: of the new photos that are like its training photos, of classes that it knows.
    """

    old_wrong: int
    old_images: int
    new_wrong: int
    new_images: int

    @property
    def gap(self) -> tuple[float, Interval] | None:
        """By how much more often the new labels contradict it, -1 to 1, with its 95 % interval; `None`: no photos."""
        if not self.old_images or not self.new_images:
            return None
        return difference(self.old_wrong, self.old_images, self.new_wrong, self.new_images)

    @property
    def is_suspicious(self) -> bool:
        """Whether the new labels are worse than the old ones by more than `LABEL_GAP`, chance left aside."""
        return self.gap is not None and self.gap[1][0] > LABEL_GAP


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why.

    Attributes:
        promote: whether the new model takes the old one's place.
        reasons: whole sentences.
    """

    promote: bool
    reasons: list[str] = field(default_factory=list)


def decide(compared: list[Compared], labels: LabelCheck, margin: float, trust_labels: bool = False) -> Verdict:
    """Whether the new model takes the old one's place.

    It does if the lower bound of the paired difference of the accuracies is above -`margin`, on all test images and, if
    the classes are not the same, on those of the classes that both models know: a new class, on which the old model is
    always wrong, must not hide what was lost on the others. And the labels of the new photos must not contradict the
    old model far more often than labels did before: where they are wrong, so are those of the new test images, and
    then a comparison on these shows nothing.

    Args:
        trust_labels: a person has looked at the labels.
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
    """Why the new model does not pass on some images."""
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
