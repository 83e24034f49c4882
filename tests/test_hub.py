"""`backbone.name: hub`: what is refused, anywhere; whole networks where an environment with KerasHub is at hand.

Networks have random weights, made by timm or transformers themselves, and are compared with what these compute.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from stages.backbone import hub, hub_worker, presets
from stages.backbone.flattening import CannotFlatten, flatten
from stages.backbone.pooling import pooled_tokens
from stages.fine_tune.folding import fold_frozen_norms
from stages.warm_up.heads import assemble, build_head
from temper import keras_files
from temper.base.errors import TemperError
from temper.freezing.classifier import unfreeze
from temper.settings.backbone import Backbone, Settings
from temper.settings.check import refuse_wrong_params
from tests.toys.classifier import HEAD
from tests.toys.hugging_face import serving
from tests.toys.workspace import ROOT

COMMIT = "0123456789" * 4
CHANNELS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ENVIRONMENT = Path(os.environ.get("TEMPER_HUB", ROOT / ".venv-hub")).absolute()


# --- Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "weights: expected with hub hf://OWNER/NAME, kaggle://.* or the folder of a preset, received imagenet"),
        ({"weights": "none"}, "received none"),
        ({"weights": "hf://resnet50"}, "received hf://resnet50"),
        ({"weights": "https://huggingface.co/timm/resnet50"}, "or the folder of a preset, received https:"),
        ({"weights": "kaggle://keras/resnetv1/keras/resnet_50_imagenet"}, "VARIATION/VERSION"),
        ({"weights": "hf://timm/resnet50.a1_in1k"}, "revision: expected a commit, 40 hex digits"),
        ({"weights": "hf://timm/resnet50.a1_in1k", "revision": "main"}, "revision\n.*should match pattern"),
        ({"weights": "folder", "revision": COMMIT}, "and null otherwise, received 0123456789"),
        ({"weights": "folder", "arguments": {"alpha": 1}}, "arguments: expected {} with hub"),
        ({"name": "MobileNetV2", "revision": COMMIT}, "revision is a setting of name: hub, not of MobileNetV2: remove"),
        ({"name": "MobileNetV2", "environment": "x"}, "environment is a setting of name: hub, not of MobileNetV2"),
        ({"name": "MobileNetV2", "pooling": "class_token"}, "expected avg, max or concat with MobileNetV2, which has"),
    ],
)
def test_settings_that_have_no_use_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Backbone.model_validate({"name": "hub"} | changes)


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"weights": "hf://timm/resnet50.a1_in1k", "revision": COMMIT}, f"hf://timm/resnet50.a1_in1k@{COMMIT}"),
        ({"weights": "kaggle://keras/vit/keras/base/3"}, "kaggle://keras/vit/keras/base/3"),
        ({"weights": "/home/ann/resnet50.a1_in1k/"}, "resnet50.a1_in1k"),
    ],
)
def test_the_card_says_where_weights_come_from_but_no_path(changes: dict[str, Any], title: str) -> None:
    assert hub.title(Backbone.model_validate({"name": "hub"} | changes)) == title


# --- What is in a folder


def preset(folder: Path, config: Any, **others: Any) -> Path:
    """A folder with these files of JSON, and config.json."""
    folder.mkdir(exist_ok=True)
    for name, content in {"config": config, **others}.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "densenet121"}, r"densenet121 is refused: KerasHub's differs from timm's, .*, by 6 to 10 %"),
        ({"architecture": "efficientnetv2_rw_t"}, "efficientnetv2_rw_t is refused"),
        ({"architecture": "efficientnet_es"}, "efficientnet_es is refused"),
        ({"architecture": "convnext_tiny"}, "expected an architecture of timm that was .* resnet50,.*ed convnext_tiny"),
        ({"architecture": "resnet50", "model_args": {"output_stride": 8}}, "does not know: output_stride; choose"),
        ({"model_type": "swin"}, "expected a model_type that was compared: dinov2, .*, vit; received swin"),
        ({"model_type": "vit", "hidden_act": "quick_gelu"}, "expected hidden_act gelu, .* received quick_gelu"),
        ({"name": "x"}, r"expected the configuration of timm \(architecture\), .* received name"),
        ([], "expected a mapping, received list"),
        ("{", "expected JSON, received Expecting"),
    ],
)
def test_a_network_that_is_not_known_to_be_right_is_refused(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(TemperError, match=message) as refused:
        presets.read(preset(tmp_path / "preset", config))
    assert "config.json" in str(refused.value) or str(tmp_path) in str(refused.value)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"config\.json: expected this file of a preset, found none"):
        presets.read(tmp_path)


VIT = {"model_type": "vit"}


@pytest.mark.parametrize(
    ("config", "processor", "white"),
    [
        ({"architecture": "resnet50", "pretrained_cfg": CHANNELS}, {}, [(1 - 0.485) / 0.229, 0, (1 - 0.406) / 0.225]),
        (VIT, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}, [1, 0, 1]),
        (VIT, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, [1, 0, 1]),
        (VIT, {"image_mean": [100.0] * 3, "image_std": [155.0] * 3, "do_rescale": False}, [1, 0, 1]),
    ],
)
def test_white_is_what_the_publisher_makes_of_it(
    tmp_path: Path, config: dict[str, Any], processor: dict[str, Any], white: list[float]
) -> None:
    """Law 3: the preprocessing is that of the weights."""
    scale, offset = presets.normalization(presets.read(preset(tmp_path / "p", config, preprocessor_config=processor)))
    assert [255 * scale[place] + offset[place] for place in (0, 2)] == pytest.approx([white[0], white[2]])


@pytest.mark.parametrize(
    "said", [{}, {"mean": [0.5], "std": [0.5]}, {"mean": [0.5] * 3, "std": [0.5, 0.5, 0]}, {"mean": "a", "std": None}]
)
def test_pixels_are_not_guessed(tmp_path: Path, said: dict[str, Any]) -> None:
    folder = preset(tmp_path / "preset", {"architecture": "resnet50", "pretrained_cfg": said})
    with pytest.raises(TemperError, match=r"config\.json: expected (mean and std of three channels|no zero)"):
        presets.normalization(presets.read(folder))


def test_weights_are_known_by_their_checksum(tmp_path: Path) -> None:
    found = presets.read(preset(tmp_path / "preset", {"architecture": "resnet50"}))
    with pytest.raises(TemperError, match=r"model\.safetensors: expected the weights of resnet50 in this one file"):
        presets.checksum(found, None)
    found.weights.write_bytes(b"abc")
    assert presets.checksum(found, None).startswith("ba7816bf")
    with pytest.raises(TemperError, match="expected sha256 0000.*, received ba7816bf"):
        presets.checksum(found, "0" * 64)


# --- One flat graph


class Block(keras.layers.Layer):
    """A residual block that is one layer to Keras, as libraries write them; one of its layers is called twice."""

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self.convolution = keras.layers.Conv2D(filters, 3, padding="same", name="conv")
        self.norm = keras.layers.BatchNormalization(name="bn")
        self.activation, self.dropout = keras.layers.ReLU(), keras.layers.Dropout(0.0)

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.convolution.build(shape)
        self.norm.build(shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = self.activation(self.norm(self.convolution(inputs), training=training))
        x = self.dropout(self.norm(self.convolution(x)), training=training)
        return self.activation(x + inputs)


class Stack(keras.layers.Layer):
    """Blocks in a layer, which is one to Keras too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.blocks = [Block(4, name=f"block_{number}") for number in range(2)]

    def build(self, shape: tuple[int | None, ...]) -> None:
        for block in self.blocks:
            block.build(shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return inputs


class Shift(keras.layers.Layer):
    """One with weights of its own."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.shift = self.add_weight(shape=shape[-1:])

    def call(self, inputs: Any) -> Any:
        return inputs + self.shift


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)


def nested(*layers: keras.layers.Layer) -> keras.Model:
    """A model of layers that are not Keras's own, with weights and statistics that do something."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="stem")(inputs)
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    model.set_weights([weights + np.random.default_rng(1).random(weights.shape) for weights in model.get_weights()])
    return model


def flat(model: keras.Model) -> keras.Model:
    pixels = keras.Input((8, 8, 3), name="pixels")
    return keras.Model(pixels, flatten(model, pixels, keras.layers.Rescaling(1 / 255, name="rescale")(pixels)))


def test_a_flat_graph_computes_the_same_with_layers_of_keras_alone(tmp_path: Path) -> None:
    model = nested(Stack(name="stack"), Block(4, name="last"))
    one = flat(model)
    assert {type(layer).__module__.split(".")[0] for layer in one.operations} == {"keras"}
    keras_files.save(one, tmp_path / "flat.keras", {})
    received = keras_files.load(tmp_path / "flat.keras")(PIXELS, training=False)
    np.testing.assert_allclose(received, model(PIXELS / 255, training=False), rtol=1e-5)
    assert one.count_params() == model.count_params()


def test_names_say_where_a_layer_was_and_not_when_it_was_made() -> None:
    names = [layer.name for layer in flat(nested(Stack(name="stack"))).layers]
    assert [name for name in names if "conv" in name] == ["stack_block_0_conv", "stack_block_1_conv"]
    assert [layer.name for layer in flat(nested(Stack(name="stack"))).layers] == names
    assert not [name for name in names if "dropout" in name]


def test_norms_of_a_flat_graph_stay_frozen_and_its_blocks_open() -> None:
    """Law 4: inside a block that is one layer to Keras, neither could be."""
    one = flat(nested(Stack(name="stack")))
    backbone = keras.Model(one.input, keras.layers.GlobalAveragePooling2D()(one.output), name="backbone")
    classifier = assemble(backbone, build_head(4, 3, HEAD))
    unfreeze(classifier, "stack_block_1", pretrained=True)
    opened = [layer.name for layer in backbone.layers if layer.trainable_weights]
    assert opened == ["stack_block_1_conv"]


def test_a_layer_with_weights_of_its_own_is_refused() -> None:
    """They would become constants of the graph, which no fine-tune could change."""
    with pytest.raises(CannotFlatten, match=r"its layer shift \(Shift\) has weights outside of Keras's layers"):
        flat(nested(Shift(name="shift")))


# --- Transformers


@pytest.mark.parametrize(("before", "after"), [(5, 3), (5, 9), (4, 4), (37, 16)])
def test_positions_are_stretched_as_pytorch_does(before: int, after: int) -> None:
    """OpenCV's bicubic kernel is PyTorch's (-0.75, half pixels, edges repeated); Keras has -0.5."""
    rows = np.random.default_rng(0).normal(size=(before, 6))
    expected = cv2.resize(rows, (6, after), interpolation=cv2.INTER_CUBIC)
    assert hub_worker._bicubic(before, after) @ rows == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("class_token", [0]), ("avg", [3.5]), ("max", [5]), ("concat", [3.5, 5])],
)
def test_tokens_become_features(pooling: str, expected: list[float]) -> None:
    """A class token, a register and four patches."""
    tokens = keras.Input((6, 1))
    model = keras.Model(tokens, pooled_tokens(tokens, pooling, 2))
    assert model(np.arange(6.0).reshape(1, 6, 1)).numpy().tolist() == [expected]


