"""The frozen part runs once: what is stored of it, what the fine-tune makes of that, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages.activations import frozen
from stages.backbone.architectures import build
from stages.boundary import boundary_of
from stages.fine_tune.__main__ import Material, material
from stages.warm_up.heads import assemble, build_head
from temper import card, keras_files
from temper.base import disk
from temper.base.errors import TemperError
from temper.freezing import boundary
from temper.freezing.activations import FOLDER, Activations, read_layers
from temper.freezing.boundary import Boundary
from temper.freezing.classifier import unfreeze
from temper.packs import Pack, PackWriter
from temper.settings import boundary as boundary_settings
from temper.settings.fine_tune import Settings
from temper.settings.warm_up import Head
from temper.shards import ShardWriter
from tests.toys.fine_tuning import Cut, trained
from tests.toys.workspace import ROOT, Workspace, ran

SIDE, CLASSES, EPOCHS = 16, 2, 3
PARAMS: dict[str, Any] = {"seed": 3, "batch_size": 8, "lr": 0.01, "aug": 0.1}
LAYERS = ["block2_pool"]
FACTS = card.Backbone(name="tiny", arguments={}, weights="none", sha256=None)


def parsed(**fine_tune: Any) -> tuple[Settings, boundary_settings.Settings]:
    """The same params as `fine_tune` and as `boundary` read them."""
    values = PARAMS | {"fine_tune": {"unfreeze_from": "block3", "epochs": EPOCHS} | fine_tune}
    return Settings.model_validate(values), boundary_settings.Settings.model_validate(values)


def write_pack(split: str, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    image_ids = np.array([f"{number:016x}" for number in random.integers(0, 2**63, count)], "U16")
    with PackWriter(Path("data/packed") / split, image_ids, SIDE, SIDE) as writer:
        for label in labels:
            writer.append((random.integers(0, 200, (SIDE, SIDE, 3)) + 50 * label).astype(np.uint8))
        writer.finish(labels)


def stored_for(views: int, start: str = "block3") -> Boundary:
    """Stores the activations in the working folder, as the stage does."""
    chosen = boundary_of(parsed(views=views, unfreeze_from=start, epochs=99)[1])
    frozen.write_activations(chosen)
    return chosen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with packs, a backbone with its card, and 3 views stored from block3 on."""
    folder = tmp_path_factory.mktemp("made")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "ShardWriter", partial(ShardWriter, shard_bytes=40_000))
        write_pack("train", 40, 1)
        write_pack("validation", 12, 2)
        keras.utils.set_random_seed(0)
        backbone = build("tiny", {}, None, (SIDE, SIDE), None)
        keras_files.save(backbone, "models/backbone.keras", FACTS.as_entry())
        stored_for(views=3)
        assert len(list((FOLDER / "train/0").glob("activations-*.npy"))) > 3
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "made"))
    return tmp_path / "made"


