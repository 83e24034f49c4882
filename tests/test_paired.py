"""Two models on the same images: how often chance is taken for a difference, and how often a real one is found."""

from collections import Counter

import numpy as np
import pytest

from temper.comparing import paired
from temper.comparing.paired import (
    Discordance,
    class_differences,
    differences,
    holm,
    may_replace,
    mcnemar,
    tango,
    verdict,
)
from temper.measures.metrics import measure
from temper.measures.ranking import macro_auc, paired_auc_error

Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def simulated(images: int, classes: int, random: np.random.Generator, skill: float = 2.5, gain: float = 0.0) -> Case:
    """Two models that share half of the variance of what misleads them, the second one better by `gain`; and labels."""
    labels = random.integers(0, classes, images)
    shared = random.normal(size=(images, classes))
    models = []
    for known in (skill, skill + gain):
        own = random.normal(size=(images, classes))
        powers = np.exp(1.5 * (known * np.eye(classes)[labels] + np.sqrt(0.5) * (shared + own)))
        models.append((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))
    return models[0], models[1], labels


def headline(old: np.ndarray, new: np.ndarray, labels: np.ndarray) -> str:
    right = paired.is_right(old, labels), paired.is_right(new, labels)
    return verdict("accuracy", Discordance.of(*right).difference)


@pytest.mark.parametrize(("images", "classes"), [(200, 2), (1000, 10), (1000, 200)])
def test_equal_models_are_seldom_called_better_or_worse(images: int, classes: int) -> None:
    """Of 500 pairs, at most 6 % by the headline, and at most as many by any class that is called changed."""
    random, said, classed = np.random.default_rng(0), Counter[str](), 0
    for _ in range(500 if classes < 200 else 50):
        case = simulated(images, classes, random)
        said[headline(*case)] += 1
        if images <= 200 or classes == 200:
            classed += bool((class_differences(*case).p < paired.SIGNIFICANT).any())
    assert said["better"] + said["worse"] <= 0.06 * said.total() and classed <= 0.06 * said.total(), said


@pytest.mark.parametrize("gain", [0.29, -0.29])
def test_a_difference_of_five_points_on_a_thousand_images_is_found(gain: float) -> None:
    """In at least 90 % of 250 pairs."""
    random, said, found = np.random.default_rng(0), Counter[str](), []
    for _ in range(250):
        old, new, labels = simulated(1000, 10, random, 3.0 - max(gain, 0), gain)
        said[headline(old, new, labels)] += 1
        found.append((new.argmax(1) == labels).mean() - (old.argmax(1) == labels).mean())
    assert abs(np.mean(found)) == pytest.approx(0.05, abs=0.005)
    assert said["better" if gain > 0 else "worse"] >= 225, said


def test_the_other_figures_are_seldom_marked_and_their_intervals_hold_the_truth() -> None:
    """Of equal models every difference is 0: each interval leaves it out in about 5 %, all together mark one in 5 %."""
    random, left_out, marked = np.random.default_rng(0), Counter[str](), 0
    for _ in range(120):
        found = differences(*simulated(200, 10, random), resamples=300)
        left_out.update(name for name, one in found.items() if not one.interval[0] <= 0 <= one.interval[1])
        marked += bool(paired.shown(found))
    assert set(left_out) <= set(measure(*simulated(200, 10, random)[1:])) and len(found) == 11
    assert max(left_out.values()) <= 0.12 * 120 and marked <= 0.08 * 120, (left_out, marked)


def test_a_difference_is_that_of_the_figures_themselves() -> None:
    old, new, labels = simulated(300, 6, np.random.default_rng(0), gain=0.5)
    before, after = measure(old, labels), measure(new, labels)
    for name, found in differences(old, new, labels).items():
        assert found.value == pytest.approx(after[name] - before[name], abs=1e-9), name
        assert found.interval[0] <= found.value <= found.interval[1], name
        assert (found.p < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0), name
    assert paired.shown(differences(old, new, labels))["loss"] is True, "a lower loss is better"
    swapped = differences(new, old, labels)
    assert verdict("loss", swapped["loss"]) == "worse" and verdict("accuracy", swapped["accuracy"]) == "worse"


def test_models_that_answer_alike_do_not_differ() -> None:
    old, _, labels = simulated(100, 3, np.random.default_rng(0))
    for name, found in differences(old, old, labels).items():
        assert (found.value, found.p) == (0.0, 1.0) and found.interval[0] <= 0 <= found.interval[1], name
    assert differences(old[:1], old[:1], labels[:1])["accuracy"].p == 1.0, "one image"


