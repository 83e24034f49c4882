"""Rates by depth, and the precision that a backbone computes in."""

from pathlib import Path

import keras
import numpy as np
import pytest

from stages.fine_tune.depth import computing_in, scales
from temper import keras_files
from temper.freezing.classifier import unfreeze
from temper.freezing.unfreezing import blocks_above
from tests.toys.classifier import PIXELS, classifier


@pytest.mark.parametrize(
    ("names", "above"),
    [
        (["pixels", "conv1", "conv1_bn", "conv2_block1_0_conv", "conv3_block1_1_conv", "pool"], [3, 3, 3, 2, 1, 1]),
        (
            ["Conv1", "bn_Conv1", "expanded_conv_project", "block_1_expand", "block_2_expand", "Conv_1"],
            [4, 4, 4, 3, 2, 1],
        ),
        (["conv1", "conv_dw_1", "conv_pw_1", "conv_dw_2", "conv_pw_2"], [3, 2, 2, 1, 1]),
        (["stem_conv", "block1a_dwconv", "block1b_dwconv", "top_conv"], [3, 2, 1, 1]),
        (["only", "names"], [1, 1]),
        ([], []),
    ],
    ids=str,
)
def test_blocks_are_counted_from_the_head_down(names: list[str], above: list[int]) -> None:
    weightless = {"pixels", "pool"}
    assert blocks_above([(name, name not in weightless) for name in names]) == above


def test_rates_fall_block_by_block_and_the_head_keeps_its_own() -> None:
    model = classifier("MobileNetV2", alpha=0.35)
    unfreeze(model, "all", pretrained=False)
    found = scales(model.get_layer("backbone"), 0.5, model)
    assert len(found) == len(model.trainable_variables)
    of_path = {variable.path: scale for variable, scale in zip(model.trainable_variables, found, strict=True)}
    assert {scale for path, scale in of_path.items() if "probabilities" in path or "head" in path} == {1.0}
    (top,) = [scale for path, scale in of_path.items() if "Conv_1/kernel" in path]
    (last,) = [scale for path, scale in of_path.items() if "block_16_project/kernel" in path]
    (first,) = [scale for path, scale in of_path.items() if path.endswith("Conv1/kernel")]
    assert (top, last) == (0.5, 0.25) and first == min(found) < 1e-4
    assert scales(model.get_layer("backbone"), 1.0, model) == (1.0,) * len(found)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_backbone_computes_in_less_and_is_saved_as_float32(tmp_path: Path, precision: str) -> None:
    model = classifier(alpha=0.25)
    for layer in model.get_layer("backbone").layers:
        if layer.name.startswith("conv") and layer.name[-1].isdigit():  # or no signal reaches the head
            layer.set_weights([4 * weights for weights in layer.get_weights()])
    before = model.predict(PIXELS, verbose=0)
    keras_files.save(model, tmp_path / "before.keras", {})
    with computing_in(model.get_layer("backbone"), precision):
        less = keras.ops.convert_to_numpy(model(PIXELS))
    assert less.dtype == np.float32 and not np.array_equal(less, before)
    np.testing.assert_allclose(less, before, atol=0.05)
    assert {str(variable.dtype) for variable in model.trainable_variables} == {"float32"}
    keras_files.save(model, tmp_path / "after.keras", {})
    assert (tmp_path / "after.keras").read_bytes() == (tmp_path / "before.keras").read_bytes()
    assert np.array_equal(keras.saving.load_model(tmp_path / "after.keras").predict(PIXELS, verbose=0), before)
