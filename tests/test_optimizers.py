"""Each settings class builds its Keras optimizer with the values of the settings, and the extras do what they say."""

from typing import Any, get_args

import keras
import numpy as np
import pytest

from temper.settings.training import Adam, AdamW, Lamb, Lion, Optimizer, RmsProp, Sgd
from temper.training import optimizers
from temper.training.optimizers import Extras, averages

EXAMPLES: list[tuple[Optimizer, type[keras.optimizers.Optimizer]]] = [
    (Adam(), keras.optimizers.Adam),
    (Adam(beta_1=0.5, beta_2=0.9, epsilon=1e-3, clipnorm=1.0), keras.optimizers.Adam),
    (AdamW(name="adamw", weight_decay=0.1), keras.optimizers.AdamW),
    (Sgd(name="sgd"), keras.optimizers.SGD),
    (Sgd(name="sgd", momentum=0.5, nesterov=True, weight_decay=0.01, clipvalue=0.1), keras.optimizers.SGD),
    (RmsProp(name="rmsprop", rho=0.5, momentum=0.2, epsilon=1e-3), keras.optimizers.RMSprop),
    (Lion(name="lion", beta_1=0.8, weight_decay=0.1, global_clipnorm=0.5), keras.optimizers.Lion),
    (Lamb(name="lamb", weight_decay=0.1), keras.optimizers.Lamb),
]
START = [np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32), np.array([0.5, -0.5, 1.0], np.float32)]
GRADIENTS = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)


def variables() -> list[keras.Variable]:
    """A kernel and a bias."""
    return [keras.Variable(value, name=name) for value, name in zip(START, ("kernel", "bias"), strict=True)]


def stepped(optimizer: keras.optimizers.Optimizer, of: list[keras.Variable], steps: int = 5) -> list[np.ndarray]:
    """The variables after some steps."""
    optimizer.build(of)
    for gradient in GRADIENTS[:steps]:
        optimizer.apply([keras.ops.convert_to_tensor(gradient), keras.ops.convert_to_tensor(gradient[0])], of)
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in of]


def keras_own(settings: Optimizer, kind: type[keras.optimizers.Optimizer]) -> keras.optimizers.Optimizer:
    optimizer = kind(0.25, **settings.model_dump(exclude={"name"}))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("settings", "kind"), EXAMPLES, ids=[f"{settings}" for settings, _ in EXAMPLES])
@pytest.mark.parametrize("extras", [Extras(), Extras(scales=(1.0, 1.0), average=0.9)], ids=["plain", "factor 1"])
def test_settings_build_the_optimizer_of_keras(
    settings: Optimizer, kind: type[keras.optimizers.Optimizer], extras: Extras
) -> None:
    """To the bit: each value of the settings arrives, and extras that should change nothing change nothing."""
    ours = stepped(optimizers.build(settings, 0.25, extras), variables())
    assert same(ours, stepped(keras_own(settings, kind), variables()))
    assert not same(ours, START)


def test_every_kind_of_settings_has_its_example() -> None:
    union, *_ = get_args(Optimizer)
    assert {type(settings) for settings, _ in EXAMPLES} == set(get_args(union))


def test_weight_decay_spares_what_has_one_dimension_and_follows_the_rates() -> None:
    settings = Sgd(name="sgd", momentum=0.0, weight_decay=0.1)
    of = variables()
    optimizer = optimizers.build(settings, 0.5, Extras(scales=(0.5, 1.0)))
    optimizer.build(of)
    optimizer.apply([keras.ops.zeros((4, 3)), keras.ops.zeros((3,))], of)
    np.testing.assert_allclose(of[0].numpy(), START[0] * (1 - 0.1 * 0.5 * 0.5), rtol=1e-6)
    assert np.array_equal(of[1].numpy(), START[1])


def test_scales_and_factors_change_the_rate() -> None:
    plain = Sgd(name="sgd", momentum=0.0)
    scaled = stepped(optimizers.build(plain, 1.0, Extras(scales=(0.25, 1.0))), variables(), 1)
    np.testing.assert_allclose(scaled[0], START[0] - 0.25 * GRADIENTS[0], rtol=1e-6)
    np.testing.assert_allclose(scaled[1], START[1] - GRADIENTS[0][0], rtol=1e-6)
    growing = Extras(factor=lambda step: keras.ops.cast(step, "float32"))
    ours = stepped(optimizers.build(plain, 2.0, growing), variables(), 3)
    np.testing.assert_allclose(ours[0], START[0] - 2 * (GRADIENTS[1] + 2 * GRADIENTS[2]), rtol=1e-5)