# --- The worker


def settings(folder: Path | str, size: int = 32, **changes: Any) -> Settings:
    section = {"name": "hub", "weights": str(folder), "environment": str(ENVIRONMENT)} | changes
    return Settings.model_validate({"seed": 0, "image_size": size, "backbone": section})


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, r"backbone.environment: expected an environment with KerasHub in \.venv-hub, found none; make hub"),
        ("echo 'ModuleNotFoundError: No module named keras' >&2; exit 1", "expected an environment with KerasHub"),
        ("echo 'error: no such thing' >&2; exit 1", "^no such thing$"),
        ("echo no room >&2; exit 3", "its conversion ended with code 3, saying: no room"),
        ("kill -9 $$", "its conversion was killed by signal 9, saying: nothing"),
    ],
)
def test_a_worker_that_cannot_work_ends_in_one_line(program: str | None, message: str) -> None:
    folder = preset(Path("preset"), {"architecture": "resnet18"})
    if program is not None:
        python = Path(".venv-hub/bin/python")
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o755)
    with pytest.raises(TemperError, match=message):
        hub.build(settings(folder, environment=".venv-hub"))
    assert list(Path(".temper/messages").iterdir()) == []


@pytest.mark.usefixtures("in_tmp_path")
def test_a_pulled_backbone_needs_no_kerashub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `dvc pull`; before there is a backbone, what is missing stops the run before any work."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    values = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
    values["backbone"] = {"name": "hub", "weights": str(preset(Path("preset"), {"architecture": "resnet18"}))}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(TemperError, match="expected an environment with KerasHub in .venv-hub, found none"):
        refuse_wrong_params("params.yaml")
    Path("models").mkdir()
    Path("models/backbone.keras").touch()
    refuse_wrong_params("params.yaml")


