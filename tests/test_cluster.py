"""Runs on a cluster: what is refused before anything is submitted, a job's clone, and a real Ray of two nodes."""

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.cluster import overrides
from apps.cluster.__main__ import share_of
from apps.cluster.jobs import Share, entrypoint
from apps.cluster.on_node import job
from apps.cluster.origin import Origin
from apps.queue.postings import Run
from apps.queue.repository import Repository
from temper.base import gpus
from temper.base.errors import TemperError
from tests.toys.queued import SCRIPT, make_repository, said, wait_until
from tests.toys.ray_cluster import Cluster, started
from tests.toys.workspace import ROOT, Workspace

BASE = (ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8")
ASKED: list[tuple[list[str], list[tuple[str, ...]]]] = [  # -S, the overrides of each run
    ([], [()]),
    (["lr=3e-6", "seed=1"], [("++lr=3e-06", "++seed=1")]),
    (["image_size=[32,48]"], [("++image_size=[32, 48]",)]),
    (["~evaluate.test_time_augmentation"], [("~evaluate.test_time_augmentation",)]),
    (["fine_tune={epochs: 3}"], [("++fine_tune.epochs=3",)]),
    (["+pack.fit=crop"], [('++pack.fit="crop"',)]),
    (
        ["lr=1e-5,3e-6", "image_size=[32,48]", "seed=range(1,3)"],
        [("++image_size=[32, 48]", f"++lr={lr}", f"++seed={seed}") for lr in ("1e-05", "3e-06") for seed in (1, 2)],
    ),
]
REFUSED = [  # -S, what the line has
    (["lr=oops"], "params.yaml: lr: Input should be a valid number, received 'oops'"),
    (["lrr=1"], "did you mean lr?"),
    (["lr=1e-3,oops"], "x-2: params.yaml: lr"),
    (["lr"], "-S lr: expected KEY=VALUE"),
    (["lr=interval(1,2)"], "-S lr=interval(1,2): expected a value, or several"),
    (["lr=glob(*)"], "-S lr=glob(*): expected a value, or several"),
    (["lr=1", "lr=2"], "expected each key once, received lr twice; a grid is -S lr=1,2"),
    (["lr=nan"], "NaN"),
    (["dvc.yaml:lr=1"], "dvc.yaml:lr"),
    (["~no.such"], "no.such"),
    (["seed=range(0,201)"], "at most 200 runs"),
]


@pytest.mark.parametrize(("texts", "expected"), ASKED)
def test_params_are_given_as_to_dvc(texts: list[str], expected: list[tuple[str, ...]]) -> None:
    runs = overrides.runs(texts, "x", BASE)
    assert [run.overrides for run in runs] == expected
    assert [run.name for run in runs] == (["x"] if len(runs) == 1 else [f"x-{one}" for one in range(1, len(runs) + 1)])


@pytest.mark.parametrize(("texts", "line"), REFUSED)
def test_wrong_params_are_refused_in_one_line_with_the_key(texts: list[str], line: str) -> None:
    with pytest.raises(TemperError, match=re.escape(line)):
        overrides.runs(texts, "x", BASE)


def sh(folder: Path, command: str) -> str:
    return subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clone, `first`, whose commit is on its `origin`."""
    folder = tmp_path_factory.mktemp("pushed")
    (folder / "first" / ".dvc").mkdir(parents=True)
    write_config(folder / "first", "/store")
    (folder / "first" / "params.yaml").write_text("lr: 1\nfetch: {own: {path: data/photos}}\n")
    (folder / "first" / ".gitignore").write_text("/.temper/\n/data/photos/*\n")
    sh(folder, "git init -q -b main --bare origin.git && git init -q -b main first")
    sh(folder / "first", "git config user.name a && git config user.email a@b && git add -A && git commit -qm start")
    sh(folder / "first", "git remote add origin ../origin.git && git push -q origin main")
    return folder


def write_config(clone: Path, url: str) -> None:
    (clone / ".dvc" / "config").write_text(
        f"[core]\n    remote = s\n    analytics = false\n['remote \"s\"']\n    url = {url}\n"
    )


@pytest.fixture
def first(pushed: Path, tmp_path: Path) -> Repository:
    return Repository(shutil.copytree(pushed, tmp_path / "pushed") / "first")


def check(repository: Repository) -> None:
    """What the command does before it speaks to Ray."""
    origin = Origin(repository)
    origin.require_committed()
    origin.url()
    origin.require_photos()
    origin.require_dvc_remote()
    origin.require_pushed(repository.head())
    origin.require_new(["slow"])


AGAIN = "git commit -qam again && "
EXPERIMENT = "refs/exps/aa/bb/slow"
UNFIT: dict[str, tuple[str, str]] = {  # what is done in the clone, what the line has
    "edited": ("echo 'lr: 2' > params.yaml", "received changes of params.yaml: git commit and git push them"),
    "staged": ("touch new && git add new", "received changes of new"),
    "not pushed": ("git commit -q --allow-empty -m more", "found it on none: git push origin HEAD"),
    "taken back": (
        "git commit -q --allow-empty -m more && git push -q origin main && git push -qf origin HEAD~:main",
        "found it on none",
    ),
    "branch removed": (
        "git switch -qc other && git commit -q --allow-empty -m more && git push -q origin other"
        " && git -C ../origin.git branch -qD other",
        "found it on none",
    ),
    "no remote": ("git remote remove origin", "git remote: error: No such remote 'origin'"),
    "password": ("git remote set-url origin https://me:secret@example.org/x.git", "expected an address without a"),
    "token": ("git remote set-url origin https://secret@example.org/x.git", "expected an address without a password"),
    "photos": (
        "mkdir -p data/photos/a data/photos/b && touch data/photos/a/1.jpg data/photos/b.jpg",
        "fetch.own.path: expected photos that nodes can have, received data/photos, of which 2 files",
    ),
    "no store": (f"echo '' > .dvc/config && {AGAIN} git push -q origin main", "found none: dvc remote add --default"),
    "near store": (
        f"sed -i 's#/store#../store#' .dvc/config && {AGAIN} git push -q origin main",
        "received the relative path ../store: dvc remote modify s url",
    ),
    "run here": (f"git update-ref {EXPERIMENT} HEAD", "received slow, which is here"),
    "run there": (f"git push -q origin HEAD:{EXPERIMENT}", "is on origin (dvc exp pull origin slow fetches it)"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_nodes_could_not_see_is_refused(first: Repository, case: str) -> None:
    command, line = UNFIT[case]
    sh(first.root, command)
    with pytest.raises(TemperError, match=re.escape(line)) as caught:
        check(first)
    assert "secret" not in str(caught.value)


def test_photos_in_dvc_and_a_commit_below_what_others_pushed_are_fit(first: Repository) -> None:
    sh(first.root.parent, "git clone -q origin.git second")
    (first.root / "data" / "photos" / "ä").mkdir(parents=True)
    for name in ("ä/1.jpg", "b.zip", "b.zip.dvc", "ä.dvc"):  # as after `dvc add`
        (first.root / "data" / "photos" / name).touch()
    sh(first.root, "git add -f data/photos/*.dvc && git commit -q -m photos && git push -q origin main")
    theirs = "git pull -q && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m theirs && git push -q"
    sh(first.root.parent / "second", theirs)
    check(first)
    assert Origin(first).url() == str(first.root.parent / "origin.git"), "as nodes see it, not from the clone"


AMOUNTS: list[tuple[dict[str, Any], Share | str]] = [  # options, what a job has or what the line says
    ({}, Share(1, 0, {})),
    ({"gpus": 0.5, "cpus": 8.0, "resource": ["big=2"]}, Share(8, 0.5, {"big": 2})),
    ({"cpus": 0.0}, "--cpus: expected a number above 0, received 0.0"),
    ({"gpus": -1.0}, "--gpus: expected a number from 0, received -1.0"),
    ({"gpus": math.inf}, "--gpus: expected a number from 0, received inf"),
    ({"resource": ["big"]}, "--resource big: expected a number above 0, received none"),
    ({"resource": ["big=x"]}, "--resource big: expected a number above 0, received x"),
]


@pytest.mark.parametrize(("options", "expected"), AMOUNTS)
def test_what_a_job_asks_of_its_node(options: dict[str, Any], expected: Share | str) -> None:
    chosen = argparse.Namespace(**({"cpus": 1.0, "gpus": 0.0, "resource": []} | options))
    if isinstance(expected, Share):
        assert share_of(chosen) == expected
    else:
        with pytest.raises(TemperError, match=f"^{re.escape(expected)}$"):
            share_of(chosen)


def test_what_the_command_writes_the_job_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("slow", ('++pack.fit="crop"', "~lr"))
    monkeypatch.setattr(sys, "argv", entrypoint(run, "https://example.org/x.git", "abc", 0.5)[1:])
    read = vars(job.parsed())
    assert read == {
        "origin": "https://example.org/x.git",
        "commit": "abc",
        "name": "slow",
        "gpus": 0.5,
        "overrides": list(run.overrides),
    }
    assert job.known_as("git@example.org:me/x.git") != job.known_as("git@example.org:you/x.git")
    assert job.known_as("https://example.org/me/x.git").startswith("x-")


def test_no_two_jobs_have_one_clone_and_that_of_a_killed_one_is_made_anew(tmp_path: Path) -> None:
    with job.clone_of_its_own(tmp_path) as clone, job.clone_of_its_own(tmp_path) as other:
        assert (clone.name, other.name) == ("1", "2")
    holder = "from apps.cluster.on_node.job import *\nwith clone_of_its_own(Path()) as own:\n"
    holder += "    own.mkdir(); (own / 'old').touch(); print('holds', flush=True); time.sleep(60)"
    killed = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=tmp_path, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert killed.stdout is not None and killed.stdout.readline() == b"holds\n"
    with job.clone_of_its_own(tmp_path) as clone:
        assert clone.name == "2"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with job.clone_of_its_own(tmp_path) as clone:
        assert clone.name == "1" and not clone.exists()


def test_a_push_is_tried_again_and_the_experiment_follows_its_outputs(
    first: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's part is replaced by its exit codes, git's is real."""
    refusing = first.root.parent / "origin.git" / "hooks" / "pre-receive"
    codes: list[int] = []

    def dvc(clone: Path, *arguments: str) -> int:
        assert arguments[0] == "push" and not sh(clone, f"git ls-remote origin {EXPERIMENT}")
        return codes.pop(0)

    monkeypatch.setattr(job, "dvc", dvc)
    monkeypatch.setattr(job, "_PAUSES", (0, 0, 0))
    sh(first.root, f"git update-ref {EXPERIMENT} HEAD")
    codes[:] = [1, 1, 1]
    with pytest.raises(job.JobError, match="dvc push failed: .*; submit it again: what was computed is in this node's"):
        job.push(first.root, "slow")
    refusing.write_text("#!/bin/sh\nrm $0\nexit 1\n")  # once
    refusing.chmod(0o755)
    codes[:] = [1, 0, 0]
    job.push(first.root, "slow")
    assert not codes and not refusing.exists() and sh(first.root, f"git ls-remote origin {EXPERIMENT}")
    sh(first.root, f"git commit -q --allow-empty -m other && git update-ref {EXPERIMENT} $(git commit-tree -m x HEAD:)")
    monkeypatch.setattr(job, "dvc", lambda *_: 0)
    with pytest.raises(job.JobError, match=r"git push: .*\[rejected\] .*failed to push"):
        job.push(first.root, "slow")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPER_CLUSTER", str(tmp_path / "node"))
    assert job.own_folder() == tmp_path / "node" and (tmp_path / "node").stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)
    with pytest.raises(job.JobError, match="expected .*node to be a folder of user 1234567"):
        job.own_folder()


