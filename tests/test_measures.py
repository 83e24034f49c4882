"""The figures of a classifier: equal to scikit-learn's, and to what is counted by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics

from temper.measures.metrics import measure, per_class

MACRO = ("macro_precision", "macro_recall", "macro_f1")


def random_case(images: int, classes: int, absent: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (images, classes) that are often right, and labels; `absent` classes have no image."""
    random = np.random.default_rng(seed)
    present = random.permutation(classes)[absent:]
    labels = random.choice(present, images)
    scores = random.normal(size=(images, classes)) + 2.0 * np.eye(classes)[labels]
    powers = np.exp(scores)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels.astype(np.int32)


CASES = [(40, 2, 0), (1, 2, 0), (1, 7, 0), (25, 6, 1), (300, 10, 0), (1000, 196, 30), (90, 120, 0)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("images", "classes", "absent"), CASES)
def test_figures_are_those_of_scikit_learn(images: int, classes: int, absent: int, seed: int) -> None:
    probabilities, labels = random_case(images, classes, absent, seed)
    figures, predicted, every = measure(probabilities, labels), probabilities.argmax(axis=1), np.arange(classes)
    there = np.unique(labels)
    scores = metrics.precision_recall_fscore_support(labels, predicted, labels=there, average="macro", zero_division=0)
    assert [figures[name] for name in MACRO] == pytest.approx(scores[:3])
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=float)  # as scikit-learn wants them
    assert figures["loss"] == pytest.approx(metrics.log_loss(labels, exact, labels=every), 1e-5)
    assert figures["images"] == images and figures["macro_over_classes"] == len(there) <= classes - absent
    weighted = metrics.precision_recall_fscore_support(labels, predicted, average="weighted", zero_division=0)
    assert [figures["weighted_precision"], figures["weighted_f1"]] == pytest.approx([weighted[0], weighted[2]])
    assert figures["accuracy"] == pytest.approx(weighted[1]), "the weighted recall is the accuracy"
    for k in (3, 5):
        assert (f"top_{k}_accuracy" in figures) == (classes > k)
        if classes > k:
            top_k = metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=every)
            assert figures[f"top_{k}_accuracy"] == pytest.approx(top_k)
    areas = [metrics.roc_auc_score(labels == number, probabilities[:, number]) for number in there if len(there) > 1]
    assert ("macro_auc" in figures) == bool(areas)
    assert not areas or figures["macro_auc"] == pytest.approx(np.mean(areas))


@pytest.mark.parametrize(("images", "classes", "absent"), CASES)
def test_classes_are_those_of_scikit_learn(images: int, classes: int, absent: int) -> None:
    probabilities, labels = random_case(images, classes, absent, seed=9)
    scores, predicted = per_class(probabilities, labels), probabilities.argmax(axis=1)
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(classes), zero_division=np.nan
    )
    assert scores.images.tolist() == expected[3].tolist() and scores.images.sum() == images
    there = scores.images > 0
    assert (there.sum() < classes) == bool(np.isnan(scores.recall).any())
    np.testing.assert_allclose(scores.recall, expected[1])  # nan where there are no images
    np.testing.assert_allclose(scores.precision[there], np.nan_to_num(expected[0])[there])  # never predicted: 0
    np.testing.assert_allclose(scores.precision[~there], expected[0][~there])
    np.testing.assert_allclose(scores.f1[there], expected[2][there])
    assert np.isnan(scores.f1[~there]).all()


