"""The pull-request report: texts that names cannot break, test sets that differ, two commits read by the real DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from apps.report import __main__ as app
from apps.report import picture, scoring, text
from apps.report.edits import StageEdit, out_of_step
from apps.report.pairing import extended, pair
from apps.report.text import Found, compare, report
from temper import card, predictions, tables
from temper.base import gpus
from temper.base.errors import TemperError
from temper.comparing import revisions
from temper.comparing.markdown import code, table
from temper.comparing.revisions import Member, Revision
from temper.packs import PackWriter
from temper.predictions import Predictions
from tests.toys.colours import append_card
from tests.toys.photos import write_toy_photos
from tests.toys.workspace import ROOT, Workspace, enter_copy, environment

NAMES = ["ant", "bee", "cow"]
NASTY = [
    "a|b",
    "<script>alert(1)</script>",
    "`tick`",
    "line\nbreak",
    "@octocat #1 :tada: $x$",
    "🦄",
    "قطة",
    "",
    " ",
    "a\u202eb",
]


def shares(guesses: Sequence[int], classes: int = 3, sure: float = 0.9) -> np.ndarray:
    """Probabilities of a model that gives these classes."""
    found = np.full((len(guesses), classes), (1 - sure) / max(classes - 1, 1), np.float32)
    found[np.arange(len(guesses)), list(guesses)] = sure
    return found


def member(
    name: str,
    labels: Sequence[str | None],
    guesses: Sequence[int],
    names: Sequence[str] = NAMES,
    ids: Sequence[int] | None = None,
) -> Member:
    """A model's predictions of images that are numbered as `ids` say, or from 0."""
    numbers = range(len(labels)) if ids is None else ids
    of_images = shares(guesses, len(names))
    predicted = [names[guess] for guess in guesses]
    test = Predictions(
        [f"{n:016x}" for n in numbers], [f"{n}.jpg" for n in numbers], list(labels), predicted, of_images
    )
    return Member(name, list(names), test, Predictions([], [], [], [], np.zeros((0, 0), np.float32)))


def found(old: Member, new: Member, **more: Any) -> Found:
    """What is found out about two models."""
    of = Found(Revision("main"), Revision("workspace"), pairing=pair(old, new), **more)
    compare(of, resamples=300)
    return of


def models(images: int, old_wrong: Sequence[int], new_wrong: Sequence[int]) -> tuple[Member, Member]:
    """Two models of images whose class is their number modulo 3, wrong on these."""
    labels = [NAMES[n % 3] for n in range(images)]
    guesses = [[(n + (n in wrong)) % 3 for n in range(images)] for wrong in (old_wrong, new_wrong)]
    return member("main", labels, guesses[0]), member("workspace", labels, guesses[1])


# The words


@pytest.mark.parametrize(
    ("images", "old_wrong", "new_wrong", "expected"),
    [
        (300, range(40), range(10), ["## Better: accuracy rose by 10.0 points", "Newly right: 30; newly wrong: 0."]),
        (300, range(10), range(40), ["## Worse: accuracy fell by 10.0 points", "p < 0.0001", "are worse."]),
        (
            300,
            range(3),
            range(5),
            ["## No difference that 300 test images could show", "-0.7 points", "would have been shown in four cases"],
        ),
        (20, range(3), range(8), ["## No difference that 20 test images", "Newly right: 0; newly wrong: 5."]),
        (1, [], [], ["## No difference that 1 test image could show", "the very same probabilities"]),
        (300, range(3), range(3), ["the model is the same", "**Classes**: none", "the same class to each"]),
    ],
)
def test_the_verdict_in_words(
    images: int, old_wrong: Sequence[int], new_wrong: Sequence[int], expected: Sequence[str]
) -> None:
    said = report(found(*models(images, old_wrong, new_wrong)))
    assert all(one in said for one in expected), said


def test_what_could_have_been_shown_is_more_on_fewer_images() -> None:
    found_on = [
        float(re.findall(r"difference of ([\d.]+) points", report(found(*models(images, [0], [1]))))[0])
        for images in (50, 200, 1000)
    ]
    assert found_on[0] > 10 > found_on[1] > found_on[2] > 0.5


