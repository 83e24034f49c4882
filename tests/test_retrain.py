"""Retraining without training: the rule by tables and simulations, its words, its notes, and promotions cut off."""

import argparse
import json
import multiprocessing
import re
import subprocess
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from apps.retrain import __main__ as retraining
from apps.retrain import arrivals, journal, report, repository, scoring
from apps.retrain.journal import Journal
from apps.retrain.report import Found
from apps.retrain.rule import Compared, LabelCheck, Verdict, decide
from apps.retrain.scoring import Old, Scored
from apps.retrain.shares import difference, shifts
from temper import card, images, tables
from temper.base.errors import TemperError
from temper.comparing.paired import tango
from tests.toys.tango import lower_bound
from tests.toys.workspace import ROOT, environment

CLEAN = LabelCheck(5, 100, 5, 100)


def compared(gained: int, lost: int, count: int, decides: bool = True, name: str = "all test images") -> Compared:
    """Both models on `count` images, of which some changed sides."""
    old, new = np.ones(count, bool), np.ones(count, bool)
    old[:gained] = False
    new[gained : gained + lost] = False
    return Compared(name, old, new, decides)


@pytest.mark.parametrize(
    ("gained", "lost", "count", "margin", "promote"),
    [
        (0, 0, 188, 0.02, False),  # z^2 / (n + z^2) = 3.84 / 191.84 = 0.0200...
        (0, 0, 189, 0.02, True),
        (0, 0, 64, 0.05, False),
        (0, 0, 64, 0.06, True),
        (0, 0, 100_000, 0.0, False),  # equal is not better
        (30, 10, 1000, 0.0, True),
        (10, 30, 1000, 0.02, False),
        (5, 0, 100, 0.0, False),  # 1 in 16 by chance
        (20, 20, 1000, 0.02, True),
        (20, 20, 1000, 0.01, False),
    ],
)
def test_the_rule(gained: int, lost: int, count: int, margin: float, promote: bool) -> None:
    one = compared(gained, lost, count)
    verdict = decide([one], CLEAN, margin)
    assert verdict.promote == promote
    if gained == lost:
        assert one.discordance.difference.interval[0] == pytest.approx(lower_bound(gained, lost, count), abs=1e-6)
        assert promote == (lower_bound(gained, lost, count) > -margin)
    if not promote:
        needed = one.images_needed(margin)
        assert (needed is None) == ((gained - lost) / count <= -margin)
        if needed:
            assert f"{needed:,} test images" in verdict.reasons[0] and needed > count
            times = needed / count
            assert compared(round(gained * times), round(lost * times), needed).may_replace(margin)


def test_a_model_that_is_worse_by_the_margin_is_seldom_promoted() -> None:
    """At most 2.5 % of models that are worse by exactly the margin pass, and most of those that are better do."""
    random, trials, count, margin = np.random.default_rng(0), 2000, 800, 0.02
    for real, least, most in ((-margin, 0.0, 0.035), (0.0, 0.3, 0.6), (0.03, 0.95, 1.0)):
        shares = [0.05 + max(real, 0), 0.05 - min(real, 0)]
        gained, lost, _ = random.multinomial(count, [*shares, 1 - sum(shares)], trials).T
        passes = tango(gained, lost, count)[0] > -margin
        assert least <= passes.mean() <= most, real
        for number in range(5):
            assert compared(int(gained[number]), int(lost[number]), count).may_replace(margin) == passes[number]


def test_a_new_class_hides_no_loss_on_the_others() -> None:
    on_all, on_known = compared(100, 20, 500), compared(0, 20, 400, name="the known classes")
    assert decide([on_all], CLEAN, 0.02).promote
    verdict = decide([on_all, on_known], CLEAN, 0.02)
    assert not verdict.promote and "On the known classes the new model is worse" in verdict.reasons[0]
    assert decide([on_all, replace(on_known, decides=False)], CLEAN, 0.02).promote
    nothing = decide([on_all, compared(0, 0, 0, name="the known classes")], CLEAN, 1.0)
    assert not nothing.promote and "nothing can be compared" in nothing.reasons[0]


@pytest.mark.parametrize(
    ("labels", "suspicious"),
    [
        (LabelCheck(3, 100, 33, 100), True),
        (LabelCheck(3, 100, 12, 100), False),  # a little harder
        (LabelCheck(2, 20, 6, 20), False),  # too few to say
        (LabelCheck(0, 0, 30, 100), False),
        (LabelCheck(3, 100, 0, 0), False),
    ],
)
def test_labels_that_contradict_the_old_model_wait_for_a_person(labels: LabelCheck, suspicious: bool) -> None:
    better = compared(200, 0, 1000)
    verdict = decide([better], labels, 0.02)
    assert verdict.promote != suspicious
    assert decide([better], labels, 0.02, trust_labels=True).promote
    if suspicious:
        assert "(33 of 100)" in verdict.reasons[0] and "--trust-labels" in verdict.reasons[0]


