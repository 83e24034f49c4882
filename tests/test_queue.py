"""What is posted to the queue and what is shown of it: requests, DVC's files, curves, repair; without a server."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from apps.queue import postings
from apps.queue.queueing import Queueing
from apps.queue.records import Records
from apps.queue.repair import abandoned_copies
from apps.queue.repository import Repository
from apps.queue.results import curves
from apps.queue.tasks import Queue, Task
from apps.queue.workers import put_back_unbegun
from apps.serve.limits import Refusal
from temper.base.errors import TemperError
from tests.toys.queued import message, wait_until
from tests.toys.workspace import ROOT

BASE = (ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8")
REFUSED: list[tuple[str, int, str]] = [  # body, status, what the sentence has
    ("lr", 400, "JSON"),
    ('{"params": {"lr": 1, "lr": 2}}', 400, "twice"),
    ('{"params": {"lr": NaN}}', 400, "NaN"),
    ("[" * 100_000, 400, "JSON"),
    ('{"params": {"lr": ' + "9" * 5000 + "}}", 400, "JSON"),
    ("[]", 422, "object"),
    ('{"parms": {}}', 422, "did you mean params?"),
    ('{"params": []}', 422, "params"),
    ('{"grid": 1}', 422, "grid"),
    ('{"name": "--force"}', 422, "name"),
    ('{"name": "a/b"}', 422, "name"),
    ('{"name": "a\\n"}', 422, "name"),
    ('{"id": ""}', 422, "id"),
    ('{"params": {"--lr": 1}}', 422, "--lr"),
    ('{"params": {"dvc.yaml:x": 1}}', 422, "dvc.yaml:x"),
    ('{"params": {"~lr": 1}}', 422, "~lr"),
    ('{"params": {"warm_up": {}}}', 422, "warm_up"),
    ('{"params": {"warm_up.lr": 1, "warm_up": {"lr": 2}}}', 422, "warm_up.lr"),
    ('{"params": {"lrr": 1}}', 422, "did you mean lr?"),
    ('{"params": {"lr": "oops"}}', 422, "lr: Input should be a valid number"),
    ('{"params": {"lr": "1e-3,2e-3"}}', 422, "lr"),
    ('{"params": {"lr": "choice(1e-3,2e-3)"}}', 422, "lr"),
    ('{"params": {"lr": [0.001, 0.002]}}', 422, "lr"),
    ('{"params": {"lr": [0.001, "oops"]}, "grid": true}', 422, "run-2: params.yaml: lr"),
    ('{"params": {"lr": 0.001}, "grid": true}', 422, "grid"),
    ('{"params": {"lr": []}, "grid": true}', 422, "grid"),
    ('{"params": {"lr": [1, 1]}, "grid": true}', 422, "twice"),
    (json.dumps({"params": {"seed": list(range(201))}, "grid": True}), 422, "200"),
    ('{"params": {"lr": {"x": 1}}}', 422, "lr"),
    ('{"params": {"warm_up": 3}}', 422, "warm_up"),
    ('{"params": {"fine_tune": {"epoch": 1}}}', 422, "fine_tune.epoch"),
    ('{"remove": ["no.such"]}', 422, "no.such"),
    ('{"remove": ["--all"]}', 422, "--all"),
    ('{"params": {"fetch.digits.path": "${lr}"}}', 422, "unchanged"),
    ('{"params": {"fetch.digits.path": "a\\nb"}}', 422, "unchanged"),
]
ACCEPTED: list[tuple[dict[str, Any], list[tuple[str, ...]]]] = [  # wish, overrides of each run
    ({}, [()]),
    ({"params": {"lr": 3e-6}}, [("++lr=3e-06",)]),
    (
        {"params": {"warm_up": {"epochs": 2, "head": {"dropout": 0.5}}}},
        [("++warm_up.epochs=2", "++warm_up.head.dropout=0.5")],
    ),
    ({"params": {"image_size": [32, 48]}}, [("++image_size=[32, 48]",)]),  # a list is a list
    (
        {"params": {"image_size": [[32, 48], 16], "seed": [1, 2], "lr": 0.1}, "grid": True},  # but in a grid
        [
            ("++image_size=[32, 48]", "++seed=1", "++lr=0.1"),
            ("++image_size=[32, 48]", "++seed=2", "++lr=0.1"),
            ("++image_size=16", "++seed=1", "++lr=0.1"),
            ("++image_size=16", "++seed=2", "++lr=0.1"),
        ],
    ),
    ({"params": {"fetch.digits.path": "a,b é=x y'z"}}, [('++fetch.digits.path="a,b é=x y\'z"',)]),
    (
        {"params": {"seed": 4}, "remove": ["warm_up.head.dropout"]},
        [("~warm_up.head.dropout", "++seed=4")],
    ),
    ({"params": {"pack.margin": 0.2}}, [("++pack.margin=0.2",)]),  # a key that params.yaml does not have yet
]


@pytest.mark.parametrize(("body", "status", "says"), REFUSED)
def test_a_wrong_request_is_refused_with_the_key(body: str, status: int, says: str) -> None:
    with pytest.raises(Refusal) as refused:
        postings.checked(postings.read(body.encode()), BASE)
    assert refused.value.status == status
    assert says.replace("run-2", "") in refused.value.sentence
    assert "/tmp" not in refused.value.sentence and len(refused.value.sentence) < 1000


@pytest.mark.parametrize(("wish", "overrides"), ACCEPTED)
def test_a_request_becomes_the_runs_that_were_meant(wish: dict[str, Any], overrides: list[tuple[str, ...]]) -> None:
    read = postings.read(json.dumps(wish | {"name": "mine"}).encode())
    found = postings.checked(read, BASE)
    assert [run.overrides for run in found] == overrides
    names = ["mine"] if len(overrides) == 1 else [f"mine-{number}" for number in range(1, len(overrides) + 1)]
    assert [run.name for run in found] == names


def test_names_and_ids_that_are_not_given_are_new_each_time() -> None:
    first, second = postings.read(b"{}"), postings.read(b"{}")
    assert first.name != second.name and first.id != second.id and first.digest == second.digest


def test_a_record_is_remembered_until_it_is_old(tmp_path: Path) -> None:
    records, wish = Records(tmp_path), postings.read(b'{"params": {"lr": 0.1}, "id": "mine"}')
    runs = tuple(postings.checked(wish, BASE))
    records.write(wish, runs, "c" * 40, queued=False)
    (record,) = records.unfinished()
    assert (record.id, record.runs, record.digest) == ("mine", runs, wish.digest)
    records.finish(record)
    assert not list(records.unfinished()) and records.get("mine") is not None
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert not list(records.unfinished()) and records.get("mine") is None
    (tmp_path / "damaged.json").write_text("{")
    assert not list(records.unfinished())


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """A queue with one task that waits and one that was taken, whose process is this one."""
    queue = Queue(tmp_path)
    for folder in (queue.waiting, queue.taken, queue.celery / "result", queue.exps / "run" / "b"):
        folder.mkdir(parents=True)
    (queue.waiting / "1_x.celery.msg").write_text(message("first", "a", "1"))
    (queue.taken / "2_x.celery.msg").write_text(message("second", "b", "2"))
    (queue.waiting / "3_x.celery.msg").write_text('{"half')
    (queue.waiting / "4_x.reply.celery.pidbox.msg").write_text("{}")
    write_process(queue, os.getpid())
    return queue


@pytest.fixture
def clone(tmp_path: Path) -> Repository:
    """A repository on `main` in which DVC was about to queue a run when it was killed."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".gitignore").write_text("/.temper/\n")
    (tmp_path / "params.yaml").write_text("lr: 1\n")
    begin = (
        "git init -q -b main && git config user.name a && git config user.email a@b && git add . && git commit -qm a"
    )
    subprocess.run(begin, shell=True, cwd=tmp_path, check=True)
    repository = Repository(tmp_path)
    repository.begin()
    repository.git("checkout", "-q", "--detach")
    (tmp_path / "params.yaml").write_text("lr: 2\n")
    return repository


