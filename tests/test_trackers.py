"""Trackers: what they are told, by their own readers and a real MLflow server; without one, the run goes on."""

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from temper.base.errors import TemperError
from temper.base.loading import load
from temper.settings.trackers import Mlflow, Settings
from temper.tracking import event_files, finished, hooks, server
from temper.training.phases import logged
from tests.toys.experiments import CARD, LOSSES, METRICS, PARAMS, write, write_experiment
from tests.toys.mlflow_server import free_port, mlflow_server
from tests.toys.workspace import ROOT, Workspace, ran


@pytest.fixture
def experiment(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a finished experiment in it."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return write_experiment(in_tmp_path)


def choose(folder: Path, **trackers: Any) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"trackers": trackers}), encoding="utf-8")


# --- The settings


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ({"tensorboard": "yes"}, "trackers.tensorboard: .*boolean"),
        ({"mlflow": {"url": "http://h"}}, "unknown key trackers.mlflow.url: .* did you mean uri"),
        ({"mlflow": {"uri": "http://me:word@h"}}, "trackers.mlflow.uri: .*MLFLOW_TRACKING_PASSWORD"),
        ({"mlflow": {"model": False, "register_as": "flowers"}}, "register_as: expected none .* received 'flowers'"),
    ],
)
def test_wrong_settings_are_refused_by_name(in_tmp_path: Path, trackers: dict[str, Any], message: str) -> None:
    choose(in_tmp_path, **trackers)
    with pytest.raises(TemperError, match=message):
        load(Settings)


def test_trackers_are_off_where_nothing_is_said(in_tmp_path: Path) -> None:
    (in_tmp_path / "params.yaml").write_text("lr: 1\n")
    for off in (load(Settings).trackers, hooks.chosen()):
        assert not off.tensorboard and off.mlflow is None
    choose(in_tmp_path, mlflow="none")
    assert load(Settings).trackers.mlflow is None


# --- What is read of a finished experiment


def test_everything_is_read(experiment: Path) -> None:
    one = finished.read(experiment)
    assert one.params["fetch.my photos.path"] == "photos" and one.params["lr"] == "0.0003"
    assert one.metrics["validation.accuracy"] == 0.95 and one.metrics["fine_tune_epoch"] == 3
    assert one.curves == {"fine_tune/validation/loss": list(enumerate(LOSSES, 1))}
    assert [path.name for path in one.pictures] == ["classes.png", "summary.svg"]


def test_what_another_stage_may_still_write_is_not_read(experiment: Path) -> None:
    write(experiment / "metrics/export/metrics.json", '{"seconds": 3}')
    whole, now = finished.read(experiment), finished.read(experiment, whole=False)
    assert whole.metrics == now.metrics | {"seconds": 3.0} and whole.fingerprint == now.fingerprint
    assert [path.name for path in now.pictures] == ["summary.svg"]


def test_overview_runs_after_what_it_reports() -> None:
    with Repo(str(ROOT)) as repo:
        (overview,) = (stage for stage in repo.index.stages if stage.name == "overview")
        before, waiting = set(), [overview]
        while waiting:  # from each stage to those that it depends on
            waiting += repo.index.graph.successors(waiting[0])
            before.add(waiting.pop(0).name)
    assert {*finished.MEASURING, *finished.DRAWING} <= before


def test_an_experiment_without_figures_is_refused(experiment: Path) -> None:
    (experiment / "metrics/evaluate/metrics.json").unlink()
    with pytest.raises(TemperError, match="expected figures, found none; run dvc repro"):
        finished.read(experiment)


def test_the_fingerprint_is_that_of_what_was_trained_and_measured(experiment: Path) -> None:
    before = finished.read(experiment)
    choose(experiment, tensorboard=True, mlflow={"experiment": "other"})
    write(experiment / "metrics/export/metrics.json", '{"seconds": 3}')  # of a later stage
    (experiment / "metrics/gallery/classes.png").unlink()
    assert (finished.read(experiment).fingerprint, finished.read(experiment).name) == (before.fingerprint, before.name)
    write(experiment / "metrics/evaluate/metrics.json", json.dumps(METRICS["evaluate"] | {"accuracy": 0.91}))
    other = finished.read(experiment)
    write_experiment(experiment, PARAMS | {"lr": 0.0004})
    assert len({before.fingerprint, other.fingerprint, finished.read(experiment).fingerprint}) == 3


def test_an_experiment_has_the_name_that_dvc_gave_it(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "waxen-jive")
    assert finished.read(experiment).name == "waxen-jive"


# --- A server that is down, or no client: one line, and the run goes on


