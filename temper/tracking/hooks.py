"""What the stages call: trackers follow, and whatever happens to them, the stage goes on.

The stages import this module by name, as they do the check of params.yaml: it changes nothing that they write, so none
depends on it (law 7).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from temper.base import loading
from temper.base.loading import PARAMS
from temper.base.paths import scratch
from temper.network.redaction import redacted
from temper.settings.trackers import Settings, Trackers

Listener = Callable[[str, float, int], None]  # the name of a figure, its value and its epoch


def chosen() -> Trackers:
    """The trackers of params.yaml; none where there is no such file."""
    return loading.load(Settings).trackers if Path(PARAMS).exists() else Trackers()


@contextmanager
def following(phase: str) -> Iterator[Listener]:
    """A listener to the figures of a phase, for the trackers that follow it while it trains."""
    with ExitStack() as stack:
        writers: list[Listener] = []
        try:
            if chosen().tensorboard:
                writers.append(stack.enter_context(_tensorboard(phase)))
        except Exception as error:  # whatever it is
            _warn("TensorBoard", error)

        def tell(name: str, value: float, epoch: int) -> None:
            try:
                for write in writers:
                    write(name, value, epoch)
            except Exception as error:  # a full disk
                writers.clear()
                _warn("TensorBoard", error)

        yield tell


@contextmanager
def _tensorboard(phase: str) -> Iterator[Listener]:
    """Writes into .temper/tensorboard/PHASE/NAME of the repository, also from a copy of it."""
    from temper.tracking import event_files, finished  # noqa: PLC0415

    name = finished.name_of(finished.without_trackers(loading.read()))
    with ExitStack() as stack:
        write = stack.enter_context(event_files.written(scratch("tensorboard") / phase / name))
        try:
            yield write
        finally:
            try:
                stack.close()
            except Exception as error:  # what was still to be written
                _warn("TensorBoard", error)


def report() -> None:
    """Logs the experiment of the working folder to MLflow, where params.yaml says so; `overview` calls it."""
    try:
        settings = chosen().mlflow
        if settings is not None:
            from temper.tracking import finished, server  # noqa: PLC0415

            print(server.log(finished.read(Path(), whole=False), settings))
    except Exception as error:  # whatever it is
        _warn("MLflow", error, "; python -m apps.track logs it later")


def _warn(tracker: str, error: Exception, more: str = "") -> None:
    said = redacted(" ".join(str(error).split())) or type(error).__name__
    print(f"warning: {tracker} is not told, and the run goes on: {said}{more}", file=sys.stderr)
