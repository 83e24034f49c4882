"""The functions by which stages inform the trackers. Whatever happens to a tracker, the stage goes on.

The stages import this module by its name as a string, like the check of params.yaml: it changes nothing that they
write, so no stage may depend on it (law 7).
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
    """The trackers that params.yaml chooses; none if there is no such file."""
    return loading.load(Settings).trackers if Path(PARAMS).exists() else Trackers()


@contextmanager
def following(phase: str) -> Iterator[Listener]:
    """Yields a listener that passes the figures of a phase to the trackers while the phase trains."""
    with ExitStack() as stack:
        writers: list[Listener] = []
        try:
            if chosen().tensorboard:
                writers.append(stack.enter_context(_tensorboard(phase)))
        except Exception as error:  # no error of a tracker may stop the stage
            _warn("TensorBoard", error)

        def tell(name: str, value: float, epoch: int) -> None:
            try:
                for write in writers:
                    write(name, value, epoch)
            except Exception as error:  # such as a full disk
                writers.clear()
                _warn("TensorBoard", error)

        yield tell


@contextmanager
def _tensorboard(phase: str) -> Iterator[Listener]:
    """Writes into .temper/tensorboard/PHASE/NAME of the original repository, even if the run works in a copy."""
    from temper.tracking import event_files, finished  # noqa: PLC0415

    name = finished.name_of(finished.without_trackers(loading.read()))
    with ExitStack() as stack:
        write = stack.enter_context(event_files.written(scratch("tensorboard") / phase / name))
        try:
            yield write
        finally:
            try:
                stack.close()
            except Exception as error:  # while writing the last figures
                _warn("TensorBoard", error)


def report() -> None:
    """Logs the experiment in the working folder to MLflow, if params.yaml chooses it; `overview` calls this."""
    try:
        settings = chosen().mlflow
        if settings is not None:
            from temper.tracking import finished, server  # noqa: PLC0415

            print(server.log(finished.read(Path(), whole=False), settings))
    except Exception as error:  # no error of a tracker may stop the stage
        _warn("MLflow", error, "; python -m apps.track logs it later")


def _warn(tracker: str, error: Exception, more: str = "") -> None:
    said = redacted(" ".join(str(error).split())) or type(error).__name__
    print(f"warning: could not log to {tracker}; the run continues: {said}{more}", file=sys.stderr)
