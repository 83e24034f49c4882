"""Which images are least certain, and which are most worth a label."""

import numpy as np
import pytest

from temper.measures.uncertainty import margins, worth_labelling


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([[0.5, 0.3, 0.2]], [0.2]),
        ([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [0.0, 1.0]),
        ([[0.75]], [0.75]),  # a single class
        ([[0.2, 0.8]], [0.6]),
        (np.empty((0, 3)), []),
    ],
)
def test_the_margin_is_between_the_first_and_the_second(probabilities: np.ndarray, expected: list[float]) -> None:
    assert margins(np.asarray(probabilities, np.float32)).tolist() == pytest.approx(expected, abs=1e-6)


def two_classes(*first: float) -> np.ndarray:
    return np.array([[share, 1 - share] for share in first], np.float32)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ((0.9, 0.55, 0.7), [1, 2, 0]),  # one predicted class: the smallest margin first
        # Margins 0.10, 0.12, 0.14 of the first class and 0.16 of the second, which comes before the second.
        ((0.55, 0.56, 0.57, 0.42), [0, 3, 1, 2]),
        # An image of which the model is certain comes late, though it is the only one of its class.
        ((0.55, 0.56, 0.57, 0.01), [0, 1, 2, 3]),
        ((0.5, 0.5), [0, 1]),
        ((), []),
    ],
)
def test_the_least_certain_come_first_spread_over_the_predicted_classes(
    first: tuple[float, ...], expected: list[int]
) -> None:
    assert worth_labelling(two_classes(*first).reshape(-1, 2)).tolist() == expected


def test_every_image_is_listed_once_and_a_class_keeps_its_order() -> None:
    powers = np.random.default_rng(0).random((200, 5)) ** 4
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    order = worth_labelling(probabilities)
    assert sorted(order.tolist()) == list(range(200))
    for guess in range(5):
        of_class = [row for row in order if probabilities[row].argmax() == guess]
        assert np.all(np.diff(margins(probabilities)[of_class]) >= 0)
