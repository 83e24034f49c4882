"""The results of runs: params and metrics from git, and the curves of running tasks from their copies."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from apps.queue.repository import Repository
from apps.queue.tasks import Task, lines_of
from temper.base.errors import TemperError

_MOST_POINTS = 400  # in a curve
_STAGE = re.compile(r"(?:Running stage|Stage) '([\w@-]+)'")


class Results:
    """Reads params and metrics from git. Commits never change, so each is read only once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._params = lru_cache(4096)(self._read_params)
        self.metrics = lru_cache(4096)(self._read_metrics)

    def changed(self, rev: str, baseline: str) -> dict[str, Any]:
        """The params of a run that differ from those of the commit it starts from; None for a key that was removed."""
        old, new = self._params(baseline), self._params(rev)
        return {
            key: new.get(key) for key in sorted({*old, *new}) if key not in new or old.get(key, _MISSING) != new[key]
        }

    def params(self, rev: str) -> dict[str, Any]:
        """The params of a commit, by dotted keys."""
        return self._params(rev)

    def _read_params(self, rev: str) -> dict[str, Any]:
        try:
            content = YAML(typ="safe", pure=True).load(self._repository.git("show", f"{rev}:params.yaml"))
        except TemperError:
            return {}
        return dict(_leaves(content))

    def _read_metrics(self, commit: str) -> dict[str, float]:
        """The numbers in the metrics of a commit, by name; if a name occurs again, its stage is put before it."""
        listed = self._repository.git("ls-tree", "-r", "--name-only", commit, "metrics/").splitlines()
        found: dict[str, float] = {}
        for path in listed:
            if not path.endswith("/metrics.json"):
                continue
            content = json.loads(self._repository.git("show", f"{commit}:{path}"))
            for key, value in _leaves(content):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found[f"{path.split('/')[-2]}:{key}" if key in found else key] = value
        return found


_MISSING = object()


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str | int | float | list | None) else str(value)


def curves(task: Task) -> dict[str, list[list[float]]]:
    """The curves of a running task, as points [step, value], by stage and name: `fine_tune validation/loss`.

    A copy of the repository starts with the committed curves. So the curves of a stage belong to the task only once its
    log says that the stage has begun; before that, they are those of the commit.
    """
    if task.state != "running" or task.copy is None:
        return {}
    begun = {said.group(1) for line in lines_of(task.log) if (said := _STAGE.match(line))}
    found: dict[str, list[list[float]]] = {}
    for stage in sorted(begun):
        folder = task.copy / "metrics" / stage / "plots" / "metrics"
        for path in sorted(folder.rglob("*.tsv")):
            points = list(_points(path))
            if points:
                found[f"{stage} {path.relative_to(folder).with_suffix('').as_posix()}"] = _thin(points)
    return found


def _points(path: Path) -> Iterator[list[float]]:
    """The rows of a table that is still being written. The last line is skipped if it has no line end yet."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            step, value = map(float, line.split("\t"))
        except ValueError:  # the header
            continue
        if abs(value) < float("inf"):
            yield [step, value]


def _thin(points: list[list[float]]) -> list[list[float]]:
    """At most about `_MOST_POINTS` points, evenly chosen, including the first and the last one."""
    every = -(-len(points) // _MOST_POINTS)
    return points[:-1:every] + points[-1:]