def test_thirty_of_a_hundred_wrong_labels_are_noticed_and_right_ones_are_not() -> None:
    """Of a model that errs on 5 %, whose labels are checked on 100 of its test images."""
    random, trials = np.random.default_rng(0), 1000
    for wrong, least, most in ((0.3, 0.9, 1.0), (0.0, 0.0, 0.01)):
        rate = 0.05 + 0.95 * wrong
        found = [
            LabelCheck(old, 100, new, 100).is_suspicious
            for old, new in zip(random.binomial(100, 0.05, trials), random.binomial(100, rate, trials), strict=True)
        ]
        assert least <= np.mean(found) <= most, wrong


def test_the_difference_of_shares_is_newcombes() -> None:
    """His example of 56 of 70 and 48 of 80 (1998, table II, a): 0.2, from 0.0524 to 0.3339."""
    value, interval = difference(48, 80, 56, 70)
    assert value == pytest.approx(0.2) and interval == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(0, 10, 0, 20)[1] == pytest.approx((-0.2775, 0.1611), abs=5e-5)


def test_shifts_of_class_shares() -> None:
    old = {"ant": 100, "bee": 100, "cat": 100}
    found = shifts(old, {"ant": 26, "bee": 25, "cat": 49})
    assert [one.class_name for one in found] == ["cat"] and found[0].new == pytest.approx(0.49)
    assert shifts(old, {"ant": 20, "bee": 21, "cat": 19, "dog": 500}) == [], "a new class is no shift of the others"
    assert shifts(old, {}) == shifts({}, old) == []
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        counts = random.multinomial(120, [1 / 3] * 3).tolist()
        alarms += bool(shifts(old, dict(zip(old, counts, strict=True))))
    assert alarms / 400 < 0.08, "5 % for all classes together"


# --- What is compared


def table(rows: list[tuple[str, str, str]]) -> pa.Table:
    """A table of images from (image_id, class_name, split)."""
    ids, names, splits = zip(*rows, strict=True)
    paths = [f"{one}.jpg" for one in ids]
    columns = {"image_id": ids, "class_name": names, "split": splits, "path": paths}
    columns |= {"source": ["photos"] * len(ids), "part": [0] * len(ids), "row": list(range(len(ids)))}
    return pa.table({name: pa.array(columns[name], images.IMAGES.field(name).type) for name in images.IMAGES.names})


def test_classes_are_joined_by_name_and_comparisons_are_on_the_right_images() -> None:
    tested = Scored(
        np.array(["1", "2", "3", "4"]),
        np.array(["ant", "bee", "cow", "cow"]),
        np.array(["ant", "ant", "bee", "ant"]),
        np.array(["ant", "bee", "cow", "bee"]),
        ["bee", "ant"],
        ["ant", "bee", "cow"],
        trained_on=3,
    )
    found = {one.name: one for one in tested.compared({"1", "3"})}
    every, known = found["all test images"], found["the test images of the classes that both know"]
    assert (every.discordance.gained, every.discordance.lost, every.discordance.images) == (2, 0, 4)
    assert (known.discordance.gained, known.discordance.images) == (1, 2)
    assert found["the test images that there were before"].discordance.images == 2
    assert [one.decides for one in found.values()] == [True, True, False, False]
    text = report.as_markdown(Found("v0.1.0", Verdict(True, ["Good."]), tested, tuple(found.values())), 0.02)
    assert "| all test images | 4 | 25.00% | 75.00% | +50.00% (" in text and "| images | v0.1.0 | new |" in text
    assert "The old model does not know `cow`: it counts as wrong" in text and "3 test images were left out" in text


def test_what_came_and_what_went(in_tmp_path: Path) -> None:
    old = Old("v0.1.0", b"", table([("1", "ant", "train"), ("2", "ant", "test"), ("3", "bee", "train")]))
    new = table([("1", "ant", "train"), ("2", "ant", "test"), ("4", "ant", "test"), ("5", "cow", "train")])
    tables.write(images.PATH, images.IMAGES, {name: new[name] for name in new.column_names})
    found = arrivals.arrived(old)
    assert found.photos == {"4": ("4.jpg", "ant", "test"), "5": ("5.jpg", "cow", "train")}
    assert found.gone == 1 and found.new_classes == {"cow": 1}
    names = np.array(["ant", "ant"])
    tested = Scored(np.array(["2", "4"]), names, np.array(["ant", "bee"]), names, ["ant", "bee"], ["ant", "cow"], 0)
    guesses = {"2": "ant", "4": "bee", "5": "ant"}
    assert arrivals.check_labels(old, tested, found, guesses, []) == LabelCheck(0, 1, 1, 1), "cow is not known"
    assert arrivals.check_labels(old, tested, found, guesses, ["4"]) == LabelCheck(0, 1, 0, 0)