@pytest.fixture
def silent_uri() -> Iterator[str]:
    """An address whose server takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def warned(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of warning."""
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_a_server_that_is_down_is_one_line(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    choose(experiment, mlflow={"uri": uri})
    hooks.report()
    line = warned(capsys)
    assert line.startswith("warning: could not log to MLflow; the run continues: ") and uri in line
    assert line.endswith("; python -m apps.track logs it later")


def test_a_server_that_hangs_is_given_up(
    experiment: Path, silent_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_ANSWER", 0.2)
    choose(experiment, mlflow={"uri": silent_uri})
    hooks.report()
    assert "expected a server that answers, received ReadTimeout" in warned(capsys)


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ({"mlflow": {}}, "MLFLOW_TRACKING_URI, found none"),
        ({"mlflow": {"uri": "sqlite:///here.db"}}, "expected the package mlflow-skinny"),
        ({"mlflow": {"url": "wrong"}}, "unknown key trackers.mlflow.url"),
    ],
)
def test_a_tracker_that_cannot_be_told_is_one_line(
    experiment: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trackers: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as where it is not installed
    choose(experiment, **trackers)
    hooks.report()
    assert message in warned(capsys)


def test_no_tracker_is_no_word(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks.report()
    assert capsys.readouterr() == ("", "")


def run_app(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "]
    program[-1] += "runpy.run_module('apps.track', run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [*program, str(ROOT), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_app_ends_in_one_line(experiment: Path) -> None:
    choose(experiment, mlflow={"uri": f"http://127.0.0.1:{free_port()}"})
    for arguments, message in (
        ([], "expected a server that answers"),
        (["nowhere"], "nowhere: expected an experiment"),
    ):
        done = run_app(experiment, *arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and message in done.stderr
        assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_an_edit_of_trackers_runs_no_stage(pipeline: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", pipeline.environment["DVC_SITE_CACHE_DIR"])
    monkeypatch.chdir(pipeline.folder)
    pipeline.set(trackers={"tensorboard": True, "mlflow": {"uri": "http://127.0.0.1:1"}})
    with Repo(str(pipeline.folder)) as repo:
        assert repo.status() == {}


@pytest.mark.slow
def test_a_pipeline_goes_on_without_its_server(pipeline: Workspace) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    pipeline.set(lr=2e-3, trackers={"tensorboard": True, "mlflow": {"uri": uri}})
    output = pipeline.run("dvc repro")
    assert ran(output) == ["fine_tune", "evaluate", "export", "overview"]
    written = list((pipeline.folder / ".temper/tensorboard/fine_tune").glob("main-*/events.out.tfevents.*"))
    assert len(written) == 1 or "could not log to TensorBoard" in output
    assert len([line for line in output.splitlines() if "could not log to MLflow; the run continues" in line]) == 1
    assert ran(pipeline.run("dvc repro")) == []
    assert "expected a server that answers" in pipeline.run("python -m apps.track", code=1)


# --- TensorBoard


def log_epochs(losses: tuple[float, ...]) -> None:
    with logged("fine_tune") as live:
        live.step = 1
        for loss in losses:
            live.log_metric("validation/loss", loss)
            live.next_step()


def test_without_tensorboard_a_phase_goes_on(
    experiment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    choose(experiment, tensorboard=True)
    log_epochs(LOSSES)
    said = "could not log to TensorBoard; the run continues: expected the package tensorboard"
    assert said in capsys.readouterr().err
    assert finished.read(experiment).curves["fine_tune/validation/loss"] == list(enumerate(LOSSES, 1))


def test_what_tensorboard_cannot_write_does_not_stop_a_phase(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    write(experiment / ".temper/tensorboard", "a file where the folder should be")
    choose(experiment, tensorboard=True)
    log_epochs(LOSSES)
    assert capsys.readouterr().err.count("warning: could not log to TensorBoard") == 1


def test_a_disk_that_fills_up_stops_no_phase(
    experiment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str, value: float, epoch: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(event_files, "written", lambda folder: nullcontext(write))
    choose(experiment, tensorboard=True)
    log_epochs(LOSSES)
    assert capsys.readouterr().err.count("the run continues: [Errno 28] No space left on device") == 1
    assert len(finished.read(experiment).curves["fine_tune/validation/loss"]) == len(LOSSES)


def test_tensorboard_reads_every_epoch_once(experiment: Path) -> None:
    """Also of a phase that was killed and tells its epochs again."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    choose(experiment, tensorboard=True)
    log_epochs(LOSSES[:2])
    log_epochs(LOSSES)
    (folder,) = (experiment / ".temper/tensorboard/fine_tune").iterdir()
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    told = [(one.step, one.value) for one in events.Scalars("validation/loss")]
    assert told == [(epoch, pytest.approx(loss)) for epoch, loss in enumerate(LOSSES, 1)]
    choose(experiment, tensorboard=False)
    (folder.parent / "other").mkdir()
    log_epochs(LOSSES)
    assert len(list(folder.iterdir())) == 1 and not list((folder.parent / "other").iterdir())


# --- MLflow


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mlflow", reason="the package mlflow-skinny is not installed")
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


def runs_of(client: Any, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def artifacts(client: Any, run: Any, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for one in client.list_artifacts(run.info.run_id, folder):
        found |= artifacts(client, run, one.path) if one.is_dir else {one.path}
    return found


def test_mlflow_has_everything_once(
    experiment: Path, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choose(experiment, mlflow={"uri": uri, "experiment": "whole", "register_as": "it's flowers"})
    client = server._client(uri)
    hooks.report()  # as the pipeline does, before what is drawn last
    assert run_app(experiment).stdout.startswith("updated ")
    hooks.report()
    assert capsys.readouterr().err == ""
    (run,) = runs_of(client, "whole")
    assert run.info.status == "FINISHED" and run.info.run_name.startswith("workspace-")
    assert run.data.params["fetch.my photos.path"] == "photos" and "trackers.tensorboard" not in run.data.params
    assert run.data.metrics["validation.accuracy"] == 0.95
    told = client.get_metric_history(run.info.run_id, "fine_tune/validation/loss")
    assert [(one.step, one.value) for one in told] == list(enumerate(LOSSES, 1))
    expected = {"params.yaml", "metrics/gallery/classes.png", "metrics/overview/summary.svg"}
    assert artifacts(client, run) == expected | {"model/card.json", "model/fine_tune.keras"}
    (version,) = client.search_model_versions('name="it\'s flowers"')
    assert version.run_id == run.info.run_id
    model = client.download_artifacts(run.info.run_id, "model", str(tmp_path))
    assert Path(model, "fine_tune.keras").read_bytes() == Path("models/fine_tune.keras").read_bytes()
    assert json.loads(Path(model, "card.json").read_text())["classes"] == CARD["classes"]


def test_what_a_broken_attempt_left_is_completed(experiment: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Mlflow(uri=uri, experiment="broken", register_as="broken")
    client = server._client(uri)
    for step in ("_log_files", "_log_model", "_register"):
        with monkeypatch.context() as patch:
            patch.setattr(server, step, lambda *_: (_ for _ in ()).throw(ConnectionResetError("gone")))
            with pytest.raises(TemperError, match="MLflow at http.*: gone"):
                server.log(finished.read(experiment), settings)
        (run,) = runs_of(client, "broken")
        assert run.info.status == "RUNNING"
    assert server.log(finished.read(experiment), settings).startswith("updated ")
    (run,) = runs_of(client, "broken")
    assert run.info.status == "FINISHED" and "model/fine_tune.keras" in artifacts(client, run)
    assert len(client.search_model_versions("name='broken'")) == 1


def test_experiments_that_differ_are_runs_of_their_own(experiment: Path, uri: str) -> None:
    settings = Mlflow(uri=uri, experiment="several", model=False)
    # More than MLflow takes at once, and longer
    many = {f"class {number}": "x" for number in range(249)} | {"long": "x" * 7000}
    for params in (PARAMS, PARAMS | {"lr": 0.1}, PARAMS | {"normalize": {"rename": many}}):
        server.log(finished.read(write_experiment(experiment, params)), settings)
    runs = runs_of(server._client(uri), "several")
    assert len(runs) == 3 and {len(run.data.params) for run in runs} == {4, 254}
    assert not any(path.startswith("model") for run in runs for path in artifacts(server._client(uri), run))


@pytest.mark.slow  # real experiments of DVC
def test_experiments_of_dvc_are_logged_under_their_names(pipeline: Workspace, uri: str) -> None:
    client = server._client(uri)
    pipeline.set(trackers={"tensorboard": True, "mlflow": {"uri": uri, "experiment": "dvc"}})
    pipeline.commit("a server")
    pipeline.run("dvc exp run -n first -S lr=2e-3")
    assert [run.info.run_name for run in runs_of(client, "dvc")] == ["first"]
    pipeline.run("dvc exp run -n second --temp -S lr=3e-3")
    assert {run.info.run_name for run in runs_of(client, "dvc")} == {"first", "second"}
    curves = pipeline.folder / ".temper/tensorboard/fine_tune"  # of the copy that --temp works in too
    assert not importlib.util.find_spec("tensorboard") or {path.name for path in curves.iterdir()} == {
        "first",
        "second",
    }
    for rev, done in (("first", "updated"), ("second", "updated"), ("HEAD", "logged")):
        assert f"{done} " in pipeline.run(f"python -m apps.track {rev}")
    assert len(runs_of(client, "dvc")) == 3
