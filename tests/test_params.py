"""The schema of params.yaml: what it admits, and how it refuses the rest."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from temper.base.errors import TemperError
from temper.params import Params, load
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
def test_every_recipe_satisfies_the_schema(recipe: Path) -> None:
    assert isinstance(load(recipe), Params)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-06", 3e-6), ("3e-6", 3e-6), ("3.0e-6", 3e-6), ("0.000003", 3e-6), ("1", 1.0), ("1e-3", 1e-3)],
)
def test_lr_is_a_float_however_yaml_reads_it(tmp_path: Path, text: str, value: float) -> None:
    lr = load(changed(tmp_path, lr=text)).lr
    assert lr == value and type(lr) is float


@pytest.mark.parametrize(
    ("text", "value"), [("224", (224, 224)), ("[320, 380]", (320, 380))], ids=["square", "height and width"]
)
def test_image_size_is_height_and_width(tmp_path: Path, text: str, value: tuple[int, int]) -> None:
    assert load(changed(tmp_path, image_size=text)).image_size == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "fast"}, "lr: Input should be a valid number, received 'fast'"),
        ({"lr": "yes"}, "lr: Input should be a valid number, received True"),
        ({"lr": "-1"}, "lr: Input should be greater than 0, received -1"),
        ({"lr": ".nan"}, "lr: Input should be a finite number, received nan"),
        ({"batch_size": "32.5"}, "batch_size: Input should be a valid integer, received 32.5"),
        ({"batch_size": "'32'"}, "batch_size: Input should be a valid integer, received '32'"),
        ({"image_size": "4"}, "image_size.0: Input should be greater than or equal to 8, received 4"),
        ({"source": "kagle"}, "source: Input should be 'digits', 'folder', 'cifar100', "),
        ({"seeds": "3"}, "unknown key seeds: expected one of aug, auxiliary, backbone"),
        ({"warm_up__epoch": "3"}, "did you mean epochs?"),
        ({"fine_tune__schedule__factors": "[1]"}, "unknown key fine_tune.schedule.factors: expected one of"),
        ({"fine_tune__schedule": "{name: step}"}, "fine_tune.schedule: Input tag 'step' found using 'name'"),
        (
            {"fine_tune__schedule": "{name: piecewise, epochs: [3], factors: [1, 2]}"},
            "fine_tune.schedule: expected rising epochs and a factor for each",
        ),
        ({"warm_up__head__units": "DELETE"}, "missing key warm_up.head.units"),
        ({"normalize__validation": "0.5", "normalize__test": "0.5"}, "must be below 1, received 0.5 + 0.5"),
        ({"sources__kaggle__dataset": "a b"}, "sources.kaggle.dataset: String should match pattern"),
        (
            {"sources__digits": "DELETE"},
            "source is digits: add its settings as sources.digits, see recipes/digits.yaml",
        ),
        (
            {"normalize__rename": "{ant: a, 'ant ': b}"},
            "normalize.rename: expected every",
        ),
        ({"normalize__rename": "{ant: ' '}"}, "expected every published name once, and names or null for them"),
        (
            {"sources__kaggle__layout": "['{Label}/{name}']"},
            "sources.kaggle.layout.0: expected a path with {name},",
        ),
        ({"sources__kaggle__layout": "['{name}/{name}']"}, "received '{name}/{name}'"),
        ({"sources__kaggle__layout": "[]"}, "sources.kaggle.layout: List should have at least 1 item"),
        ({"auxiliary__source": "cub"}, "auxiliary: settings.archive, as of sources.cub: Field required"),
        ({"sources__cifar100__sha256": "abc"}, "sources.cifar100.sha256: String should match pattern"),
        ({"backbone__name": "ResNet5O"}, "'VGG19' or 'Xception', received 'ResNet5O'"),
        ({"warm_up__head__activation": "relux"}, "warm_up.head.activation: Input should be 'relu', "),
        ({"sources__local": "''"}, "sources.local: String should have at least 1 character"),
        ({"aug": "1.5"}, "aug: Input should be less than or equal to 1, received 1.5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_key_is_named_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TemperError) as refused:
        load(changed(tmp_path, **changes))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: [", "not valid YAML"),
        ("seed: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("- 1", "expected a mapping of keys, received list"),
        ("", "received NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(TemperError, match=message):
        load(tmp_path / "params.yaml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="copy one of recipes/"):
        load(tmp_path / "params.yaml")


def test_a_misspelt_key_is_named_rather_than_the_one_it_makes_missing(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"unknown key batchsize: .* did you mean batch_size\? \(and 1 more\)"):
        load(changed(tmp_path, batch_size="DELETE", batchsize="32"))


def test_every_choice_of_a_schedule_can_be_made_by_its_name_alone(tmp_path: Path) -> None:
    """So that `-S fine_tune.schedule.name=cosine` is enough."""
    for name in ("constant", "cosine", "plateau"):
        assert load(changed(tmp_path, fine_tune__schedule=f"{{name: {name}}}")).fine_tune.schedule.name == name
