"""How far probabilities can be believed: calibration error and temperature scaling."""

import numpy as np
import pytest

from temper.measures.calibration import calibration_error, fit_temperature, log_losses, reliability, scale


def simulated(images: int, classes: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those probabilities with their logits multiplied by `sharpness`."""
    random = np.random.default_rng(seed)
    logits = 2.0 * random.normal(size=(images, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < random.random((images, 1))).sum(axis=1).clip(max=classes - 1)
    return scale(true, 1 / sharpness).astype(np.float32), labels


def test_the_calibration_error_by_hand() -> None:
    """Two images at 0.9, one right: a gap of 0.4. Two at 0.6, both right: 0.4 too. One at 1.0, right: none."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6], [1.0, 0.0]])
    labels = np.array([0, 0, 0, 1, 0])
    assert calibration_error(probabilities, labels) == pytest.approx(0.32)
    assert reliability(probabilities, labels).images.tolist() == [0] * 8 + [2, 0, 0, 0, 0, 2, 1]


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_what_made_the_logits_too_sharp(classes: int, sharpness: float) -> None:
    found = fit_temperature(*simulated(20_000, classes, sharpness, 0))
    assert found == pytest.approx(sharpness, rel=0.04)


@pytest.mark.parametrize("seed", range(30))
def test_scaling_makes_nothing_worse_on_the_images_that_it_was_found_on(seed: int) -> None:
    random = np.random.default_rng(seed)
    images, classes, sharpness = int(random.integers(1, 300)), int(random.integers(2, 30)), random.uniform(0.2, 5)
    probabilities, labels = simulated(images, classes, sharpness, seed)
    found = fit_temperature(probabilities, labels)
    scaled = scale(probabilities, found)
    assert 0.05 <= found <= 20
    assert calibration_error(scaled, labels) <= calibration_error(probabilities, labels)
    assert log_losses(scaled, labels).mean() <= log_losses(probabilities, labels).mean()
    assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_a_temperature_that_raises_the_calibration_error_is_not_taken() -> None:
    """Two images at 0.9: half of them are right. Those at 0.6, all right, make the whole look unsure of itself."""
    worse = 0
    for seed in range(300):
        probabilities, labels = simulated(12, 3, 1.0, seed)
        found = fit_temperature(probabilities, labels)
        worse += found == 1.0
    assert 20 < worse < 280, "the rule is used, and not always"


@pytest.mark.parametrize("sure", [0.6, 0.9, 0.999, 1.0])
def test_ten_images_without_a_mistake_do_not_make_a_model_certain(sure: float) -> None:
    probabilities = np.full((10, 2), 1 - sure)
    probabilities[:, 0] = sure
    found = fit_temperature(probabilities, np.zeros(10, int))
    assert 0.2 < found <= 1.0
    assert scale(probabilities, found)[0, 0] < 0.99 or sure >= 0.999


def test_more_images_without_a_mistake_say_more() -> None:
    probabilities = np.tile([[0.8, 0.2]], (1000, 1))
    few, many = (fit_temperature(probabilities[:count], np.zeros(count, int)) for count in (10, 1000))
    assert 0.1 < many < few < 1.0


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.zeros((0, 3), np.float32), np.zeros(0, int)),
        (np.eye(3, dtype=np.float32), np.array([1, 2, 0])),  # sure and always wrong: any temperature is bounded
        (np.full((4, 2), 0.5), np.array([0, 1, 0, 1])),
    ],
)
def test_the_temperature_is_bounded_whatever_comes(probabilities: np.ndarray, labels: np.ndarray) -> None:
    assert 0.05 <= fit_temperature(probabilities, labels) <= 20


def test_temperature_one_changes_no_bit() -> None:
    probabilities, _ = simulated(50, 4, 1.0, 0)
    assert scale(probabilities, 1.0) is probabilities
    assert scale(probabilities, 2.0).dtype == np.float32
    np.testing.assert_allclose(scale(probabilities, 2.0).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scale(scale(probabilities, 2.0), 0.5), probabilities, rtol=1e-4)
