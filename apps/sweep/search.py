"""The search: decides which trials to run, which to prune, and when to end. Optuna's study holds its state.

A driver is a process that runs a search. A driver that is killed loses nothing: its trials stay RUNNING in the study,
and the next driver continues them under their own numbers. It reads the results of those that have finished meanwhile,
watches those that still run, and restarts those that died.
"""

import json
import random
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from apps.sweep import space
from apps.sweep.drivers import Alone
from apps.sweep.experiments import Experiment, Points
from apps.sweep.pruning import EPOCHS, pruner_of
from apps.sweep.settings import Objective, Sweep
from apps.sweep.space import Values
from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.settings.fine_tune import FineTune

POLL = 0.5  # seconds between two looks at the trials
EPOCHS_BY_DEFAULT: int = FineTune.model_fields["epochs"].default
MOST_ALIKE = 3  # failures in a row for one reason end the search: the next trial would fail too
MOST_REPEATED = 20  # suggestions in a row that were tried before end the search: hardly any others are left
SHOWN_EVERY = 5  # trials between two drawings of the pictures, each of which takes seconds
OTHER = "other"  # user attribute of a trial: metrics for the table besides the objective
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def folder_of(name: str) -> Path:
    """The folder of a sweep, with its study (if on SQLite), the logs of its trials, and its pictures."""
    return scratch("sweeps") / name