def test_classes_that_lost_come_first_and_say_what_they_are_taken_for() -> None:
    labels = [0] * 40 + [1] * 40 + [2] * 40
    new = [*([1] * 20 + [0] * 20), *[1] * 40, *([0] * 2 + [2] * 38)]
    old = [*[0] * 40, *([2] * 4 + [1] * 36), *[2] * 40]
    names = [NAMES[label] for label in labels]
    said = "\n".join(text.classes(found(member("main", names, old), member("workspace", names, new))))
    assert "1 class lost and 0 gained, of 3 classes together" in said
    rows = [line for line in said.splitlines() if line.startswith("| `")]
    assert rows[0].startswith("| `ant` | 40 | 1.00 → 0.50 | -50.0 (") and "`bee` (20) now | **worse**" in rows[0]
    assert rows[1].startswith("| `cow` | 40 | 1.00 → 0.95 |") and "`ant` (2) now |  |" in rows[1]
    assert rows[2].startswith("| `bee` | 40 | 0.90 → 1.00 | +10.0 (+0.0 to") and "`cow` (4) before |  |" in rows[2]


@pytest.mark.parametrize("name", NASTY)
def test_names_cannot_break_the_text(name: str) -> None:
    shown = code(name)
    (_, _, row), plain = table(["a", "b"], [[shown, "x"]]), re.sub(r"^`[^`]*`$|&#\d+;", "", shown)
    assert row.count("|") == 3 and "\n" not in row
    assert not re.search(r"[<>`@#:$|*_\[\]]", plain.replace('<code dir="auto">', "").replace("</code>", ""))
    assert "\u202e" not in shown


def test_a_report_of_nasty_names_keeps_its_tables() -> None:
    names = [*NASTY[:8], "x" * 500, *(f"{n}" for n in range(191))]
    labels = [names[n % 200] for n in range(2000)]
    old = member("main", labels, [n % 200 for n in range(2000)], names)
    new = member("workspace", labels, [(n + (n % 3 == 0)) % 200 for n in range(2000)], names)
    edits = [(f"a|b{n}", "<b>", None) for n in range(100)]
    stages = [StageEdit(f"s{n}", ["@x", "y"], 2, 1) for n in range(20)]
    said = report(found(old, new, params=edits, stages=stages))
    assert len(said) < 60_000 and "and 60 more." in said, "a comment of GitHub may have 65,536 characters"
    assert "<script>" not in re.sub(r"`[^`\n]*`", "", said) and "x" * 61 not in said
    for block in re.findall(r"(?:^\|.*\n)+", said, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


# The images of both


def test_test_sets_that_differ_are_compared_on_what_both_have() -> None:
    old = member("main", ["ant", "bee", "cow", "ant"], [0, 1, 2, 0], ids=[0, 1, 2, 3])
    new = member("workspace", ["cow", None, "ant", "bee", "bee"], [2, 1, 1, 1, 0], ids=[2, 1, 0, 7, 8])
    both = pair(old, new)
    assert both.paths == ["2.jpg", "0.jpg"] and both.labels.tolist() == [2, 0]
    assert both.old.argmax(1).tolist() == [2, 0] and both.new.argmax(1).tolist() == [2, 1]
    assert (both.only_old, both.only_new) == (2, [3, 4]), "an image without a label counts nowhere"
    said = report(found(old, new))
    assert "**The test sets differ.** 2 test images only in `main`, 2 only in `workspace`; of these, 0 count" in said
    more = extended(both, new, [3, 4], shares([1, 1]))
    assert more.old.argmax(1).tolist() == [2, 0, 1, 1] and more.new.argmax(1).tolist() == [2, 1, 1, 0]
    assert more.labels.tolist() == [2, 0, 1, 1] and more.paths[2:] == ["7.jpg", "8.jpg"]


def test_nothing_in_common_gives_no_verdict() -> None:
    of = found(member("main", ["ant"], [0], ids=[0]), member("workspace", ["ant"], [0], ids=[1]))
    assert of.verdict is None and report(of).startswith("## No verdict: the two have no labelled test image in common")
    assert text.as_json(of)["verdict"] is None


def test_classes_that_are_renamed_added_removed_or_moved() -> None:
    old = member("main", ["ant", "bee", "bee", "cow", "dog"], [0, 1, 2, 2, 3], ["ant", "bee", "cow", "dog"])
    names = ["ant", "cow", "eel", "wasp"]
    new = member("workspace", ["ant", "wasp", "wasp", "eel", "cow"], [0, 3, 1, 2, 1], names)
    both = pair(old, new)
    assert both.classes == ["ant", "cow", "eel", "wasp", "dog"] and both.renamed == {"bee": "wasp"}
    assert (both.added, both.removed, both.relabelled) == (["eel"], ["dog"], 2)
    assert [both.guess(both.old, row) for row in range(5)] == ["ant", "wasp", "cow", "cow", "dog"]
    assert both.old[:, 2].tolist() == [0] * 5 and both.new[:, 4].tolist() == [0] * 5
    said = report(found(old, new))
    assert "`bee` is `wasp` now" in said and "2 images of another class in `main`" in said
    assert "Only `workspace` knows `eel`: to the model of `main`" in said and "Only `main` knows `dog`" in said


def test_of_each_kind_of_disagreement_some_are_drawn() -> None:
    every = [picture.Disagreement(n, kind, 0.5) for kind in picture.KINDS for n in range(30)]
    kept = [one.kind for one in picture.chosen(every)]
    assert [kept.count(kind) for kind in picture.KINDS] == [20, 10, 10] and kept == sorted(kept, key=kept.index)
    assert picture.chosen(every[:5]) == every[:5]


# The workflow


def workflow(name: str) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))
    return content