def one_hot(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def test_classes_without_images_have_no_recall_and_count_nowhere() -> None:
    """By hand: class 2 has no image and is never predicted, class 3 has none and is, class 1 has and is never."""
    labels = np.array([0, 0, 0, 1])
    probabilities = one_hot([0, 0, 3, 0], 4)
    scores, figures = per_class(probabilities, labels), measure(probabilities, labels)
    third, nan = 2 / 3, np.nan
    np.testing.assert_allclose(scores.precision, [third, 0, nan, 0])  # taken for d once, never rightly
    np.testing.assert_allclose(scores.recall, [third, 0, nan, nan])
    np.testing.assert_allclose(scores.f1, [third, 0, nan, nan])
    assert [scores.images.tolist(), scores.guesses.tolist(), scores.right.tolist()] == [
        [3, 1, 0, 0],
        [3, 0, 0, 1],
        [2, 0, 0, 0],
    ]
    assert figures["macro_over_classes"] == 2 and figures["accuracy"] == 0.5
    assert [figures[name] for name in MACRO] == pytest.approx([1 / 3] * 3)


def test_absent_classes_lower_no_macro_figure() -> None:
    """196 classes, of which a small test split has 166, and all of its images are recognized."""
    labels = np.random.default_rng(0).permutation(196)[30:]
    figures = measure(one_hot(labels.tolist(), 196), labels)
    assert [figures[name] for name in MACRO] == [1.0] * 3 and figures["macro_over_classes"] == 166


def test_one_image() -> None:
    right, wrong = (measure(np.array([[0.25, 0.75]]), np.array([label])) for label in (1, 0))
    assert [right[name] for name in ("accuracy", *MACRO)] == [1.0] * 4 and right["loss"] == -math.log(0.75)
    assert right["macro_over_classes"] == right["images"] == 1
    assert [wrong[name] for name in ("accuracy", *MACRO)] == [0.0] * 4 and wrong["loss"] == -math.log(0.25)


def test_of_equal_probabilities_the_first_classes_count_for_top_1_and_top_5_alike() -> None:
    """A classifier that says nothing is no better than one that always names the same classes."""
    labels = np.arange(8)
    figures = measure(np.full((8, 8), 1 / 8), labels)
    assert figures["accuracy"] == 1 / 8 and figures["top_5_accuracy"] == 5 / 8
    ties = np.array([[0.1, 0.3, 0.1, 0.1, 0.1, 0.1, 0.2]] * 7)  # order: 1, 6, 0, 2, 3 | 4, 5
    inside = [measure(ties[:1], np.array([label]))["top_5_accuracy"] for label in range(7)]
    assert inside == [1, 1, 1, 1, 0, 0, 1]


def test_a_sure_mistake_costs_what_it_costs_in_keras() -> None:
    assert measure(one_hot([1], 2), np.array([0]))["loss"] == pytest.approx(-math.log(1e-7))
    assert measure(one_hot([0], 2), np.array([0]))["loss"] == 0


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones((0, 3)), np.zeros(0, int), r"at least one image, received: \(0, 3\) and \(0,\)"),
        (np.ones((4, 3)), np.zeros(3, int), r"received: \(4, 3\) and \(3,\)"),
        (np.ones((3, 3)), np.zeros((3, 1), int), r"received: \(3, 3\) and \(3, 1\)"),
        (np.ones((2, 3)), np.array([0, -1]), "expected: labels from 0 to 2, received: -1 to 0"),
        (np.ones((2, 3)), np.array([0, 3]), "expected: labels from 0 to 2, received: 0 to 3"),
        (np.array([[0.5, np.nan], [0.5, 0.5]]), np.array([0, 1]), "received: nan for 1 images"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused(probabilities: np.ndarray, labels: np.ndarray, message: str) -> None:
    for function in (measure, per_class):
        with pytest.raises(ValueError, match=message):
            function(probabilities, labels)


def test_scikit_learn_is_not_imported() -> None:
    code = "import sys, temper.measures.metrics; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_equal_probabilities_rank_nothing() -> None:
    """A classifier that says nothing has the area of chance, as in scikit-learn."""
    labels = np.arange(30) % 3
    assert measure(np.full((30, 3), 1 / 3), labels)["macro_auc"] == 0.5
    coarse = np.round(np.random.default_rng(0).dirichlet(np.ones(3), 30), 1)
    areas = [metrics.roc_auc_score(labels == number, coarse[:, number]) for number in range(3)]
    assert measure(coarse, labels)["macro_auc"] == pytest.approx(np.mean(areas))
