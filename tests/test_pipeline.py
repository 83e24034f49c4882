"""The pipeline as its users run it: the real `dvc`, on toy photos."""

import csv
import json
import os
import signal
import time
import zipfile
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from temper import raw
from temper.packs import Pack
from temper.predictor import Predictor
from tests.toys.photos import toy_photo, write_toy_photos
from tests.toys.workspace import ROOT, Workspace, ran, toy_params

STAGES = ["fetch@photos", "normalize", "audit", "detect", "pack", "gallery", "backbone"]
STAGES += [
    "embed",
    "cross_validate",
    "warm_up",
    "boundary",
    "activations",
    "fine_tune",
    "evaluate",
    "export",
    "overview",
]


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def kill_inside_fine_tune(workspace: Workspace, epochs: int) -> None:
    """Starts `dvc repro` and kills it (-9) in the fine-tune, as soon as `epochs` of them are saved."""
    process = workspace.start("dvc repro")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for state in workspace.folder.glob(".temper/unfinished/fine_tune-*/state.npz"):
            with np.load(state) as saved:
                if len(json.loads(str(saved["history"]))) >= epochs:
                    time.sleep(0.05)  # into the next epoch
                    process.kill()
                    process.wait()
                    return
        assert process.poll() is None, f"dvc ended before it was killed: {process.stdout and process.stdout.read()}"
        time.sleep(0.01)
    raise AssertionError("the fine-tune never saved an epoch")


