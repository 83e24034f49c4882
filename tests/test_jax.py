"""Training on JAX: law 5 as on TensorFlow. Skips where JAX is not installed; `make JAX=1` makes an environment of it.

    make test JAX=1 TESTS=tests/test_jax.py    # seconds
    make test-slow JAX=1 TESTS=tests/test_jax.py    # the whole table of law 5, several devices, the pipeline

Keras has one backend in a process, so that what runs on JAX runs in processes of its own.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.toys.photos import write_toy_photos
from tests.toys.workspace import ROOT, Workspace, ran, toy_params

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
from temper.batches import Batches, one_hot, shuffled
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


@pytest.mark.slow  # a dozen rows, each compiled three times
def test_each_row_of_the_table_that_is_cut_off_ends_in_the_same_bits() -> None:
    """Law 5 for each optimizer, schedule, loss, average, precision and gradual unfreezing: tests/test_phases.py on JAX.

    How the host samples, augments and mixes photos is the same on every backend: tests/test_epoch_batches.py.
    tests/test_on_device.py tests augmentation on the device, and runs here on JAX.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    files = ["tests/test_phases.py", "tests/test_on_device.py"]
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        [*command, "-k", "cut_off or opens_nothing or all_different or on_device"],
        cwd=ROOT,
        env=environment | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and " skipped" not in done.stdout, done.stdout


# The same batches on one of two devices, on both, again, and cut off. 123 and 37 rows: the last batch of 11 and of 5 is
# none that two devices could share equally.
SPREAD = """
import os
from contextlib import chdir
from pathlib import Path
import keras
import numpy as np
from temper import devices
from temper.settings.training import Adam, Cosine, EarlyStopping, Ema, Focal
from temper.batches import Batches, one_hot, predict, shuffled
from temper.training.phases import Phase, fit, logged
from temper.training.unfinished import Unfinished

class Cut(Exception):
    pass

random = np.random.default_rng(0)
inputs, labels = random.normal(size=(160, 6)).astype(np.float32), random.integers(2, size=160).astype(np.int32)
targets = one_hot(labels, 2)
validation_rows = np.arange(123, 160)

def train(name, on, cut_at=-1):
    keras.distribution.set_distribution(None)
    devices.use(on)
    keras.utils.set_random_seed(7)
    model = keras.Sequential([
        keras.Input((6,)), keras.layers.Dropout(0.2), keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(trainable=False), keras.layers.Dense(2, "softmax"),
    ])
    def training(epoch):
        if epoch == cut_at:
            raise Cut
        return Batches(lambda rows: inputs[rows], targets, shuffled(123, 7, epoch), 16, workers=2)
    validation = Batches(lambda rows: inputs[rows], targets, validation_rows, 16)
    how = Phase(
        3, 0.05, Adam(), Cosine(), EarlyStopping(), "val_loss", counts_start=True, loss=Focal(name="focal"),
        class_weights=np.array([0.5, 1.5], np.float32), average=Ema(name="ema", decay=0.9),
    )
    folder = Path(name).absolute()
    folder.mkdir(exist_ok=True)
    with chdir(folder), logged("toy") as live:
        result = fit(model, how, training, validation, Unfinished(folder), live)
    return model.get_weights(), result.history, predict(model, validation)

def same(ours, theirs):
    return all(map(np.array_equal, ours[0], theirs[0])) and ours[1] == theirs[1]

one, two, again = train("one", 1), train("two", 2), train("again", "all")
assert devices.spread().devices == 2 and same(again, two)
try:
    train("cut", 2, 1)
except Cut:
    assert same(train("cut", 2), two)
    print("went on")
assert one[2].shape == two[2].shape == (37, 2)
assert max(np.abs(a - b).max() for a, b in zip(one[0], two[0], strict=True)) < 2e-6
assert np.abs(one[2] - two[2]).max() < 2e-6
for ours, theirs in zip(one[1], two[1], strict=True):
    assert ours.keys() == theirs.keys() and all(abs(ours[name] - theirs[name]) < 2e-6 for name in ours)
shared = devices.shared_out(inputs[:4])
assert [piece.data.shape for piece in shared.addressable_shards] == [(2, 6), (2, 6)]
"""


def with_devices(count: int) -> dict[str, str]:
    """The environment in which JAX takes the processor for so many devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    return os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}


@pytest.mark.slow
def test_two_devices_come_to_the_same_figures_as_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPREAD]
    done = subprocess.run(command, cwd=tmp_path, env=with_devices(2), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "each batch is computed on 2 of 2 devices (backbone.devices: all)\n" in done.stdout
    assert "resuming after epoch 1" in done.stdout and done.stdout.endswith("went on\n")


@pytest.mark.slow
def test_the_whole_pipeline_on_two_devices_and_in_two_processes(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path: Path
) -> None:
    """On one device, then with the edit to two: what computes runs again. Two processes then come to the same bits."""
    params = toy_params(write_toy_photos(tmp_path / "photos"))
    params["backbone"]["backend"] = "jax"
    params["fine_tune"] |= {"augment_on": "device", "augmentation": {"mixup": 0.2}}
    workspace = make_workspace(params)
    workspace.environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    assert "device: 2 x CPU" in workspace.run("dvc repro")
    workspace.set(backbone__devices="all")
    said = workspace.run("dvc repro")
    assert {"backbone", "embed", "warm_up", "fine_tune", "evaluate"} <= set(ran(said)) and "pack" not in ran(said)
    assert said.count("each batch is computed on 2 of 2 devices (backbone.devices: all)") == 3
    expected = (workspace.folder / "models/fine_tune.keras").read_bytes()
    kill_two_processes_after_an_epoch(workspace)
    (workspace.folder / "models/fine_tune.keras").unlink()
    said, of_second = (process.communicate()[0] for process in two_processes(workspace))
    assert "resuming after epoch" in said and "resuming after epoch" in of_second
    assert (workspace.folder / "models/fine_tune.keras").read_bytes() == expected
    workspace.set(backbone__devices=3)
    said = workspace.run("dvc repro", code=None)
    assert "error: backbone.devices: expected at most 2, for jax finds cpu:0, cpu:1, received 3; lower it" in said


def two_processes(workspace: Workspace) -> list["subprocess.Popen[str]"]:
    """The fine-tune in two processes with a device each, which find each other; the first one writes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = workspace.environment | {"XLA_FLAGS": "", "KERAS_DISTRIBUTION_JOB_ADDRESSES": address}
    environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = "2"
    return [
        Workspace(workspace.folder, environment | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number)}).start(
            "python -m stages.fine_tune"
        )
        for number in range(2)
    ]


def kill_two_processes_after_an_epoch(workspace: Workspace) -> None:
    processes = two_processes(workspace)
    while not list(workspace.folder.glob(".temper/unfinished/fine_tune-*/state.npz")):
        assert processes[0].poll() is None, processes[0].communicate()[0]
        time.sleep(0.05)
    for process in reversed(processes):
        process.kill()
        process.communicate()
