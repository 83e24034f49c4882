"""The ensemble of experiments: read by the real DVC at revisions, aligned, combined, measured, compared."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from apps import ensemble
from apps.ensemble import evaluate
from temper import predictions, tables
from temper.base.errors import TemperError
from temper.comparing.ensembles import combine, differences, measure_all
from temper.comparing.revisions import Member, read_member
from temper.predictions import Predictions
from tests.toys.workspace import enter_copy, environment

NAMES = ["ant", "bee", "cow"]


def probabilities(seed: int, images: int = 60) -> np.ndarray:
    """Of a model that is right in most cases; the label of image n is n % 3."""
    powers = np.exp(np.random.default_rng(seed).normal(size=(images, 3)) + 2 * np.eye(3)[np.arange(images) % 3])
    shares: np.ndarray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def member(name: str, of_images: np.ndarray, names: Sequence[str] = NAMES, first: int = 0) -> Member:
    """A member whose test images are numbered from `first`."""
    numbers = range(first, first + len(of_images))
    predicted = [names[guess] for guess in of_images.argmax(axis=1)]
    test = Predictions(
        [f"{n:016x}" for n in numbers],
        [f"{n}.jpg" for n in numbers],
        [NAMES[n % 3] for n in numbers],
        predicted,
        of_images,
    )
    return Member(name, list(names), test, Predictions([], [], [], [], np.zeros((0, 0), np.float32)))


@pytest.mark.parametrize(
    ("by", "expected"),
    [("average", [(0.9 + 0.4 + 0.4) / 3, (0.1 + 0.6 + 0.6) / 3]), ("vote", [1 / 3, 2 / 3])],
)
def test_the_average_and_the_vote(by: str, expected: list[float]) -> None:
    of_members = [np.array([row], np.float32) for row in ([0.9, 0.1], [0.4, 0.6], [0.4, 0.6])]
    found = combine(of_members, by)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-3) and found.sum() == pytest.approx(1)


def test_the_mean_decides_between_as_many_votes() -> None:
    assert combine([np.array([[0.4, 0.6, 0.0]]), np.array([[0.9, 0.1, 0.0]])], "vote").argmax() == 0
    assert combine([np.array([[0.2, 0.8, 0.0]]), np.array([[0.7, 0.3, 0.0]])], "vote").argmax() == 1


def test_members_in_another_order_are_aligned() -> None:
    first, second = member("a", probabilities(0)), member("b", probabilities(1))
    order = np.random.default_rng(0).permutation(60)
    of = second.test
    moved = Predictions(
        [of.image_ids[row] for row in order],
        [of.paths[row] for row in order],
        [of.class_names[row] for row in order],
        [of.predicted[row] for row in order],
        of.probabilities[order],
    )
    found = evaluate([first, Member("b", NAMES, moved, second.unlabelled)], "average")
    assert np.array_equal(found.test, evaluate([first, second], "average").test)
    assert found.figures["b"] == evaluate([first, second], "average").figures["b"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            member("b", probabilities(1), ["ant", "bee", "dog"]),
            r"same classes.*1 only in a \(cow\), 1 only in b \(dog\)",
        ),
        (member("b", probabilities(1), ["bee", "ant", "cow"]), "same classes.*another order"),
        (
            member("b", probabilities(1), first=3),
            r"same test images.*3 only in a \(0.jpg, 1.jpg, 2.jpg\), 3 only in b \(60.jpg, .*seed",
        ),
        (member("b", probabilities(1, 55)), r"same test images.*: 5 only in a \(55.jpg, 56.jpg, 57.jpg, ...\);"),
    ],
)
def test_members_that_do_not_belong_together_are_refused(other: Member, message: str) -> None:
    with pytest.raises(TemperError, match=f"a and b: expected the {message}"):
        evaluate([member("a", probabilities(0)), other], "average")


def test_another_label_of_the_same_image_is_refused() -> None:
    first, second = member("a", probabilities(0)), member("b", probabilities(1))
    labels = ["cow", *second.test.class_names[1:]]
    of = second.test
    relabelled = Predictions(of.image_ids, of.paths, labels, of.predicted, of.probabilities)
    with pytest.raises(TemperError, match="same labels, received ant and cow for 0.jpg"):
        evaluate([first, Member("b", NAMES, relabelled, second.unlabelled)], "average")


def test_the_best_member_is_compared_with_the_ensemble() -> None:
    members = [member(str(seed), probabilities(seed, 300)) for seed in range(4)]
    found = evaluate(members, "average")
    accuracy = {name: figures["accuracy"][0] for name, figures in found.figures.items()}
    assert list(accuracy) == ["0", "1", "2", "3", "average of 4"]
    assert accuracy[found.best] == max(list(accuracy.values())[:-1])
    for name, (value, (low, high)) in found.gains.items():
        expected = found.figures["average of 4"][name][0] - found.figures[found.best][name][0]
        assert low <= value == pytest.approx(expected, abs=1e-6) and value <= high
    assert found.gains["accuracy"][1][0] > 0, "four independent models are better"


def test_a_paired_interval_is_narrower_than_what_the_two_apart_would_give() -> None:
    labels, one = np.arange(300) % 3, probabilities(0, 300)
    nearly = one.copy()
    nearly[:5] = np.eye(3)[labels[:5]]
    value, (low, high) = differences(nearly, one, labels)["accuracy"]
    alone = measure_all(one, labels)["accuracy"][1]
    assert alone is not None and low <= 0 <= value <= high and high - low < 0.6 * (alone[1] - alone[0])
    assert differences(one, one, labels)["macro_f1"] == (0.0, (0.0, 0.0))


# Read by the real DVC


def run(command: str) -> None:
    subprocess.run(command, shell=True, env=environment(), check=True, capture_output=True)


def write(seed: int, names: Sequence[str] = NAMES, images: int = 60) -> None:
    """What `normalize` and `evaluate` would have written, with two unlabelled images."""
    of_images = np.concatenate([probabilities(seed, images), probabilities(seed + 100, 2)])
    count = len(of_images)
    columns = {
        "image_id": [f"{n:016x}" for n in range(count)],
        "path": [f"{n}.jpg" for n in range(count)],
        "split": ["test"] * images + ["unlabelled"] * 2,
        "class_name": [NAMES[n % 3] for n in range(images)] + [None] * 2,
        "predicted": [NAMES[guess] for guess in of_images.argmax(axis=1)],
        "probabilities": list(of_images),
    }
    Path("data").mkdir(exist_ok=True)
    Path("data/classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    tables.write(predictions.PATH, predictions.PREDICTIONS, columns)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of seed 0 at the tag `first` and of seed 1 at `second`; of seed 2 in the workspace, not committed."""
    folder = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        run(f"git init -q && dvc init -q && dvc remote add -q -d there {folder}.remote")
        for seed, tag in enumerate(("first", "second")):
            write(seed)
            run("dvc add -q data/predictions.parquet data/classes.txt")
            run(f"git add -A && git commit -qm {tag} && git tag {tag}")
        write(2)
    return folder


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    return enter_copy(prepared, tmp_path, monkeypatch)