def trainers(folder: Path) -> list[int]:
    """The processes that run a stage in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"stages." in (process / "cmdline").read_bytes() and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_every_stage_runs_and_a_second_repro_runs_nothing(pipeline: Workspace) -> None:
    lock = yaml.safe_load((pipeline.folder / "dvc.lock").read_text(encoding="utf-8"))
    assert list(lock["stages"]) == STAGES
    assert ran(pipeline.run("dvc repro")) == []
    metrics = json.loads((pipeline.folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert metrics["accuracy"] > 0.6
    assert "top_5_accuracy" not in metrics  # 3 classes
    figures = {"accuracy", "macro_auc", "loss", "calibration_error", "scaled_loss", "scaled_calibration_error"}
    figures |= {f"macro_{name}" for name in ("precision", "recall", "f1")} | {"weighted_precision", "weighted_f1"}
    names = {f"{of}{name}" for of in ("", "validation_", "warm_up_", "warm_up_validation_") for name in figures}
    names |= {"temperature", "warm_up_temperature", "parameters"}
    names |= {f"{split}{name}" for split in ("", "validation_") for name in ("macro_over_classes",)}
    assert set(metrics) == names | {"test_images", "validation_images"}
    predictions = pq.read_table(pipeline.folder / "data/predictions.parquet")
    assert len(predictions) == metrics["test_images"]
    right = [row["class_name"] == row["predicted"] for row in predictions.to_pylist()]
    assert np.mean(right) == pytest.approx(metrics["accuracy"])


def test_the_warm_up_is_as_good_through_the_real_backbone(pipeline: Workspace) -> None:
    classifier = keras.saving.load_model(pipeline.folder / "models/warm_up.keras", compile=False)
    validation = Pack(pipeline.folder / "data/packed/validation")
    probabilities = classifier.predict(validation.images(np.arange(len(validation))), verbose=0)
    logged = json.loads((pipeline.folder / "metrics/warm_up/metrics.json").read_text(encoding="utf-8"))
    accuracy = (probabilities.argmax(axis=1) == validation.labels).mean()
    assert accuracy == pytest.approx(logged["warm_up_best_val_accuracy"], abs=1e-3)


@pytest.mark.slow
def test_class_order_is_decided_in_classes_txt_alone(pipeline: Workspace) -> None:
    """Law 1: everything after `normalize` follows that file, and then the card, whatever the folders are called."""
    before = Pack(pipeline.folder / "data/packed/train").labels
    classes = pipeline.folder / "data/classes.txt"
    names = classes.read_text(encoding="utf-8").splitlines()
    classes.unlink()  # it may be a link into DVC's cache
    classes.write_text("".join(f"{name}\n" for name in reversed(names)), encoding="utf-8")
    for stage in ("pack", "embed", "warm_up", "fine_tune", "evaluate"):
        pipeline.run(f"python -m stages.{stage}")
    assert np.array_equal(Pack(pipeline.folder / "data/packed/train").labels, len(names) - 1 - before)
    predictions = pq.read_table(pipeline.folder / "data/predictions.parquet").to_pylist()
    for row in predictions:
        assert row["predicted"] == names[::-1][int(np.argmax(row["probabilities"]))]
    assert np.mean([row["predicted"] == row["class_name"] for row in predictions]) > 0.6


def test_exp_run_with_a_new_lr_runs_fine_tune_and_evaluate_only(pipeline: Workspace) -> None:
    output = pipeline.run("dvc exp run -S lr=3e-6")
    assert ran(output) == ["fine_tune", "evaluate", "export", "overview"]
    assert "lr: 3e-06" in (pipeline.folder / "params.yaml").read_text(encoding="utf-8")  # text to YAML 1.1
    rates = (pipeline.folder / "metrics/fine_tune/plots/metrics/learning_rate.tsv").read_text(encoding="utf-8")
    assert float(rates.splitlines()[1].split("\t")[1]) == pytest.approx(3e-6)
    back = pipeline.run("dvc exp run -S lr=0.001")
    assert ran(back) == []
    assert pipeline.run("git status --short --untracked-files=no") == ""


def test_a_second_source_that_only_trains_comes_and_goes(pipeline: Workspace, tmp_path: Path) -> None:
    """Any number of named sources; one that is taken away leaves no photo behind, and nothing is fetched anew."""
    more = write_toy_photos(tmp_path / "more", per_class=15, first=500)
    before = checksum(pipeline.folder / "data/images.parquet")
    pipeline.set(fetch__more={"source": "folder", "path": str(more)}, normalize__only_train=["more"])
    assert ran(pipeline.run("dvc repro pack"))[:2] == ["fetch@more", "normalize"]
    images = pq.read_table(pipeline.folder / "data/images.parquet").to_pylist()
    assert {row["split"] for row in images if row["source"] == "more"} == {"train"}
    assert sum(row["source"] == "more" for row in images) == 45
    pipeline.run("git checkout -q params.yaml")
    assert "fetch" not in str(ran(pipeline.run("dvc repro pack")))
    assert checksum(pipeline.folder / "data/images.parquet") == before
    assert not (pipeline.folder / "data/raw/more").exists()


def test_a_prediction_stays_as_it_was_when_params_are_edited(pipeline: Workspace) -> None:
    """Law 3: the model knows how it was fed."""
    classifier = Predictor(pipeline.folder / "models/fine_tune.keras")
    assert classifier.card.classes == ["ant", "bee", "cat"] and classifier.card.preparation.crop is None
    test, images = Pack(pipeline.folder / "data/packed/test"), pq.read_table(pipeline.folder / "data/images.parquet")
    photos = {row["image_id"]: row for row in images.to_pylist()}
    predicted = pq.read_table(pipeline.folder / "data/predictions.parquet").to_pylist()
    code = "from temper.predictor import Predictor; print(Predictor('models/fine_tune.keras').predict('photo.png'))"
    (pipeline.folder / "photo.png").write_bytes(toy_photo(1, 7, 40))
    before = pipeline.run(f'python -c "{code}"').splitlines()[-1]
    for number, row in enumerate(predicted):
        data = next(
            raw.stream_images(
                images.filter(images["image_id"].to_numpy() == row["image_id"]).slice(0, 1),
                pipeline.folder / "data/raw",
            )
        )
        assert np.array_equal(classifier.prepare(data), test.image(number)), photos[row["image_id"]]["path"]
        found = classifier.probabilities([classifier.prepare(data)])[0]
        assert np.allclose(found, row["probabilities"], atol=1e-5)
    pipeline.set(pack__fit="pad", image_size=24)
    assert pipeline.run(f'python -c "{code}"').splitlines()[-1] == before


@pytest.mark.slow
def test_no_worse_model_ships(pipeline: Workspace) -> None:
    """Law 13: a fine-tune that only does harm ends in the weights of the warm-up, and says so.

    One whose gain may be chance ends halfway, and its figures are those of the weights in the file.
    """
    pipeline.set(lr=0.5, fine_tune__epochs=2)
    output = pipeline.run("dvc repro")
    assert "no epoch was better on validation than the warm-up, and the weights halfway" in output
    metrics = json.loads((pipeline.folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert metrics["accuracy"] == metrics["warm_up_accuracy"] and metrics["loss"] == metrics["warm_up_loss"]
    phase = json.loads((pipeline.folder / "metrics/fine_tune/metrics.json").read_text(encoding="utf-8"))
    assert phase["fine_tune_epoch"] == phase["fine_tune_share"] == 0 and phase["fine_tune_epochs"] == 2

    pipeline.set(lr=2e-3, fine_tune__margin=1e6)
    output = pipeline.run("dvc repro evaluate")
    assert "fine_tune.margin asks for 1e+06: the weights halfway to the last epoch" in output
    half = json.loads((pipeline.folder / "metrics/fine_tune/metrics.json").read_text(encoding="utf-8"))
    assert half["fine_tune_epoch"] > 0 and half["fine_tune_share"] == 0.5 and half["fine_tune_gain"] > 0
    metrics = json.loads((pipeline.folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert half["fine_tune_best_val_loss"] == pytest.approx(metrics["validation_loss"], rel=1e-5)
    assert half["fine_tune_best_val_accuracy"] == pytest.approx(metrics["validation_accuracy"])


def test_metrics_have_names_of_their_own(pipeline: Workspace) -> None:
    """So that `dvc exp show` has short names for columns."""
    files = sorted(pipeline.folder.glob("metrics/*/metrics.json"))
    names = [name for file in files for name in json.loads(file.read_text(encoding="utf-8"))]
    assert len(files) == 7 and len(names) == len(set(names))


def test_a_param_toggled_back_is_served_from_the_cache(pipeline: Workspace) -> None:
    before = checksum(pipeline.folder / "models/fine_tune.keras")
    pipeline.set(warm_up__lr=0.02)
    assert ran(pipeline.run("dvc repro")) == ["warm_up", "fine_tune", "evaluate", "export", "overview"]
    pipeline.run("git checkout -q params.yaml")
    assert ran(pipeline.run("dvc repro")) == []
    assert checksum(pipeline.folder / "models/fine_tune.keras") == before


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        pytest.param(
            {"aug": 0.2},
            ["gallery", "boundary", "fine_tune", "evaluate", "export", "overview"],
            marks=pytest.mark.slow,
        ),
        ({"embed__aug": 0.2}, ["embed"]),  # views: 1 has nothing to augment: the same embeddings
        # The toys are square, so the pixels are the same; but the card of the models says how they were fed.
        pytest.param(
            {"pack__fit": "crop"},
            ["pack", "gallery", "warm_up", "fine_tune", "evaluate", "export", "overview"],
            marks=pytest.mark.slow,
        ),
        ({"evaluate__test_time_augmentation": "flip"}, ["evaluate", "overview"]),
        ({"pack__margin": 0.2}, ["pack"]),  # without a detector nothing is cropped
    ],
)
def test_an_edit_runs_what_it_touches(pipeline: Workspace, change: dict[str, Any], stages: list[str]) -> None:
    pipeline.set(**change)
    assert ran(pipeline.run("dvc repro")) == stages


def test_metrics_and_params_diff_show_what_a_branch_changed(pipeline: Workspace) -> None:
    pipeline.run("git checkout -qb review")
    pipeline.set(lr=1e-5)
    pipeline.run("dvc repro")
    pipeline.commit("lower the rate")
    metrics = json.loads(pipeline.run("dvc metrics diff main --json"))
    assert "loss" in metrics["metrics/evaluate/metrics.json"]
    assert "accuracy" in pipeline.run("dvc metrics diff main --all")
    params = json.loads(pipeline.run("dvc params diff main --json"))
    lr = params["params.yaml"]["lr"]
    assert (lr["old"], lr["new"]) == (0.001, 1e-5)


def test_a_new_photo_in_the_folder_is_fetched(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path: Path
) -> None:
    photos = write_toy_photos(tmp_path / "photos", per_class=20)
    workspace = make_workspace(toy_params(photos))
    workspace.run("dvc repro normalize")
    (photos / "ant" / "new.png").write_bytes(toy_photo(0, 999))
    assert ran(workspace.run("dvc repro normalize")) == ["fetch@photos", "normalize"]
    assert len(pq.read_table(workspace.folder / "data/images.parquet")) == 61


@pytest.mark.slow
def test_two_forced_runs_give_the_same_bytes(pipeline: Workspace) -> None:
    before = {path.name: checksum(path) for path in sorted((pipeline.folder / "models").glob("*.keras"))}
    assert ran(pipeline.run("dvc repro --force")) == STAGES
    assert {path.name: checksum(path) for path in sorted((pipeline.folder / "models").glob("*.keras"))} == before


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "resume"])
def test_ctrl_c_ends_the_fine_tune_with_what_it_has_or_leaves_it_for_the_next_run(
    pipeline: Workspace, keep: bool
) -> None:
    """A terminal sends SIGINT to all: `dvc` ignores it while a stage runs, and goes on if the stage ends well."""
    pipeline.set(lr=2e-3, fine_tune__epochs=3000, fine_tune__on_interrupt="keep" if keep else "resume")
    process = pipeline.start("dvc repro", start_new_session=True)
    while not list(pipeline.folder.glob(".temper/unfinished/fine_tune-*/state.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert "Traceback" not in output
    assert (pipeline.folder / "models/fine_tune.keras").exists() == keep
    assert bool(list(pipeline.folder.glob(".temper/unfinished/fine_tune-*/state.npz"))) == (not keep)
    if keep:
        assert process.returncode == 0 and ran(output)[-4:] == ["fine_tune", "evaluate", "export", "overview"]
        phase = json.loads((pipeline.folder / "metrics/fine_tune/metrics.json").read_text(encoding="utf-8"))
        assert 1 <= phase["fine_tune_epochs"] < 3000


def test_a_killed_fine_tune_ends_in_the_same_bits_and_leaves_no_trainer(pipeline: Workspace) -> None:
    pipeline.set(
        lr=2e-3,
        fine_tune__epochs=12,
        fine_tune__schedule={"name": "plateau", "patience": 2, "factor": 0.5},
        fine_tune__unfreeze_from="none",
        fine_tune__unfreeze_further={"name": "every", "epochs": 4},
        warm_up__head__dropout=0.3,
    )
    pipeline.run("dvc repro warm_up")
    kill_inside_fine_tune(pipeline, epochs=6)  # one more block is open then
    time.sleep(1)
    assert trainers(pipeline.folder) == []
    assert not (pipeline.folder / "models/fine_tune.keras").exists()
    resumed = pipeline.run("dvc repro fine_tune")
    assert "resuming after epoch" in resumed and ran(resumed) == ["fine_tune"]
    model = checksum(pipeline.folder / "models/fine_tune.keras")
    plots = {path: path.read_bytes() for path in pipeline.folder.glob("metrics/fine_tune/plots/metrics/**/*.tsv")}
    assert list(pipeline.folder.glob(".temper/unfinished/fine_tune-*")) == []

    whole = pipeline.run("dvc repro --force --single-item fine_tune")
    assert "epoch 5: unfreezes the backbone from block4" in whole
    assert "resuming after epoch" not in whole
    assert checksum(pipeline.folder / "models/fine_tune.keras") == model
    assert {path: path.read_bytes() for path in plots} == plots


@pytest.mark.slow
def test_an_edited_param_starts_an_unfinished_phase_afresh(pipeline: Workspace) -> None:
    pipeline.set(lr=2e-3, fine_tune__epochs=30)
    kill_inside_fine_tune(pipeline, 2)
    pipeline.set(lr=1e-3, fine_tune__epochs=2)
    assert "resuming after epoch" not in pipeline.run("dvc repro")


def test_a_phase_whose_model_cannot_be_saved_is_not_lost(pipeline: Workspace) -> None:
    pipeline.set(lr=2e-3)
    pipeline.run("rm models/fine_tune.keras")
    pipeline.run("mkdir models/fine_tune.keras")  # in the way of the file
    assert "error: " in pipeline.run("python -m stages.fine_tune", code=1)
    pipeline.run("rmdir models/fine_tune.keras")
    assert "resuming after epoch 3" in pipeline.run("python -m stages.fine_tune")


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.5, 1.5])
def test_a_dvc_that_is_killed_while_a_stage_starts_leaves_no_trainer(pipeline: Workspace, delay: float) -> None:
    """Law 12: also before and during the imports, which take seconds."""
    pipeline.set(lr=2e-3, fine_tune__epochs=2000)
    process = pipeline.start("dvc repro --single-item fine_tune")
    deadline = time.monotonic() + 60
    while not trainers(pipeline.folder):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 2
    while trainers(pipeline.folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert trainers(pipeline.folder) == []


@pytest.mark.slow
def test_a_second_process_waits_and_uses_what_the_first_made(pipeline: Workspace) -> None:
    """Whoever started them: both would write into the same outputs."""
    pipeline.set(lr=2e-3, fine_tune__epochs=30)
    first = pipeline.start("python -m stages.fine_tune")
    while not list(pipeline.folder.glob(".temper/unfinished/fine_tune-*/state.npz")):
        assert first.poll() is None
        time.sleep(0.05)
    output = pipeline.run("python -m stages.fine_tune")
    assert f"fine_tune: waiting for the process that runs it here (process {first.pid})" in output
    assert first.wait() == 0


@pytest.mark.slow
def test_eight_experiments_at_once_train_each_shared_phase_once(pipeline: Workspace) -> None:
    """Four rates of the fine-tune by two of the warm-up: eight copies of the repository need two new warm-ups."""
    pipeline.set(warm_up__epochs=40)
    command = "dvc --wait-for-lock exp run --temp -S warm_up.lr={} -S lr={}"
    pairs = [(warm_up, lr) for warm_up in (0.02, 0.01) for lr in (1e-3, 5e-4, 2e-4, 1e-4)]
    experiments = [pipeline.start(command.format(*pair)) for pair in pairs]
    outputs = [process.communicate()[0] for process in experiments]
    assert [process.returncode for process in experiments] == [0] * 8, outputs
    ran_it = [output for output in outputs if "warm-up: validation accuracy" in output]
    took_over = [output for output in ran_it if "resuming after epoch 40" in output]
    # Whoever came when it was over had it from DVC's cache, whoever came earlier waited for the one that trained.
    assert len(ran_it) - len(took_over) == 2, outputs
    for output in took_over:
        assert "warm_up: waiting for the process that trains with these very params" in output
    trained = [set(ran(output)) & {"warm_up", "fine_tune"} for output in outputs]
    assert all("fine_tune" in stages for stages in trained)
    table = json.loads(pipeline.run("dvc exp show --json"))
    assert sum(len(row["experiments"] or []) for row in table) == 8
    assert not list(pipeline.folder.glob(".temper/unfinished/*"))


@pytest.mark.slow
def test_a_damaged_state_is_put_aside_and_the_phase_starts_afresh(pipeline: Workspace) -> None:
    pipeline.set(lr=2e-3, fine_tune__epochs=30)
    kill_inside_fine_tune(pipeline, 2)
    (state,) = pipeline.folder.glob(".temper/unfinished/fine_tune-*/state.npz")
    state.write_bytes(state.read_bytes()[:1000])
    output = pipeline.run("python -m stages.fine_tune")
    assert "damaged.npz: expected the state of an unfinished phase, received" in output and "Traceback" not in output
    assert "resuming after epoch" not in output and "fine-tune: validation accuracy" in output


def test_the_pipeline_leaves_its_own_files_alone(pipeline: Workspace) -> None:
    assert pipeline.run("git diff --stat HEAD~1 -- dvc.yaml params.yaml .dvc stages temper") == ""


@pytest.mark.slow
def test_an_experiment_in_a_temporary_copy(pipeline: Workspace) -> None:
    output = pipeline.run("dvc exp run --temp -S lr=2e-6")
    assert ran(output) == ["fine_tune", "evaluate", "export", "overview"]


def test_the_page_of_plots_opens_offline(pipeline: Workspace) -> None:
    """tests/test_overview.py looks at it in a browser."""
    pipeline.run("dvc plots show")
    page = (pipeline.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "<script src=" not in page and "<link" not in page
    drawn = page[page.index('<div id="plots">') :]
    assert drawn.count("vegaEmbed(") == 12  # one of them without a row: the confusions, where the matrix shows them
    pictures = [path for path in pipeline.folder.glob("metrics/**/*") if path.suffix in (".png", ".svg")]
    assert drawn.count('<img src="static/') == len(pictures) >= 3


@pytest.mark.slow
def test_photos_in_an_archive_can_be_versioned(pipeline: Workspace) -> None:
    """So that a clone, `dvc exp run --temp` and the queue have them: as the README says."""
    write_zip(pipeline.folder / "photos.zip", [f"{name}/{n}.png" for name in ("ant", "bee", "cat") for n in range(30)])
    pipeline.run("dvc add photos.zip")
    pipeline.set(fetch__photos__path="photos.zip", warm_up__epochs=1, fine_tune__epochs=1, fine_tune__margin=0)
    pipeline.commit("photos")
    assert pipeline.run("git ls-files photos*") == "photos.zip.dvc\n"
    pipeline.run("dvc repro")
    pipeline.commit("first run on them")
    assert ran(pipeline.run("dvc exp run --temp -S lr=2e-6")) == ["fine_tune", "evaluate", "export", "overview"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "fast"}, "lr: Input should be a valid number, received 'fast'"),
        ({"fine_tune__epoch": 3}, "unknown key fine_tune.epoch: expected one of"),
        ({"backbone__name": "ResNet5O", "seed": 1}, "'Xception', received 'ResNet5O'"),
    ],
)
def test_a_wrong_param_stops_repro_in_one_line_and_loses_nothing(
    pipeline: Workspace, changes: dict[str, Any], message: str
) -> None:
    before = checksum(pipeline.folder / "models/warm_up.keras")
    pipeline.set(**changes)
    output = pipeline.run("dvc repro", code=None)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0], output
    assert "Traceback" not in output
    pipeline.run("git checkout -q params.yaml")
    assert ran(pipeline.run("dvc repro")) == []
    assert checksum(pipeline.folder / "models/warm_up.keras") == before


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ("mount -t tmpfs -o size=64k tmpfs data", "of free disk space"),
        ("ulimit -f 64", "File too large"),  # what anybody may do: no file above 64 blocks
    ],
)
def test_a_full_disk_ends_the_stage_in_one_line_with_nothing_half_written(
    pipeline: Workspace, prepare: str, reason: str
) -> None:
    (pipeline.folder / "fill.sh").write_text(
        f"rm -r data/raw && {prepare} || exit 77\n"
        "python -m stages.fetch photos; code=$?; find data/raw 2> /dev/null | grep part-; exit $code\n"
    )
    process = pipeline.start("unshare --mount bash fill.sh" if "mount" in prepare else "bash fill.sh")
    output, _ = process.communicate()
    if process.returncode == 77 or "unshare" in output:
        pytest.skip(f"no file system may be mounted here: {output}")
    assert process.returncode == 1
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and reason in last and "Traceback" not in output, output


def write_zip(path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, toy_photo(number % 3, number) if name.endswith("png") else b"")


def one_class(path: Path) -> None:
    write_zip(path, [f"ant/{number}.png" for number in range(30)])


def an_empty_class(path: Path) -> None:
    write_zip(path, ["ant/1.png", "bee/1.png", "cat/"])


def a_truncated_archive(path: Path) -> None:
    write_zip(path, [f"{name}/{number}.png" for name in "ab" for number in range(30)])
    path.write_bytes(path.read_bytes()[:-100])


def a_name_that_leads_out(path: Path) -> None:
    write_zip(path, ["ant/1.png", "bee/1.png", "../../evil.png"])


def no_image(path: Path) -> None:
    write_zip(path, [])


def text_as_images(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ant/1.png", "bee/1.png"):
            archive.writestr(name, b"hello")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (one_class, "normalize: expected at least 2 classes, received 1, ant"),
        (an_empty_class, "expected images in every class folder, found none in cat; fill it or remove it"),
        (a_truncated_archive, "expected a folder, zip or tar, received a file that is neither (or a truncated one)"),
        (a_name_that_leads_out, "received '../../evil.png', which leads out of it"),
        (no_image, "expected class folders of images, found none"),
        (text_as_images, "normalize: expected at least 2 classes, received 0"),
    ],
)
def test_bad_photos_end_the_stage_in_one_line(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    photos = tmp_path / "photos.zip"
    write(photos)
    workspace = make_workspace(toy_params(photos))
    output = workspace.run("dvc repro normalize", code=None)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in output, output
    assert not (workspace.folder / "data/images.parquet").exists()
    assert not list((workspace.folder / "data").glob(".partial*"))


def test_a_missing_folder_is_named(make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path: Path) -> None:
    """DVC watches the folder, and stops before the stage could."""
    workspace = make_workspace(toy_params(tmp_path / "nowhere"))
    assert f"No such file or directory: '{tmp_path}/nowhere'" in workspace.run("dvc repro fetch", code=255)
    assert f"fetch.photos: {tmp_path}/nowhere: expected a file or folder, found nothing" in workspace.run(
        "python -m stages.fetch photos", code=1
    )


def test_a_wrong_checksum_ends_fetch_in_one_line(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path: Path
) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(b"something else")
    params = toy_params(ROOT / "data/photos")
    params["fetch"] = {"cifar100": {"source": "cifar100", "path": "stages/fetch/sources/cifar100.py"}}
    params["fetch"]["cifar100"]["archive"] = str(tmp_path / "cifar.tar.gz")
    output = make_workspace(params).run("dvc repro fetch", code=255)
    assert "error: " in output and "expected sha256 85cd44d0" in output and "Traceback" not in output


def test_the_odd_files_of_real_datasets_stop_nothing(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path: Path, shared: Path
) -> None:
    """Every one of them is packed or rejected with its reason."""
    photos = write_toy_photos(tmp_path / "photos")
    odd = {path.name for path in (shared / "data/odd").iterdir()}
    for name in odd:
        (photos / "ant" / name).write_bytes((shared / "data/odd" / name).read_bytes())
    workspace = make_workspace(toy_params(photos))
    workspace.run("dvc repro pack")
    kept = pq.read_table(workspace.folder / "data/images.parquet")["path"].to_pylist()
    kept_odd = {Path(path).name for path in kept} & odd
    with (workspace.folder / "data/rejected.csv").open(encoding="utf-8") as file:
        rejected = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert kept_odd | set(rejected) == odd and not kept_odd & set(rejected)
    assert sorted(rejected) == ["broken.png", "reallybig.bmp", "truncated_jpeg.jpg"] and all(rejected.values())
    packed = sum(len(Pack(workspace.folder / "data/packed" / split)) for split in ("train", "validation", "test"))
    assert packed == len(kept) == 120 + len(odd) - 3