# --- Whole networks, against those who published them

# In the environment of the worker, with timm's own means: random weights, statistics of norms that do something, the
# features of noise; then those of the backbone, which is given pixels. Prints how far they are apart.
TIMM = """
import json, sys, numpy as np, timm, torch
from timm.models import save_for_hf
from stages.backbone import hub_worker, presets

folder, *names = sys.argv[1:]
size, generator = (90, 107), np.random.default_rng(0)  # no stride divides it
pixels = generator.integers(0, 256, (2, *size, 3)).astype("float32")
for name in names:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.1)
        save_for_hf(model, f"{folder}/{name}", safe_serialization=True)
        said = model.pretrained_cfg
        x = (pixels / 255 - np.array(said["mean"])) / np.array(said["std"])
        expected = model.forward_features(torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)).mean((2, 3))
    settings = {"image_size": size, "input_size": None, "pooling": None, "with_weights": True}
    backbone = hub_worker.backbone(presets.read(presets.Path(f"{folder}/{name}")), settings)
    received = backbone.predict(pixels, verbose=0)
    print("difference", name, np.abs(received - expected.numpy()).max() / expected.abs().max().item(), flush=True)
"""

# The same with transformers: a table of positions that is far from smooth, and tokens after the last norm.
TRANSFORMERS = """
import json, sys, numpy as np, torch, transformers
from stages.backbone import hub_worker, presets

generator = np.random.default_rng(0)
shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
said = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}

def made(kind):
    if kind == "vit":
        config = transformers.ViTConfig(**shape, intermediate_size=64, image_size=48, patch_size=8)
        model = transformers.ViTForImageClassification(config)
        return model, model.vit, 1
    if kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(**shape, image_size=70, patch_size=14, num_register_tokens=3)
        model = transformers.Dinov2WithRegistersModel(config)
        return model, model, 4
    config = transformers.Dinov2Config(**shape, image_size=70, patch_size=14, use_swiglu_ffn=kind == "swiglu")
    model = transformers.Dinov2Model(config)
    return model, model, 1

for case in sys.argv[2:]:
    kind, size, pooling = case.split("-")
    folder, size = f"{sys.argv[1]}/{case}", int(size)
    torch.manual_seed(0)
    model, base, others = made(kind)
    with torch.no_grad():
        for name, weights in model.eval().named_parameters():
            if "token" in name or "position" in name:
                weights.normal_(0, 0.5)
            elif weights.ndim == 1:
                weights.add_(0.2 * torch.randn_like(weights))
        model.save_pretrained(folder)
        open(folder + "/preprocessor_config.json", "w").write(json.dumps(said))
        pixels = generator.integers(0, 256, (2, size, size, 3)).astype("float32")
        x = (pixels / 255 - np.array(said["image_mean"])) / np.array(said["image_std"])
        tokens = base(torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)).last_hidden_state
    expected = tokens[:, 0] if pooling == "class_token" else tokens[:, others:].mean(1)
    settings = {"image_size": (size, size), "input_size": None, "with_weights": True}
    settings["pooling"] = None if pooling == "class_token" else pooling
    backbone = hub_worker.backbone(presets.read(presets.Path(folder)), settings)
    received = backbone.predict(pixels, verbose=0)
    print("difference", case, np.abs(received - expected.numpy()).max() / expected.abs().max().item())
"""


