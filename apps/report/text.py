"""The report as Markdown. Each part has a function that returns its lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.report.edits import Edit, StageEdit
from apps.report.pairing import Pairing
from apps.report.picture import KINDS, Disagreement, disagreements
from temper.comparing import paired
from temper.comparing.markdown import code, folded, listed, table
from temper.comparing.paired import HEADLINE, SIGNIFICANT, Difference, Discordance
from temper.comparing.revisions import Revision
from temper.measures.calibration import Probabilities
from temper.measures.metrics import measure
from temper.measures.resampling import RESAMPLES

# At most: rows of params, reasons for a stage, classes that gained and that lost, rows of photos.
MOST_PARAMS, MOST_REASONS, MOST_CLASSES, MOST_PHOTOS = 40, 5, 5, 10


@dataclass
class Found:
    """The contents of the report.

    Attributes:
        old, new: the revisions that are compared.
        params: the params that differ.
        stages: the stages whose inputs or outputs differ.
        pairing: the predictions of both models; `None`: those of a side are missing, and `problems` says why.
        scored: how many images of the pairing the old model predicted only for this report.
        figures: the figures of the old and of the new model on the images of the pairing; empty without images.
        differences: the difference of each figure, new minus old, with its interval; empty without images.
        metrics: metrics/evaluate/metrics.json of both revisions, for a report without predictions.
        problems, notes: sentences, already escaped for Markdown.
        picture: the path of the picture; empty: there is none.
        link: a URL of the picture, which is linked instead of shown; empty: it is shown.
    """

    old: Revision
    new: Revision
    params: Sequence[Edit] = ()
    stages: Sequence[StageEdit] = ()
    pairing: Pairing | None = None
    scored: int = 0
    figures: tuple[Mapping[str, float], Mapping[str, float]] = field(default_factory=lambda: ({}, {}))
    differences: Mapping[str, Difference] = field(default_factory=dict)
    metrics: tuple[Mapping[str, float], Mapping[str, float]] = field(default_factory=lambda: ({}, {}))
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    picture: str = ""
    link: str = ""

    @property
    def discordance(self) -> Discordance:
        """On how many images only one of the two models is right. Needs a pairing with images."""
        assert self.pairing is not None
        both = (paired.is_right(of, self.pairing.labels) for of in (self.pairing.old, self.pairing.new))
        return Discordance.of(*both)

    @property
    def verdict(self) -> str | None:
        """`better`, `worse` or `no difference`; `None` without images to compare on."""
        return paired.verdict(HEADLINE, self.differences[HEADLINE]) if self.differences else None


def compare(found: Found, resamples: int = RESAMPLES) -> None:
    """Measures both models on the images of the pairing."""
    pairing = found.pairing
    if pairing is not None and len(pairing.labels):
        found.figures = measure(pairing.old, pairing.labels), measure(pairing.new, pairing.labels)
        found.differences = paired.differences(pairing.old, pairing.new, pairing.labels, resamples)


def report(found: Found) -> str:
    """The whole report as Markdown."""
    parts = [
        headline(found),
        [f"- {note}" for note in [*found.problems, *_about_sets(found), *found.notes]],
        params(found),
        stages(found),
        figures(found) if found.differences else metrics(found),
        classes(found),
        photos(found),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def headline(found: Found) -> list[str]:
    """The verdict in words, as a heading and a paragraph."""
    sides = f"{code(found.old.described)} → {code(found.new.described)}"
    if not found.differences:
        return [f"## No verdict: {_why_none(found)}", "", sides]
    of, between = found.differences[HEADLINE], found.discordance
    images = between.images
    title = {
        "better": f"Better: accuracy rose by {points(of.value)} points",
        "worse": f"Worse: accuracy fell by {points(-of.value)} points",
        "no difference": f"No difference that {_count(images, 'test image')} could show",
    }[str(found.verdict)]
    test = f"McNemar's test, {_probability(of.p)}"
    said = (
        f"{sides}: accuracy {found.figures[0][HEADLINE]:.4f} → {found.figures[1][HEADLINE]:.4f} on {_on(found)}, "
        f"{points(of.value, '+')} points (95 % interval {_interval(of)}; {test}). Newly right: {between.gained:,}; "
        f"newly wrong: {between.lost:,}."
    )
    return [f"## {title}", "", said, *_more(found, between)]


def _more(found: Found, between: Discordance) -> list[str]:
    """What the verdict on accuracy does not say: how large an unseen difference may be, and other figures."""
    assert found.pairing is not None
    said = []
    if np.array_equal(found.pairing.old, found.pairing.new):
        said.append("Both give the very same probabilities: the model is the same.")
    elif found.verdict == "no difference":
        said.append(
            f"A real difference of {points(between.detectable)} points or more would have been shown in four cases of "
            "five; a smaller one may be there."
        )
    marked = paired.shown(found.differences)
    for better, word in ((True, "better"), (False, "worse")):
        names = [name for name in marked if marked[name] is better]
        if names:
            said.append(
                f"Of the other figures, {listed(names, len(names))} {'is' if len(names) == 1 else 'are'} {word}."
            )
    return ["", " ".join(said)] if said else []


def _why_none(found: Found) -> str:
    if found.pairing is None:
        return "predictions are missing"
    return "the two have no labelled test image in common"


def _on(found: Found) -> str:
    """The images on which the models are compared, in words."""
    assert found.pairing is not None
    total = len(found.pairing.labels)
    if not found.scored:
        return f"the {_count(total, 'test image')} that both predicted"
    return (
        f"{_count(total, 'test image')}: {total - found.scored:,} that both predicted, and {found.scored:,} that the "
        f"model of {code(found.old.name)} was shown now"
    )


def _about_sets(found: Found) -> list[str]:
    """How the test sets, their labels and their classes differ."""
    pairing = found.pairing
    if pairing is None:
        return []
    old, new, said = code(found.old.name), code(found.new.name), []
    left = len(pairing.only_new) - found.scored
    if pairing.only_old or pairing.only_new:
        said.append(
            f"**The test sets differ.** {_count(pairing.only_old, 'test image')} only in {old}, "
            f"{len(pairing.only_new):,} only in {new}; of these, {found.scored:,} count here and {left:,} do not. "
            f"The figures in metrics.json of {old} and {new} are of different images."
        )
    if pairing.renamed:
        pairs = [f"{code(was)} is {code(now)} now" for was, now in list(pairing.renamed.items())[:5]]
        said.append(f"Taken for renamed classes, because all of their images moved together: {', '.join(pairs)}.")
    if pairing.relabelled:
        said.append(f"{_count(pairing.relabelled, 'image')} of another class in {old}: the labels are those of {new}.")
    for names, only, other in ((pairing.added, new, old), (pairing.removed, old, new)):
        if names:
            said.append(f"Only {only} knows {listed(names)}: to the model of {other}, images of it can only be wrong.")
    return said


def params(found: Found) -> list[str]:
    """The params that differ."""
    if not found.params:
        return ["**Params**: none changed."]
    absent = "(default)"
    rows = [(code(key), *(absent if one is None else code(one) for one in values)) for key, *values in found.params]
    lines = table(["param", code(found.old.name), code(found.new.name)], rows[:MOST_PARAMS])
    if len(rows) > MOST_PARAMS:
        lines += ["", f"and {len(rows) - MOST_PARAMS} more."]
    return ["### Params", "", *lines]


def stages(found: Found) -> list[str]:
    """The stages that ran again because of the change."""
    if not found.stages:
        return ["**Stages**: none is different."]
    rows = [
        (
            code(one.name),
            listed(one.reasons, MOST_REASONS) if one.reasons[0] not in ("new", "gone") else one.reasons[0],
            f"{one.changed} of {one.outputs}" if one.outputs else "",
        )
        for one in found.stages
    ]
    lines = table(["stage", "because of", "outputs that differ"], rows[:MOST_PARAMS])
    changed = [one for one in found.stages if one.changed]
    title = f"Stages that ran: {len(found.stages)}, of which {len(changed)} wrote something else"
    return folded(title, lines) if len(rows) > 8 else ["### Stages that ran", "", *lines]


def figures(found: Found) -> list[str]:
    """The table of all figures."""
    marked = paired.shown(found.differences)
    rows = []
    for name, one in found.differences.items():
        word = found.verdict if name == HEADLINE else {True: "better", False: "worse"}.get(marked.get(name, 2))  # type: ignore[call-overload]
        word = "" if word in (None, "no difference") else f"**{word}**"
        values = [f"{of[name]:.4f}" for of in found.figures]
        low, high = one.interval
        rows.append((name, *values, f"{one.value:+.4f} ({low:+.4f} to {high:+.4f})", word))
    header = ["figure", code(found.old.name), code(found.new.name), "difference (95 % interval)", ""]
    others = len(found.differences) - 1
    foot = (
        f"The verdict is on the accuracy alone. Of the {others} other figures, better or worse is said only where "
        "chance would bring up any in at most 5 % of all reports (Holm). Of loss and calibration error, less is better."
    )
    return ["### Figures", "", *table(header, rows, (1, 2, 3)), "", foot]


def metrics(found: Found) -> list[str]:
    """The metrics in git, for a report without predictions; each model was measured on its own test images."""
    names = [name for name in found.metrics[1] if name in found.metrics[0]] if all(found.metrics) else []
    if not names:
        return []
    rows = [(code(name), *(f"{of[name]:.4f}" for of in found.metrics)) for name in names if "_" not in name or name in
            ("macro_f1", "macro_auc", "calibration_error")]  # fmt: skip
    header = ["figure", code(found.old.name), code(found.new.name)]
    note = "As `evaluate` wrote them, not compared image by image: what differs may be chance."
    return ["### Figures", "", *table(header, rows, (1, 2)), "", note]


def classes(found: Found) -> list[str]:
    """The classes that gained and lost most."""
    pairing = found.pairing
    if pairing is None or not found.differences:
        return []
    of = paired.class_differences(pairing.old, pairing.new, pairing.labels)
    moved = np.flatnonzero(of.gained + of.lost)
    if not len(moved):
        return ["**Classes**: none gained or lost an image."]
    by_value = sorted(moved.tolist(), key=lambda number: (of.p[number], -abs(of.gained[number] - of.lost[number])))
    lost = [number for number in by_value if of.gained[number] < of.lost[number]][:MOST_CLASSES]
    gained = [number for number in by_value if of.gained[number] > of.lost[number]][:MOST_CLASSES]
    rows = [_class_row(pairing, of, number) for number in (*lost, *gained)]
    counts = [int((of.p[numbers] < SIGNIFICANT).sum()) for numbers in (of.gained < of.lost, of.gained > of.lost)]
    said = f"Beyond chance, {_count(counts[0], 'class')} lost and {counts[1]:,} gained"
    said += f", of {_count(int((of.images > 0).sum()), 'class')} together (Holm)."
    header = [
        "class",
        "images",
        "recall",
        "difference (95 % interval), points",
        "newly right, wrong",
        "mostly taken for",
        "",
    ]
    lines = table(header, rows, (1, 2, 3, 4)) if rows else []
    return ["### Classes", "", said, "", *lines]


def _class_row(pairing: Pairing, of: paired.ClassDifferences, number: int) -> tuple[str, ...]:
    images, value = int(of.images[number]), float(of.value[number])
    inside = pairing.labels == number
    recall = [float(paired.is_right(one[inside], pairing.labels[inside]).mean()) for one in (pairing.old, pairing.new)]
    word = ("**better**" if value > 0 else "**worse**") if of.p[number] < SIGNIFICANT else ""
    # Where a class lost, what it is taken for now; where it gained, what it was taken for.
    taken = _mostly_taken_for(pairing, pairing.new if value < 0 else pairing.old, number)
    return (
        code(pairing.classes[number]),
        f"{images:,}",
        f"{recall[0]:.2f} → {recall[1]:.2f}",
        f"{points(value, '+')} ({points(float(of.low[number]), '+')} to {points(float(of.high[number]), '+')})",
        f"{of.gained[number]:,}, {of.lost[number]:,}",
        f"{taken} {'now' if value < 0 else 'before'}",
        word,
    )


def _mostly_taken_for(pairing: Pairing, of: Probabilities, number: int) -> str:
    guesses = of[pairing.labels == number].argmax(axis=1)
    (name, count), *_ = Counter(guesses[guesses != number].tolist()).most_common(1)
    return f"{code(pairing.classes[name])} ({count})"


def photos(found: Found) -> list[str]:
    """The photos on which the two disagree."""
    pairing = found.pairing
    if pairing is None or not found.differences:
        return []
    every = disagreements(pairing)
    if not every:
        return ["**Photos**: the two give the same class to each."]
    counted = Counter(one.kind for one in every)
    said = ", ".join(f"{counted[kind]:,} {kind}" for kind in KINDS if counted[kind])
    title = f"### Photos on which the two disagree: {len(every):,}"
    seen = []
    if found.link:
        seen = ["", f"[The photos side by side]({found.link})"]
    elif found.picture:
        seen = ["", f"![Photos on which the two disagree]({found.picture})"]
    header = ["photo", "class", code(found.old.name), code(found.new.name), ""]
    lines = table(header, [_photo_row(pairing, one) for one in every[:MOST_PHOTOS]])
    shown = f"The first {MOST_PHOTOS}" if len(every) > MOST_PHOTOS else "All of them"
    return [title, "", f"{said}.", *seen, "", *folded(shown, lines)]


def _photo_row(pairing: Pairing, one: Disagreement) -> tuple[str, ...]:
    guesses = [
        f"{code(pairing.guess(of, one.row))} ({float(of[one.row].max()):.2f})" for of in (pairing.old, pairing.new)
    ]
    return code(pairing.paths[one.row]), code(pairing.actual(one.row)), *guesses, one.kind


def as_json(found: Found) -> dict[str, Any]:
    """The contents of the report for programs."""
    pairing = found.pairing
    return {
        "old": {"name": found.old.name, "commit": found.old.commit},
        "new": {"name": found.new.name, "commit": found.new.commit},
        "verdict": found.verdict,
        "images": 0 if pairing is None else len(pairing.labels),
        "detectable": found.discordance.detectable if found.differences else None,
        "figures": {
            name: {
                "old": found.figures[0][name],
                "new": found.figures[1][name],
                "difference": one.value,
                "low": one.interval[0],
                "high": one.interval[1],
                "p": one.p,
            }
            for name, one in found.differences.items()
        },
        "params": {key: {"old": old, "new": new} for key, old, new in found.params},
        "stages": {one.name: list(one.reasons) for one in found.stages},
        "problems": found.problems,
    }


def points(share: float, sign: str = "") -> str:
    """A share in percentage points."""
    return f"{100 * share:{sign}.1f}"


def _interval(of: Difference) -> str:
    return f"{points(of.interval[0], '+')} to {points(of.interval[1], '+')}"


def _probability(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