@pytest.mark.parametrize(
    ("gained", "lost", "p"),  # of scipy.stats.binomtest
    [(0, 0, 1.0), (5, 0, 0.0625), (0, 6, 0.03125), (8, 2, 0.109375), (15, 35, 0.006600), (300, 200, 8.940e-06)],
)
def test_mcnemar_is_what_tables_give(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, rel=1e-3)


def test_tango_is_what_tables_give() -> None:
    """The first as Fagerland, Lydersen and Laake (2014, doi:10.1002/sim.6148) give it for Tango's interval."""
    low, high = tango([1, 0, 12], [7, 0, 2], [21, 100, 50])
    assert low.tolist() == pytest.approx([-0.517, -0.0370, 0.0611], abs=5e-4)
    assert high.tolist() == pytest.approx([-0.026, 0.0370, 0.3447], abs=5e-4)


def test_intervals_of_accuracy_hold_the_truth() -> None:
    random = np.random.default_rng(0)
    for images, gains, losses in ((100, 0.05, 0.02), (346, 0.003, 0.1), (1000, 0.08, 0.08)):
        counts = random.multinomial(images, [gains, losses, 1 - gains - losses], 4000)
        low, high = tango(counts[:, 0], counts[:, 1], images)
        assert 0.935 <= ((low <= gains - losses) & (gains - losses <= high)).mean() <= 0.985


@pytest.mark.parametrize(("images", "share"), [(1000, 0.1), (1000, 0.002), (200, 0.1), (50, 0.0)])
def test_what_is_called_detectable_is_found_in_four_of_five_cases(images: int, share: float) -> None:
    half = round(images * share / 2)
    real = Discordance(half, round(images * share) - half, images).detectable
    disagreeing = max(share, real)
    chances = [(disagreeing + real) / 2, (disagreeing - real) / 2, 1 - disagreeing]
    counts = np.random.default_rng(0).multinomial(images, chances, 2000).tolist()
    assert 0.74 <= np.mean([mcnemar(gained, lost) < 0.05 for gained, lost, _ in counts]) <= 0.84


def test_the_paired_variance_of_the_auc_is_that_of_simulated_test_sets() -> None:
    random = np.random.default_rng(0)
    cases = [simulated(200, 4, random, skill=1.5) for _ in range(300)]
    values = [np.subtract(*(getattr(macro_auc(one, case[2]), "value") for one in case[:2])) for case in cases]  # noqa: B009
    assert np.mean([paired_auc_error(*case) or 0 for case in cases]) == pytest.approx(np.std(values), rel=0.1)
    assert paired_auc_error(cases[0][0], cases[0][1], np.zeros(200, int)) is None


def test_what_a_class_gained_or_lost() -> None:
    labels = np.repeat([0, 1, 2], [40, 40, 5])
    old, new = np.eye(4)[labels], np.eye(4)[labels]
    old[:2], new[40:60], new[80:] = np.eye(4)[3], np.eye(4)[0], np.eye(4)[1]
    found = class_differences(old, new, labels)
    assert found.gained.tolist() == [2, 0, 0, 0] and found.lost.tolist() == [0, 20, 5, 0]
    assert found.value[:3] == pytest.approx([0.05, -0.5, -1.0]) and np.isnan([found.value[3], found.low[3]]).all()
    assert found.p[1] < 0.001 and found.p[[0, 2, 3]].tolist() == [1, 1, 1], "five images show nothing, even all of them"


def test_holm_raises_p_values() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0] and holm([]).tolist() == []


def test_a_model_that_is_worse_by_the_margin_seldom_replaces_the_old_one() -> None:
    random = np.random.default_rng(0)
    for images, margin in ((200, 0.05), (1000, 0.03)):
        counts = random.multinomial(images, [0.05, 0.05 + margin, 0.9 - margin], 300).tolist()
        passed = [may_replace(Discordance(gained, lost, images).difference, margin) for gained, lost, _ in counts]
        assert np.mean(passed) <= 0.04
    assert may_replace(Discordance(0, 0, 1000).difference, 0.01)
    assert not may_replace(Discordance(0, 0, 1000).difference, 0.0), "a margin of 0 asks for a better one"
    assert not may_replace(Discordance(0, 0, 20).difference, 0.05), "few images show nothing"
    assert may_replace(Discordance(20, 1, 1000).difference, 0.0)
    for margin in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="a margin of 0 or more"):
            may_replace(Discordance(0, 0, 20).difference, margin)
