"""What Keras computes on: the processor, or the GPUs that its backend has found; and how these share a batch."""

import math
import os
import sys
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from temper.base.errors import TemperError
from temper.base.machine import PROCESSES, cores, gpu_names


def described() -> str:
    """One line for the start of a stage that computes with Keras, once the backend has looked for its devices.

    "device: CPU, 2 cores, tensorflow 2.21.0" or "device: GPU NVIDIA H200, tensorflow 2.21.0". Where the machine has an
    NVIDIA GPU that the backend does not use, the line says so: training would otherwise just be slow.
    """
    kinds = [name.split(":")[0].upper() for name in keras.distribution.list_devices()]
    names = ", ".join(sorted(set(gpu_names())))
    count = f"{len(kinds)} x " if len(kinds) > 1 else ""
    if kinds[0] != "CPU":
        return f"device: {count}{kinds[0]} {names}".rstrip() + f", {library()}"
    unused = f"; the GPU of this machine is not used: {names}, see docs/training.md" if names else ""
    return f"device: {count}CPU, {cores()} cores, {library()}{unused}"


def trains_together() -> bool:
    """Whether this process is one of several that train together."""
    return int(os.environ.get(PROCESSES, "1")) > 1


def library() -> str:
    """What computes for Keras, with its version: "tensorflow 2.21.0"."""
    backend = keras.backend.backend()
    return f"{backend} {sys.modules[backend].__version__}"


def join() -> None:
    """Lets this process compute with the others that Keras's environment variables tell of, on any machines.

    Call it before anything is computed. Without these variables nothing happens.

    Raises:
        TemperError: the backend cannot, or the processes did not find each other.
    """
    if PROCESSES not in os.environ:
        return
    if keras.backend.backend() != "jax":
        raise TemperError(
            f"the environment variable {PROCESSES}: expected backbone.backend: jax, on which processes can train "
            f"together, received {keras.backend.backend()}; unset the variable, or change backbone.backend"
        )
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise TemperError(
            f"expected all processes that {PROCESSES} counts to find the first of KERAS_DISTRIBUTION_JOB_ADDRESSES, "
            f"received {' '.join(str(error).split())}; docs/scale.md says how they are started"
        ) from None


def use(devices: int | Literal["all"]) -> None:
    """Spreads the batches of this process over so many devices, each of which holds the whole model.

    Call it before a model is made or loaded: its variables are placed when they are made.

    Args:
        devices: `backbone.devices`, as the card of a model says it.

    Raises:
        TemperError: there are not so many, or processes that train together would not use all.
    """
    found = keras.distribution.list_devices()
    count = len(found) if devices == "all" else devices
    if count > len(found):
        raise TemperError(
            f"backbone.devices: expected at most {len(found)}, for {keras.backend.backend()} finds {', '.join(found)}, "
            f"received {devices}; lower it, or say all"
        )
    if count < len(found) and keras.backend.backend() == "jax" and trains_together():
        raise TemperError(f"backbone.devices: expected all where processes train together, received {devices}")
    if len(found) > 1:
        print(f"each batch is computed on {count} of {len(found)} devices (backbone.devices: {devices})")
    if count > 1:
        # Batches come already in shares: see temper/batches.py.
        chosen = keras.distribution.DataParallel(devices=found[:count], auto_shard_dataset=False)
        keras.distribution.set_distribution(chosen)


def divisible(rows: int, devices: int) -> int:
    """The smallest number of rows, from `rows` on, of which every device gets as many."""
    return math.ceil(rows / devices) * devices


@dataclass(frozen=True)
class Spread:
    """Over what each batch is spread.

    Attributes:
        devices: of all processes.
        processes: that train together, each with as many devices.
        number: of this process.
    """

    devices: int = 1
    processes: int = 1
    number: int = 0

    def share(self, rows: int) -> npt.NDArray[np.int64]:
        """The places in a batch of so many rows that this process reads: int64, equally many in each process.

        After the last row come as many of the first ones again as `divisible` asks for: these are `rows` and more.
        """
        filled = np.arange(divisible(rows, self.devices))
        return np.split(filled, self.processes)[self.number]


def spread() -> Spread:
    """Over what each batch is spread now; Keras tells only the thread that chose it."""
    chosen = keras.distribution.distribution()
    if chosen is None:
        return Spread()
    return Spread(int(chosen.num_model_replicas), int(chosen.num_processes), int(chosen.data_shard_id))


def shared_out(batch: npt.NDArray[Any]) -> Any:
    """A batch of `divisible` rows as a tensor, an equal share of it on each device in use."""
    chosen = keras.distribution.distribution()
    if chosen is None:
        return batch
    return keras.distribution.distribute_tensor(batch, chosen.get_data_layout(batch.shape))