def test_gpus_are_those_that_ray_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = {str(one): f"GPU-{one}" for one in range(4)}
    monkeypatch.setattr(gpus, "gpu_numbers", lambda: four)
    monkeypatch.delenv("TEMPER_GPUS", raising=False)
    monkeypatch.delenv("TEMPER_GPU_LEASE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")  # as Ray sets it for a job that asked for one
    assert job.settled(tmp_path, 1)["TEMPER_GPUS"] == str(tmp_path / "gpus")
    assert "CUDA_VISIBLE_DEVICES" not in job.settled(tmp_path, 1)
    assert gpus._candidates(list(four)) == ["2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # Ray leaves it unset for a job that asked for none
    for key, value in job.settled(tmp_path, 0).items():
        monkeypatch.setenv(key, value)
    assert not gpus.lease()


def test_every_folder_of_temper_is_one_clones_or_shared_by_all() -> None:
    """A new one must be put on one of the two lists."""
    private = {"gpus", "messages", "npm", "sweeps", "tensorboard", "locks", "logs", "unpacked", "queue", "retrain"}
    named = re.compile(r'scratch\("([a-z_]+)|"\.temper" / "([a-z_]+)|"\.temper/([a-z_]+)')
    found = set()
    for folder in ("temper", "stages", "apps"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= {"".join(groups) for groups in named.findall(path.read_text(encoding="utf-8"))}
    assert found - private == set(job.SHARED)


# --- A real Ray

PIPELINE = """
stages:
  prepare:
    cmd: exec python prepare.py
    deps: [prepare.py]
    params: [image_size]
    outs: [data/prepared/all]
  fine_tune:
    cmd: exec python toy.py
    deps: [toy.py, data/prepared]  # a folder above the output, as data/raw is
    params: [lr, seed]
    outs: [model]
    metrics:
      - metrics/fine_tune/metrics.json: {cache: false}
"""

PREPARE = """
from pathlib import Path
with (Path(ROOT) / "ran.txt").open("a") as said:
    said.write("prepared\\n")
Path("data/prepared").mkdir(parents=True, exist_ok=True)
Path("data/prepared/all").write_text("x")
"""


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    """A clone whose origin and DVC remote are folders, with two stages that say in `tmp_path` what they do."""
    (tmp_path / "first").mkdir()
    (tmp_path / "store").mkdir()
    made = make_repository(tmp_path / "first")
    toy = SCRIPT.replace('Path(os.environ["DVC_ROOT"])', f"Path({str(tmp_path)!r})")
    toy += (
        'Path("model").write_text(name)\nif params["seed"] == 13:\n    raise SystemExit("error: 13 brings bad luck")\n'
    )
    prepare = PREPARE.replace("ROOT", repr(str(tmp_path)))
    for name, text in {"toy.py": toy, "prepare.py": prepare, "dvc.yaml": PIPELINE}.items():
        (made.folder / name).write_text(text, encoding="utf-8")
    with (made.folder / ".gitignore").open("a") as ignored:
        ignored.write("/data\n/model\n")
    write_config(made.folder, str(tmp_path / "store"))
    made.run(f"git init -q -b main --bare {tmp_path}/origin.git")
    made.run(f"git remote add origin {tmp_path}/origin.git")
    made.run("dvc repro -q prepare")
    made.commit("prepared")
    made.run("git push -q origin main")
    made.run("dvc push -q")
    return made


@pytest.mark.slow
def test_the_script_for_slurm(clone: Workspace, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(#!/bin/bash\n.*?)^```$", page, re.M | re.S)
    assert len(script.splitlines()) == 10
    (tmp_path / "run.sh").write_text(script, encoding="utf-8")
    clone.environment |= {"ORIGIN": f"{tmp_path}/origin.git", "CACHE": f"{tmp_path}/cache"}
    for number in ("1", "4"):
        clone.environment["SLURM_ARRAY_TASK_ID"] = number
        clone.run(f"bash {tmp_path}/run.sh")
    assert said(tmp_path)[1:] == [
        f"{what} slurm-{one}" for one in ("1 0.001", "4 1e-05") for what in ("began", "ended")
    ]
    clone.run("dvc exp pull origin slurm-1 slurm-4")
    clone.run("dvc exp apply slurm-4")
    assert (clone.folder / "model").read_text() == "slurm-4"


@pytest.fixture
def cluster(clone: Workspace, tmp_path: Path) -> Iterator[Cluster]:
    with started(tmp_path / "nodes", clone.environment, a=["--num-cpus=2"], b=["--num-cpus=2"]) as made:
        clone.environment = made.environment
        yield made


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make ray")
def test_runs_on_two_nodes(clone: Workspace, cluster: Cluster, tmp_path: Path) -> None:
    submit = f"{sys.executable} -m apps.cluster"

    def ended(state: str, *jobs: str) -> Callable[[], bool]:
        return lambda: {job for job, its in cluster.jobs().items() if its == state} >= set(jobs)

    def began(name: str) -> bool:
        return any(line.startswith(f"began {name} ") for line in said(tmp_path))

    # Four at the same time, two on each node: the data come from the DVC remote, the results by the git remote.
    clone.run(f"{submit} -S 'seed=range(1001,1005)' --name four")
    names = [f"four-{number}" for number in range(1, 5)]
    wait_until(lambda: all(map(began, names)), show=cluster.jobs)
    assert not any("ended" in line for line in said(tmp_path))
    assert "received four-2, whose job is RUNNING" in clone.run(f"{submit} --name four-2", 1)
    (tmp_path / "go").touch()
    wait_until(ended("SUCCEEDED", *names), show=cluster.jobs)
    (tmp_path / "go").unlink()
    places = [re.findall(rf"in {tmp_path}/nodes/(\w)/origin-\w+/clones/(\d)", cluster.log(name)) for name in names]
    assert sorted(places) == [[("a", "1")], [("a", "2")], [("b", "1")], [("b", "2")]]
    assert said(tmp_path).count("prepared") == 1, "where it was committed"
    assert "Pulling data for stage: 'prepare'" in "".join(map(cluster.log, names))
    clone.run(f"dvc exp pull origin {' '.join(names)}")
    shown = json.loads(clone.run("dvc exp show --json"))[1]["experiments"]
    seeds = {one["name"]: one["revs"][0]["data"]["params"]["params.yaml"]["data"]["seed"] for one in shown}
    assert seeds == {name: 1000 + int(name[-1]) for name in names}
    clone.run("dvc exp apply four-3")
    assert (clone.folder / "model").read_text() == "four-3"
    clone.run("git checkout -q -- .")

    # What is stopped leaves no trainer, what fails says why, and what it finished is pushed.
    assert "received four-2, which is here" in clone.run(f"{submit} --name four-2", 1)
    clone.run(f"{submit} -S seed=2000 --name stopped --resource b=1")
    wait_until(lambda: began("stopped"), show=cluster.jobs)
    cluster.stop("stopped")
    wait_until(ended("STOPPED", "stopped"), show=cluster.jobs)
    assert "Pulling" not in cluster.log("stopped"), "the node's cache has what other jobs have pulled"
    assert not [one for one in cluster.processes("b") if {"toy.py", "dvc"} & set(one.cmdline())]
    clone.run(f"{submit} -S seed=13 -S image_size=64 --name failing --resource b=1")
    wait_until(ended("FAILED", "failing"), show=cluster.jobs)
    assert "error: 13 brings bad luck" in cluster.log("failing") and "in this node" not in cluster.log("failing")
    assert not list((tmp_path / "nodes" / "b").glob("*/clones/*/")), "clones are removed"

    # What was lost with a node is submitted again, and finds what was pushed.
    clone.run(f"{submit} -S seed=2001 -S image_size=64 --name lost --resource b=1")
    wait_until(lambda: began("lost"), show=cluster.jobs)
    cluster.kill("b")
    wait_until(ended("FAILED", "lost"), show=cluster.jobs)
    (tmp_path / "go").touch()
    assert "ray job logs lost.2" in clone.run(f"{submit} -S seed=2001 -S image_size=64 --name lost")
    wait_until(ended("SUCCEEDED", "lost.2"), show=cluster.jobs)
    assert said(tmp_path).count("prepared") == 2, "by `failing`, on the node that is gone"
    assert "Stage 'prepare' is cached" in cluster.log("lost.2")
    assert "lost" in clone.run("dvc exp pull origin lost")
