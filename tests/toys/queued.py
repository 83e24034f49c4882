"""A small repository with Temper's params.yaml, the real DVC and a trivial stage, and a server of apps/queue for it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from apps.queue.tasks import Queue
from tests.toys.workspace import ROOT, Workspace, environment

PIPELINE = """
stages:
  fine_tune:
    cmd: exec python toy.py
    deps: [toy.py]
    params: [lr, seed]
    metrics:
      - metrics/fine_tune/metrics.json: {cache: false}
    plots:
      - metrics/fine_tune/plots/metrics
"""
# The stage. It notes in `ran.txt` of the original repository when it begins and ends, and it writes a curve whose last
# line is half-written. With a seed above 1000, it then waits until the original repository has a file `go`.
SCRIPT = """
import json, os, time
from pathlib import Path
import yaml
params = yaml.safe_load(Path("params.yaml").read_text())
name, root = os.environ["DVC_EXP_NAME"], Path(os.environ["DVC_ROOT"])
def say(what):
    with (root / "ran.txt").open("a") as file:
        file.write(f"{what} {name} {float(params['lr'])}\\n")
say("began")
print("<b>epoch 1</b>", flush=True)
folder = Path("metrics/fine_tune/plots/metrics/validation")
folder.mkdir(parents=True, exist_ok=True)
(folder / "loss.tsv").write_text("step\\tloss\\n0\\t0.9\\n1\\t0.5\\n2\\t0.4\\n3\\t0.")
while params["seed"] > 1000 and not (root / "go").exists():
    time.sleep(0.1)
figures = {"validation_accuracy": 0.5, "validation": {"loss": 0.25}, "names": ["a"]}
Path("metrics/fine_tune/metrics.json").write_text(json.dumps(figures))
say("ended")
"""


def make_repository(folder: Path) -> Workspace:
    """Makes and commits a repository with Temper's params.yaml and one stage that trains nothing."""
    shutil.copy(ROOT / "recipes" / "digits.yaml", folder / "params.yaml")
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "toy.py").write_text(SCRIPT, encoding="utf-8")
    (folder / ".gitignore").write_text("/ran.txt\n/go\n/.temper/\n/server.log\n", encoding="utf-8")
    (folder / "metrics").mkdir()
    (folder / "metrics" / "keep").touch()
    names = environment() | {"DVC_SITE_CACHE_DIR": str(folder.parent / "site"), "TEMPER_TOKEN": ""}
    del names["TEMPER_TOKEN"]
    repository = Workspace(folder, names)
    repository.run("git init -q -b main")
    repository.run("dvc init -q")
    repository.commit("start")
    return repository


@dataclass
class Served:
    """A running server of apps/queue."""

    process: "subprocess.Popen[bytes]"
    url: str
    folder: Path

    def post(self, wish: Any, **how: Any) -> requests.Response:
        """Posts a request for a run or a grid; `how` goes to `requests.post`."""
        return requests.post(f"{self.url}/runs", json=wish, timeout=300, **how)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """The server's tasks by name."""
        rows = requests.get(f"{self.url}/tasks", timeout=60).json()
        found = {row["name"]: row for row in rows}
        assert len(found) == len(rows), "no name twice"
        return found

    def states(self) -> dict[str, str]:
        return {name: task["state"] for name, task in self.tasks().items()}

    def kill(self) -> None:
        """Kills the server and the process that queues runs for it, as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(repository: Workspace, *options: str, token: str | None = None) -> Iterator[Served]:
    """Runs a server on a free port, and kills it at the end of the context."""
    log = repository.folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "apps.queue", "--port", "0", *options],
            cwd=repository.folder,
            stderr=file,
            env=repository.environment | ({"TEMPER_TOKEN": token} if token else {}),
            start_new_session=True,
        )
    server = Served(process, "", repository.folder)
    try:
        wait_until(lambda: "serving on " in log.read_text() or process.poll() is not None)
        assert "serving on " in log.read_text(), f"the server ended: {log.read_text()}"
        server.url = log.read_text().split("serving on ")[1].split()[0]
        yield server
    finally:
        server.kill()


def wait_until(condition: Callable[[], Any], seconds: float = 240, show: Callable[[], Any] = str) -> None:
    """Waits until a condition is true. After `seconds`, fails with the value of `show()` in the message."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"expected it to become true in time: {show()}"
        time.sleep(0.2)


def kill_workers(folder: Path) -> int:
    """Kills all workers with their child processes, as a power cut would; returns how many workers ran."""
    workers = Queue(folder).workers()
    for worker in workers:
        os.killpg(os.getpgid(worker.pid), signal.SIGKILL)
    wait_until(lambda: not Queue(folder).workers())
    return len(workers)


def said(folder: Path) -> list[str]:
    """The lines that the stage has written into `ran.txt`, one when a run begins and one when it ends."""
    path = folder / "ran.txt"
    return path.read_text().splitlines() if path.exists() else []


def message(name: str, rev: str, identity: str) -> str:
    """A message as DVC's queue stores it, for a run whose settings are in the git stash commit `rev`."""
    import base64  # noqa: PLC0415

    body = [[{"stash_rev": rev, "baseline_rev": "0" * 40, "name": name}], {}, {}]
    headers = {"task": "dvc.repo.experiments.queue.tasks.run_exp", "id": identity}
    return json.dumps({"body": base64.b64encode(json.dumps(body).encode()).decode(), "headers": headers})