def test_revisions_and_the_workspace_are_read_and_written(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ensemble", "first", "second", "workspace", "--by", "vote", "--json", "out.json", "--csv", "out.csv"]
    monkeypatch.setattr(sys, "argv", arguments)
    ensemble.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["first", "second", "workspace", "vote", "of", "3"]
    found = json.loads((repository / "out.json").read_text())
    labels = np.arange(60) % 3
    for seed, name in enumerate(("first", "second", "workspace")):
        expected = (probabilities(seed).argmax(axis=1) == labels).mean()
        assert found["models"][name]["accuracy"]["value"] == pytest.approx(expected)
        assert found["models"][name]["accuracy"]["low"] < expected < found["models"][name]["accuracy"]["high"]
    rows = (repository / "out.csv").read_text().splitlines()
    assert len(rows) == 63 and rows[0] == "path,split,class_name,predicted,probability"
    assert rows[1].startswith("0.jpg,test,ant,") and rows[62].startswith("61.jpg,unlabelled,,")
    votes = sum(np.eye(3)[probabilities(seed).argmax(axis=1)] for seed in range(3))
    clear = votes.max(axis=1) > 1
    assert [rows[1 + n].split(",")[3] for n in np.flatnonzero(clear)] == [
        NAMES[guess] for guess in votes.argmax(axis=1)[clear]
    ]


def test_what_is_only_in_the_remote_is_read_from_there(repository: Path) -> None:
    run("dvc push -q --all-tags")
    shutil.rmtree(repository / ".dvc/cache")
    assert np.array_equal(read_member("first").test.probabilities, probabilities(0))


def test_what_cannot_be_had_ends_in_one_line(repository: Path, prepared: Path) -> None:
    with pytest.raises(
        TemperError, match=r"^nowhere: expected a commit, branch, tag, experiment or workspace, found none"
    ):
        read_member("nowhere")
    shutil.rmtree(repository / ".dvc/cache")
    shutil.rmtree(f"{prepared}.remote", ignore_errors=True)
    with pytest.raises(
        TemperError, match=r"^first: expected data/[a-z.]+ in DVC's cache or remote: [^\n]*dvc push[^\n]*$"
    ):
        read_member("first")
    write(2, ["ant", "cow", "bee"])
    with pytest.raises(TemperError, match="^workspace: expected data/predictions.parquet of the 3 classes"):
        read_member("workspace")
    (repository / "data/predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(TemperError, match="^workspace: data/predictions.parquet: expected a table"):
        read_member("workspace")


@pytest.mark.parametrize("revisions", [["first"], ["first", "first"]])
def test_fewer_than_two_revisions_are_refused(revisions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ensemble", *revisions])
    with pytest.raises(TemperError, match="expected two or more different revisions"):
        ensemble.main()
