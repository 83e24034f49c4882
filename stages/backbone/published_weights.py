"""Repairs the cache of weights that Keras downloads, `~/.keras/models`, in which a kill can leave incomplete files.

Keras 3 writes a download directly under its final name, has no checksum for some files (MobileNet, ResNetV2), and waits
forever for a server that sends nothing.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import h5py
import keras

from temper.aside import is_file, put_aside

_SILENCE = 60.0  # seconds without a byte


def built_with(make: Callable[[], keras.Model]) -> keras.Model:
    """Calls `make`, which builds a model with published weights. If it fails, moves damaged files of the cache aside
    and tries once more.

    Raises:
        Exception: whatever Keras raises.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)  # Keras's urlretrieve has no timeout of its own
    try:
        try:
            return make()
        except Exception:
            if not _put_damaged_aside():
                raise
            return make()
    finally:
        socket.setdefaulttimeout(before)


def _put_damaged_aside() -> bool:
    """Moves files in Keras's cache aside that are not HDF5 or are cut off; returns whether there were any."""
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    damaged = False
    for path in sorted(folder.glob("*.h5")):
        if not is_file(path, "published weights"):
            damaged = True
            continue
        try:
            h5py.File(path, "r").close()
        except OSError as error:
            put_aside(path, "published weights", str(error))
            damaged = True
    return damaged
