"""Writes curves for TensorBoard while a phase trains."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from temper.base.errors import TemperError

_FLUSHED = 5  # seconds after which a figure is written to the disk


@contextmanager
def written(folder: Path) -> Iterator[Callable[[str, float, int], None]]:
    """Yields a function that writes a figure, given its name, value and epoch.

    Event files of an earlier run in the folder are removed: a phase that resumes after a kill logs all its epochs
    again.

    Raises:
        TemperError: the package tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415
    except ImportError as error:
        raise TemperError(
            f"expected the package tensorboard, received {error}; "
            "pip install --require-hashes -r requirements-trackers.lock"
        ) from None
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder), flush_secs=_FLUSHED)

    def write(name: str, value: float, epoch: int) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        writer.add_event(Event(step=epoch, wall_time=time.time(), summary=summary))

    try:
        yield write
    finally:
        writer.close()
