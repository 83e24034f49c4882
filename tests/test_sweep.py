"""Sweeps: what a SWEEP.yaml may say, the space it spans, the search's decisions, and one search by the real dvc."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from apps.sweep import space
from apps.sweep.experiments import Experiment, Points, best_of, leader, read_curve
from apps.sweep.settings import Objective, Reach, Sweep, parse_objective
from temper.base import loading
from temper.base.errors import TemperError
from tests.toys import servers
from tests.toys.workspace import ROOT, Workspace, ran

optuna = pytest.importorskip("optuna", reason="make sweep installs it")
pytest.importorskip("matplotlib", reason="make sweep installs it")

from apps.sweep import comparable, report  # noqa: E402
from apps.sweep.drivers import Alone, Team, Turns, address, own_name  # noqa: E402
from apps.sweep.pruning import ReachPruner, reached  # noqa: E402
from apps.sweep.repetition import repeat_best  # noqa: E402
from apps.sweep.search import Running, Search, open_study, sampler  # noqa: E402

BASE: dict[str, Any] = loading.read(ROOT / "recipes/digits.yaml")
LOSS = parse_objective("fine_tune/validation/loss")


def sweep_of(params: dict[str, Any], **others: Any) -> Sweep:
    return loading.validate(Sweep, {"params": params, "trials": 4} | others, "sweep.yaml")


# --- What a SWEEP.yaml may say

LR = {"lr": {"log": ["1e-6", 1e-3]}}
WITH_SGD: dict[str, Any] = {"when": {"fine_tune.optimizer.name": "sgd"}}
MOMENTUM: dict[str, Any] = {
    "fine_tune.optimizer.name": ["adam", "sgd"],
    "fine_tune.optimizer.momentum": WITH_SGD | {"range": [0.5, 0.9]},
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"params": {}}, "params: .*at least 1 item"),
        ({"params": {"lr": 3}}, "params.lr: expected a list of values, or one of values, log, .* received 3"),
        ({"params": {"lr": {"lok": [1, 2]}}}, "params.lr: unknown key lok: .* did you mean log"),
        ({"params": {"lr": {"log": [0, 1]}}}, r"log: expected numbers above 0, received \[0.0, 1.0\]"),
        ({"params": {"lr": {"range": [2, 1]}}}, r"range: expected \[low, high\] with low < high"),
        ({"params": {"lr": {"range": [1, 2], "log": [1, 2]}}}, "expected one of .* received log and range"),
        ({"params": {"lr": {"log": [1, 2], "step": 1}}}, "step belongs to range and integers, not to log"),
        ({"params": {"lr": [1, 1]}}, "values: expected different ones, received 1 twice"),
        ({"params": {"fine_tune.epochs": {"integers": [1, 2.5]}}}, "integers"),
        ({"params": {"a b": [1]}}, "expected keys as -S takes them.* received 'a b'"),
        ({"params": {"warm_up": [{}], "warm_up.lr": [1]}}, "expected warm_up or keys within it"),
        (
            {"params": {"aug": {"range": [0, 1], "when": {"lr": [1]}}, **LR}},
            "stand above it .there are none.",
        ),
        ({"params": {"lr": [1], "aug": {"range": [0, 1], "when": {"lr": 2}}}}, r"from the list of lr, received \[2\]"),
        ({"objective": "accuracy"}, "objective: .*measured on the test split.* did you mean validation_accuracy"),
        ({"objective": "warm_up_loss"}, "did you mean warm_up_validation_loss"),
        ({"objective": "fine_tune/train/loss"}, "expected PHASE/validation/loss"),
        ({"objective": "validation_images"}, "expected PHASE/validation/loss"),
        ({"objective": "validation_loss", "pruner": "median"}, "expected off with the objective validation_loss"),
        ({"sampler": "grid"}, "params.lr: expected a list, integers, or a range with a step for a grid"),
        ({"trials": None}, "expected a number of trials for the sampler tpe"),
        ({"pruner": {"name": "median", "epochs": 1}}, "unknown key pruner.epochs"),
        ({"stop": {"minutes": 1}}, "unknown key stop.minutes"),
        ({"storage": "sqlite:///x.db"}, "storage: expected postgresql.psycopg://... or mysql.pymysql://..., or .NAME"),
        ({"storage": "postgresql+psycopg://a:b@host/x"}, "no password in a file .* such as .SWEEP_STORAGE"),
        ({"storage": "mysql+pymysql://host/x?user=a&password=b"}, "no password in a file"),
    ],
)
def test_a_wrong_sweep_is_refused_by_name(content: dict[str, Any], message: str) -> None:
    with pytest.raises(TemperError, match=message):
        loading.validate(Sweep, {"params": LR, "trials": 4} | content, "sweep.yaml")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lrr": [1]}, "unknown key lrr: .* did you mean lr"),
        ({"lr": {"log": [1e-6, 5e3]}}, "sweep.yaml: params: lr: .*less than or equal to 1000, received 5000"),
        ({"aug": [0.1, 2]}, r"aug: .*received 2 \(aug 2\)"),
        ({"fine_tune.optimizer.momentum": [0.5]}, "fine_tune.optimizer"),  # of what optimizer?
        ({"fine_tune.on_interrupt": ["keep"]}, "expected resume for a sweep, received keep"),
        ({"backbone": [{"name": "tiny"}]}, "backbone: tiny has neither .* received {} and imagenet"),
    ],
)
def test_a_space_that_params_yaml_refuses_is_refused_before_anything_runs(
    in_tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(TemperError, match=message):
        space.refuse_wrong_space(sweep_of(params), BASE, "sweep.yaml: params")


def test_every_end_of_a_space_is_looked_at_with_what_it_is_searched_under(in_tmp_path: Path) -> None:
    space.refuse_wrong_space(sweep_of(MOMENTUM | LR), BASE, "params")
    wrong = MOMENTUM | {
        "fine_tune.optimizer.momentum": MOMENTUM["fine_tune.optimizer.momentum"] | {"range": [0.5, 1.5]}
    }
    with pytest.raises(TemperError, match="momentum: .*received 1.5"):
        space.refuse_wrong_space(sweep_of(wrong), BASE, "params")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fine_tune/validation/loss", Objective("", "fine_tune", "loss", is_curve=True)),
        ("fine_tune/validation/accuracy", Objective("", "fine_tune", "accuracy", is_curve=True)),
        ("warm_up/validation/accuracy", Objective("", "warm_up", "warm_up_best_val_accuracy", is_curve=False)),
        ("validation_macro_f1", Objective("", "evaluate", "validation_macro_f1", is_curve=False)),
    ],
)
def test_an_objective_says_what_a_trial_runs_up_to(name: str, expected: Objective) -> None:
    aim = parse_objective(name)
    assert (aim.stage, aim.figure, aim.is_curve) == (expected.stage, expected.figure, expected.is_curve)
    assert aim.maximize == (not name.endswith("loss"))
    pruning = sweep_of(LR, objective=name).pruning
    assert pruning == (Reach(name="reach") if aim.is_curve else None)


def test_the_sweeps_of_the_project_are_valid(in_tmp_path: Path) -> None:
    read = {path.stem: loading.validate(Sweep, loading.read(path), path.name) for path in (ROOT / "sweeps").glob("*")}
    assert set(read) == {"backbones", "fine_tune"}
    space.refuse_wrong_space(read["fine_tune"], BASE, "fine_tune.yaml")
    backbones = read["backbones"]
    for values in space.grid(backbones.params):  # without building them, which takes seconds each
        content = space.changed(loading.read(ROOT / "recipes/folder.yaml"), backbones.params, values)
        for name in ("backbone", "warm_up", "fine_tune"):
            loading.validate(space_settings(name), content, "params.yaml")


def space_settings(stage: str) -> Any:
    from temper.settings.check import stage_settings  # noqa: PLC0415

    return stage_settings()[stage]


# --- The space


def test_a_grid_holds_each_point_once_and_multiplies_by_what_is_searched() -> None:
    params = MOMENTUM | {"fine_tune.epochs": {"integers": [2, 6], "step": 2}}
    params["fine_tune.optimizer.momentum"] = WITH_SGD | {"range": [0.5, 0.9], "step": 0.2}
    grid = space.grid(sweep_of(params, sampler="grid", trials=None).params)
    assert len(grid) == (1 + 3) * 3
    assert len({json.dumps(values) for values in grid}) == len(grid)
    assert [values.get("fine_tune.optimizer.momentum") for values in grid][::3] == [None, 0.5, 0.7, 0.9]


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 3e-06, "aug": 0.25},
        {"lr": 1e20, "warm_up.head.dropout": 0},
        {"lr": 1, "fine_tune.optimizer.name": "sgd", "fine_tune.optimizer.momentum": 0.9},
        {
            "backbone": {
                "name": "hub",
                "revision": 'a "b" c/ü,[x].h5',
                "arguments": {"alpha": 0.25, "of": [1, None, True]},
            }
        },
        {"image_size": [16, 24], "fine_tune.unfreeze_from": "block_1", "seed": 7},
    ],
)
def test_dvc_makes_of_the_overrides_what_was_checked(tmp_path: Path, values: dict[str, Any]) -> None:
    """What a trial does not search is taken away: `warm_up.lr` here, which the recipe has, and `detect.score`."""
    swept = {"warm_up.lr": [1], "detect.score": [0.5]} | {key: [value] for key, value in values.items()}
    params = sweep_of({key: swept[key] for key in swept if key != "seed"}).params
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(BASE, sort_keys=False), encoding="utf-8")
    apply_overrides(path, space.overrides(BASE, params, values))
    assert loading.read(path) == space.changed(BASE, params, values)
    assert "lr" not in loading.read(path)["warm_up"] and "lr" in BASE["warm_up"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"name": "MobileNet", "arguments": {"alpha": 0.25}, "weights": "imagenet"},
            "MobileNet, alpha 0.25, weights imagenet",
        ),
        ({}, "{}"),
        ([1, "a"], '[1, "a"]'),
        (3e-06, "3e-06"),
        ("all", "all"),
    ],
)
def test_a_value_is_shown_to_people(value: Any, expected: str) -> None:
    assert space.shown(value) == expected


def test_pictures_name_listed_values_as_the_table_does() -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415

    stored = [space._name({"name": "MobileNet", "arguments": {"alpha": alpha}}) for alpha in (0.25, 0.75)]
    for names, expected in (
        ([f"'{name}'" for name in stored], ["MobileNet, alpha 0.25", "MobileNet, alpha 0.75"]),
        (["'all'", "'0.5'"], ["all", "0.5"]),
        (["1", "2"], ["1", "2"]),  # numbers
    ):
        axes = Figure().add_subplot()
        axes.set_xticks([0, 1], names)
        report._label(axes)
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == expected
        assert {label.get_rotation() for label in labels} == {30.0 if "MobileNet" in expected[0] else 0.0}


def test_suggestions_are_short_numbers_within_their_ends(in_tmp_path: Path) -> None:
    sweep = sweep_of(LR | MOMENTUM | {"batch_size": {"integers": [8, 32], "step": 8}, "backbone": [{"a": 1}, {"b": 2}]})
    study = optuna.create_study()
    seen = []
    for number in range(30):
        study.sampler = sampler(sweep, number)
        trial = study.ask()
        seen.append(space.suggested(trial, sweep.params))
        assert (
            space.suggested(optuna.Trial(study, trial._trial_id), sweep.params) == seen[-1]
        )  # asked by another driver
        study.tell(trial, 1.0)
    assert all(
        1e-6 <= values["lr"] <= 1e-3 and len(f"{values['lr']:e}".rstrip("0")) and values["batch_size"] % 8 == 0
        for values in seen
    )
    assert all(values["lr"] == float(f"{values['lr']:.3g}") for values in seen)
    assert {values["backbone"].get("a") for values in seen} == {1, None}
    assert {("fine_tune.optimizer.momentum" in v) == (v["fine_tune.optimizer.name"] == "sgd") for v in seen} == {True}


# --- What is read of a trial


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("step\tloss\n", []),
        ("step\tloss\n0\t0.9\n", []),  # the model before the phase
        ("step\tloss\n0\t0.9\n1\t0.5\n2\t0.", [(1, 0.5)]),  # the last line is still being written
        ("step\tloss\n0\t0.9\n1\t0.5\n2\t0.6\n", [(1, 0.5), (2, 0.6)]),
    ],
)
def test_a_curve_is_read_while_it_is_written(text: str, expected: Points) -> None:
    assert read_curve(text, LOSS) == expected


def test_the_best_epoch_counts_and_the_start_does_not() -> None:
    assert best_of([(1, 0.5), (2, 0.4), (3, 0.6)], LOSS) == 0.4
    assert best_of([(1, 0.5), (2, 0.4), (3, 0.6)], parse_objective("fine_tune/validation/accuracy")) == 0.6
    with pytest.raises(TemperError, match="expected epochs, found none"):
        best_of([], LOSS)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("Running stage 'x':\nerror: lr: too high\nERROR: failed to reproduce 'x': exited with 1\n", "lr: too high"),
        ("ERROR: failed to reproduce 'x': exited with -9\n", "failed to reproduce 'x': exited with -9"),
        ("something\n\n", "something"),
        ("", "it ended without a word"),
        (None, "it has no log"),
    ],
)
def test_why_a_trial_failed_is_said_by_its_log(tmp_path: Path, log: str | None, reason: str) -> None:
    path = tmp_path / "trial.log"
    if log is not None:
        path.write_text(log, encoding="utf-8")
    assert Experiment("e", [], "fine_tune", path).reason() == reason


def test_an_experiment_is_found_by_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)", "--name", f"toy-{tmp_path.name}"]
    assert leader(command[-1]) is None
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while leader(command[-1]) != process.pid:
            assert time.monotonic() < deadline
        assert leader("toy") is None
    finally:
        process.kill()
        process.wait()
    assert leader(command[-1]) is None


# --- What the search decides, by Optuna's own study, over trials that need no training


@dataclass
class ToyExperiment(Experiment):
    """A trial with a known curve, of which one more epoch is seen at each look."""

    curve: Points = field(default_factory=list)
    seen: int = 0
    ended: bool = False
    fails: str = ""

    def begin(self) -> None:
        BEGUN[self.name] += 1

    def is_running(self) -> bool:
        self.seen += 1
        return not self.ended and not self.fails and self.seen <= len(self.curve)

    def points(self, aim: Objective) -> Points:
        return self.curve[: self.seen]

    def commit(self) -> str:
        return "" if self.ended or self.fails else "c0ffee"

    def interrupt(self) -> None:
        self.ended = True

    def result(self, aim: Objective) -> tuple[float, Points]:
        return best_of(self.curve, aim), self.curve

    def has_run(self) -> list[str]:
        return ["fine_tune"]

    def reason(self) -> str:
        return self.fails


BEGUN: Counter[str] = Counter()
EPOCHS = 5


class ToySearch(Search):
    """A search whose trials follow from their values: the loss falls towards the distance of `lr` from 1e-4.

    After so many `looks` its driver dies, and writes nothing any more.
    """

    looks = 10**9

    def _look_at(self, one: Running) -> None:
        self.looks -= 1
        if self.looks < 0:
            self.running.clear()
            raise MemoryError("killed")
        super()._look_at(one)

    def experiment(self, values: space.Values, what: str) -> ToyExperiment:
        loss = abs(values["lr"] - 1e-4) * 1e4 + values.get("seed", 0) / 100
        curve = [(epoch, loss + 1 / epoch) for epoch in range(1, EPOCHS + 1)]
        fails = "the loss is not finite at step 12 (of 20)" if values["lr"] > TOO_HIGH else ""
        return ToyExperiment(f"toy-{what}", [], "fine_tune", Path(f"{what}.log"), curve=curve, fails=fails)


TOO_HIGH = 1.0
SPACE = {"lr": {"log": [1e-6, 1e-2]}, "fine_tune.epochs": [EPOCHS]}


class ToyTurns:
    """The turns of drivers within one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._lock:
            yield


