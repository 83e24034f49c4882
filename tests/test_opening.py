"""Gradual unfreezing: when more opens, what then trains, and that a killed run opens the same (law 5)."""

from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages.fine_tune.__main__ import plan, trained_model
from stages.fine_tune.folding import FoldedConvolution
from stages.fine_tune.opening import openings_due
from stages.warm_up.heads import assemble, build_head
from temper.base.errors import TemperError
from temper.batches import Batches, one_hot, shuffled
from temper.freezing.classifier import backbone_layers, unfreeze
from temper.freezing.unfreezing import first_open, openings, place
from temper.settings.fine_tune import Every, OnPlateau, Settings
from temper.settings.warm_up import Head
from temper.training.phases import Result, fit, logged
from temper.training.unfinished import Unfinished

# MobileNetV2's way to name layers, with the input and an activation, which have no weights.
NAMES = ["pixels", "Conv1", "bn_Conv1", "block_1_expand", "block_1_BN", "block_2_expand", "block_2_BN", "relu"]
NAMES += ["block_3_expand", "Conv_1"]
LAYERS = [(name, name not in ("pixels", "relu")) for name in NAMES]


@pytest.mark.parametrize(
    ("start", "floor", "blocks", "expected"),
    [
        ("none", "all", 1, ["none", "Conv_1", "block_3", "block_2", "block_1", "Conv1"]),
        ("none", "all", 2, ["none", "block_3", "block_1", "Conv1"]),
        ("none", "all", 99, ["none", "Conv1"]),
        ("Conv_1", "block_2", 1, ["Conv_1", "block_3", "block_2"]),
        ("block_2_BN", "block_1", 1, ["block_2_BN", "block_2", "block_1"]),  # the rest of a block comes first
        ("block_3", "block_1_BN", 1, ["block_3", "block_2", "block_1_BN"]),
        (0.2, 0.6, 2, ["block_3", "block_1_BN"]),
    ],
    ids=str,
)
def test_blocks_open_from_the_head_down_to_the_floor(
    start: str | float, floor: str | float, blocks: int, expected: list[str]
) -> None:
    firsts = openings(LAYERS, start, floor, blocks)
    assert [place(LAYERS, first) for first in firsts] == expected
    assert firsts == sorted(set(firsts), reverse=True)
    assert [first_open(LAYERS, name) for name in expected[:-1]] == firsts[:-1], "each place is a value of unfreeze_from"


@pytest.mark.parametrize(
    ("start", "floor", "message"),
    [
        ("block_2", "block_3", "down_to: expected a layer or block below unfreeze_from, 'block_2'.*received 'block_3'"),
        ("block_2", "block_2", "nothing would be left to open"),
        (0.5, 0.3, "below unfreeze_from, 0.5, or a larger share, received 0.3"),
        ("none", "block_9", r"^fine_tune.unfreeze_further.down_to: expected .* received 'block_9' \(did you mean"),
        ("block_9", "all", "^fine_tune.unfreeze_from: expected .* received 'block_9'"),
    ],
)
def test_a_floor_above_the_start_or_unknown_is_refused(start: str | float, floor: str | float, message: str) -> None:
    with pytest.raises(TemperError, match=message):
        openings(LAYERS, start, floor, 1)


def due(further: Every | OnPlateau, losses: Sequence[float], start: float | None = None) -> list[int]:
    """How many openings come before each epoch, and before the one after the last."""
    history = [{"val_loss": loss, "val_accuracy": 0.0} for loss in losses]
    first = None if start is None else {"val_loss": start, "val_accuracy": 0.0}
    return [openings_due(further, "val_loss", history[:epoch], first) for epoch in range(len(history) + 1)]


@pytest.mark.parametrize(
    ("further", "losses", "start", "expected"),
    [
        (Every(name="every", epochs=1), [1, 1, 1], None, [0, 1, 2, 3]),
        (Every(name="every", epochs=2), [1, 1, 1, 1, 1], None, [0, 0, 1, 1, 2, 2]),
        (OnPlateau(name="plateau", patience=1), [5, 4, 3], None, [0, 0, 0, 0]),
        (OnPlateau(name="plateau", patience=1), [5, 5, 6, 4], None, [0, 0, 1, 2, 2]),
        (OnPlateau(name="plateau", patience=2), [5, 5, 5, 5, 5], None, [0, 0, 0, 1, 1, 2]),  # it waits anew
        (OnPlateau(name="plateau", patience=2), [5, 6, 4, 4, 4], None, [0, 0, 0, 0, 0, 1]),  # a gain: anew
        (OnPlateau(name="plateau", patience=1, min_delta=0.5), [5, 4.7, 4.4], None, [0, 0, 1, 1]),
        (OnPlateau(name="plateau", patience=1), [5, 4], 4.5, [0, 1, 1]),  # the start counts
    ],
    ids=str,
)
def test_when_more_opens(
    further: Every | OnPlateau, losses: list[float], start: float | None, expected: list[int]
) -> None:
    assert due(further, losses, start) == expected