# What git, dulwich and libgit2 leave where they are killed.
LOCKS = [
    *("refs/exps/celery/stash.lock", "refs/heads/main.lock", "HEAD.lock", "index.lock", "packed-refs.lock"),
    f"objects/6b/{'f' * 38}.lock",
]


@pytest.mark.parametrize("name", LOCKS)
def test_what_dvc_changed_when_it_was_killed_is_put_back_and_kept(clone: Repository, name: str) -> None:
    lock = clone.root / ".git" / name  # while it is there, nothing can be queued
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (0, 0))
    said = clone.restore()
    assert clone.git("symbolic-ref", "HEAD") == "refs/heads/main\n" and not clone.uncommitted() and not lock.exists()
    (kept,) = clone.folder.glob("params-*.yaml")
    assert kept.read_text() == "lr: 2\n" and said.endswith(f"is in {kept.relative_to(clone.root)}")
    assert clone.restore() == ""


def test_params_that_git_had_removed_when_it_was_killed_are_put_back(clone: Repository) -> None:
    (clone.root / "params.yaml").unlink()
    assert Repository(clone.root).restore().endswith("before a run was queued")
    assert (clone.root / "params.yaml").read_text() == "lr: 1\n" and not clone.uncommitted()
    (clone.root / "params.yaml").unlink()
    with pytest.raises(TemperError, match="expected a repository of Temper, found no .dvc or no params.yaml"):
        Repository(clone.root)