TURNS: Any = ToyTurns()


@pytest.fixture
def searched(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ToySearch]:
    """Runs a toy search, in a study that is kept between calls."""
    monkeypatch.setattr("apps.sweep.search.POLL", 0)
    monkeypatch.setattr("apps.sweep.space.refuse_wrong_values", lambda *_: None)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    BEGUN.clear()

    storage = optuna.storages.InMemoryStorage()

    def run(
        params: dict[str, Any] = SPACE, name: str = "toy", run: bool = True, driver: str = "", **others: Any
    ) -> ToySearch:
        sweep = sweep_of(params, **({"trials": 12} | others))
        study = open_study(name, sweep, storage)
        drivers = Team(study, driver, TURNS) if driver else Alone()
        search = ToySearch(sweep, study, BASE, "sweep.yaml", drivers=drivers)
        if run:
            search.run()
        return search

    return run


def states(search: Search) -> Counter[str]:
    return Counter(trial.state.name for trial in search.trials())


def test_a_search_without_pruning_finishes_every_trial(searched: Callable[..., ToySearch]) -> None:
    search = searched(pruner="off", parallel=3)
    assert states(search) == {"COMPLETE": 12} and set(BEGUN.values()) == {1}
    best = search.best()
    assert best is not None and best.value == min(trial.value for trial in search.trials() if trial.value)
    assert {trial.user_attrs["commit"] for trial in search.trials()} == {"c0ffee"}