def test_the_workflow_may_do_little() -> None:
    of = workflow("report")
    assert of["permissions"] == {} and "pull_request_target" not in str(of)
    may = {name: job["permissions"] for name, job in of["jobs"].items()}
    assert may == {"report": {"contents": "read"}, "comment": {"pull-requests": "write"}}
    steps = [step for job in of["jobs"].values() for step in job["steps"]]
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    assert not any("${{" in step.get("run", "") for step in steps), "names of branches are no part of a script"


@pytest.mark.parametrize("tool", ["check-jsonschema", "zizmor"])
def test_checkers_find_nothing_in_the_workflows(tool: str, tmp_path: Path) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    (gitlab,) = re.findall(r"<!-- gitlab -->\n```\n(.*?)```", (ROOT / "docs/report.md").read_text("utf-8"), re.S)
    (tmp_path / "gitlab.yml").write_text(gitlab, encoding="utf-8")
    commands = {
        "check-jsonschema": [
            ["--builtin-schema", "vendor.github-workflows", *map(str, (ROOT / ".github/workflows").glob("*.yml"))],
            ["--builtin-schema", "vendor.gitlab-ci", str(tmp_path / "gitlab.yml")],
        ],
        "zizmor": [["--offline", str(ROOT / ".github/workflows")]],
    }
    for arguments in commands[tool]:
        subprocess.run([tool, *arguments], check=True)


# Read by the real DVC

PIPELINE = {
    "stages": {
        "evaluate": {
            "cmd": "cp -r made/. .",
            "deps": ["made"],
            "params": ["lr"],
            "outs": ["data/classes.txt", "data/predictions.parquet", "data/packed/test"],
            "metrics": [{"metrics/evaluate/metrics.json": {"cache": False}}],
        }
    }
}


def write(wrong: int, lr: float, images: int = 60) -> None:
    """What `evaluate` and those before it would have written, and will, as soon as `dvc repro` runs."""
    shutil.rmtree("made", ignore_errors=True)
    for folder in ("made/data/packed/test", "made/metrics/evaluate"):
        Path(folder).mkdir(parents=True)
    of_images = shares([(n + (n < wrong)) % 3 for n in range(images)])
    ids = [f"{n:016x}" for n in range(images)]
    columns = {
        "image_id": ids,
        "path": [f"{n}.jpg" for n in range(images)],
        "split": ["test"] * images,
        "class_name": [NAMES[n % 3] for n in range(images)],
        "predicted": [NAMES[guess] for guess in of_images.argmax(axis=1)],
        "probabilities": list(of_images),
    }
    Path("made/data/classes.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    tables.write(f"made/{predictions.PATH}", predictions.PREDICTIONS, columns)
    Path("made/metrics/evaluate/metrics.json").write_text(json.dumps({"accuracy": 1 - wrong / images}))
    with PackWriter(Path("made/data/packed/test"), np.array(ids), 16, 16) as pack:
        for number in range(images):
            pack.append(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8))
        pack.finish((np.arange(images) % 3).astype(np.int32))
    Path("params.yaml").write_text(f"lr: {lr}\nfine_tune: {{epochs: 3}}\n", encoding="utf-8")