@pytest.mark.parametrize(("content", "stays"), [('{"read": ', False), ("", False), ("{}", True)])
def test_a_list_of_locks_that_dvc_wrote_half_is_removed(clone: Repository, content: str, stays: bool) -> None:
    path = clone.root / ".dvc/tmp/exps/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    os.utime(path, (0, 0))
    clone.restore()
    assert path.exists() == stays


def test_the_lock_of_a_git_command_that_runs_stays(clone: Repository) -> None:
    """Somebody's editor may be open in `git commit`."""
    lock = clone.root / ".git/index.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    (clone.root / ".git/git").symlink_to(shutil.which("sleep") or "")
    running = subprocess.Popen([clone.root / ".git/git", "60"], cwd=clone.root)
    try:
        wait_until(lambda: psutil.Process(running.pid).name() == "git")
        with pytest.raises(TemperError, match=r"^git reset: .*index.lock"):
            clone.restore()
        assert lock.exists()
    finally:
        running.kill()
        running.wait()
    assert clone.restore() and not lock.exists() and not clone.uncommitted()


@pytest.mark.parametrize(
    "gone_on",
    [
        "git switch -qc other",  # takes the changed params.yaml along
        "git commit -qam mine",  # on the detached HEAD
        "git checkout -qf main && git commit -q --allow-empty -m mine && echo 'lr: 3' > params.yaml",
    ],
)
def test_where_people_have_gone_on_since_a_crash_nothing_is_put_back(clone: Repository, gone_on: str) -> None:
    subprocess.run(gone_on, shell=True, cwd=clone.root, check=True)

    def state() -> tuple[str, ...]:
        head = (clone.root / ".git/HEAD").read_text()
        return head, clone.head(), clone.uncommitted(), (clone.root / "params.yaml").read_text()

    before = state()
    assert clone.restore().startswith("left git's HEAD and params.yaml alone")
    assert state() == before and clone.restore() == ""


def test_what_a_crash_interrupted_is_queued_only_at_its_own_commit_with_nothing_to_commit(clone: Repository) -> None:
    queueing = Queueing(clone, Queue(clone.root))
    wish = postings.read(b'{"id": "mine", "name": "one"}')
    queueing.records.write(wish, (postings.Run("one", ()),), clone.head(), False)
    clone.git("switch", "-qc", "other")
    with pytest.raises(TemperError, match="accepted before the server stopped are waiting: .* received params.yaml"):
        queueing.finish_interrupted()
    accepted = clone.head()
    clone.git("commit", "-qam", "mine")
    (line,) = queueing.finish_interrupted()
    assert line.startswith(f"mine: expected the commit {accepted[:7]} to be checked out")
    assert f"received {clone.head()[:7]}" in line
    assert len(list(queueing.records.unfinished())) == 1


def write_process(queue: Queue, pid: int, code: int | None = None) -> Path:
    path = queue.exps / "run" / "b" / "b.json"
    path.write_text(json.dumps({"pid": pid, "returncode": code}))
    return path


def states(queue: Queue) -> dict[str, str]:
    return {task.name: task.state for task in queue.tasks()}


def test_the_states_of_tasks(queue: Queue) -> None:
    assert states(queue) == {"first": "queued", "second": "running"}
    os.utime(write_process(queue, os.getpid()), (0, 0))  # written before this process began: its number is another's
    assert states(queue)["second"] == "lost"
    time.sleep(2.2)  # by so much the clocks of files and processes may differ
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (queue.celery / "dvc-exp-worker-1.json").write_text(json.dumps({"pid": worker.pid, "returncode": None}))
        assert states(queue)["second"] == "lost", "a worker that began later does not have it"
        (queue.taken / "2_x.celery.msg").rename(queue.taken / "5_x.celery.msg")  # as if it were taken now
        assert states(queue)["second"] == "running", "the worker may be about to start it"
    finally:
        worker.kill()
        worker.wait()
    (queue.celery / "result" / "celery-task-meta-2").write_text("{}")
    assert states(queue)["second"] == "failed"
    (queue.marks() / "b").touch()
    assert states(queue)["second"] == "cancelled"
    (queue.exps / "run" / "b" / "b.run").write_text(json.dumps({"result_ref": "refs/exps/x", "root_dir": "/x"}))
    assert states(queue)["second"] == "done"