def small_classifier(start: str = "block3", dropout: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = keras_files.load("models/backbone.keras")
    classifier = assemble(backbone, build_head(backbone.output_shape[-1], CLASSES, Head(dropout=dropout)))
    unfreeze(classifier, start, pretrained=False)
    return classifier


def opened(split: str, views: int) -> tuple[Pack, Activations]:
    pack = Pack(Path("data/packed") / split)
    return pack, Activations(split, pack.image_ids, LAYERS, views)


def test_what_is_stored_is_what_the_frozen_part_gives(here: Path) -> None:
    pack, stored = opened("train", 3)
    whole = keras_files.load("models/backbone.keras")
    below = keras.Model(whole.input, whole.get_layer("block2_pool").output)
    rows = np.array([39, 0, 7, 7])
    plain = stored.plain(rows)
    assert isinstance(plain, np.ndarray) and plain.dtype == np.float32
    np.testing.assert_allclose(plain, below.predict(pack.images(rows), verbose=0), atol=1e-4)
    views = [stored.take(rows, np.full_like(rows, view)) for view in range(3)]
    assert not np.allclose(views[1], plain) and not np.allclose(views[1], views[2])
    opened("validation", 1)
    before = [path.read_bytes() for path in sorted(FOLDER.rglob("*.*"))]
    stored_for(views=3)
    one_shard = opened("train", 3)[1]
    assert np.array_equal(one_shard.take(rows, rows % 3), stored.take(rows, rows % 3)), "law 10, whatever the shards"
    assert len(before) > 8


def save_branching_backbone() -> None:
    """A block with a shortcut: from conv3 on two tensors cross the boundary."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    x = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="conv1")(x)
    above = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2")(x)
    above = keras.layers.Conv2D(8, 3, padding="same", name="conv3")(above)
    x = keras.layers.ReLU()(keras.layers.Add()([above, x]))
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")
    keras_files.save(backbone, "models/backbone.keras", FACTS.as_entry())


def test_on_plain_views_the_open_part_learns_what_the_whole_learns(here: Path, tmp_path: Path) -> None:
    save_branching_backbone()
    stored_for(views=1, start="conv3")
    assert read_layers() == ["conv2", "conv1"]
    on_images, on_stored = small_classifier("conv3"), small_classifier("conv3")
    start = on_stored.get_weights()
    without = parsed(unfreeze_from="conv3")[0].model_copy(update={"aug": 0.0})
    expected, weights = trained(on_images, without, tmp_path / "images")
    result, changed = trained(on_stored, parsed(unfreeze_from="conv3", views=1)[0], tmp_path / "stored")
    assert result.best_epoch == expected.best_epoch > 0
    for ours, theirs in zip(result.history, expected.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    for ours, theirs in zip(changed, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    moved = [not np.array_equal(now, then) for now, then in zip(changed, start, strict=True)]
    assert moved == [False] * 4 + [True] * 4, "conv1 and conv2 are frozen"


def test_a_cut_run_on_stored_views_ends_in_the_same_bits(here: Path, tmp_path: Path) -> None:
    """Law 5, with all that the stored views go with."""
    chosen: dict[str, Any] = {"sampling": "balanced", "average": {"name": "ema"}, "precision": "mixed_bfloat16"}
    settings = parsed(views=3, loss={"name": "focal", "label_smoothing": 0.1}, **chosen)[0]
    expected, weights = trained(small_classifier(dropout=0.3), settings, tmp_path / "whole")
    with pytest.raises(Cut):
        trained(small_classifier(dropout=0.3), settings, tmp_path / "cut", cut_at=2)
    result, again = trained(small_classifier(dropout=0.3), settings, tmp_path / "cut")
    assert result == expected and len(result.history) == EPOCHS
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(again, weights, strict=True))


def test_the_head_alone_trains_on_the_output_of_the_backbone(here: Path, tmp_path: Path) -> None:
    stored_for(views=2, start="none")
    settings = parsed(views=2, unfreeze_from="none")[0]
    classifier = small_classifier("none")
    before = classifier.get_weights()
    result, after = trained(classifier, settings, tmp_path / "state")
    moved = [not np.array_equal(now, then) for now, then in zip(after, before, strict=True)]
    assert moved == [False] * 8 + [True] * 2 and result.best_epoch


EDITS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {"epochs": 9, "optimizer": {"name": "lion"}, "schedule": {"name": "constant"}, "lr_decay": 0.5}, False),
    ({}, {"precision": "mixed_bfloat16", "loss": {"name": "focal"}, "sampling": "balanced", "margin": 0}, False),
    ({"lr": 1.0, "batch_size": 3}, {}, False),
    ({"aug": 0.2}, {}, True),
    ({"seed": 4}, {}, True),
    ({}, {"augmentation": {"flip": 0}}, True),
    ({}, {"unfreeze_from": "block4"}, True),
    ({}, {"views": 2}, True),
]


@pytest.mark.parametrize(("top", "edit", "counts"), EDITS, ids=str)
def test_only_what_the_frozen_part_depends_on_makes_it_run_again(
    top: dict[str, Any], edit: dict[str, Any], counts: bool, tmp_path: Path
) -> None:
    """So an edit of `lr`, of the head or of a schedule pays for the open part alone."""

    def written(views: int, top: dict[str, Any], edit: dict[str, Any]) -> bytes:
        fine_tune = {"unfreeze_from": "block3", "epochs": 5, "views": views} | edit
        values = PARAMS | top | {"fine_tune": fine_tune}
        Settings.model_validate(values)
        boundary.write(boundary_of(boundary_settings.Settings.model_validate(values)), tmp_path / "boundary.json")
        read = boundary.read(tmp_path / "boundary.json")
        assert read == boundary_of(boundary_settings.Settings.model_validate(values))
        return (tmp_path / "boundary.json").read_bytes()

    assert (written(3, top, edit) != written(3, {}, {})) == counts
    if "views" not in edit:
        assert written(0, top, edit) == written(0, {}, {}), "without stored views nothing counts"
        drawn = "aug" in top or "seed" in top or "augmentation" in edit
        assert (written(1, top, edit) != written(1, {}, {})) == (counts and not drawn), "a plain view is not drawn"


def other_images() -> None:
    shutil.rmtree("data/packed/train")
    write_pack("train", 40, 9)


def damaged_layers() -> None:
    (FOLDER / "layers.json").write_text('["block2_pool"')


WRONG: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "other layers": (lambda: None, {"unfreeze_from": "block4"}, "expected the activations of block3_pool, found those"),
    "other images": (other_images, {}, "expected the images of data/packed/train, found others; run dvc repro"),
    "other views": (lambda: None, {"views": 2}, "data/activations/train/0: expected 2 view(s), found 3; run dvc repro"),
    "nothing stored": (lambda: shutil.rmtree(FOLDER), {}, "layers.json: no such file; run dvc repro, or dvc pull"),
    "damaged names": (damaged_layers, {}, "layers.json: damaged: expected the names of layers"),
    "damaged values": (
        lambda: next((FOLDER / "train/0").glob("*0001.npy")).write_bytes(b"nothing"),
        {},
        "activations-00001.npy: damaged",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_was_stored_for_something_else_is_refused(here: Path, name: str) -> None:
    damage, edit, said = WRONG[name]
    damage()
    settings = parsed(**({"views": 3} | edit))[0]
    with pytest.raises(TemperError) as refused:
        of: Material = material(small_classifier(str(settings.fine_tune.unfreeze_from)), CLASSES, settings)
        for number in range(len(of.training(0))):
            of.training(0)[number]
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_boundary_that_is_damaged_is_refused(tmp_path: Path) -> None:
    for content in ("{", '{"views": "many"}', '{"views": 1, "more": 2}', "[]"):
        (tmp_path / "boundary.json").write_text(content)
        with pytest.raises(TemperError, match=r"boundary.json: expected what `boundary` writes.*run dvc repro"):
            boundary.read(tmp_path / "boundary.json")
    with pytest.raises(TemperError, match="no such file; run dvc repro"):
        boundary.read(tmp_path / "none.json")


def test_what_would_not_fit_on_the_disk_is_refused_before_the_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (FOLDER / "train/0/checksums.json").read_bytes()
    monkeypatch.setattr(disk, "SPARE", 2**60)
    message = (
        r"the activations \(3 views of 40 training images, 4.1 KB a view\): .* lower fine_tune.views, or set it to 0$"
    )
    with pytest.raises(TemperError, match=message):
        stored_for(views=3)
    assert (FOLDER / "train/0/checksums.json").read_bytes() == before


def test_without_views_keras_is_not_imported(tmp_path: Path) -> None:
    with chdir(tmp_path):
        boundary.PATH.parent.mkdir()
        boundary.write(Boundary(views=0), boundary.PATH)
    program = (
        "import sys; from stages.activations.__main__ import main; from temper.settings.base import StageSettings; "
        "main(StageSettings()); sys.exit('keras' in sys.modules or 'numpy.ma' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / FOLDER / "layers.json").read_text()) == []


@pytest.mark.slow
def test_an_edit_of_lr_pays_only_for_what_is_open(pipeline: Workspace) -> None:
    def run(**changes: Any) -> list[str]:
        pipeline.set(**changes)
        return ran(pipeline.run("dvc repro fine_tune"))

    stored = {"fine_tune__unfreeze_from": "block3", "fine_tune__views": 2}
    assert run(**stored) == ["boundary", "activations", "fine_tune"]
    assert run(lr=2e-3) == ["fine_tune"]
    assert run(fine_tune__schedule={"name": "constant"}) == ["boundary", "fine_tune"]
    pipeline.run("git checkout -q params.yaml")
    assert run() == run(**stored) == [], "law 6"
