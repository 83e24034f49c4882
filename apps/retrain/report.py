"""The report of a retraining, as Markdown for people and as JSON for programs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.retrain.arrivals import Arrived, Unlike
from apps.retrain.rule import Compared, LabelCheck, Verdict
from apps.retrain.scoring import Scored
from temper.comparing.markdown import code, listed, table

_LISTED = 10  # how many classes or photos are named; the others are only counted


@dataclass(frozen=True)
class Found:
    """The findings of a retraining.

    Attributes:
        version: the version of the old model; `None`: there is none.
        verdict: whether the new model is promoted, and why.
        tested, compared, arrived, labels: `None` or empty if there is no old model, or the new one is the same.
        unlike: in addition, `None` if there are too few photos to say.
    """

    version: str | None
    verdict: Verdict
    tested: Scored | None = None
    compared: tuple[Compared, ...] = ()
    arrived: Arrived | None = None
    unlike: Unlike | None = None
    labels: LabelCheck | None = None


def as_markdown(found: Found, margin: float) -> str:
    """The report without its first paragraph, which says what was done in the end."""
    parts = [["## Verdict", "", *found.verdict.reasons]]
    if found.compared:
        parts.append(["## Both models on the same test images", "", *_comparison(found, margin)])
    if found.arrived is not None:
        parts.append(["## The new photos", "", *_new_photos(found)])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _comparison(found: Found, margin: float) -> Iterator[str]:
    assert found.tested is not None
    rows = []
    for one in found.compared:
        of = one.discordance
        if of.images:
            low, high = of.difference.interval
            shares = f"{one.old_right.mean():.2%}", f"{one.new_right.mean():.2%}"
            rows.append(
                (one.name, f"{of.images:,}", *shares, f"{of.difference.value:+.2%} ({low:+.2%} to {high:+.2%})")
            )
    yield from table(["on", "images", str(found.version), "new", "difference (95 % interval)"], rows, right=(1, 2, 3))
    yield ""
    of = found.compared[0].discordance
    yield (
        f"The figures are shares of images that are right, of one plain view each. Only the new model is right on "
        f"{of.gained:,}, only the old one on {of.lost:,}. The new model passes where the lower bound is above "
        f"{-margin:+.1%}."
    )
    strange = sorted(set(found.tested.new_classes) - set(found.tested.old_classes))
    gone = sorted(set(found.tested.old_classes) - set(found.tested.new_classes))
    if strange:
        yield f"The old model does not know {listed(strange, _LISTED)}: it counts as wrong on their images."
    if gone:
        yield f"The new model no longer knows {listed(gone, _LISTED)}."
    if found.tested.trained_on:
        yield (
            f"{found.tested.trained_on:,} test images were left out: the old model was trained on them, so the splits "
            "have changed (a new seed, other shares, or a near-duplicate)."
        )
    else:
        yield "The old model was trained on none of these images."


def _new_photos(found: Found) -> Iterator[str]:
    assert found.arrived is not None
    splits = Counter(split for _, _, split in found.arrived.photos.values())
    counts = ", ".join(f"{count:,} {split}" for split, count in sorted(splits.items())) or "none"
    yield f"- {len(found.arrived.photos):,} photos are new ({counts}), {found.arrived.gone:,} are gone."
    new_classes = found.arrived.new_classes
    if new_classes:
        count = sum(new_classes.values())
        yield f"- Classes that are new, with {count:,} photos: {listed(list(new_classes), _LISTED)}."
    for one in found.arrived.class_shifts[:_LISTED]:
        more = "more" if one.new > one.old else "less"
        yield (
            f"- {code(one.class_name)} is {more} frequent: {one.new:.1%} of the new photos, {one.old:.1%} of the "
            f"old ones ({one.interval[0]:+.1%} to {one.interval[1]:+.1%})."
        )
    if not found.arrived.class_shifts:
        yield "- No class is more or less frequent than chance allows."
    yield _unlike(found)
    if found.labels is not None and found.labels.gap is not None:
        of, (gap, (low, high)) = found.labels, found.labels.gap
        yield (
            f"- Labels that contradict the old model: {of.new_wrong:,} of {of.new_images:,} new photos, "
            f"{of.old_wrong:,} of {of.old_images:,} of its test images (difference {gap:+.1%}, {low:+.1%} to "
            f"{high:+.1%})."
        )


def _unlike(found: Found) -> str:
    assert found.arrived is not None
    if found.unlike is None:
        return "- Whether photos are unlike the training photos cannot be said: there are too few."
    of, above = found.unlike, found.unlike.above
    expected = of.limit.chance * len(of.distances)
    line = f"- {len(above):,} of {len(of.distances):,} new photos are unlike the training photos; chance gives about "
    line += f"{expected:.1f}."
    if not of.is_flagged:
        return f"{line} That is no more than chance allows; unlike.csv has them."
    names = [found.arrived.photos[one][0] for one in above]
    return f"{line} **Look at them** (unlike.png, unlike.csv): {listed(names, _LISTED)}."


def as_json(found: Found, done: str, margin: float) -> dict[str, Any]:
    """The report for programs.

    Args:
        done: what was done in the end: "promoted", or a sentence that says why not.
    """
    values: dict[str, Any] = {"old": found.version, "promote": found.verdict.promote, "done": done, "margin": margin}
    values["reasons"] = found.verdict.reasons
    values["compared"] = [
        {
            "on": one.name,
            "decides": one.decides,
            "images": of.images,
            "gained": of.gained,
            "lost": of.lost,
            "difference": round(of.difference.value, 6),
            "interval": [round(bound, 6) for bound in of.difference.interval],
        }
        for one in found.compared
        if (of := one.discordance).images
    ]
    if found.arrived is not None:
        values["new_photos"], values["gone_photos"] = len(found.arrived.photos), found.arrived.gone
        values["shifted_classes"] = [one.class_name for one in found.arrived.class_shifts]
    if found.unlike is not None:
        values["unlike"] = {"photos": len(found.unlike.above), "flagged": found.unlike.is_flagged}
    if found.labels is not None:
        values["labels_suspicious"] = found.labels.is_suspicious
    return values
