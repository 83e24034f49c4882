"""What Keras computes on: the processor, or the GPUs that its backend has found on this machine."""

import sys

import keras

from temper.base.machine import cores, gpu_names


def described() -> str:
    """One line for the start of a stage that computes with Keras, once the backend has looked for its devices.

    "device: CPU, 2 cores, tensorflow 2.21.0" or "device: GPU NVIDIA H200, tensorflow 2.21.0". Where the machine has an
    NVIDIA GPU that the backend does not use, the line says so: training would otherwise just be slow.
    """
    backend = keras.backend.backend()
    library = f"{backend} {sys.modules[backend].__version__}"
    kinds = [name.split(":")[0].upper() for name in keras.distribution.list_devices()]
    names = ", ".join(sorted(set(gpu_names())))
    count = f"{len(kinds)} x " if len(kinds) > 1 else ""
    if kinds[0] != "CPU":
        return f"device: {count}{kinds[0]} {names}".rstrip() + f", {library}"
    unused = f"; the GPU of this machine is not used: {names}, see docs/training.md" if names else ""
    return f"device: {count}CPU, {cores()} cores, {library}{unused}"
