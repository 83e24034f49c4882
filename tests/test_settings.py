"""The settings in params.yaml: what they admit, how they refuse the rest, and the files that describe them."""

import shutil
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.backbone import architectures
from temper.base.errors import TemperError
from temper.base.loading import load
from temper.settings import backbone, check, fine_tune, pack, reference
from temper.settings.check import refuse_wrong_params
from tests.toys.workspace import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def changed(tmp_path: Path, **changes: Any) -> Path:
    """recipes/digits.yaml with keys replaced by lines of text; `a__b` is `a.b`, `DELETE` removes it."""
    values = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
    for name, text in changes.items():
        *sections, key = name.split("__")
        inside = values
        for section in sections:
            inside = inside[section]
        if text == "DELETE":
            del inside[key]
        else:
            inside[key] = yaml.safe_load(text) if isinstance(text, str) else text
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("recipe", [*RECIPES, ROOT / "params.yaml"], ids=lambda path: path.name)
def test_every_recipe_is_right_short_and_as_dvc_would_write_it(recipe: Path, tmp_path: Path) -> None:
    """A recipe fits one look, and `dvc exp run -S lr=3e-6` changes one line of it and no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "refuse_wrong_unfreezing", lambda path: None)  # its own test; it imports Keras
        refuse_wrong_params(recipe)
    before = recipe.read_text(encoding="utf-8").splitlines()
    assert len(before) <= 40
    written = tmp_path / "params.yaml"
    shutil.copy(recipe, written)
    apply_overrides(written, ["lr=3e-6"])
    after = written.read_text(encoding="utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1 and changed[0][1].startswith("lr: 3e-06 ")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-06", 3e-6), ("3e-6", 3e-6), ("3.0e-6", 3e-6), ("0.000003", 3e-6), ("1", 1.0), ("1e-3", 1e-3)],
)
def test_lr_is_a_float_however_yaml_reads_it(tmp_path: Path, text: str, value: float) -> None:
    lr = load(fine_tune.Settings, changed(tmp_path, lr=text)).lr
    assert lr == value and type(lr) is float


@pytest.mark.parametrize(
    ("text", "value"), [("224", (224, 224)), ("[320, 380]", (320, 380))], ids=["square", "height and width"]
)
def test_image_size_is_height_and_width(tmp_path: Path, text: str, value: tuple[int, int]) -> None:
    assert load(pack.Settings, changed(tmp_path, image_size=text)).image_size == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "fast"}, "lr: Input should be a valid number, received 'fast'"),
        ({"lr": "yes"}, "lr: Input should be a valid number, received True"),
        ({"lr": "-1"}, "lr: Input should be greater than or equal to 0.000000000001, received -1"),
        ({"lr": ".nan"}, "lr: Input should be less than or equal to 1000, received nan"),
        ({"lr": "1e-60"}, "lr: Input should be greater than or equal to 0.000000000001, received 1e-60"),
        ({"lr": "1e30"}, "lr: Input should be less than or equal to 1000, received"),
        ({"batch_size": str(10**30)}, "batch_size: Input should be less than or equal to 65536"),
        (
            {"warm_up__head": "{units: [1000000000]}"},
            "warm_up.head.units.0: Input should be less than or equal to 65536",
        ),
        ({"normalize__min_per_class": "9", "normalize__max_per_class": "8"}, "min_per_class must not be above"),
        ({"normalize__classes": "[a, b, a]"}, "normalize: classes: expected each class once"),
        (
            {"fine_tune__schedule": "{name: piecewise, epochs: [30], factors: [0.1]}"},
            "fine_tune: schedule.epochs: expected epochs below 20",
        ),
        (
            {"fine_tune__schedule": "{name: constant, warm_up: 20}"},
            "schedule.warm_up: expected less than the phase's 20",
        ),
        ({"fine_tune__optimizer": "{name: adam, weight_decay: 1}"}, "unknown key fine_tune.optimizer.weight_decay"),
        (
            {"fine_tune__optimizer": "{name: sgd, clipnorm: 1, clipvalue: 1}"},
            "fine_tune.optimizer: expected at most one of clipnorm, global_clipnorm and clipvalue",
        ),
        ({"fine_tune__loss": "{name: crossentropy, gamma: 2}"}, "unknown key fine_tune.loss.gamma: expected one of"),
        ({"fine_tune__average": "{name: none, decay: 0.9}"}, "unknown key fine_tune.average.decay: expected one of"),
        ({"fine_tune": "{lr_decay: 0.8, unfreeze_from: none}"}, "lr_decay: expected 1 where unfreeze_from is none"),
        ({"fine_tune__unfreeze_further": "{name: every}"}, "unfreeze_further: expected an unfreeze_from that leaves"),
        ({"fine_tune__unfreeze_further": "{name: never, blocks: 2}"}, "unknown key fine_tune.unfreeze_further.blocks"),
        ({"fine_tune__unfreeze_further": "{name: every, patience: 2}"}, "unknown key fine_tune.unfreeze_further.pat"),
        (
            {"fine_tune": "{unfreeze_from: none, unfreeze_further: {name: every, down_to: none}}"},
            "fine_tune.unfreeze_further: down_to: expected a layer or block, a share of the layers, or all, received",
        ),
        (
            {"fine_tune": "{unfreeze_from: none, epochs: 5, unfreeze_further: {name: every, epochs: 5}}"},
            "unfreeze_further.epochs: expected less than the phase's 5 epochs, received 5",
        ),
        (
            {
                "fine_tune": "{unfreeze_from: none, early_stopping: {patience: 2}, "
                "unfreeze_further: {name: plateau, patience: 2}}"
            },
            "unfreeze_further.patience: expected less than early_stopping.patience (2)",
        ),
        (
            {"fine_tune": "{class_weights: balanced, sampling: sqrt}"},
            "class_weights: expected none with sampling: sqrt",
        ),
        (
            {"fine_tune__views": "2"},
            "fine_tune: views: expected 0, or an unfreeze_from that leaves a part of the backb",
        ),
        ({"fine_tune__views": "-1"}, "fine_tune.views: Input should be greater than or equal to 0, received -1"),
        (
            {"fine_tune": "{views: 2, unfreeze_from: none, unfreeze_further: {name: every}}"},
            "views: expected 0, or unfreeze_further: never, for what opens later cannot be stored; received 2",
        ),
        (
            {"fine_tune": "{augment_on: device, augmentation: {randaugment: {}}}"},
            "augment_on: expected host with augmentation.randaugment, which no device computes, received device; rem",
        ),
        (
            {"fine_tune": "{views: 2, unfreeze_from: none, augment_on: device}"},
            "views: expected 0, or augment_on: host, because stored views are drawn there; received 2",
        ),
        (
            {"fine_tune": "{views: 2, unfreeze_from: none, augmentation: {mixup: 0.2}}"},
            "views: expected 0, or augmentation.mixup: 0, for it mixes the pixels of images anew in each epoch",
        ),
        (
            {"fine_tune": "{views: 2, unfreeze_from: none, augmentation: {cutmix: 1}}"},
            "views: expected 0, or augmentation.cutmix: 0, for it",
        ),
        (
            {"fine_tune": "{views: 2, unfreeze_from: none, batch_size: auto}"},
            "views: expected 0, or a number as batch_size, because auto tries whole images and views train on "
            "activations; received 2",
        ),
        (
            {"fine_tune": "{views: 9, unfreeze_from: none}"},
            "views: expected 0, or at most the phase's 8 epochs, each of which shows one view; received 9",
        ),
        ({"fine_tune__precision": "float16"}, "fine_tune.precision: Input should be 'float32', 'mixed_bfloat16' or"),
        ({"batch_size": "32.5"}, "batch_size: Input should be a valid integer, received 32.5"),
        ({"batch_size": "'32'"}, "batch_size: Input should be a valid integer, received '32'"),
        ({"image_size": "4"}, "image_size.0: Input should be greater than or equal to 8, received 4"),
        (
            {"fetch__digits__source": "kagle"},
            "fetch.digits.source: expected one of cifar100, csv, cub, digits, flowers, ",
        ),
        ({"fetch__digits__dataset": "a/b"}, "unknown key fetch.digits.dataset: expected one of path, source"),
        ({"fetch": "{}"}, "fetch: Dictionary should have at least 1 item"),
        ({"fetch": "{a b: {source: digits, path: x}}"}, "fetch.a b: String should match pattern"),
        ({"fetch__digits": "{source: digits}"}, "missing key fetch.digits.path: add it"),
        ({"detect__detector": "onnx"}, "detect.detector: expected one of detectron2, none, published, yolox, received"),
        ({"detect": "{detector: none, score: 0.5}"}, "unknown key detect.score: expected one of detector"),
        (
            {"detect": "{detector: none, floor: 0.5}"},
            "floor is a setting of detectron2 and yolox, not of none: remove",
        ),
        ({"Lr": "3"}, "unknown key Lr: expected one of aug"),
        ({"backbone": "{name: MobilenetV2}"}, "received 'MobilenetV2'; did you mean MobileNetV2?"),
        ({"detect": "{detector: yolox, actors: 2}"}, "detect: engine: local does not use actors"),
        ({"fine_tune__optimizer": "{name: adam, momentum: 0.9}"}, "unknown key fine_tune.optimizer.momentum: expected"),
        ({"backbone__arguments": "{alpha: 1}"}, "backbone: tiny has neither arguments nor published weights"),
        ({"normalize__only_train": "[digits]"}, "normalize.only_train: expected names of `fetch` (digits) but not all"),
        ({"normalize__only_train": "[more]"}, "normalize.only_train: expected names of `fetch`"),
        ({"normalize__splits": "{val: dev}"}, "normalize.splits.val: Input should be 'train', 'validation' or 'test'"),
        ({"seeds": "3"}, "unknown key seeds: expected one of aug, backbone, batch_size"),
        ({"warm_up__epoch": "3"}, "did you mean epochs?"),
        (
            {"fine_tune__schedule": "{name: cosine, factors: [1]}"},
            "unknown key fine_tune.schedule.factors: expected one of by, end, name",
        ),
        ({"fine_tune__schedule": "{name: step}"}, "fine_tune.schedule: Input tag 'step' found using 'name'"),
        (
            {"fine_tune__schedule": "{name: piecewise, epochs: [3], factors: [1, 2]}"},
            "fine_tune.schedule: expected rising epochs and a factor for each",
        ),
        ({"warm_up": "DELETE"}, "missing key warm_up: add it; docs/params.md says what it takes"),
        ({"normalize__validation": "0.5", "normalize__test": "0.5"}, "must be below 1, received 0.5 + 0.5"),
        (
            {"fetch__digits": "{source: kaggle, path: x, dataset: a b}"},
            "fetch.digits.dataset: String should match pattern",
        ),
        (
            {"normalize__rename": "{ant: a, 'ant ': b}"},
            "normalize.rename: expected each",
        ),
        ({"normalize__rename": "{ant: ' '}"}, "expected each published name once, with a new name or null"),
        (
            {"fetch__digits": "{source: folder, path: x, layout: ['{Label}/{name}']}"},
            "fetch.digits.layout.0: expected a path with {name},",
        ),
        ({"fetch__digits": "{source: folder, path: x, layout: ['{name}/{name}']}"}, "received '{name}/{name}'"),
        (
            {"fetch__digits": "{source: folder, path: x, layout: []}"},
            "fetch.digits.layout: List should have at least 1 item",
        ),
        (
            {"fetch__digits": "{source: cub, path: x, sha256: abc}"},
            "fetch.digits.sha256: String should match pattern",
        ),
        ({"backbone__name": "ResNet5O"}, "'VGG19' or 'Xception', received 'ResNet5O'"),
        ({"warm_up__head__activation": "relux"}, "warm_up.head.activation: Input should be 'relu', "),
        (
            {"fetch__digits__path": "../photos"},
            "fetch.digits.path: expected a path in the repository or an absolute one",
        ),
        ({"fetch__digits__path": "''"}, "fetch.digits.path: String should have at least 1 character"),
        ({"aug": "1.5"}, "aug: Input should be less than or equal to 1, received 1.5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_key_is_named_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TemperError) as refused:
        refuse_wrong_params(changed(tmp_path, **changes))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: [", "not valid YAML"),
        ("seed: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("seed: 1\nseed: 2", 'not valid YAML: .* found duplicate key "seed"'),
        ("- 1", "expected a mapping of keys, received list"),
        ("", "received NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(TemperError, match=message):
        refuse_wrong_params(tmp_path / "params.yaml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="copy one of recipes/"):
        refuse_wrong_params(tmp_path / "params.yaml")


def test_a_misspelt_key_is_named_rather_than_the_one_it_makes_missing(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"unknown key batchsize: .* did you mean batch_size\?"):
        refuse_wrong_params(changed(tmp_path, batch_size="DELETE", batchsize="32"))


def test_every_choice_can_be_made_by_its_name_alone(tmp_path: Path) -> None:
    """So that `-S fine_tune.schedule.name=cosine` is enough."""
    for key, names in (
        ("schedule", ("constant", "cosine", "plateau")),
        ("optimizer", ("adam", "adamw", "sgd", "rmsprop", "lion", "lamb")),
        ("loss", ("crossentropy", "focal")),
        ("average", ("none", "ema")),
        ("unfreeze_further", ("never", "every", "plateau")),
    ):
        for name in names:
            path = changed(tmp_path, fine_tune__unfreeze_from="none", **{f"fine_tune__{key}": f"{{name: {name}}}"})
            assert getattr(load(fine_tune.Settings, path).fine_tune, key).name == name


@pytest.mark.parametrize(
    ("text", "value"), [("0.3", 0.3), ("3e-1", 0.3), ("1", 1.0), ("block_13", "block_13"), ("all", "all")]
)
def test_a_number_is_a_share_of_the_layers(tmp_path: Path, text: str, value: float | str) -> None:
    assert load(fine_tune.Settings, changed(tmp_path, fine_tune__unfreeze_from=text)).fine_tune.unfreeze_from == value


def test_a_layer_that_the_backbone_does_not_have_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building the backbone takes seconds, so it is done once for each backbone, whatever its weights."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = changed(tmp_path, backbone="{name: MobileNetV2}", image_size="64", fine_tune__unfreeze_from="block_99")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TemperError, match=r"unfreeze_from: .*'block_99' \(did you mean block_9\?\); its blocks: Conv1"):
        refuse_wrong_params(path)
    monkeypatch.setattr(check, "_build_backbone", None)  # not needed a second time
    further = "{unfreeze_from: block_3, unfreeze_further: {name: every, down_to: block_4}}"
    with pytest.raises(TemperError, match=r"down_to: expected a layer or block below unfreeze_from, 'block_3'"):
        refuse_wrong_params(changed(tmp_path, backbone="{name: MobileNetV2}", image_size="64", fine_tune=further))
    nothing_frozen = "{unfreeze_from: 1.0, views: 2}"
    with pytest.raises(
        TemperError, match=r"views: expected 0, or an unfreeze_from that leaves layers with .*: 1.0, from"
    ):
        refuse_wrong_params(
            changed(tmp_path, backbone="{name: MobileNetV2}", image_size="64", fine_tune=nothing_frozen)
        )
    stored = "{unfreeze_from: 0.9, views: 2, class_weights: balanced, loss: {name: focal}}"
    refuse_wrong_params(changed(tmp_path, backbone="{name: MobileNetV2}", image_size="64", fine_tune=stored))
    refuse_wrong_params(changed(tmp_path, backbone="{name: MobileNetV2}", image_size="64"))
    path = changed(tmp_path, backbone="{name: MobileNetV2, weights: none}", image_size="64")
    refuse_wrong_params(path)


def test_a_backbone_that_cannot_be_built_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = changed(tmp_path, backbone="{name: ResNet50}", image_size="16")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TemperError, match="backbone ResNet50 .*Input size must be at least 32x32.*input_size enlarges"):
        refuse_wrong_params(path)


def test_the_schema_for_editors_and_the_page_of_all_keys_are_in_step() -> None:
    for path, text in reference.texts().items():
        assert path.read_text(encoding="utf-8") == text, "run: python -m temper.settings.reference"


@pytest.mark.parametrize("recipe", [*RECIPES, ROOT / "params.yaml"], ids=lambda path: path.name)
def test_the_schema_for_editors_admits_every_recipe(recipe: Path) -> None:
    yaml_1_2 = YAML(typ="safe")  # as editors read it: 1e-05 is a number
    jsonschema.validate(yaml_1_2.load(recipe), reference.schema())


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": "-1"},
        {"seeds": "3"},
        {"fetch__digits__source": "kagle"},
        {"detect": "{detector: none, floor: 0.1}"},
        {"fine_tune__optimizer": "{name: adam, momentum: 0.9}"},
    ],
    ids=str,
)
def test_the_schema_for_editors_refuses_what_the_check_refuses(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe").load(changed(tmp_path, **changes)), reference.schema())


def test_every_key_has_a_meaning() -> None:
    """The page of all keys is of no use where a meaning is missing."""
    rows = [line for line in reference.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60 and not [row for row in rows if row.rstrip().endswith("|  |")]


def test_backbones_are_those_of_keras_and_tiny() -> None:
    assert set(get_args(backbone.BackboneName)) == {*architectures.known(), backbone.HUB}


@pytest.mark.parametrize(("text", "seed"), [("010", 10), ("7", 7)])
def test_a_number_is_what_it_looks_like(tmp_path: Path, text: str, seed: int) -> None:
    """As DVC reads it: YAML 1.1 would take `010` for eight, and `1:30` for ninety."""
    written = (ROOT / "recipes/digits.yaml").read_text(encoding="utf-8").replace("seed: 0", f"seed: {text}")
    (tmp_path / "params.yaml").write_text(written, encoding="utf-8")
    assert load(fine_tune.Settings, tmp_path / "params.yaml").seed == seed


def test_a_time_is_no_number(tmp_path: Path) -> None:
    written = (ROOT / "recipes/digits.yaml").read_text(encoding="utf-8").replace("seed: 0", "seed: 1:30")
    (tmp_path / "params.yaml").write_text(written, encoding="utf-8")
    with pytest.raises(TemperError, match="seed: Input should be a valid integer, received '1:30'"):
        load(fine_tune.Settings, tmp_path / "params.yaml")
