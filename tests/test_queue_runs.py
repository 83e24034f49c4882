"""The queue on the real DVC: what is accepted runs exactly once, whatever is killed."""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from apps.queue.postings import Wish, checked
from apps.serve.limits import Refusal
from tests.toys.queued import kill_workers, make_repository, said, served, wait_until
from tests.toys.workspace import Workspace

pytest.importorskip("uvicorn", reason="the packages of the queue's server are not here: make queue")
pytest.importorskip("fastapi", reason="the packages of the queue's server are not here: make queue")
pytestmark = pytest.mark.slow
BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"params": {"lrr": 1e-3}}, 422, "lrr"),
    ({"params": {"lr": "oops"}}, 422, "lr"),
    ({"params": {"lr": [1e-3, 2e-3]}}, 422, "lr"),
    ({"params": {"lr": [1e-3, -1]}, "grid": True}, 422, "lr"),
    ({"params": {"fine_tune": {"epoch": 2}}}, 422, "fine_tune.epoch"),
    ({"params": {"lr": 1e-3}, "name": "--force"}, 422, "name"),
    ({"params": {"lr": 1e-3}, "extra": 1}, 422, "extra"),
]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Workspace]:
    folder = tmp_path / "repository"
    folder.mkdir()
    made = make_repository(folder)
    yield made
    (folder / "go").touch()
    kill_workers(folder)


def test_of_200_requests_at_once_the_good_ones_run_once_and_the_bad_ones_queue_nothing(repository: Workspace) -> None:
    good = [{"params": {"lr": lr / 1000}, "name": f"good-{lr}", "id": f"id-{lr}"} for lr in range(1, 9)]
    grid = {
        "params": {"lr": [0.05, 0.06], "seed": [1, 2]},
        "name": "grid",
        "grid": True,
        "id": "a grid".replace(" ", "-"),
    }
    wishes = [(wish, 202, "") for wish in [*good, grid] for _ in range(3)]  # each is sent three times
    wishes += [BAD[number % len(BAD)] for number in range(200 - len(wishes))]
    random.Random(0).shuffle(wishes)
    with served(repository, "--jobs", "2") as server:
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda wish: server.post(wish[0]), wishes))
        for (wish, status, key), answer in zip(wishes, answers, strict=True):
            assert answer.status_code == status, (wish, answer.text)
            assert key in (answer.json().get("error") or "")
        names = {wish["name"] for wish in good} | {f"grid-{number}" for number in range(1, 5)}
        assert set(server.tasks()) == names
        wait_until(lambda: set(server.states().values()) == {"done"})
        tasks = server.tasks()
        results = requests.get(f"{server.url}/results", timeout=60).json()
    assert tasks["good-3"]["params"] == {"lr": 0.003}
    assert tasks["grid-4"]["params"] == {"lr": 0.06, "seed": 2}
    assert tasks["good-3"]["metrics"] == {"validation_accuracy": 0.5, "validation.loss": 0.25}
    assert {row["name"]: (row["params"], row["metrics"]) for row in results} == {
        name: (task["params"], task["metrics"]) for name, task in tasks.items()
    }
    assert Counter(line.rsplit(" ", 1)[0] for line in said(repository.folder)) == Counter(
        f"{what} {name}" for name in names for what in ("began", "ended")
    )
    assert repository.run("git status --porcelain") == ""


def test_after_a_crash_repair_lets_the_queue_go_on(repository: Workspace) -> None:
    folder, repair = repository.folder, f"{sys.executable} -m apps.queue repair --jobs 2"
    with served(repository, "--jobs", "2") as server:
        assert server.post({"params": {"seed": [1001, 1002, 1003]}, "name": "long", "grid": True}).status_code == 202
        wait_until(lambda: sum(line.startswith("began") for line in said(folder)) == 2)
        running = [name for name, state in server.states().items() if state == "running"]
        assert len(running) == 2
        curves = requests.get(f"{server.url}/tasks/{running[0]}/curves", timeout=60).json()
        assert curves == {"fine_tune validation/loss": [[0, 0.9], [1, 0.5], [2, 0.4]]}
        log = requests.get(f"{server.url}/tasks/{running[0]}/log", timeout=60)
        assert "Running stage 'fine_tune'" in log.text and log.headers["content-type"].startswith("text/plain")
        assert repository.run(repair) == "nothing to repair\n", "what lives is left alone"
        server.kill()
        assert kill_workers(folder) == 2
    assert len(list(folder.glob(".dvc/tmp/exps/tmp*"))) == 2
    assert len(re.findall("Running$", repository.run("dvc queue status"), re.MULTILINE)) == 2, "as DVC has it, for ever"
    again, dropped = running
    with served(repository, "--jobs", "0") as server:
        assert server.states() == {**dict.fromkeys(running, "lost"), "long-3": "queued"}
        assert requests.delete(f"{server.url}/tasks/{dropped}", timeout=60).json()["was"] == "lost"
        wait_until(lambda: server.states()[dropped] == "cancelled", show=server.states)
    lines = repository.run(repair)
    assert sorted(re.findall(r"^(long-\d): no process", lines, re.MULTILINE)) == [again]
    assert lines.count("removed .dvc/tmp/exps/tmp") == 2 and lines.endswith("started workers\n")
    (folder / "go").touch()
    with served(repository, "--jobs", "2") as server:
        wait_until(lambda: server.states() == {again: "done", dropped: "cancelled", "long-3": "done"})
    ran = Counter(line.rsplit(" ", 1)[0] for line in said(folder))
    assert {name: (ran[f"began {name}"], ran[f"ended {name}"]) for name in (again, dropped, "long-3")} == {
        again: (2, 1),
        dropped: (1, 0),
        "long-3": (1, 1),
    }
    wait_until(lambda: not list(folder.glob(".dvc/tmp/exps/tmp*")))
    assert repository.run(repair) == "nothing to repair\n"