def in_environment(needs: str, code: str, *arguments: object) -> dict[str, float]:
    """What a program prints of differences, run in the environment of the worker, which must have a package."""
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        pytest.skip(f"KerasHub is not installed in {ENVIRONMENT}; set TEMPER_HUB to its environment")
    quiet = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    found = subprocess.run([python, "-c", f"import {needs}"], env=quiet, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{needs} is not installed in {ENVIRONMENT}")
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("difference ")]
    return {name: float(difference) for _, name, difference in lines}


FEW = ("resnet18", "resnetv2_50", "mobilenetv3_small_050", "efficientnet_b0")


@pytest.mark.parametrize("names", [FEW, pytest.param(presets.TIMM, marks=pytest.mark.slow)], ids=["few", "all"])
def test_an_architecture_computes_what_timm_does(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Law 3: raw pixels in, and the features of timm out."""
    differences = in_environment("timm", TIMM, tmp_path, *names)
    assert set(differences) == set(names) and max(differences.values()) < 1e-4, differences


def test_a_transformer_computes_what_hugging_face_does(tmp_path: Path) -> None:
    """At the size of its weights, and of DINOv2 at others; its class token if nothing else is asked for."""
    cases = ["vit-48-class_token", "vit-48-avg", "dinov2-70-class_token", "dinov2-42-avg"]
    cases += ["swiglu-98-class_token", "registers-42-avg"]
    differences = in_environment("transformers", TRANSFORMERS, tmp_path, *cases)
    assert set(differences) == set(cases) and max(differences.values()) < 1e-4, differences


# KerasHub's own presets, with random weights and scales that no other network has; compared with themselves, for
# KerasHub is who published them.
PRESETS = """
import sys, keras, keras_hub, numpy as np
from keras_hub import models
from stages.backbone import hub_worker, presets

keras.utils.set_random_seed(0)
size = (64, 64, 3)
made = {
    "resnet_vd": lambda: models.ResNetBackbone(
        [32, 32, 64], [3, 3, 3], [64, 64], [2, 2], [1, 2], "bottleneck_block_vd", image_shape=size
    ),
    "efficientnetv2": lambda: models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3], stackwise_num_repeats=[2, 2], stackwise_input_filters=[16, 16],
        stackwise_output_filters=[16, 24], stackwise_expansion_ratios=[1, 4], stackwise_strides=[1, 2],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25], stackwise_block_types=["fused", "unfused"],
        stackwise_width_coefficients=[1.0, 1.0], stackwise_depth_coefficients=[1.0, 1.0], image_shape=size,
    ),
    "vit": lambda: models.ViTBackbone(size, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32),
}
folder, kinds = sys.argv[1], sys.argv[2:] or made
for kind in kinds:
    network = made[kind]()
    generator = np.random.default_rng(0)
    network.set_weights([one + 0.1 * generator.random(one.shape) for one in network.get_weights()])
    network.save_to_preset(f"{folder}/{kind}")
    family = [one for one in keras_hub.layers.ImageConverter.__subclasses__() if one.backbone_cls is type(network)][0]
    converter = family(image_size=size[:2], scale=[1 / 50, 1 / 60, 1 / 70], offset=[-2.0, -1.5, -1.0])
    converter.save_to_preset(f"{folder}/{kind}")
    settings = {"image_size": size[:2], "input_size": None, "pooling": "avg", "with_weights": True}
    backbone = hub_worker.backbone(presets.read(presets.Path(f"{folder}/{kind}")), settings)
    pixels = generator.integers(0, 256, (2, *size)).astype("float32")
    x = np.array(network(pixels / [50, 60, 70] - [2, 1.5, 1], training=False))
    expected = x.mean((1, 2)) if x.ndim == 4 else x[:, 1:].mean(1)
    print("difference", kind, np.abs(backbone.predict(pixels, verbose=0) - expected).max() / np.abs(expected).max())