def test_averages_follow_the_weights_and_leave_them_alone() -> None:
    plain = Sgd(name="sgd", momentum=0.0)
    expected, weights = START[0], START[0]
    for step in range(5):
        weights = weights - 0.1 * GRADIENTS[step]
        kept = min(0.3, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weights
    optimizer = optimizers.build(plain, 0.1, Extras(average=0.3))
    assert same(stepped(optimizer, variables()), stepped(optimizers.build(plain, 0.1), variables()))
    np.testing.assert_allclose(averages(optimizer)[0].numpy(), expected, rtol=1e-5)


def test_accumulated_batches_are_one_step() -> None:
    plain = Sgd(name="sgd", momentum=0.0)
    optimizer = optimizers.build(plain, 1.0, Extras(accumulate=2, average=0.5))
    weights = stepped(optimizer, variables(), 5)  # the fifth batch waits for a sixth
    first, second = GRADIENTS[:2].mean(0), GRADIENTS[2:4].mean(0)
    np.testing.assert_allclose(weights[0], START[0] - first - second, rtol=1e-5)
    average = 0.1 * START[0] + 0.9 * (START[0] - first)
    average = 2 / 11 * average + 9 / 11 * (START[0] - first - second)
    np.testing.assert_allclose(averages(optimizer)[0].numpy(), average, rtol=1e-5)


def test_a_scaled_loss_keeps_its_extras() -> None:
    optimizer = optimizers.build(Adam(), 0.5, Extras(average=0.5, scale_loss=True))
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    optimizer.build(variables())
    optimizer.learning_rate = 0.25
    assert len(averages(optimizer)) == 2 and float(optimizer.learning_rate) == 0.25


@pytest.mark.parametrize(
    "wrong", [{"clipnorm": 1.0, "clipvalue": 1.0}, {"clipnorm": 0.0}, {"nesterov": True, "momentum": 0.0}], ids=str
)
def test_settings_without_a_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at most one of|greater than 0|momentum above 0"):
        Sgd.model_validate({"name": "sgd"} | wrong)


def steps(optimizer: keras.optimizers.Optimizer, of: list[keras.Variable], first: int, count: int) -> None:
    """Some steps, by gradients that follow from the number of the step."""
    for number in range(first, first + count):
        given = {2: GRADIENTS[number % 5], 1: GRADIENTS[number % 5][0]}
        optimizer.apply([keras.ops.convert_to_tensor(given[len(variable.shape)]) for variable in of], of)


@pytest.mark.parametrize(("settings", "kind"), EXAMPLES, ids=[f"{settings}" for settings, _ in EXAMPLES])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_variable_that_joins_leaves_the_others_alone_and_trains_as_from_its_own_first_step(
    settings: Optimizer, kind: type[keras.optimizers.Optimizer], accumulate: int
) -> None:
    """To the bit: Adam's correction of young means goes by the steps of each variable, not by those of the phase."""
    if getattr(settings, "global_clipnorm", None):
        pytest.skip("the norm of all gradients together is larger with one more variable")
    extras = Extras(average=0.9, accumulate=accumulate, grows=True)
    kernel, bias = variables()
    old = optimizers.build(settings, 0.25, extras)
    old.build([kernel])
    steps(old, [kernel], 0, 20)
    new = optimizers.build(settings, 0.25, extras)
    new.build([kernel, bias])
    optimizers.carry_over(old, new)
    steps(new, [kernel, bias], 20, 10)

    (alone, _), (_, fresh) = variables(), variables()
    whole = optimizers.build(settings, 0.25, extras)
    whole.build([alone])
    steps(whole, [alone], 0, 30)
    apart = optimizers.build(settings, 0.25, extras)
    apart.build([fresh])
    steps(apart, [fresh], 20, 10)
    assert same([kernel.numpy(), bias.numpy()], [alone.numpy(), fresh.numpy()])
    assert np.array_equal(averages(new)[0].numpy(), averages(whole)[0].numpy())
    assert not same([kernel.numpy(), bias.numpy()], START)


def test_the_scale_of_the_loss_goes_on_where_variables_join() -> None:
    extras = Extras(scale_loss=True, grows=True)
    kernel, bias = variables()
    old, new = (optimizers.build(Adam(), 0.25, extras) for _ in range(2))
    old.build([kernel])
    old.dynamic_scale.assign(7.0)
    old.learning_rate = 0.125
    new.build([kernel, bias])
    optimizers.carry_over(old, new)
    assert float(new.dynamic_scale) == 7 and float(new.learning_rate) == 0.125