def test_a_model_is_fed_as_its_own_card_says(in_tmp_path: Path) -> None:
    """Packed images where it was fed alike; the photos themselves where not; no crops whose boxes nobody knows."""
    from temper import keras_files, raw  # noqa: PLC0415
    from temper.predictor import Predictor  # noqa: PLC0415
    from temper.preparation import Preparation, prepare  # noqa: PLC0415
    from tests.toys.classifier import CARD, alive, classifier  # noqa: PLC0415 (seconds)
    from tests.toys.packed import write_packed  # noqa: PLC0415

    table = write_packed(["ant", "bee", "cow"], side=24)
    made = card.read_preparation()
    photos = dict(zip(table["image_id"].to_pylist(), raw.stream_images(table), strict=True))
    wanted = set(list(photos)[::2])
    for side in (24, 32):
        model = classifier("tiny", side)
        alive(model, np.stack([prepare(data, Preparation(side, side, "stretch", 0.0)) for data in photos.values()]))
        path, preparation = in_tmp_path / f"{side}.keras", made.model_copy(update={"height": side, "width": side})
        keras_files.save(model, path, CARD.model_copy(update={"preparation": preparation}).as_entry())
        scorer, predictor = scoring.Scorer(path, "old"), Predictor(path)
        assert scorer._is_packed == (side == 24)
        expected = {one: predictor.predict(photos[one], top=1)[0][0] for one in wanted}
        assert scorer.guesses(wanted) == expected and len(set(expected.values())) > 1
    keras_files.save(model, in_tmp_path / "crops.keras", CARD.as_entry())
    with pytest.raises(TemperError, match="old: expected a model for whole photos.*received one for crops of.*yolox"):
        scoring.Scorer(in_tmp_path / "crops.keras", "old")


# --- Killed and started again


