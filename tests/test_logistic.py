"""Logistic regression on embeddings: right, repeatable to the bit, and for every odd set of labels."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from temper.logistic import EPSILON, Images, Linear, Trial, fold_trials, judged, log_losses, path
from tests.toys.embeddings import toy_images
from tests.toys.workspace import ROOT


def last(images: Images, classes: int, *strengths: float) -> Linear:
    return list(path(images, classes, strengths))[-1]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_is_scikit_learns_regression_of_scaled_embeddings(classes: int) -> None:
    """The scaling is folded into the coefficients, which are for the embeddings as they are."""
    images = toy_images(60, 20, classes)
    ours = last(images, classes, 0.01, 0.1).probabilities(images.plain)
    rows = images.plain.astype(np.float64)
    scaled = (rows - rows.mean(axis=0)) / np.sqrt(np.square(rows - rows.mean(axis=0)).mean())
    theirs = LogisticRegression(C=0.1, tol=1e-9, max_iter=10_000).fit(scaled, images.labels).predict_proba(scaled)
    assert ours == pytest.approx(theirs, abs=0.01)
    assert ours.sum(axis=1) == pytest.approx(1)


def test_c_means_the_same_whatever_the_scale_and_the_number_of_views() -> None:
    images = toy_images(60, 20, 3)
    expected = last(images, 3, 0.1).probabilities(images.plain)
    larger = Images(1000 * images.views + 5, images.labels)
    assert last(larger, 3, 0.1).probabilities(larger.plain) == pytest.approx(expected, abs=0.02)
    repeated = Images(np.repeat(images.views, 4, axis=1), images.labels)
    assert last(repeated, 3, 0.1).probabilities(images.plain) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 0, 1, 1, 2, 2], 4),  # a class without images behind the others
        ([1, 1, 3, 3, 3, 3], 5),  # and before and between them; two are left
        ([0, 0, 0, 0, 0, 1], 2),  # one photo of a class
        ([2, 2, 2, 2, 2, 2], 3),  # a single class
        ([0, 1, 2, 3, 4, 5], 9),  # fewer images than classes
    ],
)
def test_classes_with_few_images_or_none(labels: list[int], classes: int) -> None:
    images = Images(toy_images(6, 8, 2).views, np.array(labels))
    for linear in path(images, classes, [1e-4, 1.0, 100.0]):
        found = linear.probabilities(images.plain)
        assert found.shape == (6, classes) and np.isfinite(found).all()
        absent = sorted(set(range(classes)) - set(labels))
        assert found[:, absent].max(initial=0) <= 1.01 * EPSILON
    assert (found.argmax(axis=1) == labels).all()


def test_embeddings_that_are_all_equal_give_the_shares_of_the_classes() -> None:
    images = Images(np.full((8, 1, 5), 3, np.float32), np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    assert last(images, 2, 1.0).probabilities(images.plain)[0] == pytest.approx([0.75, 0.25], abs=1e-3)


SCRIPT = """
import hashlib
import numpy as np
from temper.logistic import path
from tests.toys.embeddings import toy_images
images = toy_images(700, 300, 30, views=2)
digest = hashlib.sha256()
for linear in path(images, 30, [1e-3, 1e-2, 1e-1]):
    for array in (linear.kernel, linear.bias, linear.probabilities(images.plain)):
        digest.update(np.ascontiguousarray(array).tobytes())
print(digest.hexdigest())
"""


def test_the_same_bits_in_every_run_on_any_number_of_threads() -> None:
    """Law 5. Without the limit of one thread, OpenBLAS splits the sums by the number of threads."""
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=ROOT,
            env={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "2")
    }
    assert len(found) == 1 and len(found.pop().strip()) == hashlib.sha256().digest_size * 2


def test_a_path_ends_where_its_judges_gain_no_more() -> None:
    images = toy_images(80, 40, 4, noise=6)
    judges = toy_images(300, 40, 4, noise=6, seed=1)
    strengths = [10.0**power for power in range(-6, 6)]
    losses = [loss for loss, _ in judged([Trial(images, judges.plain, judges.labels)], 4, strengths)]
    best = int(np.argmin(losses))
    assert best > 0 and len(losses) == best + 3 < len(strengths)
    first = next(path(images, 4, strengths))
    assert losses[0] == pytest.approx(log_losses(first.probabilities(judges.plain), judges.labels).mean())


def test_folds_are_judged_by_what_did_not_see_them() -> None:
    images = toy_images(30, 4, 3, views=2)
    folds = np.arange(30) % 5
    trials = fold_trials(images, folds)
    assert len(trials) == 5
    for fold, trial in enumerate(trials):
        assert np.array_equal(trial.judges, images.views[folds == fold, 0])
        assert np.array_equal(trial.train.views, images.views[folds != fold])
        assert len(trial.train.labels) == 24 and len(trial.labels) == 6
    assert fold_trials(images.take(np.array([4])), np.array([0])) == []  # nothing would be left to learn from
