"""Runs the best trial again with other seeds, shared among the drivers, to show how much of its result was luck."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from apps.sweep import search as searching
from apps.sweep.experiments import Experiment
from apps.sweep.search import Search
from temper.base.errors import TemperError


def repeat_best(search: Search) -> dict[str, float]:
    """Runs the best trial with other seeds; returns the objective by seed.

    Without a finished trial, with `seeds: 0`, or if the sweep itself searches `seed`, runs nothing and returns {}.

    `seed` controls all randomness: the draw of the splits, random initial weights, the order of the images, dropout and
    augmentation. The trial was chosen on one validation split, so the repetitions should use other splits too.

    Raises:
        TemperError: one of the runs failed.
    """
    best = search.best()
    if best is None or not search.sweep.seeds or "seed" in search.sweep.params:
        return {}
    seeds = [str(int(search.base["seed"]) + number) for number in range(1, search.sweep.seeds + 1)]
    repetition = Repetition(search, best, seeds)
    try:
        while search.patiently(repetition.step):
            time.sleep(searching.POLL)
    finally:
        for one in repetition.running.values():
            one.end()
    return repetition.found()


@dataclass
class Repetition:
    """The runs of the best trial with other seeds. The study records which driver runs which seed, and the results.

    Attributes:
        best: the trial to repeat.
        seeds: the seeds as text, because they are keys of JSON objects in the study.
        running: the experiments that this driver runs, by seed.
        is_said: whether the line that announces the runs was printed.
    """

    search: Search
    best: FrozenTrial
    seeds: list[str]
    running: dict[str, Experiment] = field(default_factory=dict)
    is_said: bool = False

    def found(self) -> dict[str, float]:
        """The objective of each run that has finished, by seed."""
        return dict(self.search.study.user_attrs.get(f"seeds of {self.best.number}", {}))

    def owners(self) -> dict[str, str]:
        """The name of the driver that runs, or ran, each seed."""
        return dict(self.search.study.user_attrs.get(f"drivers of the seeds of {self.best.number}", {}))

    def step(self) -> bool:
        """Starts runs and records those that have ended; returns whether any driver still has runs to do."""
        found = self.found()
        if all(seed in found for seed in self.seeds):
            return False
        if not self.is_said:
            waiting = [seed for seed in self.seeds if seed not in found]
            print(f"the best once more, with the seeds {', '.join(waiting)}", flush=True)
            self.is_said = True
        while len(self.running) < self.search.sweep.parallel and self._begin():
            pass
        for seed, one in [(seed, one) for seed, one in self.running.items() if not one.is_running()]:
            self._end(seed, one)
        return True

    def _begin(self) -> bool:
        if not self._free():
            return False
        self.search.refuse_edits()
        with self.search.drivers.turn():
            free = self._free()
            if free:
                self._keep("drivers of the seeds", self.owners() | {free[0]: self.search.drivers.name})
        if free:
            values = json.loads(self.best.user_attrs["values"]) | {"seed": int(free[0])}
            self.running[free[0]] = self.search.experiment(values, f"{self.best.number:04}-seed-{free[0]}")
            self.running[free[0]].begin()
        return bool(free)

    def _free(self) -> list[str]:
        """The seeds that have no result and that no driver runs."""
        known, owners = {*self.found(), *self.running}, self.owners()
        return [seed for seed in self.seeds if seed not in known and self.search.drivers.is_free(owners.get(seed))]

    def _end(self, seed: str, one: Experiment) -> None:
        if not one.commit():
            raise TemperError(f"{one.name} failed: {one.reason()}; fix that, then start the sweep again")
        value, _ = one.result(self.search.aim)
        with self.search.drivers.turn():
            self._keep("seeds", {seed: value} | self.found())  # a result that another driver has recorded stays
        del self.running[seed]
        print(f"{one.name}: {value:.5g}", flush=True)

    def _keep(self, what: str, content: dict[str, Any]) -> None:
        self.search.study.set_user_attr(f"{what} of {self.best.number}", content)
