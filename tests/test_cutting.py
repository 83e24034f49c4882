"""A classifier cut at the boundary of its frozen part: the same function, the same variables, the same file."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages.fine_tune.folding import FoldedConvolution, fold_frozen_norms
from temper import keras_files
from temper.freezing.classifier import unfreeze
from temper.freezing.cutting import boundary_tensors, frozen_part, names_of, open_part
from tests.toys.classifier import PIXELS, alive, classifier


def values(model: keras.Model) -> Any:
    """What the frozen part makes of the pixels, as the open part takes it."""
    found = keras.tree.flatten(model(PIXELS.astype(np.float32)))
    return found[0] if len(found) == 1 else found


@pytest.mark.parametrize(
    ("name", "arguments", "start", "layers", "norms"),
    [
        ("tiny", {}, "block3", ["block2_pool"], 0),
        ("tiny", {}, "none", ["average"], 0),
        ("MobileNet", {"alpha": 0.25}, "conv_dw_12", ["conv_pw_11_relu"], 4),  # before the padding, which is larger
        # Within a block: what the projection takes, and the residual beside it.
        pytest.param(
            *("MobileNetV2", {"alpha": 0.35}, 0.33, ["block_11_depthwise_relu", "block_10_project_BN"], 17),
            marks=pytest.mark.slow,
        ),
        pytest.param("MobileNetV2", {"alpha": 0.35}, "block_13", ["block_12_add"], 13, marks=pytest.mark.slow),
        pytest.param("ResNet50", {}, "conv5_block1", ["conv4_block6_out"], 10, marks=pytest.mark.slow),
        # The first convolution of the block is below, the one of its shortcut above.
        pytest.param(
            *("ResNet50", {}, "conv5_block1_0_conv", ["conv5_block1_2_relu", "conv4_block6_out"], 8),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("DenseNet121", {}, "conv5_block3", ["conv5_block3_0_relu", "conv5_block2_concat"], 14),
            marks=pytest.mark.slow,
        ),
        # Its dropout within blocks rests below the boundary.
        pytest.param("EfficientNetB0", {}, "block6a", ["block5c_add"], 16, marks=pytest.mark.slow),
    ],
)
def test_the_parts_after_one_another_are_the_whole(
    name: str, arguments: dict[str, Any], start: str | float, layers: list[str], norms: int
) -> None:
    whole = classifier(name, **arguments)
    alive(whole, PIXELS)
    unfreeze(whole, start, pretrained=True)
    expected = np.asarray(whole(PIXELS.astype(np.float32)))
    assert np.ptp(expected[:, 0]) > 1e-3, "the photos must make a difference"
    backbone = whole.get_layer("backbone")
    assert names_of(boundary_tensors(backbone)) == layers
    frozen, above = frozen_part(backbone), open_part(whole)
    assert names_of(boundary_tensors(backbone)) == layers, "cutting leaves the whole as it was"
    np.testing.assert_allclose(np.asarray(above(values(frozen))), expected, atol=1e-5)
    folded = fold_frozen_norms(above, "backbone")
    np.testing.assert_allclose(np.asarray(folded(values(frozen))), expected, atol=1e-4)
    assert sum(isinstance(layer, FoldedConvolution) for layer in folded.get_layer("backbone").layers) == norms
    of_whole = {variable.path for variable in whole.trainable_variables}
    assert {variable.path for variable in above.trainable_variables} == of_whole
    assert not frozen.trainable_variables


def test_the_file_of_the_whole_knows_nothing_of_the_cut(tmp_path: Path) -> None:
    whole = classifier("tiny")
    unfreeze(whole, "block3", pretrained=True)
    keras_files.save(whole, tmp_path / "before.keras", {})
    fold_frozen_norms(open_part(whole), "backbone")
    frozen_part(whole.get_layer("backbone"))
    keras_files.save(whole, tmp_path / "after.keras", {})
    assert (tmp_path / "after.keras").read_bytes() == (tmp_path / "before.keras").read_bytes()


@pytest.mark.parametrize(
    ("start", "pretrained", "crossing"),
    [
        ("norm", True, "relu"),  # a frozen norm stays below, and so does what follows it without weights
        ("norm", False, "conv"),  # one that learns is open
        ("dropout", True, "relu"),  # above the boundary it goes on leaving things out
        ("conv2", True, "dropout"),  # below it rests
        ("none", True, "pool"),
    ],
)
def test_open_is_what_trains_or_draws_random_numbers(start: str, pretrained: bool, crossing: str) -> None:
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(pixels)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Conv2D(4, 3, name="conv2")(x)
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="backbone")
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")], name="head")
    whole = keras.Model(pixels, head(backbone(pixels)))
    unfreeze(whole, start, pretrained)
    assert names_of(boundary_tensors(backbone)) == [crossing]
