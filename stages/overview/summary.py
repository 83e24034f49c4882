"""Draws the picture at the top of the page: backbone and data, the headline figures, the classes that fail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.overview.charts import by_failure
from stages.overview.picture import MARGIN, WIDTH, box, ems, fitted, svg, text
from stages.overview.results import ClassScore, Phase, Results

INNER = WIDTH - 2 * MARGIN
GAP = 20
CARD_TOP, CARD_HEIGHT = 132, 172
ROWS_TOP, ROW_HEIGHT = 384, 40
MOST_FAILING = 8
MOST_LINES = 3  # of explanation in the test card, to which another line is added only if there is room
WIDEST_NAME, BAR_WIDTH = 380, 180


@dataclass(frozen=True)
class Setup:
    """The model and the data, as params.yaml names them.

    Attributes:
        source: the names of the photos' sources.
        image_size: height and width in pixels.
        backbone: the architecture.
        weights: the initial weights of the backbone: "imagenet", "none" or the name of a file or network.
    """

    source: str
    image_size: tuple[int, int]
    backbone: str
    weights: str

    @property
    def headline(self) -> str:
        """The backbone and the sources in a few words."""
        return f"{self.backbone} on {self.source}"

    @property
    def start(self) -> str:
        """The initial weights of the backbone in words."""
        if self.weights == "none":
            return "random weights"
        return "ImageNet weights" if self.weights == "imagenet" else f"weights of {self.weights}"


def draw(setup: Setup, results: Results) -> str:
    """The picture, as SVG."""
    data = results.data
    splits = ", ".join(f"{data[split]:,} {split}" for split in ("train", "validation", "test"))
    height, width = setup.image_size
    facts = [count(data["classes"], "class", "classes"), f"{data['images']:,} images ({splits})"]
    facts += [f"{height} × {width} pixels", setup.start]
    shapes = fitted(MARGIN, 50, INNER, 44, setup.headline, 32, "strong", weight=700)
    shapes += fitted(MARGIN, 96, INNER, 40, " · ".join(facts), 17, "soft")
    warm_up, fine_tune = results.phases
    interval = results.intervals.get("accuracy")
    cards = [phase_card(warm_up, None), phase_card(fine_tune, warm_up), test_card(results.test, interval)]
    for place, (label, figure, lines) in enumerate(cards):
        shapes += draw_card(place, len(cards), label, figure, lines)
    failing = [score for score in by_failure(results.classes) if score.tested and score.f1 < 1]
    shown = failing[:MOST_FAILING]
    shapes += draw_failing(shown, len(failing), results.classes)
    return svg(ROWS_TOP + len(shown) * ROW_HEIGHT + 24, setup.headline, shapes)


Card = tuple[str, str, list[str]]  # label, figure, lines of explanation


def phase_card(phase: Phase, before: Phase | None) -> Card:
    """The card of a phase: its accuracy on the validation images, and the gain over the phase before it."""
    lines = [f"epoch {phase.kept} of {phase.epochs} was kept"]
    if phase.C is not None:
        lines = [f"logistic regression, C {phase.C:g} of {phase.epochs} tried"]
    if phase.halfway:
        lines = [f"halfway to epoch {phase.kept} was kept"]
    if before is not None:
        gain = 100 * (phase.accuracy - before.accuracy)
        lines.append(f"{gain:+.1f} points over the {before.name}")
        if phase.kept == 0:
            better = "clearly better" if phase.refused else "better"
            lines = [f"no epoch of {phase.epochs} was {better}", f"the {before.name}'s weights were kept"]
    lines.append(f"{phase.parameters:,} trainable parameters")
    return f"{phase.name.capitalize()}: accuracy on validation", percent(phase.accuracy), lines


def test_card(figures: Mapping[str, Any], interval: Mapping[str, float] | None) -> Card:
    """The card of the finished classifier: its accuracy on the test images with a 95 % interval."""
    lines = [f"macro F1 {percent(figures['macro_f1'])}"]
    if "top_5_accuracy" in figures:
        lines[0] += f" · top-5 accuracy {percent(figures['top_5_accuracy'])}"
    if interval:
        lines = [f"95 % interval {percent(interval['low'])} to {percent(interval['high'])}", *lines]
    lines.append(f"{count(int(figures['test_images']), 'image', 'images')} · loss {figures['loss']:.3g}")
    if "warm_up_accuracy" in figures and len(lines) < MOST_LINES:
        lines.append(f"{percent(figures['warm_up_accuracy'])} before the fine-tune")
    views = {None: "", "flip": ", mirror images too"}.get(
        figures.get("test_time_augmentation"), ", mean of several views"
    )
    return f"Test: accuracy{views}", percent(figures["accuracy"]), lines


def draw_card(place: int, cards: int, label: str, figure: str, lines: Sequence[str]) -> list[str]:
    """Draws a card in a row of `cards`; the last one, the result, is highlighted."""
    width = (INNER - (cards - 1) * GAP) / cards
    left, last = MARGIN + place * (width + GAP), place == cards - 1
    shapes = [box(left, CARD_TOP, width, CARD_HEIGHT, "accent-card" if last else "card", 10)]
    shapes.append(text(left + 24, CARD_TOP + 36, label, 16, "accent" if last else "soft", 600))
    shapes.append(text(left + 24, CARD_TOP + 84, figure, 42, "accent" if last else "strong", 700))
    for row, line in enumerate(lines):
        shapes += fitted(left + 24, CARD_TOP + 108 + 21 * row, width - 48, 20, line, 15, "soft")
    return shapes


def draw_failing(shown: Sequence[ClassScore], failing: int, classes: Sequence[ClassScore]) -> list[str]:
    """Draws a row for each of the classes with the lowest F1.

    Args:
        shown: the classes to draw.
        failing: how many classes have mistakes in all.
        classes: all classes.
    """
    tested = [score for score in classes if score.tested]
    if not shown:
        return [text(MARGIN, ROWS_TOP - 6, "Every test image is classified correctly.", 20, "accent", 600)]
    below = sum(score.recall < 0.5 for score in tested)
    title = "The classes that fail" if failing == len(shown) else f"The {len(shown)} classes that fail most"
    note = f"{failing} of {count(len(tested), 'class', 'classes')} with mistakes"
    if below:
        note += f", {below} recognised less than half of the time"
    shapes = [text(MARGIN, ROWS_TOP - 24, title, 20, "strong", 600)]
    shapes.append(text(WIDTH - MARGIN, ROWS_TOP - 24, note, 15, "soft", anchor="end"))
    names = min(WIDEST_NAME, max(16 * ems(score.name) for score in shown))
    bar = MARGIN + names + GAP
    for row, score in enumerate(shown):
        middle = ROWS_TOP + (row + 0.5) * ROW_HEIGHT
        shapes += fitted(bar - GAP, middle, names, ROW_HEIGHT - 4, score.name, 16, "strong", "end")
        shapes.append(box(bar, middle - 7, BAR_WIDTH, 14, "track", 7))
        if score.f1:
            shapes.append(box(bar, middle - 7, max(14, BAR_WIDTH * score.f1), 14, "warning", 7))
        shapes.append(text(bar + BAR_WIDTH + 76, middle + 5, f"F1 {percent(score.f1)}", 14, "strong", anchor="end"))
        left = bar + BAR_WIDTH + 76 + GAP
        shapes += fitted(left, middle, WIDTH - MARGIN - left, ROW_HEIGHT - 4, failure(score, classes), 14, "soft")
    return shapes


def failure(score: ClassScore, classes: Sequence[ClassScore]) -> str:
    """How a class fails, in words: what it is taken for or, if it is always recognized, what is taken for it."""
    said = f"{score.right} of {score.tested} right"
    if score.most_taken_for is not None:
        other, times = score.most_taken_for
        return f"{said}, {times} taken for {other}"
    strangers = sum(other.taken_for.get(score.name, 0) for other in classes)
    return f"{said}, {count(strangers, 'image', 'images')} of other classes taken for it"


def percent(share: float) -> str:
    """A share as a percentage with one decimal; with up to three if it would otherwise be rounded to 0 or 100."""
    for decimals in (1, 2, 3):
        shown = f"{100 * share:.{decimals}f}"
        if share in (0, 1) or float(shown) not in (0, 100):
            break
    return f"{shown}%"


def count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
