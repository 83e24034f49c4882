"""Each settings class builds its Keras optimizer, with the values of the settings."""

from typing import Any, get_args

import keras
import pytest

from temper.settings.training import Adam, AdamW, Optimizer, Sgd
from temper.training import optimizers

EXAMPLES: list[tuple[Optimizer, type[keras.optimizers.Optimizer], dict[str, Any]]] = [
    (Adam(), keras.optimizers.Adam, {"weight_decay": None}),
    (AdamW(name="adamw"), keras.optimizers.AdamW, {"weight_decay": 0.004}),
    (AdamW(name="adamw", weight_decay=0.1), keras.optimizers.AdamW, {"weight_decay": 0.1}),
    (Sgd(name="sgd"), keras.optimizers.SGD, {"momentum": 0.9}),
    (Sgd(name="sgd", momentum=0.0), keras.optimizers.SGD, {"momentum": 0.0}),
]


@pytest.mark.parametrize(("settings", "kind", "values"), EXAMPLES, ids=[f"{settings}" for settings, _, _ in EXAMPLES])
def test_settings_build_their_optimizer(
    settings: Optimizer, kind: type[keras.optimizers.Optimizer], values: dict[str, Any]
) -> None:
    built = optimizers.build(settings, 0.25)
    assert type(built) is kind
    config = built.get_config()
    assert float(config.pop("learning_rate")) == 0.25
    assert {name: config[name] for name in values} == values
    # All that the settings do not have is as Keras has it.
    untouched = kind().get_config()
    assert {name for name in config if config[name] != untouched[name]} - {"name"} <= set(values)


def test_every_kind_of_settings_has_its_example() -> None:
    union, *_ = get_args(Optimizer)
    assert {type(settings) for settings, _, _ in EXAMPLES} == set(get_args(union))


def test_every_value_of_the_settings_reaches_the_optimizer() -> None:
    """The names of the settings are those of Keras's arguments, so none is dropped on the way."""
    for settings, _, _ in EXAMPLES:
        config = optimizers.build(settings, 0.25).get_config()
        values = settings.model_dump(exclude={"name"})
        assert {name: config[name] for name in values} == values