"""


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with presets of KerasHub, which came out as they were published."""
    folder = tmp_path_factory.mktemp("presets")
    differences = in_environment("keras_hub", PRESETS, folder)
    assert len(differences) == 3 and max(differences.values()) < 1e-4, differences
    return folder


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("kind", "pooling", "features", "blocks", "folded"),
    [
        ("resnet_vd", None, 256, ["conv1", "conv2", "conv3", "stack0", "stack1"], 17),
        ("vit", None, 16, ["vit_encoder_transformer_block_1", "vit_encoder_transformer_block_2"], 0),
        ("vit", "concat", 32, ["vit_encoder_transformer_block_1", "vit_encoder_transformer_block_2"], 0),
    ],
)
def test_a_preset_is_a_backbone_like_any_other(
    published: Path, kind: str, pooling: str | None, features: int, blocks: list[str], folded: int
) -> None:
    """It is enlarged, loaded without KerasHub, opened by blocks, has its norms folded, and trains."""
    backbone, sha256 = hub.build(settings(published / kind, input_size=64, pooling=pooling))
    assert sha256 == presets.checksum(presets.read(published / kind), None)
    assert backbone.input_shape == (None, 32, 32, 3) and backbone.output_shape == (None, features)
    assert {type(layer).__module__.split(".")[0] for layer in backbone.operations} == {"keras"}
    backbone.name = "backbone"
    classifier = assemble(backbone, build_head(features, 3, HEAD))
    unfreeze(classifier, blocks[-1], pretrained=True)
    opened = [layer.name for layer in backbone.layers if layer.trainable_weights]
    assert opened[0].startswith(f"{blocks[-1]}_") and not any(name.endswith("_bn") for name in opened)
    faster = fold_frozen_norms(classifier, "backbone")
    names = [layer.name for layer in faster.get_layer("backbone").layers]
    assert len([name for name in names if name.endswith("_folded")]) == folded
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_allclose(faster(pixels, training=False), classifier(pixels, training=False), atol=1e-4)
    before = [np.array(weights) for weights in backbone.get_weights()]
    faster.compile("sgd", "sparse_categorical_crossentropy")
    faster.fit(pixels, np.arange(6) % 3, verbose=0)
    pairs = zip(backbone.weights, before, strict=True)
    moved = {variable.path for variable, old in pairs if not np.array_equal(variable, old)}
    trained = {variable.path for variable in backbone.trainable_weights}
    assert moved == {path for path in trained if not path.endswith("/key/bias")}  # a softmax does not feel it


