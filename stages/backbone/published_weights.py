"""The weights that Keras downloads into its own cache, `~/.keras/models`, which a kill can leave half written.

Keras 3 writes a download under its final name, knows no checksum of some of them (MobileNet, ResNetV2), and waits for a
silent server for ever.
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
    """What `make` builds with published weights. If it cannot, damaged files of the cache are put aside, once.

    Raises:
        Exception: what Keras raises.
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
    """Whether there was a file that is no HDF5, or is cut off, in Keras's cache, and is put aside now."""
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