def test_a_task_that_was_lost_before_it_began_waits_again(queue: Queue) -> None:
    (queue.root / "params.yaml").touch()
    clone, taken = Repository(queue.root), queue.taken / "2_x.celery.msg"
    process = write_process(queue, os.getpid())
    os.utime(process, (0, 0))
    assert put_back_unbegun(clone, queue) == [] and taken.exists(), "it had begun: it may be what ended its worker"
    process.unlink()
    (queue.celery / "dvc-exp-worker-1.json").write_text(json.dumps({"pid": os.getpid(), "returncode": None}))
    assert put_back_unbegun(clone, queue) == [], "a worker lives that may be about to start it"
    (queue.celery / "dvc-exp-worker-1.json").unlink()
    assert put_back_unbegun(clone, queue) == ["second"]
    assert states(queue) == {"first": "queued", "second": "queued"}


def test_a_copy_is_abandoned_when_no_process_works_in_it(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    used, abandoned, worked_in = (queue.exps / name for name in ("tmpused", "tmpabandoned", "tmpworked"))
    for copy in (used, abandoned, worked_in):
        (copy / ".git").mkdir(parents=True)
    (queue.exps / "run" / "b" / "b.run").write_text(json.dumps({"root_dir": str(used)}))
    inside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=worked_in / ".git")
    # What is called dvc and works in the repository may be about to use the copy that it has just made.
    dvc = queue.root / "dvc"
    dvc.symlink_to(shutil.which("sleep") or "")
    try:
        wait_until(lambda: psutil.Process(inside.pid).cmdline())
        assert abandoned_copies(queue) == [abandoned]
        maker = subprocess.Popen([dvc, "60"], cwd=queue.root)
        os.utime(abandoned)  # on a busy machine the process may begin long after the folder was made
        try:
            assert abandoned_copies(queue) == []
            long_ago = time.time() - 60
            os.utime(abandoned, (long_ago, long_ago))
            assert abandoned_copies(queue) == [abandoned], "made before that process began"
        finally:
            maker.kill()
            maker.wait()
    finally:
        inside.kill()
        inside.wait()


def test_curves_are_those_of_the_stages_that_have_begun(tmp_path: Path) -> None:
    log = tmp_path / "log"
    task = Task("a", "r", "b", "running", 0, tmp_path, tmp_path, log, tmp_path)
    table = "step\tloss\n" + "".join(f"{step}\t{1 / (step + 1)}\n" for step in range(1001)) + "1001\tnan\n1002\t0"
    for stage in ("warm_up", "fine_tune"):
        path = tmp_path / "metrics" / stage / "plots" / "metrics" / "validation" / "loss.tsv"
        path.parent.mkdir(parents=True)
        path.write_text(table)
    assert curves(task) == {}
    log.write_text("Stage 'warm_up' is cached - skipping run, checking out outputs\nnow Running stage 'fine_tune':\n")
    assert list(curves(task)) == ["warm_up validation/loss"], "of fine_tune there are those of the last commit only"
    with log.open("a") as file:
        file.write("Running stage 'fine_tune':\n")
    points = curves(task)["fine_tune validation/loss"]
    assert (points[0], points[-1]) == ([0, 1], [1000, 1 / 1001]) and len(points) <= 401


@pytest.mark.parametrize(
    ("token", "method", "headers", "status"),
    [
        (None, "GET", {"host": "127.0.0.1:8001"}, 200),
        (None, "GET", {"host": "localhost"}, 200),
        (None, "GET", {"host": "[::1]:8001"}, 200),
        (None, "GET", {"host": "evil.example:8001"}, 403),  # a stranger's name that leads here
        (None, "GET", {}, 403),
        (None, "POST", {"host": "localhost", "content-type": "text/plain"}, 415),  # what a stranger's page may send
        (None, "POST", {"host": "localhost", "content-type": "application/json; charset=utf-8"}, 200),
        ("secret", "GET", {"host": "evil.example"}, 401),
        ("secret", "GET", {"authorization": "Bearer secre"}, 401),
        ("secret", "GET", {"authorization": "Bearer secret"}, 200),
    ],
)
def test_the_guard_lets_in_whom_it_should(token: str | None, method: str, headers: dict[str, str], status: int) -> None:
    pytest.importorskip("starlette", reason="the packages of the queue's server are not here: make queue")
    from starlette.responses import PlainTextResponse  # noqa: PLC0415

    from apps.queue.guard import Guard  # noqa: PLC0415

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(what: Any) -> None:
        sent.append(what)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/tasks", "headers": raw}
    asyncio.run(Guard(PlainTextResponse("in"), {"/"}, token)(scope, receive, send))
    assert sent[0]["status"] == status
    assert b"content-security-policy" in dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--host 0.0.0.0", "TEMPER_TOKEN"),
        ("--jobs 17", "--jobs"),
        ("repair", "repository"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(arguments: str, says: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TEMPER_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-m", "apps.queue", *arguments.split()],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