@pytest.mark.usefixtures("in_tmp_path")
def test_equal_presets_give_equal_bytes(published: Path) -> None:
    """Law 10, in two processes; and the layers are known before there are weights."""
    chosen = settings(published / "efficientnetv2", size=64)
    models = [hub.build(chosen)[0], hub.build(chosen)[0]]
    for number, model in enumerate(models):
        keras_files.save(model, f"{number}.keras", {})
    assert Path("0.keras").read_bytes() == Path("1.keras").read_bytes()
    (published / "efficientnetv2/model.weights.h5").rename("elsewhere.h5")
    try:
        planned, sha256 = hub.build(chosen, with_weights=False)
        with pytest.raises(TemperError, match=r"model\.weights\.h5: expected the weights of EfficientNetBackbone"):
            hub.build(chosen)
    finally:
        Path("elsewhere.h5").rename(published / "efficientnetv2/model.weights.h5")
    assert [layer.name for layer in planned.layers] == [layer.name for layer in models[0].layers] and sha256 is None


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("vit", {"input_size": 48}, r"takes images of 64x64 pixels, received 48x48: set backbone.input_size to \[64"),
        (
            "resnet_vd",
            {"pooling": "class_token"},
            "expected avg, max or concat with ResNetBackbone, which has no class",
        ),
        ("resnet_vd", {"sha256": "0" * 64}, "model.weights.h5: expected sha256 0000"),
        ("cut", {}, "KerasHub cannot load it: "),
        ("dark", {}, "expected a pixel normalization"),
    ],
)
def test_a_preset_that_cannot_be_a_backbone_is_refused_in_one_line(
    published: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    if kind in ("cut", "dark"):
        shutil.copytree(published / "resnet_vd", kind)
        damaged = Path(kind, "model.weights.h5" if kind == "cut" else "image_converter.json")
        damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(TemperError, match=message) as refused:
        hub.build(settings(kind if Path(kind).exists() else published / kind, size=64, **changes))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.usefixtures("in_tmp_path")
def test_a_pinned_revision_is_downloaded_once(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the names of the layers, without the weights; and what is there needs no network."""
    monkeypatch.setenv("HF_HOME", str(Path("cache").absolute()))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    chosen = settings("hf://toys/resnet", size=64, revision=COMMIT)
    with serving(published / "resnet_vd", "toys/resnet", COMMIT) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        hub.build(chosen, with_weights=False)
        before = [path for path in asked if "/resolve/" in path]
        received, sha256 = hub.build(chosen)
        after = [path for path in asked if "/resolve/" in path and path not in before]
        with pytest.raises(TemperError, match="hf://toys/resnet: expected a download, received .*; without network"):
            hub.build(settings("hf://toys/resnet", size=64, revision=COMMIT[::-1]))
    assert f"/toys/resnet/resolve/{COMMIT}/config.json" in before
    assert after == [f"/toys/resnet/resolve/{COMMIT}/model.weights.h5"] and len(set(asked)) == len(before) + 4
    expected, same = hub.build(settings(published / "resnet_vd", size=64))
    assert sha256 == same
    for weights, wanted in zip(received.get_weights(), expected.get_weights(), strict=True):
        assert np.array_equal(weights, wanted)