def test_bad_trials_are_pruned_after_the_first_ones_and_never_at_their_last_epoch(
    searched: Callable[..., ToySearch],
) -> None:
    search = searched(pruner={"name": "median", "after_trials": 3, "after_epochs": 2}, trials=20)
    count = states(search)
    assert count["PRUNED"] > 3 and count["COMPLETE"] > 3 and sum(count.values()) == 20
    for trial in search.trials():
        epochs = len(trial.intermediate_values)
        assert (2 < epochs < EPOCHS) if trial.state.name == "PRUNED" else epochs == EPOCHS
    assert [trial.state.name for trial in search.trials()][:3] == ["COMPLETE"] * 3
    last = {"name": "median", "after_trials": 1, "after_epochs": EPOCHS - 1}
    assert states(searched(name="last", pruner=last)) == {"COMPLETE": 12}


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_search_that_is_killed_goes_on_and_repeats_nothing(searched: Callable[..., ToySearch], parallel: int) -> None:
    whole = searched(name="whole", parallel=parallel)
    BEGUN.clear()
    for looks in (9, 17):
        dying = searched(run=False, parallel=parallel)
        dying.looks = looks
        with pytest.raises(MemoryError):
            dying.run()
        assert any(trial.state.name == "RUNNING" for trial in dying.trials())
    again = searched(parallel=parallel)
    assert len(again.trials()) == 12 and sum(states(again)[state] for state in ("COMPLETE", "PRUNED")) == 12
    values = [trial.user_attrs["values"] for trial in again.trials()]
    assert len(set(values)) == 12
    assert sum(BEGUN.values()) <= 12 + 2 * parallel
    if parallel == 1:  # what is tried follows from the number of the trial and what is known, not from the driver
        assert values == [trial.user_attrs["values"] for trial in whole.trials()]
    BEGUN.clear()
    assert states(searched(parallel=parallel)) == states(again) and not BEGUN