def git(command: str) -> str:
    done = subprocess.run(f"git {command}", shell=True, env=environment(), check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with what a retraining commits, and something else."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    git("init -q")
    for name in ("dvc.lock", "metrics/metrics.json", "params.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("old\n")
    git("add -A")
    git("commit -qm start")
    return in_tmp_path


def test_a_promotion_that_is_cut_off_anywhere_is_made_once(clone: Path) -> None:
    """Each step is done twice, as by a run that was killed right after it and started again."""
    noted = Journal(repository.head(), accepted="report")
    repository.commit(noted, "Retrain")  # nothing was changed: the commit itself is promoted
    assert repository.head() == noted.base and not repository.is_done(noted)
    assert repository.promote() == "v0.1.0" and repository.is_done(noted)

    noted = Journal(repository.head(), accepted="report", replaced="v0.1.0")
    assert not repository.is_done(noted), "the tags there are of the old model"
    Path("dvc.lock").write_text("new\n")
    for _ in range(2):
        repository.commit(noted, "Retrain")
    assert repository.is_done(noted) and git(f"rev-list --count {noted.base}..HEAD") == "1"
    repository.run("gto", "register", "classifier", "--bump-minor")  # killed between the two tags
    assert [repository.promote() for _ in range(2)] == ["v0.2.0", "v0.2.0"]
    expected = ["classifier#prod#1", "classifier#prod#2", "classifier@v0.1.0", "classifier@v0.2.0"]
    assert git("tag").split() == expected and git("status --porcelain") == ""
    git("commit -q --allow-empty -m 'of a person'")
    assert not repository.is_done(noted), "somebody went on: the notes are of the past"
    with pytest.raises(TemperError, match=rf"^HEAD: expected the commit {noted.base[:10]} .*nothing was promoted"):
        repository.commit(noted, "Retrain")


def test_other_changes_are_refused_and_own_ones_only_of_a_killed_run(clone: Path) -> None:
    repository.require_clean()
    Path("metrics/metrics.json").write_text("half\n")
    with pytest.raises(TemperError, match=r"found changed: metrics/metrics.json; commit them"):
        repository.require_clean()
    repository.require_clean(repository.OWN)
    Path("params.yaml").write_text("mine\n")
    with pytest.raises(TemperError, match=r"found changed: params.yaml;"):
        repository.require_clean(repository.OWN)


# --- What people do meanwhile


def arrive(name: str, text: str) -> None:
    """A new file in the place of one that DVC keeps, which may be a link into its cache."""
    Path(name).unlink()
    Path(name).write_text(text)


@pytest.fixture
def pipeline(clone: Path) -> Path:
    """A pipeline of one stage, whose model is the archive of photos that it was given by `dvc add`; and other notes."""
    Path("dvc.lock").unlink()
    Path("params.yaml").write_text("seed: 1\n")
    Path(".gitignore").write_text(".temper/\n")
    repository.run("dvc", "init", "--quiet")
    for name in ("photos.zip", "notes.txt"):
        Path(name).write_text("old")
    repository.run("dvc", "add", "--quiet", "photos.zip", "notes.txt")
    stage = ("--name", "train", "--deps", "photos.zip", "--outs", "model", "cp photos.zip model")
    repository.run("dvc", "stage", "add", "--quiet", "--run", *stage)
    git("add -A")
    git("commit -qm pipeline")
    return clone


def test_a_model_that_is_not_promoted_touches_no_photos(pipeline: Path) -> None:
    """Photos that arrive before, during and after the training stay, and the next run finds nothing to be committed."""
    noted = Journal(repository.head())
    arrive("photos.zip", "new")
    repository.reproduce(())
    noted = replace(noted, rewritten=repository.rewritten())
    assert Path("model").read_text() == "new" and noted.rewritten == ("photos.zip.dvc",)
    arrive("photos.zip", "newer")
    arrive("notes.txt", "mine")
    repository.restore(noted)
    assert Path("model").read_text() == "old"
    assert (Path("photos.zip").read_text(), Path("notes.txt").read_text()) == ("newer", "mine")
    assert git("status --porcelain") == ""


def test_what_was_updated_is_brought_back(pipeline: Path, tmp_path: Path) -> None:
    bucket = tmp_path / ".temper/bucket.txt"  # not in git
    bucket.parent.mkdir()
    bucket.write_text("old")
    repository.run("dvc", "import-url", "--quiet", str(bucket), "far.txt")
    git("add -A")
    git("commit -qm import")
    noted = Journal(repository.head(), ("far.txt.dvc",))
    bucket.write_text("newer")
    repository.reproduce(noted.updated)
    assert Path("far.txt").read_text() == "newer" and repository.rewritten() == noted.updated
    repository.restore(noted)
    assert Path("far.txt").read_text() == "old" and git("status --porcelain") == ""


def test_a_promotion_holds_the_photos_and_nothing_that_was_staged_meanwhile(pipeline: Path) -> None:
    """Killed after the pipeline has rewritten photos.zip.dvc, and started again."""
    chosen = argparse.Namespace(push=False, dry_run=False, update=[])
    noted = retraining.begin(chosen)
    arrive("photos.zip", "new")
    repository.reproduce(())
    Path("new.txt").write_text("staged")
    git("add new.txt")
    with pytest.raises(TemperError, match=r"found changed: new.txt;"):
        retraining.begin(chosen)
    git("reset -q new.txt")
    assert retraining.begin(chosen) == noted, "it goes on: what it has itself changed is no hindrance"
    git("add new.txt")
    repository.commit(replace(noted, rewritten=repository.rewritten()), "Retrain")
    assert git("diff-tree --no-commit-id --name-only -r HEAD").split() == ["dvc.lock", "photos.zip.dvc"]
    lock, added = (yaml.safe_load(git(f"show HEAD:{name}")) for name in ("dvc.lock", "photos.zip.dvc"))
    assert lock["stages"]["train"]["deps"][0]["md5"] == added["outs"][0]["md5"]
    assert git("status --porcelain") == "A  new.txt"


def run_whole(monkeypatch: pytest.MonkeyPatch, found: Found, push: bool = True) -> str:
    """The command, but for the comparison of the models, whose outcome is given."""
    monkeypatch.setattr(retraining, "examine", lambda _: found)
    return retraining.retrain(
        argparse.Namespace(push=push, dry_run=False, update=[], out=retraining.OUT, margin=0.02, trust_labels=False)
    )


def test_nothing_is_promoted_where_somebody_committed_meanwhile(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive("photos.zip", "new")

    def examine(_: object) -> Found:
        git("commit -q --allow-empty -m 'of a person'")
        return Found(None, Verdict(True, ["The first."]))

    monkeypatch.setattr(retraining, "examine", examine)
    chosen = argparse.Namespace(push=False, dry_run=False, update=[], out=retraining.OUT, margin=0.02)
    with pytest.raises(TemperError, match=r"nothing was promoted; `git restore .* dvc.lock metrics photos.zip.dvc`"):
        retraining.retrain(chosen)
    assert git("tag") == "" and git("log -1 --format=%s") == "of a person"
    git("restore --staged --worktree dvc.lock metrics photos.zip.dvc")  # as the error says
    assert "Promoted: classifier@v0.1.0" in run_whole(monkeypatch, Found(None, Verdict(True, ["The first."])), False)
    assert Path("model").read_text() == "new" and git("tag --points-at HEAD --list *@*") == "classifier@v0.1.0"


def test_a_version_whose_push_was_refused_is_pushed_later(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The remote has somebody's commit; a rebase leaves the tags behind, which is an error; a merge does not."""
    there, other = tmp_path / "there.git", tmp_path / "other"
    git(f"init -q --bare {there}")
    git(f"remote add origin {there}")
    repository.run("dvc", "remote", "add", "--quiet", "--default", "there", str(tmp_path / "there.dvc"))
    git("commit -qam 'a remote'")
    git("push -q origin HEAD")
    git(f"clone -q {there} {other}")
    git(f"-C {other} commit -q --allow-empty -m 'of a person'")
    git(f"-C {other} push -q")
    arrive("photos.zip", "new")
    with pytest.raises(TemperError, match=r"git push .*failed"):
        run_whole(monkeypatch, Found(None, Verdict(True, ["The first."])))
    git("fetch -q")
    git(f"rebase -q origin/{repository.branch()}")
    same = Found("v0.1.0", Verdict(False, ["The model is the one that is in production already."]))
    missing = "--delete classifier@v0.1.0 classifier#prod#1`"
    with pytest.raises(TemperError, match=rf"--push: expected classifier@v0.1.0, .*{missing}"):
        run_whole(monkeypatch, same)
    git(f"-C {there} tag classifier@v0.1.0 HEAD")
    assert "classifier@v0.1.0" in repository.unpublished("v0.1.0"), "of another commit"
    git(f"-C {there} tag --delete classifier@v0.1.0")
    git("merge -q --no-edit classifier@v0.1.0")  # as the error says
    assert "Pushed classifier@v0.1.0, which origin did not have. There is nothing new" in run_whole(monkeypatch, same)
    assert git(f"-C {there} tag").split() == git("tag").split() == ["classifier#prod#1", "classifier@v0.1.0"]
    assert git(f"-C {there} rev-parse HEAD") == repository.head() and repository.unpublished("v0.1.0") == []


def test_notes_are_read_back_and_damaged_ones_refused(in_tmp_path: Path) -> None:
    assert journal.read() is None
    noted = Journal("abc", ("photos.zip.dvc",), "# report", "v0.1.0", ("others.zip.dvc",))
    noted.write()
    assert journal.read() == noted
    journal.end()
    assert journal.read() is None
    journal.PATH.write_text(json.dumps({"base": "abc"}))
    with pytest.raises(TemperError, match=r"journal.json: expected the notes"):
        journal.read()


def hold(held: Event, enough: Event) -> None:
    with journal.alone():
        held.set()
        enough.wait(30)


def test_two_at_once_exclude_each_other_and_a_killed_one_lets_go(in_tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, enough = context.Event(), context.Event()
    other = context.Process(target=hold, args=(held, enough))
    other.start()
    assert held.wait(30)
    with pytest.raises(TemperError, match="one is running"), journal.alone():
        pass
    other.kill()
    other.join()
    with journal.alone():
        pass


def test_a_program_that_fails_ends_in_one_line(clone: Path) -> None:
    with pytest.raises(TemperError, match=r"^git rev-parse .*: failed: fatal: .*nowhere"):
        repository.run("git", "rev-parse", "nowhere", "--")
    with pytest.raises(TemperError, match="expected the program no-such-program, found none"):
        repository.run("no-such-program")
    git("checkout -q --detach")
    with pytest.raises(TemperError, match="--push: expected a branch"):
        repository.require_remotes()
    assert scoring.MODEL == "models/fine_tune.keras"


def test_the_workflow_may_push_and_nothing_else() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/retrain.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {} and job["permissions"] == {"contents": "write"}
    assert workflow["concurrency"] == {"group": "retrain", "cancel-in-progress": False}
    assert "vars.RETRAIN == 'true'" in job["if"], "a clone starts nothing by itself"
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in job["steps"] if "uses" in step)
    assert not any("${{" in step.get("run", "") for step in job["steps"])
    assert any("python -m apps.retrain --push --out retrain\n" in step.get("run", "") for step in job["steps"])
