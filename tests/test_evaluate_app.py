"""`python -m apps.evaluate`: the figures of the stage on any labelled photos, and what it writes beside them."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps import evaluate
from temper import images, raw
from temper.base.errors import TemperError
from temper.measures.metrics import measure
from temper.predictor import Predictor
from tests.toys.exported import WHOLE, set_card, write_exported
from tests.toys.photos import toy_photo, write_toy_photos
from tests.toys.starting import start
from tests.toys.workspace import ROOT, Workspace

MADE = WHOLE.model_copy(update={"classes": ["ant", "bee", "cat"], "temperature": 2.0})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An untrained classifier of ants, bees and cats in every format; leave them as they are."""
    return write_exported(tmp_path_factory.mktemp("exported"), MADE)


@pytest.fixture
def folder(in_tmp_path: Path) -> Path:
    """The working folder, with 20 photos of each class in `photos`."""
    write_toy_photos(in_tmp_path / "photos", per_class=20)
    return in_tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    return evaluate.main()


def figures(out: Path, model: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["models"][model]
    return found


def test_the_figures_are_those_of_the_stage(pipeline: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the test photos of the pipeline, read anew from their files: value by value, bound by bound."""
    monkeypatch.chdir(pipeline.folder)
    table = images.read()
    test = table.filter(np.asarray(table["split"].to_pylist()) == "test")
    rows = zip(test["image_id"].to_pylist(), test["class_name"].to_pylist(), raw.stream_images(test), strict=True)
    for image_id, name, data in rows:
        path = Path("own") / str(name).upper() / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pipeline.set(image_size=48, pack__fit="crop")  # today's params.yaml has no say (law 3)
    said = pipeline.run("python -m apps.evaluate --images own --out out")
    assert "taken: ANT as ant, BEE as bee, CAT as cat" in said
    found = figures(Path("out"), "models/fine_tune.keras")
    values = json.loads(Path("metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    intervals = json.loads(Path("metrics/evaluate/intervals.json").read_text(encoding="utf-8"))
    assert found["images"]["value"] == values["test_images"]
    compared = [name for name in found if name in values and name != "images"]
    assert {"accuracy", "macro_f1", "macro_auc", "loss", "scaled_loss", "temperature"} <= set(compared)
    for name in compared:
        assert found[name]["value"] == pytest.approx(values[name], abs=1e-5), name
        if name in intervals:
            bounds = [found[name][side] for side in ("low", "high")]
            assert bounds == pytest.approx([intervals[name][side] for side in ("low", "high")], abs=1e-4), name
    with Path("metrics/evaluate/per_class.csv").open() as ours, Path("out/per_class.csv").open() as theirs:
        assert ours.read() == theirs.read()


def test_a_table_and_its_folders_give_the_same(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted((folder / "photos").rglob("*.png"))]
    (folder / "table.csv").write_text("\n".join(["path,class", *lines]), encoding="utf-8")
    model = exported[".tflite"]
    for place, out in (("photos", "a"), ("table.csv", "b")):
        assert run(monkeypatch, "--images", place, "--model", model, "--out", out) == 0
    for name in sorted(path.name for path in (folder / "a").iterdir()):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes(), name
    predictor = Predictor(model)
    paths = sorted((folder / "photos").rglob("*.png"))
    probabilities = predictor.probabilities([predictor.prepare(path) for path in paths])
    labels = np.array([MADE.classes.index(path.parent.name) for path in paths])
    found = figures(folder / "a", str(model))
    for name, value in measure(probabilities, labels).items():
        assert found[name]["value"] == pytest.approx(value), name
    assert found["temperature"]["value"] == 2.0 and found["scaled_loss"]["value"] != found["loss"]["value"]


def test_predictions_and_mistakes_are_written_photo_by_photo(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos/bee/000.png").write_bytes(b"no photo")
    assert run(monkeypatch, "--images", "photos", "--model", exported[".onnx"], "--out", "out") == evaluate.SOME_FAILED
    printed = capsys.readouterr()
    assert "photos/bee/000.png: expected a photo" in printed.err and "1 of 60 photos could not be read" in printed.err
    with (folder / "out/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in sorted(Path("photos").rglob("*.png"))]
    (unread,) = (row for row in rows if row["problem"])
    assert unread["path"] == "photos/bee/000.png" and unread["predicted"] == "" and unread["class_name"] == "bee"
    right = sum(row["predicted"] == row["class_name"] for row in rows)
    found = figures(folder / "out", str(exported[".onnx"]))
    assert found["images"]["value"] == 59 and found["accuracy"]["value"] == pytest.approx(right / 59)
    assert right < 59 and cv2.imread("out/mistakes.png") is not None


def test_the_surest_mistakes_come_first(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(evaluate, "MISTAKES", 3)
    monkeypatch.setattr(
        "temper.sheets.write_sheet", lambda path, strips, **_: shown.extend(caption for caption, _ in strips)
    )
    run(monkeypatch, "--images", "photos", "--model", exported[".tflite"], "--out", "out")
    with (folder / "out/predictions.csv").open(encoding="utf-8") as file:
        wrong = [row for row in csv.DictReader(file) if row["predicted"] != row["class_name"]]
    surest = sorted((float(row["probability"]) for row in wrong), reverse=True)[:3]
    assert [float(caption.split()[-1]) for caption in shown] == pytest.approx(surest, abs=0.006)
    named = {f"{Path(row['path']).name}: {row['class_name']}, taken for {row['predicted']}" for row in wrong}
    assert {caption.rpartition(" ")[0] for caption in shown} <= named


@pytest.mark.parametrize("by", ["average", "vote"])
def test_several_models_stand_side_by_side_with_all_together(
    folder: Path,
    exported: dict[str, Path],
    by: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = folder / "other.tflite"
    shutil.copy(exported[".tflite"], other)
    set_card(other, MADE.model_copy(update={"classes": ["cat", "ant", "bee"]}))
    models = [str(exported[".tflite"]), str(other)]
    assert run(monkeypatch, "--images", "photos", "--model", *models, "--by", by, "--out", "out") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split("  ")[-1].strip() == f"{by} of 2" and f"{by} of 2 minus " in printed
    written = json.loads((folder / "out/metrics.json").read_text(encoding="utf-8"))
    assert list(written["models"]) == [*models, f"{by} of 2"] and written["ensemble"] == f"{by} of 2"
    with (folder / "out/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for path in models:
        right = sum(row[f"predicted by {path}"] == row["class_name"] for row in rows)
        assert written["models"][path]["accuracy"]["value"] == pytest.approx(right / 60)
    together = sum(row["predicted"] == row["class_name"] for row in rows)
    assert written["models"][f"{by} of 2"]["accuracy"]["value"] == pytest.approx(together / 60)


def test_strangers_stop_the_run_unless_they_are_left_out(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos/bee").rename(folder / "photos/Bees")
    how = ["--images", "photos", "--model", exported[".tflite"]]
    with pytest.raises(TemperError, match=r"classes of the model \(ant, bee, cat\).*20 photos: Bees \(20\); rename"):
        run(monkeypatch, *how)
    assert run(monkeypatch, *how, "--skip-strangers", "--out", "out") == 0
    assert "left out, no classes of the model: 20 photos of Bees (20)" in capsys.readouterr().out
    found = figures(folder / "out", str(exported[".tflite"]))
    assert found["images"]["value"] == 40 and found["macro_over_classes"]["value"] == 2


def test_photos_without_a_class_are_predicted_and_not_measured(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--images", "photos/ant", "--model", exported[".tflite"]]
    with pytest.raises(TemperError, match="classes to measure on, received 20 photos alone.*--out"):
        run(monkeypatch, *how)
    assert run(monkeypatch, *how, "--out", "out") == 0
    assert "no figures" in capsys.readouterr().out
    assert [path.name for path in (folder / "out").iterdir()] == ["predictions.csv"]
    with (folder / "out/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and all(row["class_name"] == "" and row["predicted"] in MADE.classes for row in rows)


def test_the_figures_to_print_are_chosen(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--images", "photos", "--model", exported[".tflite"], "--metrics"]
    assert run(monkeypatch, *how, "f1,accuracy") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["macro_f1", "weighted_f1", "accuracy"]
    with pytest.raises(TemperError, match="--metrics: expected some of accuracy, top, .*received mAP"):
        run(monkeypatch, *how, "accuracy,mAP")


def test_a_run_without_mistakes_leaves_no_sheet_of_an_earlier_one(
    folder: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["--model", exported[".tflite"], "--out", "out"]
    assert run(monkeypatch, "--images", "photos", *how) == 0 and Path("out/mistakes.png").exists()
    predictor = Predictor(exported[".tflite"])
    ((name, _),) = predictor.predict("photos/ant/000.png", top=1)
    Path("one", name).mkdir(parents=True)
    Path("one", name, "1.png").write_bytes(toy_photo(0, 0))
    assert run(monkeypatch, "--images", "one", *how) == 0 and not Path("out/mistakes.png").exists()


def test_an_exported_model_starts_in_half_a_second_without_tensorflow(folder: Path, exported: dict[str, Path]) -> None:
    (folder / "one/ant").mkdir(parents=True)
    (folder / "one/ant/1.png").write_bytes(toy_photo(0, 0))
    for ending in (".tflite", ".onnx"):
        seconds, said = start("evaluate", ["--images", str(folder / "one"), "--model", str(exported[ending])])
        assert said == "" and seconds < 0.5


@pytest.mark.parametrize("app", ["evaluate", "predict"])
def test_the_help_is_the_docstring(app: str) -> None:
    command = [sys.executable, "-m", f"apps.{app}", "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "Exit code: 0 all photos were read" in said and "%%" not in said
    assert "default: models/fine_tune.keras" in " ".join(said.split())