def test_a_failed_trial_stops_nothing_and_three_alike_do(
    searched: Callable[..., ToySearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TOO_HIGH", 3e-3)
    search = searched(sampler="random", trials=20)
    failed = [trial for trial in search.trials() if trial.state.name == "FAIL"]
    assert failed and states(search)["COMPLETE"] and len(search.trials()) == 20
    assert failed[0].user_attrs["reason"].startswith("the loss is not finite")
    monkeypatch.setitem(globals(), "TOO_HIGH", 0.0)
    with pytest.raises(TemperError, match="3 trials in a row failed: the loss is not finite .* start the sweep again"):
        searched(name="other", sampler="random", trials=20)


def test_a_search_ends_when_it_is_told_to(searched: Callable[..., ToySearch]) -> None:
    search = searched(trials=50, pruner="off", sampler="random", stop={"patience": 4})
    best = search.best()
    assert best is not None and len(search.trials()) == best.number + 1 + 4 < 50
    assert len(searched(name="late", stop={"hours": 1e-9}).trials()) == 0


def test_a_grid_is_tried_once_and_a_small_space_ends(searched: Callable[..., ToySearch]) -> None:
    params = {"lr": [1e-5, 1e-4, 1e-3], "aug": {"range": [0, 1], "step": 0.5, "when": {"lr": [1e-3]}}}
    search = searched(params, name="grid", sampler="grid", pruner="off", trials=None)
    tried = [json.loads(trial.user_attrs["values"]) for trial in search.trials()]
    assert tried == space.grid(search.sweep.params) and len(tried) == 5
    search = searched({"lr": [1e-5, 1e-4]}, name="small", pruner="off")  # 12 trials of 2 points
    assert len(search.trials()) == 2 and set(BEGUN.values()) == {1, 2}


def test_the_best_is_repeated_with_other_seeds_once(searched: Callable[..., ToySearch]) -> None:
    search = searched(pruner="off", seeds=3)
    best, before = search.best(), sum(BEGUN.values())
    assert best is not None and best.value is not None
    seeds = repeat_best(search)
    assert seeds == pytest.approx({str(seed): best.value + seed / 100 for seed in (1, 2, 3)})
    assert sum(BEGUN.values()) == before + 3 and repeat_best(search) == seeds
    assert sum(BEGUN.values()) == before + 3
    lines = report.summary(search, seeds)
    assert any("with 3 other seeds" in line and f"{best.value + 0.02:.5g}" in line for line in lines)
    assert lines[-1] == f"apply it: dvc exp apply {best.user_attrs['experiment']} && dvc repro"


def test_the_report_has_every_trial_and_draws_it(
    searched: Callable[..., ToySearch], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TOO_HIGH", 3e-3)
    search = searched(SPACE | {"aug": {"range": [0, 0.5]}}, sampler="random", seeds=0)
    report.write(search, {})
    shown = capsys.readouterr().out
    assert "importance: " in shown and f"{states(search)['PRUNED']} pruned" in shown
    folder = Path(".temper/sweeps/toy")
    rows = (folder / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 13 and rows[0].startswith(
        "experiment,fine_tune/validation/loss,state,epochs,lr,fine_tune.epochs"
    )
    assert rows[1].startswith("toy-") and ",finished,5," in rows[1] and "not finite" in rows[-1]
    assert {path.name for path in folder.glob("*.png")} == {
        "progress.png",
        "curves.png",
        "importances.png",
        "slices.png",
    }


def test_the_pictures_come_while_a_search_goes_on(searched: Callable[..., ToySearch]) -> None:
    search, seen = searched(run=False, pruner="off", trials=11), []

    def show(one: Search) -> None:
        report.keep(one)
        seen.append(len((Path(".temper/sweeps/toy") / "trials.csv").read_text(encoding="utf-8").splitlines()) - 1)
        assert (Path(".temper/sweeps/toy") / "curves.png").exists()

    search.show = show
    search.run()
    assert seen == [5, 10]


def test_a_sweep_goes_on_only_with_what_it_began_with(in_tmp_path: Path) -> None:
    def write(**changes: Any) -> Sweep:
        Path("params.yaml").write_text(yaml.safe_dump(BASE | changes), encoding="utf-8")
        return sweep_of(LR)

    subprocess.run(["git", "init", "-q"], check=True)
    Path("stages").mkdir()
    code, path, study = Path("stages/embed.py"), Path("sweep.yaml"), optuna.create_study()
    code.write_text("1\n")
    comparable.refuse_another(study, comparable.identity(write()), path)
    study.ask()
    for allowed in ({"lr": 0.5}, {"trackers": {"tensorboard": True}}):  # searched, or told to others
        comparable.refuse_another(study, comparable.identity(write(**allowed)), path)
    with pytest.raises(TemperError, match="since then params.yaml changed.*under another name"):
        comparable.refuse_another(study, comparable.identity(write(batch_size=8)), path)
    code.write_text("2\n")
    with pytest.raises(TemperError, match="since then the code in dvc.yaml, stages/ and temper/ changed"):
        comparable.refuse_another(study, comparable.identity(write()), path)
    code.write_text("1\n")
    Path("dvc.lock").write_text(
        "stages: {normalize: {outs: [{path: data/images.parquet, md5: a}, {path: data/audit, md5: b}]}}"
    )
    with pytest.raises(TemperError, match="since then data/images.parquet changed"):  # or another clone has others
        comparable.refuse_another(study, comparable.identity(write()), path)
    assert "data/images.parquet" not in comparable.identity(sweep_of({"seed": [1, 2]}))
    Path("dvc.lock").unlink()
    with pytest.raises(TemperError, match="its own params or objective changed"):
        write()
        comparable.refuse_another(study, comparable.identity(sweep_of({"lr": [1]})), path)


def write_what_is_compared(params: dict[str, Any] = BASE, code: str = "1") -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    Path("stages").mkdir(exist_ok=True)
    Path("stages/embed.py").write_text(code)


def test_an_edit_during_a_sweep_stops_it_before_the_next_trial(
    searched: Callable[..., ToySearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    write_what_is_compared()

    def begin(one: ToyExperiment) -> None:
        BEGUN[one.name] += 1
        if sum(BEGUN.values()) == edited_after:
            write_what_is_compared(code="2")

    def search(run: bool = True) -> ToySearch:
        one = searched(pruner="off", seeds=3, run=False)
        one.refuse_edits = lambda: comparable.refuse_edits(one.study, one.sweep, Path("sweep.yaml"), 0)
        if run:
            one.run()
        return one

    monkeypatch.setattr(ToyExperiment, "begin", begin)
    edited_after = 3
    comparable.refuse_another(search(run=False).study, comparable.identity(sweep_of(SPACE)), Path("sweep.yaml"))
    changed = "sweep.yaml: expected what the sweep began with .* since then the code in .* changed"
    with pytest.raises(TemperError, match=changed):
        search()
    assert sum(BEGUN.values()) == 3
    write_what_is_compared()
    edited_after = 0
    whole = search()  # goes on with the trial that was about to begin
    assert states(whole) == {"COMPLETE": 12} and sum(BEGUN.values()) == 12
    write_what_is_compared(code="2")
    with pytest.raises(TemperError, match=changed):
        repeat_best(whole)
    assert sum(BEGUN.values()) == 12


def test_what_dvc_changes_for_a_moment_is_no_edit(in_tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    write_what_is_compared()
    study, sweep = optuna.create_study(), sweep_of(LR)
    comparable.refuse_another(study, comparable.identity(sweep), Path("sweep.yaml"))
    study.ask()
    write_what_is_compared(BASE | {"seed": 1})  # as it begins a repetition with another seed
    soon = threading.Timer(0.2, write_what_is_compared)
    soon.start()
    try:
        comparable.refuse_edits(study, sweep, Path("sweep.yaml"), 20)
    finally:
        soon.join()


# --- Pruning by what a curve would reach


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.5, 0.6, 0.7], 0.7 + 0.1 * 5),
        ([0.5, 0.7, 0.6], 0.7 + 0.1 * 5),  # the best so far, in all the epochs that it has come to
        ([0.6, 0.5, 0.4], 0.6),  # a falling curve stands still
        ([None, 0.5, 0.6], 0.6 + 0.1 * 5),
        ([None, None], float("-inf")),
        ([0.5], 0.5),
    ],
)
def test_a_curve_reaches_what_its_line_reaches(curve: list[float | None], expected: float) -> None:
    assert reached(list(enumerate(curve, 1)), 8) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("direction", "curve", "is_pruned"),
    [
        ("maximize", [0.3, 0.4, 0.5], False),  # would come to 1.0
        ("maximize", [0.55, 0.55, 0.55], True),
        ("maximize", [0.3, 0.4], False),  # too early
        ("maximize", [0.2] * 8, False),  # the last epoch: it is finished
        ("maximize", [float("nan")] * 3, True),
        ("maximize", [0.6, 0.6, 0.6], False),  # as good as the best
        ("minimize", [1.6, 1.2, 0.9], False),
        ("minimize", [0.7, 0.7, 0.7], True),
        ("minimize", [66.0, 40.0, 30.0], True),  # a line through losses would fall below zero
    ],
)
def test_what_would_not_come_up_to_the_best_is_pruned(direction: str, curve: list[float], is_pruned: bool) -> None:
    pruner = ReachPruner(Reach(name="reach", after_trials=2, after_epochs=2))
    study = optuna.create_study(direction=direction, pruner=pruner)
    study.add_trials([optuna.create_trial(value=value) for value in (0.5, float("inf"))])
    for epochs, known, expected in ((8, 1, False), (8, 2, is_pruned), (None, 2, False)):
        study.add_trials([optuna.create_trial(value=0.6)] if known == 2 and epochs else [])
        trial = study.ask()
        trial.set_user_attr("epochs", epochs)
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
        assert trial.should_prune() == expected, (epochs, known)


# --- Several drivers of one study


def test_drivers_share_the_trials_and_the_seeds_and_do_none_twice(
    searched: Callable[..., ToySearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(search: ToySearch) -> bool:
        may = Search._may_begin(search)
        time.sleep(0.01)  # in which others may come to the same conclusion
        return may

    monkeypatch.setattr(ToySearch, "_may_begin", slowly)
    monkeypatch.setattr("apps.sweep.search.POLL", 0.001)
    found: dict[str, dict[str, float]] = {}

    def drive(name: str) -> None:
        search = searched(run=False, driver=name, pruner="off", parallel=2, seeds=4, trials=10)
        with search.drivers:
            meeting.wait()
            search.run()
            found[name] = repeat_best(search)

    meeting = threading.Barrier(3)
    threads = [threading.Thread(target=drive, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    search = searched(run=False, driver="d")
    assert states(search) == {"COMPLETE": 10} and len({trial.user_attrs["values"] for trial in search.trials()}) == 10
    assert {trial.user_attrs["driver"] for trial in search.trials()} == {"a", "b", "c"}
    assert sum(BEGUN.values()) == 14 and set(BEGUN.values()) == {1}
    assert set(found["a"]) == {"1", "2", "3", "4"} and found["a"] == found["b"] == found["c"]
    assert {search.study.user_attrs[f"driver {name}"] for name in "abc"} == {None}  # they have left


def test_the_trials_of_a_dead_driver_are_done_by_another(
    searched: Callable[..., ToySearch], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("apps.sweep.search.POLL", 0.01)
    monkeypatch.setattr("apps.sweep.drivers.GRACE", 0.5)
    monkeypatch.setattr("apps.sweep.drivers.BEAT", 0.05)
    dead: Any = searched(run=False, driver="dead")
    dead.looks = 9
    dead.drivers.__enter__()
    with pytest.raises(MemoryError):
        dead.run()
    number = next(trial.number for trial in dead.trials() if trial.state.name == "RUNNING")
    early = searched(run=False, driver="early", trials=number + 1)
    with early.drivers:
        assert early._step() and not early.running and "waiting for what dead still runs" in capsys.readouterr().out
        dead.drivers._ends.set()  # without a word
        early.run()
    assert f"-{number:04}: its driver dead is dead, so this driver continues it" in capsys.readouterr().out
    taken = early.trials()[number]
    assert taken.user_attrs["driver"] == "early" and taken.user_attrs["experiment"].endswith(f"{number:04}-2")
    assert sum(states(early).values()) == number + 1 and not states(early)["RUNNING"]


def test_a_driver_that_was_silent_leaves_its_trial_to_who_took_it(
    searched: Callable[..., ToySearch], capsys: pytest.CaptureFixture[str]
) -> None:
    slow = searched(run=False, driver="slow", trials=1)
    slow._step()
    one = slow.running[0]
    one.trial.set_user_attr("driver", "quick")
    slow._step()
    assert "was taken over by another driver" in capsys.readouterr().out
    assert not slow.running and isinstance(one.experiment, ToyExperiment) and one.experiment.ended
    assert states(slow) == {"RUNNING": 1}


def test_a_server_that_is_away_for_a_while_ends_nothing(
    searched: Callable[..., ToySearch], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("apps.sweep.drivers.BEAT", 0.0)
    search, away = searched(run=False, driver="a", pruner="off", trials=3), [3]
    get_trials = search.study.get_trials

    def sometimes(*arguments: Any, **named: Any) -> Any:
        away[0] -= 1
        if away[0] in range(-20, 0, 3):
            raise optuna.exceptions.StorageInternalError("the server was shut down")
        return get_trials(*arguments, **named)

    monkeypatch.setattr(search.study, "get_trials", sometimes)
    search.run()
    assert (
        states(search) == {"COMPLETE": 3} and "does not answer: trying again for 10 minutes" in capsys.readouterr().out
    )
    monkeypatch.setattr("apps.sweep.drivers.PATIENCE", 0.0)
    away[0] = 0
    with pytest.raises(
        TemperError, match="the server of the study: the server was shut down; run the same command again to continue"
    ):
        search.run()


def test_an_address_and_the_name_of_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPS", raising=False)
    with pytest.raises(TemperError, match="s.yaml: expected the environment variable SWEEPS to hold an address"):
        address("$SWEEPS", "s.yaml")
    monkeypatch.setenv("SWEEPS", "secretpassword")
    for given, place in (("$SWEEPS", "in SWEEPS"), ("postgresql://me:secretpassword@host/x", "as storage")):
        with pytest.raises(TemperError, match=f"expected postgresql.psycopg://... .* {place}") as raised:
            address(given, "s.yaml")
        assert "secretpassword" not in str(raised.value)
    for url in ("postgresql+psycopg://me:secret-1@[host/x", "mysql+pymysql://me:secret-1@127.0.0.1:1/x"):
        with pytest.raises(TemperError) as raised:
            Turns(url)
        said = str(raised.value)
        assert "secret-1" not in said and ("://***@" in said or "to be installed" in said)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    name = own_name(Path())
    assert own_name(Path()) == name
    shutil.copy("driver.json", tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    assert own_name(Path()) != name


# --- By the real dvc


def left(workspace: Workspace) -> list[str]:
    """What experiments should not leave: copies of the repository, unfinished phases, processes."""
    folder = workspace.folder
    found = [*folder.glob(".dvc/tmp/exps/standalone/tmp*"), *folder.glob(".temper/unfinished/*")]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process)
    return [str(path) for path in found]


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_with_all_its_trials(pipeline: Workspace) -> None:
    """Nothing before the fine-tune runs; no trial twice; what is pruned leaves nothing; the best can be applied."""
    folder = pipeline.folder
    pipeline.set(fine_tune__epochs=6)
    content: dict[str, Any] = {"params": LR | {"aug": {"range": [0, 0.5]}}, "trials": 5, "parallel": 2, "seeds": 0}
    content["pruner"] = {"name": "reach", "after_epochs": 1}
    (folder / "quick.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    driver, moment = pipeline.start("python -m apps.sweep quick.yaml"), random.uniform(0, 8)
    while not list(folder.glob(".temper/sweeps/quick/trial-*.log")):
        assert driver.poll() is None, driver.stdout and driver.stdout.read()
        time.sleep(0.05)
    time.sleep(moment)
    driver.kill()
    driver.communicate()
    output = pipeline.run("python -m apps.sweep quick.yaml")
    study = optuna.load_study(study_name="quick", storage=f"sqlite:///{folder / '.temper/sweeps/quick/study.db'}")
    names = [trial.state.name for trial in study.trials]
    assert len(names) == 5 and set(names) <= {"COMPLETE", "PRUNED"}, f"killed after {moment:.2f} s\n{output}"
    assert len({trial.user_attrs["values"] for trial in study.trials}) == 5
    assert {stage for trial in study.trials for stage in trial.user_attrs["ran"]} <= {"boundary", "fine_tune"}
    # What was pruned is no result: neither an experiment nor in the run cache.
    kept = [path for path in folder.glob(".dvc/cache/runs/*/*/*") if "stages.fine_tune" in path.read_text()]
    assert len(kept) == 1 + names.count("COMPLETE")  # and the run that the pipeline began with
    experiments = pipeline.run("git for-each-ref --format='%(refname:lstrip=-1)' refs/exps").split()
    assert len([name for name in experiments if name.startswith("quick-")]) == names.count("COMPLETE")
    assert left(pipeline) == []
    assert pipeline.run("git status --short") == " M params.yaml\n?? quick.yaml\n"
    pipeline.run(f"dvc exp apply {study.best_trial.user_attrs['experiment']}")
    assert ran(pipeline.run("dvc repro fine_tune")) == []
    curve = (folder / "metrics/fine_tune/plots/metrics/validation/loss.tsv").read_text(encoding="utf-8")
    assert best_of(read_curve(curve, LOSS), LOSS) == study.best_value


@pytest.mark.slow
def test_two_clones_share_a_sweep_on_a_server_and_one_dies(pipeline: Workspace, tmp_path: Path) -> None:
    """A machine that dies in its first trial loses none: the other clone does that one too, and each only once."""
    pytest.importorskip("psycopg", reason="make sweep installs it")
    if servers.programs() is None:
        pytest.skip("no PostgreSQL on this machine")
    content = {"params": LR, "trials": 3, "seeds": 0, "pruner": "off", "storage": "$SWEEPS"}
    (pipeline.folder / "team.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    pipeline.commit("a sweep")
    for command in (f"git init -q --bare {tmp_path / 'git'}", f"git remote add origin {tmp_path / 'git'}"):
        pipeline.run(command)
    pipeline.run(f"dvc remote add -q -d store {tmp_path / 'store'}")
    pipeline.commit("where to")
    pipeline.run("git push -q origin HEAD")
    other = pipeline.copy(tmp_path / "other")
    with servers.postgres() as url:
        for clone in (pipeline, other):
            clone.environment = clone.environment | {"SWEEPS": url}
        dying, living = (one.start("python -m apps.sweep team.yaml") for one in (other, pipeline))
        while not other.folder.glob(".dvc/tmp/exps/run/*/*.run") or "Running stage 'fine_tune'" not in said_by(other):
            assert dying.poll() is None, dying.communicate()
            time.sleep(0.05)
        for process in (dying.pid, leader(name_of_running(other))):
            assert process is not None
            (os.kill if process == dying.pid else os.killpg)(process, signal.SIGKILL)
        output, _ = living.communicate()
        assert living.returncode == 0 and "is dead, so this driver continues it" in output, output
        late = other.run("python -m apps.sweep team.yaml")  # comes back: nothing is left to do
        storage = optuna.storages.RDBStorage(url)
        study = optuna.load_study(study_name="team", storage=storage)
        trials, best = study.trials, study.best_trial.user_attrs["experiment"]
        storage.engine.dispose()
    assert servers.PASSWORD not in output + late
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert len({trial.user_attrs["values"] for trial in trials}) == 3
    owners = {trial.user_attrs["driver"] for trial in trials}
    assert len(owners) == 1 and sum("taken over" in trial.user_attrs for trial in trials) == 1
    kept = pipeline.run("git for-each-ref --format='%(refname:lstrip=-1)' refs/exps").split()
    assert {trial.user_attrs["experiment"] for trial in trials} <= set(kept)
    assert f"type dvc exp push origin {best}, and here, dvc exp pull origin {best}" in late
    pipeline.run(f"dvc exp push -q origin {best}")
    other.run(f"dvc exp pull -q origin {best}")
    other.run(f"dvc exp apply {best}")
    assert ran(other.run("dvc repro fine_tune")) == []


def said_by(clone: Workspace) -> str:
    """The logs of a sweep's trials."""
    return "".join(path.read_text(encoding="utf-8") for path in clone.folder.glob(".temper/sweeps/team/trial-*.log"))


def name_of_running(clone: Workspace) -> str:
    """The name of the experiment that runs in a clone."""
    note = next(clone.folder.glob(".dvc/tmp/exps/run/*/*.run"))
    return str(json.loads(note.read_text(encoding="utf-8"))["name"])


@pytest.mark.slow
def test_networks_are_compared_by_their_warm_up(pipeline: Workspace) -> None:
    content: dict[str, Any] = {
        "params": {"backbone.pooling": ["avg", "concat"]},
        "objective": "warm_up/validation/accuracy",
    }
    content |= {"sampler": "grid", "seeds": 0, "parallel": 2}
    (pipeline.folder / "networks.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    output = pipeline.run("python -m apps.sweep networks.yaml")
    header = (
        r"warm_up/validation/accuracy +warm_up/validation/loss +state +backbone.pooling +features +megabytes +images"
    )
    assert re.search(header, output)
    rows = {line.split()[4]: line.split()[5] for line in output.splitlines() if re.match(r"networks-\w+-\d+ ", line)}
    assert int(rows["concat"]) == 2 * int(rows["avg"])
    assert "fine_tune" not in output.partition("stages that ran: ")[2].splitlines()[0]
    # What would make trials incomparable, or run again what they have in common:
    pipeline.set(image_size=24)
    refused = pipeline.run("python -m apps.sweep networks.yaml", code=1)
    assert re.fullmatch(r"error: networks.yaml: .*since then params.yaml changed.*\n", refused)
    pipeline.run("cp networks.yaml other.yaml")
    refused = pipeline.run("python -m apps.sweep other.yaml", code=1)
    assert re.fullmatch(
        r"error: other.yaml: .*before backbone .*pack.* would run: start dvc repro warm_up.*\n", refused
    )