def run(command: str) -> None:
    subprocess.run(command, shell=True, env=environment(), check=True, capture_output=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three wrong images at `main`, twenty on the branch `change`, which is checked out; all of it is in the remote."""
    folder = tmp_path_factory.mktemp("report") / "repository"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "../site"))
        run("git init -qb main && mkdir .dvc")
        Path(".dvc/config").write_text(f"[core]\nremote = there\n['remote \"there\"']\nurl = {folder}.remote\n")
        Path(".gitignore").write_text("/data\n/.dvc/cache\n/.dvc/tmp\n")
        Path("dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
        write(3, 3e-4)
        run("git add -A && git commit -qm older && git tag older")
        run("dvc repro -q && git add -A && git commit -qm main && git switch -qc change")
        write(20, 3e-6)
        run(f"dvc repro -q && git add -A && git commit -qm change && cp -r .dvc/cache {folder}.remote")
    return folder


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    return enter_copy(prepared, tmp_path, monkeypatch)


def reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """The exit code, the text and what stands on stderr."""
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    exit_code = app.main()
    printed = capsys.readouterr()
    return exit_code, printed.out, printed.err


def test_two_commits_are_compared(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, said, _ = reported(monkeypatch, capsys, "--picture", "report.png", "--json", "report.json")
    assert exit_code == 0 and said.startswith("## Worse: accuracy fell by 28.3 points")
    assert "| `lr` | `0.0003` | `3e-06` |" in said and "| `evaluate` | `lr`, `made` | " in said
    assert "![Photos on which the two disagree](report.png)" in said and "17 newly wrong." in said
    assert np.asarray(cv2.imread("report.png")).shape[1] > 5 * 160
    written = json.loads(Path("report.json").read_text())
    assert written["verdict"] == "worse" and written["figures"]["accuracy"]["difference"] == pytest.approx(-17 / 60)
    assert "not as `dvc repro` left it" not in said
    # The same by the workflow's own script, in a clone as CI makes it: no branch main, nothing but what git has. What
    # has landed on main since the branch began is not undone by the branch.
    run("git switch -q main && sed -i 's/epochs: 3/epochs: 4/' params.yaml && git commit -qam later")
    run("git switch -q change")
    run(f"git clone -q {repository} ci && cd ci && git checkout -q --detach && git branch -D change -q")
    step = next(step for step in workflow("report")["jobs"]["report"]["steps"] if step.get("name") == "Report")
    variables = {"BASE": "origin/main", "RUN": "https://example.org/runs/1", "GITHUB_STEP_SUMMARY": "summary.md"}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd="ci", env=environment() | variables, check=True)
    again = Path("ci/report/report.md").read_text(encoding="utf-8")
    assert again.splitlines()[0] == said.splitlines()[0] and Path("ci/summary.md").read_text("utf-8") == again
    assert "epochs" not in again and "| `lr` | `0.0003` | `3e-06` |" in again
    assert "[The photos side by side](https://example.org/runs/1#artifacts)" in again
    assert {path.name for path in Path("ci/report").iterdir()} == {"photos.png", "report.json", "report.md"}


def test_a_workspace_that_was_edited_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").write_text("lr: 1e-05\nfine_tune: {epochs: 3}\n", encoding="utf-8")
    shutil.copy(predictions.PATH, "kept")
    Path(predictions.PATH).unlink()
    shutil.copy("kept", predictions.PATH)
    _, said, _ = reported(monkeypatch, capsys)
    assert "`workspace` is not as `dvc repro` left it" in said and ": `lr` changed since" in said
    with Path(predictions.PATH).open("ab") as file:
        file.write(b"more")
    assert out_of_step(Revision("workspace")) == ["lr", predictions.PATH] and not out_of_step(revisions.find("main"))


def test_what_cannot_be_had_ends_in_one_line(
    repository: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("nowhere", "origin/nowhere", "--x"):
        with pytest.raises(TemperError, match=f"^{name}: expected a commit, branch, tag, experiment or workspace"):
            revisions.find(name)
    exit_code, said, problem = reported(monkeypatch, capsys, "older", "main")
    assert exit_code == app.NO_VERDICT and said.startswith("## No verdict: predictions are missing")
    assert problem == (
        "error: older: expected data/classes.txt, but that revision has none: no dvc repro that wrote it was "
        "committed there; name a later one\n"
    )
    shutil.rmtree(repository / ".dvc/cache")
    run("dvc remote add -q -f -d there /nowhere/at/all && git commit -qam remote")
    exit_code, said, problem = reported(monkeypatch, capsys, "main", "HEAD")
    assert exit_code == app.NO_VERDICT and "`lr`" in said and "| `accuracy` | 0.9500 | 0.6667 |" in said
    assert re.match(r"error: main: expected data/classes.txt in DVC's cache or remote: .*run dvc push", problem)
    shutil.rmtree("data")
    assert "run dvc pull data/classes.txt" in reported(monkeypatch, capsys, "workspace", "main")[2]
    shallow = repository / "shallow"
    run(f"git clone -q --depth 1 file://{repository} {shallow}")
    monkeypatch.chdir(shallow)
    with pytest.raises(TemperError, match="this clone is shallow: git fetch --unshallow"):
        revisions.find("older")
    monkeypatch.chdir("/")
    with pytest.raises(TemperError, match="in no git repository"):
        revisions.find("main")


def test_the_old_model_sees_no_gpu(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report holds no lease, and Keras would fill the memory of GPUs that stages compute on."""

    class Loaded(Exception):
        """The model was about to be loaded."""

    def load(path: Path) -> None:
        raise Loaded(os.environ[gpus.VISIBLE])

    Path("models").mkdir()
    append_card(Path(scoring.MODEL), NAMES)
    Path("data/packed").mkdir(parents=True)
    Path(card.PACKED).write_text(card.read(scoring.MODEL).preparation.model_dump_json(), encoding="utf-8")
    with PackWriter(Path("data/packed/test"), np.array(["a" * 16]), 32, 32) as pack:
        pack.append(np.zeros((32, 32, 3), np.uint8))
        pack.finish(np.zeros(1, np.int32))
    monkeypatch.setenv(gpus.VISIBLE, "0")
    monkeypatch.setattr(scoring, "Predictor", load)
    before, after = models(1, [], [])
    with pytest.raises(Loaded, match="^-1$"):
        scoring.score(Revision("workspace"), Revision("workspace"), before, after, [])


@pytest.mark.slow
def test_the_old_model_is_shown_the_new_test_images(pipeline: Workspace, tmp_path: Path) -> None:
    old = write_toy_photos(tmp_path / "photos")
    write_toy_photos(tmp_path / "more", 20, 500)
    for photo in sorted((tmp_path / "more").rglob("*.png")):
        shutil.copy(photo, old / photo.relative_to(tmp_path / "more"))
    pipeline.set(fetch__photos__path=str(old))
    pipeline.run("dvc repro")
    said = pipeline.run("python -m apps.report HEAD --json report.json --picture report.png")
    counted = re.search(r"(\d+) only in `workspace`; of these, (\d+) count here and 0 do not", said)
    assert counted and counted[1] == counted[2] != "0", said
    assert "that the model of `HEAD` was shown now" in said
    # As if the images were of another size now: those that both predicted are compared still.
    packed = pipeline.folder / "data/packed/preparation.json"
    prepared = json.loads(packed.read_text(encoding="utf-8")) | {"height": 20}
    packed.unlink()  # a link into the cache
    packed.write_text(json.dumps(prepared), encoding="utf-8")
    said = pipeline.run("python -m apps.report HEAD")
    assert "was not shown the new images" in said and "are prepared otherwise" in said