def test_a_server_that_is_killed_while_it_queues_goes_on_where_it_was(repository: Workspace) -> None:
    head = repository.folder / ".git" / "HEAD"
    wish = {"params": {"seed": list(range(30))}, "name": "many", "grid": True, "id": "many"}
    with served(repository, "--jobs", "0") as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, wish)
        wait_until(lambda: len(server.tasks()) >= 3 and not head.read_text().startswith("ref:"))
        server.kill()
        assert isinstance(answer.exception(), requests.ConnectionError)
    # Git removes a file before it writes the new one: sometimes the kill comes between the two, here always.
    (repository.folder / "params.yaml").unlink(missing_ok=True)
    with served(repository, "--jobs", "0") as server:
        assert set(server.tasks()) == {f"many-{number}" for number in range(1, 31)}
        assert head.read_text() == "ref: refs/heads/main\n"
        assert repository.run("git status --porcelain") == ""
        assert server.post(wish).json()["tasks"][-1] == "many-30", "the client that tries again hears what became of it"
        assert len(server.tasks()) == 30
        second = repository.run(f"{sys.executable} -m apps.queue --port 0", 1)
        assert second.startswith("error: ") and "no other server" in second
        # A change that is not committed would go into the runs unseen.
        repository.set(lr=0.5)
        refused = server.post({"params": {"seed": 77}})
        assert refused.status_code == 409 and "params.yaml" in refused.json()["error"]


def test_a_task_is_cancelled_whether_it_waits_or_runs(repository: Workspace) -> None:
    with served(repository, token="a long secret") as server:
        headers = {"Authorization": "Bearer a long secret"}
        assert server.post({"params": {}}).status_code == 401
        assert requests.get(f"{server.url}/tasks", timeout=60).status_code == 401
        wish = {"params": {"seed": [1001, 1002, 3]}, "name": "x", "grid": True}
        assert server.post(wish, headers=headers).status_code == 202

        def states() -> dict[str, str]:
            rows = requests.get(f"{server.url}/tasks", timeout=60, headers=headers).json()
            return {row["name"]: row["state"] for row in rows}

        wait_until(lambda: any(line.startswith("began") for line in said(repository.folder)))
        (running,) = [name for name, state in states().items() if state == "running"]
        waiting = next(name for name, state in states().items() if state == "queued" and name != "x-3")
        for name in (waiting, running):
            answer = requests.delete(f"{server.url}/tasks/{name}", timeout=60, headers=headers)
            assert answer.json() == {"name": name, "was": "queued" if name == waiting else "running"}

        # DVC ends the worker with the task; it may have taken the next one, which then waits again.
        wait_until(lambda: states() == {running: "cancelled", "x-3": "done"}, show=states)
        again = requests.delete(f"{server.url}/tasks/x-3", timeout=60, headers=headers)
        assert again.status_code == 409 and "done" in again.json()["error"]
        followed = requests.get(f"{server.url}/tasks/x-3/log?follow=true", timeout=60, headers=headers)
        assert "<b>epoch 1</b>" in followed.text


def test_the_backbone_of_the_run_is_checked_and_not_that_of_the_working_folder(
    repository: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.folder)
    base = (repository.folder / "params.yaml").read_text()
    params = {"backbone.name": "MobileNetV2", "fine_tune.unfreeze_from": "block_13"}
    (run,) = checked(Wish(params, (), "one", False, "id"), base)
    assert run.name == "one"
    with pytest.raises(Refusal, match="block_99"):
        checked(Wish(params | {"fine_tune.unfreeze_from": "block_99"}, (), "one", False, "id"), base)
