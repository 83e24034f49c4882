"""Training on JAX: law 5 as on TensorFlow. Skips where JAX is not installed; `make JAX=1` makes an environment of it.

    .venv-jax/bin/python -m pytest tests/test_jax.py

Keras has one backend in a process, so that what runs on JAX runs in processes of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys.workspace import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed; make JAX=1 makes an environment of it"
)

# Trains with threads that read ahead, as the fine-tune does: Keras then draws a batch before it trains.
PHASE = """
import sys
from pathlib import Path
import keras
import numpy as np
from temper.settings.training import Adam, Cosine, EarlyStopping, Ema, NoAverage
from temper.training.batches import Batches, one_hot, shuffled
from temper.training.phases import Gradual, Phase, fit, logged
from temper.training.unfinished import Unfinished

class Cut(Exception):
    pass

random = np.random.default_rng(0)
inputs, labels = random.normal(size=(160, 6)).astype(np.float32), random.integers(2, size=160).astype(np.int32)
cut_at, average = int(sys.argv[1]), NoAverage() if sys.argv[2] == "none" else Ema(name="ema", decay=0.9)

def training(epoch):
    if epoch == cut_at:
        raise Cut
    return Batches(lambda rows: inputs[rows], one_hot(labels, 2), shuffled(128, 7, epoch), 16, workers=2)

validation = Batches(lambda rows: inputs[rows], one_hot(labels, 2), np.arange(128, 160), 16)
keras.utils.set_random_seed(7)
model = keras.Sequential([
    keras.Input((6,)), keras.layers.Dropout(0.2), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(),
    keras.layers.Dense(2, "softmax"),
])
def opened(count):
    model.layers[1].trainable = count > 0
    return model

gradual = None
if sys.argv[2] == "ema, opens":
    gradual = Gradual(lambda history, start: len(history) // 2, opened, ("norm", "dense"))
    opened(0)
how = Phase(5, 0.05, Adam(), Cosine(), EarlyStopping(), "val_loss", average=average, gradual=gradual)
with logged("toy") as live:
    fit(model, how, training, validation, Unfinished(Path()), live)
weights = model.get_weights()
print(b"".join(array.tobytes() for array in weights).hex())
"""


def weights(folder: Path, average: str, cut_at: int = -1) -> str | None:
    """The weights that a phase in a process of its own ends in, as hex; `None` if it is cut off."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PHASE, str(cut_at), average]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or (cut_at >= 0 and done.stderr.strip().endswith("Cut")), done.stderr
    return done.stdout.splitlines()[-1] if done.returncode == 0 else None


@pytest.mark.parametrize(("average", "cut_at"), [("none", 3), ("ema", 1), ("ema, opens", 2)])
def test_a_phase_that_is_cut_off_ends_in_the_same_bits(tmp_path: Path, average: str, cut_at: int) -> None:
    whole = weights(tmp_path / "whole", average)
    assert whole == weights(tmp_path / "again", average)
    assert weights(tmp_path / "cut", average, cut_at) is None
    assert weights(tmp_path / "cut", average) == whole