def test_on_a_plateau_the_selected_figure_decides() -> None:
    history = [{"val_loss": loss, "val_accuracy": 0.5} for loss in (3.0, 2.0, 1.0)]
    further = OnPlateau(name="plateau", patience=1)
    assert openings_due(further, "val_loss", history, None) == 0
    assert openings_due(further, "val_accuracy", history, None) == 2


# A real fine-tune of a small backbone.

RANDOM = np.random.default_rng(0)
LABELS = np.arange(40, dtype=np.int32) % 2
PIXELS = (RANDOM.integers(0, 200, (40, 8, 8, 3)) + 50 * LABELS[:, None, None, None]).astype(np.uint8)
NORM = keras.layers.BatchNormalization


def small_classifier() -> keras.Model:
    """Three blocks, each a convolution and a norm that a frozen one folds into."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    for block in (1, 2, 3):
        x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"block{block}_conv")(x)
        x = keras.layers.ReLU(name=f"block{block}_relu")(NORM(name=f"block{block}_norm")(x))
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")
    return assemble(backbone, build_head(8, 2, Head(dropout=0.3)))


def settings(**fine_tune: Any) -> Settings:
    return Settings.model_validate({"seed": 0, "batch_size": 8, "lr": 0.01, "aug": 0.0, "fine_tune": fine_tune})


class Cut(Exception):
    """Stands for a kill."""


def fine_tuned(
    folder: Path, chosen: Settings, pretrained: bool, cut_at: int | None = None
) -> tuple[keras.Model, Result, list[int]]:
    """A fine-tune; with the number of its folded layers in each epoch."""
    classifier = small_classifier()
    unfreeze(classifier, chosen.fine_tune.unfreeze_from, pretrained)
    phase = plan(classifier, chosen, pretrained, LABELS, 2)
    gradual = phase.gradual
    assert gradual is not None
    model = trained_model(classifier, chosen)
    now = [model]
    folded: list[int] = []

    def opened(count: int) -> keras.Model:
        now[0] = gradual.open(count)
        return now[0]

    def training(epoch: int) -> Batches:
        if epoch == cut_at:
            raise Cut
        folded.append(sum(isinstance(one, FoldedConvolution) for one in now[0].get_layer("backbone").layers))
        return Batches(lambda rows: PIXELS[rows], one_hot(LABELS, 2), shuffled(32, 0, epoch), 8)

    phase = replace(phase, gradual=replace(gradual, open=opened))
    validation = Batches(lambda rows: PIXELS[rows], one_hot(LABELS, 2), np.arange(32, 40), 8)
    folder.mkdir(exist_ok=True)
    with chdir(folder), logged("fine_tune") as live:
        result = fit(model, phase, training, validation, Unfinished(folder), live)
    return classifier, result, folded[1:]  # fit asks for the length of the first epoch's batches before it trains


@pytest.mark.parametrize("pretrained", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_backbone_opens_block_by_block_and_a_cut_run_ends_in_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrained: bool
) -> None:
    """Norms of a pretrained backbone stay frozen and folded (law 4); others are unfolded when they open."""
    further = {"name": "every", "epochs": 1, "down_to": "block2"}
    chosen = settings(unfreeze_from="none", unfreeze_further=further, epochs=4, lr_decay=0.5)
    before = small_classifier()
    model, result, folded = fine_tuned(tmp_path / "whole", chosen, pretrained)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "epoch 2: unfreezes the backbone from block3",
        "epoch 3: unfreezes the backbone from block2",
    ]
    kernel, norm, head = 8 * 8 * 9, 0 if pretrained else 2 * 8, 8 * 2 + 2
    opened = [head, head + kernel + norm, head + 2 * (kernel + norm), head + 2 * (kernel + norm)]
    assert [record["trainable_parameters"] for record in result.history] == opened
    assert folded == ([3, 3, 3, 3] if pretrained else [3, 2, 1, 1])
    moved = {
        layer.name
        for layer, old in zip(model.get_layer("backbone").layers, before.get_layer("backbone").layers, strict=True)
        if any(not np.array_equal(a, b) for a, b in zip(layer.get_weights(), old.get_weights(), strict=True))
    }
    norms = set() if pretrained else {"block2_norm", "block3_norm"}
    assert moved == {"block2_conv", "block3_conv"} | norms
    with pytest.raises(Cut):
        fine_tuned(tmp_path / "cut", chosen, pretrained, cut_at=2)
    resumed, again, _ = fine_tuned(tmp_path / "cut", chosen, pretrained)
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert again == result
    assert all(np.array_equal(a, b) for a, b in zip(resumed.get_weights(), model.get_weights(), strict=True))


def test_an_opening_changes_nothing_before_it(tmp_path: Path) -> None:
    late, soon = (
        fine_tuned(
            tmp_path / f"{epochs}",
            settings(unfreeze_from="block3", unfreeze_further={"name": "every", "epochs": epochs}, epochs=5),
            pretrained=True,
        )[1].history
        for epochs in (4, 3)
    )
    assert late[:3] == soon[:3] and late[3]["loss"] != soon[3]["loss"]


def test_backbone_layers_are_those_that_places_name() -> None:
    layers = backbone_layers(small_classifier())
    firsts = openings(layers, "none", "all", 1)
    assert [place(layers, first) for first in firsts] == ["none", "block3", "block2", "block1"]
