"""The devices on which Keras computes (the processor, or the GPUs that its backend finds); how they share a batch."""

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
    """The line about devices that a stage with Keras prints at its start, once the backend has looked for them.

    Examples: "device: CPU, 2 cores, tensorflow 2.21.0", "device: GPU NVIDIA H200, tensorflow 2.21.0". If the machine
    has an NVIDIA GPU that the backend does not use, the line says so; otherwise the user would only see slow training.
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
    """The backend of Keras with its version: "tensorflow 2.21.0"."""
    backend = keras.backend.backend()
    return f"{backend} {sys.modules[backend].__version__}"


def join() -> None:
    """Joins this process to those with which it trains, on one machine or several, by Keras's environment variables.

    Call it before anything is computed. Without these variables nothing happens.

    Raises:
        TemperError: the backend is not JAX, or the processes did not find each other.
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
            f"expected each of the processes, whose number is in {PROCESSES}, to reach the first address of "
            f"KERAS_DISTRIBUTION_JOB_ADDRESSES, received {' '.join(str(error).split())}; docs/scale.md says how they "
            "are started"
        ) from None


def use(devices: int | Literal["all"]) -> None:
    """Spreads batches over `devices` devices, each of which holds the whole model (data parallelism).

    Call it before a model is made or loaded, because its variables are placed on devices when they are created.

    Args:
        devices: `backbone.devices`, from the card of the model.

    Raises:
        TemperError: there are fewer devices, or several processes train together and would not use all devices.
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
        # temper/batches.py already divides each batch among the processes.
        chosen = keras.distribution.DataParallel(devices=found[:count], auto_shard_dataset=False)
        keras.distribution.set_distribution(chosen)


def divisible(rows: int, devices: int) -> int:
    """The smallest number of rows, at least `rows`, that divides equally among the devices."""
    return math.ceil(rows / devices) * devices


@dataclass(frozen=True)
class Spread:
    """The devices and processes over which each batch is spread.

    Attributes:
        devices: the number of devices of all processes together.
        processes: the number of processes that train together, each with the same number of devices.
        number: the number of this process, from 0.
    """

    devices: int = 1
    processes: int = 1
    number: int = 0

    def share(self, rows: int) -> npt.NDArray[np.int64]:
        """The places in a batch of `rows` rows that this process reads: int64, the same number in each process.

        If the rows do not divide equally, the batch is filled up to `divisible` rows; the places of these extra rows
        are `rows`, `rows` + 1, ...
        """
        filled = np.arange(divisible(rows, self.devices))
        return np.split(filled, self.processes)[self.number]


def spread() -> Spread:
    """The current `Spread`. Call it on the thread that called `use`: Keras keeps the choice for that thread only."""
    chosen = keras.distribution.distribution()
    if chosen is None:
        return Spread()
    return Spread(int(chosen.num_model_replicas), int(chosen.num_processes), int(chosen.data_shard_id))


def shared_out(batch: npt.NDArray[Any]) -> Any:
    """Turns a batch of `divisible` rows into a tensor with an equal share of its rows on each device in use."""
    chosen = keras.distribution.distribution()
    if chosen is None:
        return batch
    return keras.distribution.distribute_tensor(batch, chosen.get_data_layout(batch.shape))
