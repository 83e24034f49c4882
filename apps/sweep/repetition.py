"""The best trial with other seeds, each in one of the drivers: how far to believe it."""

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
    """Runs the best trial with other seeds; the objective of each, by its seed.

    `seed` is all the randomness there is: the draw of the splits, a random start, the order of the images, dropout and
    augmentation. The trial was chosen on one validation split, so other splits are part of the question.

    Raises:
        TemperError: one of them failed.
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
    """The runs of the best trial. Who runs which, and what came out, is kept in the study."""

    search: Search
    best: FrozenTrial
    seeds: list[str]
    running: dict[str, Experiment] = field(default_factory=dict)
    is_said: bool = False

    def found(self) -> dict[str, float]:
        """The objective of each seed that has ended."""
        return dict(self.search.study.user_attrs.get(f"seeds of {self.best.number}", {}))

    def owners(self) -> dict[str, str]:
        """Which driver runs, or ran, which seed."""
        return dict(self.search.study.user_attrs.get(f"drivers of the seeds of {self.best.number}", {}))

    def step(self) -> bool:
        """Begins and follows experiments; returns whether some have not ended, here or elsewhere."""
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
        """The seeds that nobody runs."""
        known, owners = {*self.found(), *self.running}, self.owners()
        return [seed for seed in self.seeds if seed not in known and self.search.drivers.is_free(owners.get(seed))]

    def _end(self, seed: str, one: Experiment) -> None:
        if not one.commit():
            raise TemperError(f"{one.name} failed: {one.reason()}; mend that, and start the sweep again")
        value, _ = one.result(self.search.aim)
        with self.search.drivers.turn():
            self._keep("seeds", {seed: value} | self.found())  # another driver may have been first
        del self.running[seed]
        print(f"{one.name}: {value:.5g}", flush=True)

    def _keep(self, what: str, content: dict[str, Any]) -> None:
        self.search.study.set_user_attr(f"{what} of {self.best.number}", content)