def open_study(
    name: str,
    sweep: Sweep,
    storage: optuna.storages.BaseStorage | None = None,
    turn: AbstractContextManager[None] | None = None,
) -> optuna.Study:
    """Loads the study of a sweep, or creates it; on SQLite if no storage is given.

    Args:
        turn: the lock that keeps other drivers from creating the same study at the same time.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder_of(name).mkdir(exist_ok=True)
    with turn or nullcontext():
        study = optuna.create_study(
            storage=storage or f"sqlite:///{folder_of(name) / 'study.db'}",
            study_name=name,
            load_if_exists=True,
            direction="maximize" if sweep.aim.maximize else "minimize",
            pruner=pruner_of(sweep.pruning),
        )
        if "names" not in study.user_attrs:  # older experiments of this sweep's name may exist
            study.set_user_attr("names", f"{name}-{secrets.token_hex(2)}")
    return study


def sampler(sweep: Sweep, number: int) -> BaseSampler:
    """The sampler of a trial.

    Its seed depends only on the sweep's seed and the trial's number, so a restarted search draws the same random
    numbers as one that was not interrupted.
    """
    seed = random.Random(f"{sweep.seed} {number}").getrandbits(32)
    return TPESampler(seed=seed) if sweep.sampler == "tpe" else RandomSampler(seed=seed)


@dataclass
class Running:
    """A trial that this driver runs.

    Attributes:
        epochs: the maximum number of epochs of the trial; `None` if its objective has no curve.
        reported: how many epochs of its curve are in the study.
        is_pruned: whether it was interrupted in order to prune it.
    """

    trial: optuna.Trial
    values: Values
    experiment: Experiment
    epochs: int | None
    reported: int = 0
    is_pruned: bool = False


@dataclass
class Search:
    """The part of a sweep that one driver does.

    Attributes:
        base: the content of params.yaml.
        path: the path of SWEEP.yaml, for messages.
        refuse_edits: called before each trial; raises a TemperError if the trial would not be comparable with earlier
            ones.
        drivers: this driver: alone, or in a team.
        show: called after every fifth trial, to write the table and the pictures so far.
        has_waited: whether this driver only waits for trials of other drivers.
        running: the trials that this driver runs.
        failures: why the last trials of this driver failed; empty after a trial that finished.
        begun: when this driver was started, by time.monotonic.
    """

    sweep: Sweep
    study: optuna.Study
    base: dict[str, Any]
    path: str
    refuse_edits: Callable[[], None] = lambda: None
    drivers: Alone = field(default_factory=Alone)
    show: Callable[["Search"], object] = lambda search: None
    has_waited: bool = False
    running: list[Running] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def aim(self) -> Objective:
        """The objective."""
        return self.sweep.aim

    def run(self) -> None:
        """Runs trials until the search is over and no other driver runs a trial.

        Running experiments are interrupted if an error ends the search.

        Raises:
            TemperError: several trials in a row failed for the same reason, or something was edited meanwhile.
            KeyboardInterrupt: Ctrl-C. The next search continues the interrupted trials.
        """
        try:
            while self.patiently(self._step):
                time.sleep(POLL)
        finally:
            for one in self.running:
                one.experiment.end()

    def patiently(self, step: Callable[[], bool]) -> bool:
        """Calls `step`, and returns whether there is more to do.

        If the database server does not answer, waits and returns True, so that the caller tries again.
        """
        try:
            more = step()
        except self.drivers.lost as error:
            self.drivers.wait(error)
            return True
        self.drivers.answered()
        return more

    def _step(self) -> bool:
        """Starts new trials and looks at the running ones; returns whether there is more to do."""
        while self._begin():
            pass
        if not self.running:
            return self._waits()
        for one in list(self.running):
            self._look_at(one)
        self._refuse_to_fail_again()
        return True

    def _waits(self) -> bool:
        """Whether other drivers still run trials, one of which may become the best; prints their names once."""
        theirs = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        if theirs and not self.has_waited:
            names = sorted({str(trial.user_attrs.get("driver")) for trial in theirs})
            print(f"waiting for what {', '.join(names)} still runs", flush=True)
        self.has_waited = bool(theirs)
        return bool(theirs)

    # --- Which trials are run

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials of the study in order, without those that only repeated earlier values and were not run."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if "repeats" not in trial.user_attrs]

    def _may_begin(self) -> bool:
        """Whether `trials` and `stop` allow another trial."""
        known = [trial for trial in self.trials() if trial.state != TrialState.WAITING]
        if self.sweep.trials is not None and len(known) >= self.sweep.trials:
            return False
        hours, patience = self.sweep.stop.hours, self.sweep.stop.patience
        if hours is not None and time.monotonic() - self.begun > hours * 3600:
            return False
        best = self.best()
        return patience is None or best is None or self._since(best) < patience

    def _since(self, best: FrozenTrial) -> int:
        """How many trials have ended after the best one."""
        ended = sorted(self.trials(*ENDED), key=lambda trial: str(trial.datetime_complete))
        return len(ended) - 1 - [trial.number for trial in ended].index(best.number)

    def best(self) -> FrozenTrial | None:
        """The best finished trial so far; of equal ones, the first."""
        complete = self.trials(TrialState.COMPLETE)
        sign = -1 if self.aim.maximize else 1
        return min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    def _begin(self) -> bool:
        """Starts a trial: one that no driver runs any more, or else a new one. Returns whether it started one."""
        if not self._free() and not self._has_room():
            return False
        with self.drivers.turn():
            chosen = self._taken_up() or (self._suggested() if self._has_room() else None)
        if chosen is not None:
            self._start(*chosen)
        return chosen is not None

    def _has_room(self) -> bool:
        """Whether this driver should start a new trial."""
        return len(self.running) < self.sweep.parallel and self._may_begin()

    def _free(self) -> list[FrozenTrial]:
        """The trials that are RUNNING in the study but that no driver runs.

        These are this driver's own from before a restart and, if there is room for them, those of dead drivers.
        """
        known, has_room = {one.trial.number for one in self.running}, len(self.running) < self.sweep.parallel
        found = []
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            owner = trial.user_attrs.get("driver")
            if trial.number in known or not self.drivers.is_free(owner):
                continue
            if has_room or owner == self.drivers.name:
                found.append(trial)
        return found

    def _taken_up(self) -> tuple[optuna.Trial, Values] | None:
        """Takes over a trial that no driver runs; returns it with its values, or `None` if there is none."""
        for frozen in self._free():
            self.study.sampler = sampler(self.sweep, frozen.number)
            trial, owner = optuna.Trial(self.study, frozen._trial_id), frozen.user_attrs.get("driver")
            if owner not in (None, self.drivers.name):
                trial.set_user_attr("taken over", frozen.user_attrs.get("taken over", 0) + 1)
                print(
                    f"{frozen.user_attrs.get('experiment', frozen.number)}: its driver {owner} is dead, so this driver "
                    "continues it",
                    flush=True,
                )
            values = self._values_of(trial)
            if values is not None:
                return trial, values
        return None

    def _suggested(self) -> tuple[optuna.Trial, Values] | None:
        """A new trial with values that no other trial has; `None` if the grid is exhausted.

        If 20 suggestions in a row were tried before, returns `None` too, and starts no more trials.
        """
        for _ in range(MOST_REPEATED):
            if self.sweep.sampler == "grid" and not self._choose_of_grid():
                return None
            self.study.sampler = sampler(self.sweep, len(self.study.get_trials(deepcopy=False)))
            trial = self.study.ask()
            values = self._values_of(trial)
            if values is not None:
                return trial, values
        print(f"ending the search: the last {MOST_REPEATED} suggestions repeated earlier trials", flush=True)
        self.sweep = self.sweep.model_copy(update={"trials": len(self.trials())})
        return None

    def _values_of(self, trial: optuna.Trial) -> Values | None:
        """Makes this driver the owner of a trial, and returns the trial's values.

        If another trial already has these values, marks this trial as a repetition, ends it, and returns `None`.
        """
        trial.set_user_attr("driver", self.drivers.name)
        values = space.suggested(trial, self.sweep.params)
        before = next((other for other in self.trials() if self._has(other, values, trial.number)), None)
        if before is None:
            trial.set_user_attr("values", json.dumps(values))
            return values
        trial.set_user_attr("repeats", before.number)
        self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _has(self, trial: FrozenTrial, values: Values, number: int) -> bool:
        """Whether `trial` has these values and is not the trial `number` itself.

        Values count once they are recorded, which is not yet so for a trial that Optuna has only just created.
        """
        return trial.number != number and bool(trial.user_attrs.get("values") == json.dumps(values))

    def _choose_of_grid(self) -> bool:
        """Enqueues the first point of the grid that was not tried, unless a point is waiting already.

        Returns whether a point is waiting then; if not, all of the grid was tried.
        """
        if self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
            return True
        tried = {trial.user_attrs.get("values") for trial in self.trials()}
        for values in space.grid(self.sweep.params):
            if json.dumps(values) not in tried:
                self.study.enqueue_trial(space.to_optuna(self.sweep.params, values))
                return True
        return False

    def _start(self, trial: optuna.Trial, values: Values) -> None:
        """Starts the experiment of a trial, unless it runs or has finished already. Wrong values fail the trial."""
        section = space.changed(self.base, self.sweep.params, values).get(self.aim.stage) or {}
        epochs = section.get("epochs", EPOCHS_BY_DEFAULT) if self.aim.is_curve else None
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        times = frozen.user_attrs.get("taken over", 0)  # the old clone may have an experiment of the old name
        one = Running(
            trial, values, self.experiment(values, f"{trial.number:04}{f'-{times + 1}' if times else ''}"), epochs
        )
        one.reported = len(frozen.intermediate_values)
        trial.set_user_attr("experiment", one.experiment.name)
        trial.set_user_attr(EPOCHS, epochs)
        try:
            space.refuse_wrong_values(self.base, self.sweep.params, values, self.path)
        except TemperError as error:
            self.running.append(one)
            self._fail(one, str(error))
            return
        self.refuse_edits()
        self.running.append(one)
        one.experiment.begin()

    def experiment(self, values: Values, what: str) -> Experiment:
        """The experiment that runs the pipeline with some values; `what` tells its name and log from others."""
        name = f"{self.study.user_attrs['names']}-{what}"
        log = folder_of(self.study.study_name) / f"{'' if 'seed' in what else 'trial-'}{what}.log"
        return Experiment(name, space.overrides(self.base, self.sweep.params, values), self.aim.stage, log)

    # --- How running trials are followed and ended

    def _look_at(self, one: Running) -> None:
        """Reports new epochs of a running trial, prunes it if it should be, or records the result if it has ended."""
        if self._is_lost(one):
            one.experiment.end()
            self.running.remove(one)
            print(
                f"{one.experiment.name} was taken over by another driver: this one was silent for too long", flush=True
            )
            return
        running = one.experiment.is_running()  # before the results are read, or the last could be missed
        if running:
            more = self._report(one, one.experiment.points(self.aim))
            if one.is_pruned or (more and one.reported != one.epochs and one.trial.should_prune()):
                one.is_pruned = True
                one.experiment.prune()
        else:
            one.experiment.forget()
            commit = one.experiment.commit()
            if commit:  # also of a trial that finished just before it was pruned
                self._finish(one, commit)
            elif one.is_pruned:
                self._end(one, TrialState.PRUNED)
            else:
                self._fail(one, one.experiment.reason())

    def _is_lost(self, one: Running) -> bool:
        """Whether another driver has taken a trial over, because it saw no heartbeat of this one."""
        now = self.study.get_trials(deepcopy=False)[one.trial.number]
        return bool(now.state != TrialState.RUNNING or now.user_attrs.get("driver") != self.drivers.name)

    def _report(self, one: Running, points: Points) -> bool:
        """Reports new epochs of the curve to the study; returns whether there are any."""
        new = points[one.reported :]
        for epoch, value in new:
            one.trial.report(value, epoch)
        one.reported += len(new)
        return bool(new)

    def _finish(self, one: Running, commit: str) -> None:
        try:
            value, points = one.experiment.result(self.aim)
        except TemperError as error:
            self._fail(one, str(error))
            return
        self._report(one, points)
        one.trial.set_user_attr("commit", commit)
        one.trial.set_user_attr(OTHER, one.experiment.other(self.aim))
        self._end(one, TrialState.COMPLETE, value)
        self.failures.clear()

    def _fail(self, one: Running, reason: str) -> None:
        one.trial.set_user_attr("reason", reason)
        self._end(one, TrialState.FAIL)
        self.failures.append(reason)

    def _end(self, one: Running, state: TrialState, value: float | None = None) -> None:
        one.trial.set_user_attr("ran", one.experiment.has_run())
        self.study.tell(one.trial, value, state)
        self.running.remove(one)
        print(self._said(one, self.study.trials[one.trial.number]), flush=True)
        if len(self.trials(*ENDED)) % SHOWN_EVERY == 0:
            self.show(self)

    def _said(self, one: Running, ended: FrozenTrial) -> str:
        """The line that is printed about a trial that has ended."""
        of = "" if self.sweep.trials is None else f" of {self.sweep.trials}"
        done = f"{len(self.trials(*ENDED))}{of}: {one.experiment.name}"
        best = self.best()
        so_far = "" if best is None else f"; best so far {best.value:.5g} ({best.user_attrs['experiment']})"
        if ended.state == TrialState.FAIL:
            came_to = f"failed: {ended.user_attrs['reason']}"
        elif ended.state == TrialState.PRUNED:
            came_to = f"pruned after epoch {one.reported}"
        else:
            came_to = f"{ended.value:.5g}"
        return f"{done} {came_to} ({space.in_words(one.values, self.sweep.params)}){so_far}"

    def _refuse_to_fail_again(self) -> None:
        """Ends a search whose trials keep failing.

        Raises:
            TemperError: the last three trials failed for the same reason; numbers in the messages may differ.
        """
        last = self.failures[-MOST_ALIKE:]
        if len(last) == MOST_ALIKE and len({re.sub(r"\(.*\)$|\d[\d.e-]*", "#", reason) for reason in last}) == 1:
            raise TemperError(f"{MOST_ALIKE} trials in a row failed: {last[-1]}; fix that, then start the sweep again")
