"""Keras's optimizers, by the settings of temper/settings/training.py."""

import keras

from temper.settings.training import Optimizer


def build(settings: Optimizer, lr: float) -> keras.optimizers.Optimizer:
    """The optimizer that the settings name, with the rate `lr` and their own values as its arguments."""
    arguments = settings.model_dump(exclude={"name"})
    optimizer: keras.optimizers.Optimizer = getattr(keras.optimizers, settings.keras_class)(lr, **arguments)
    return optimizer
