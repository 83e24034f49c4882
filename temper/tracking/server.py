"""Logs a finished experiment as a run of MLflow: its params, figures, curves, pictures and model.

Each run has the experiment's fingerprint as a tag, and equal experiments have the same fingerprint. So an experiment
that is logged again completes or updates its run, and nothing is stored twice.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests

from temper import card
from temper.base.errors import TemperError
from temper.base.loading import PARAMS, short
from temper.network.redaction import redacted
from temper.settings.trackers import Mlflow
from temper.tracking.finished import MODEL, Finished

FINGERPRINT = "temper.fingerprint"
_ANSWER = 5  # seconds within which a server must answer
_AT_ONCE = 100  # params or metrics per request; MLflow accepts no more params in one
_LONGEST = 6000  # the most characters of a param's value
# Unless the user has set these: give up on a server that is down in seconds instead of minutes, do not let MLflow send
# usage statistics, and let it print nothing.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

Item = TypeVar("Item")


def log(finished: Finished, settings: Mlflow) -> str:
    """Logs an experiment to MLflow, and returns a line that says where it is.

    Raises:
        TemperError: MLflow is not installed, does not answer, or refuses.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise TemperError(
            "trackers.mlflow.uri: expected the address of an MLflow server, there or in MLFLOW_TRACKING_URI, found none"
        )
    if settings.model and not (finished.folder / MODEL).exists():
        raise TemperError(f"{MODEL}: expected the model, found none; run dvc pull, or set trackers.mlflow.model: false")
    with _explained(uri):
        _refuse_silent(uri)
        client = _client(uri)
        run, found = _run(client, finished, settings.experiment)
        run_id = run.info.run_id
        _log_figures(client, run, finished)
        _log_files(client, run_id, finished)
        if settings.model:
            _log_model(client, run_id, finished)
        if settings.register_as is not None:
            _register(client, run, settings.register_as, finished.name)
        client.set_terminated(run_id, "FINISHED")
    done = "updated" if found else "logged"
    return f"{done} {finished.name} in MLflow's experiment {settings.experiment} at {redacted(uri)}, run {run_id}"


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into a TemperError, and silences its client's warnings about each attempt."""
    logger = logging.getLogger("urllib3")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except TemperError:
        raise
    except Exception as error:  # from MLflow, requests, the disk and artifact stores
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TemperError(f"MLflow at {redacted(uri)}: {redacted(short(lines[0]))}") from None
    finally:
        logger.setLevel(before)


def _refuse_silent(uri: str) -> None:
    """Raises a TemperError if a server does not answer at all; MLflow's client would try for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(uri, timeout=_ANSWER, stream=True).close()
    except requests.RequestException as error:
        raise TemperError(
            f"MLflow at {redacted(uri)}: expected a server that answers, received {type(error).__name__}"
        ) from None


def _client(uri: str) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient  # noqa: PLC0415
    except ImportError as error:
        raise TemperError(
            f"expected the package mlflow-skinny, received {error}; "
            "pip install --require-hashes -r requirements-trackers.lock"
        ) from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # importing mlflow sets it to INFO
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _run(client: Any, finished: Finished, experiment: str) -> tuple[Any, bool]:
    """Finds or creates the run of this experiment; also returns whether it existed before."""
    known = client.get_experiment_by_name(experiment)
    if known is not None and known.lifecycle_stage != "active":
        raise TemperError(f"trackers.mlflow.experiment: {experiment!r} was deleted on the server: restore it there")
    place = known.experiment_id if known is not None else client.create_experiment(experiment)
    runs = client.search_runs([place], f"tags.`{FINGERPRINT}` = '{finished.fingerprint}'", max_results=1)
    if runs:
        client.update_run(runs[0].info.run_id, status="RUNNING")
        return runs[0], True
    tags = {FINGERPRINT: finished.fingerprint, "mlflow.source.type": "LOCAL", "mlflow.source.name": "temper"}
    if finished.commit:
        tags["mlflow.source.git.commit"] = finished.commit
    return client.create_run(place, tags=tags, run_name=finished.name), False


def _log_figures(client: Any, run: Any, finished: Finished) -> None:
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    # A figure gets the same time whenever it is logged, so that MLflow stores it only once.
    start = run.info.start_time
    metrics = [Metric(_key(name), value, start, 0) for name, value in finished.metrics.items()]
    for name, points in finished.curves.items():
        metrics += [Metric(_key(name), value, start + epoch, epoch) for epoch, value in points]
    there = run.data.params
    params = [Param(_key(name), value[:_LONGEST]) for name, value in finished.params.items() if _key(name) not in there]
    for some in _chunks(params):
        client.log_batch(run.info.run_id, params=some)
    for others in _chunks(metrics):
        client.log_batch(run.info.run_id, metrics=others)


def _key(name: str) -> str:
    """Turns a name into one that every MLflow server accepts."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)[:250]


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _log_files(client: Any, run_id: str, finished: Finished) -> None:
    for path in (Path(PARAMS), *finished.pictures):
        place = None if path.parent == Path() else path.parent.as_posix()
        client.log_artifact(run_id, str(finished.folder / path), place)


def _log_model(client: Any, run_id: str, finished: Finished) -> None:
    """Uploads the model and its card, unless a model of the same size is already there."""
    model = finished.folder / MODEL
    there = {file.path: file.file_size for file in client.list_artifacts(run_id, "model")}
    if there.get(f"model/{MODEL.name}") == model.stat().st_size:
        return
    client.log_artifact(run_id, str(model), "model")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, card.NAME)
        path.write_text(json.dumps(json.loads(card.read(model).as_entry()[card.NAME]), indent=2), encoding="utf-8")
        client.log_artifact(run_id, str(path), "model")


def _register(client: Any, run: Any, name: str, title: str) -> None:
    """Makes the run's model a version of the registered model `name`, unless it already is one."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    run_id = run.info.run_id
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Not searched by name: MLflow's filters do not support every name that MLflow accepts.
    if name not in [one.name for one in client.search_model_versions(f"run_id = '{run_id}'")]:
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run_id, description=title)
