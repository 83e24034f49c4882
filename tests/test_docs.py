"""The pages for readers: their commands run, and the files, keys, targets and links that they name exist.

Every `sh` block of a page is run by bash, in order, in a copy of the toy pipeline whose recipes are cut down to toys.
A block that cannot be run has a comment above it, `<!-- not run: why -->`, and stands in NOT_RUN.
"""

import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.sweep.settings import Sweep
from temper.base import loading
from temper.settings.check import refuse_wrong_params
from tests.toys.photos import toy_photo, write_toy_photos
from tests.toys.workspace import ROOT, Workspace, ran

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SERVED = [
    'curl -s --data-binary @photo.jpg -H "Content-Type: image/jpeg" "http://127.0.0.1:8000/predict?top=2"',
    'curl -s -F photo=@photo.jpg -F photo=@other.jpg "http://127.0.0.1:8000/predict?top=1"',
    'curl -s -H "Content-Type: application/json" "http://127.0.0.1:8000/predict?top=1" \\',
    "curl -s -F photo=@README.md http://127.0.0.1:8000/predict",
]
POSTED = 'curl -s -H "Content-Type: application/json" http://127.0.0.1:8001/runs \\'
CLUSTER = [  # tests/test_cluster.py has one, and runs the script
    "make ray",
    'export PATH="$PWD/.venv/bin:$PATH" RAY_AUTH_MODE=token RAY_JOB_START_TIMEOUT_SECONDS=31536000',
    "ssh -fN -L 8265:127.0.0.1:8265 HEAD    # unless this is the head",
    "ray status                       # what is taken on the nodes, and what waits",
    "#!/bin/bash",
]
# The first line of each block that is not run.
NOT_RUN = {
    ("docs/serve.md", "make serve"),  # downloads packages, and runs until it is stopped
    ("docs/serve.md", "make serve-environment"),
    ("docs/serve.md", "docker build -f containers/serve.Dockerfile -t temper-serve ."),
    # waits for Lambda's runtime
    (
        "docs/serve.md",
        'TEMPER_OPTIONS="--models models/export/classifier.tflite" .venv-serve/bin/python -m apps.serve.lambda_handler',
    ),
    *(("docs/serve.md", line) for line in SERVED),  # they ask a server: tests/test_serve.py runs them
    ("docs/page.md", "make page-runtime    # once: LiteRT.js, by npm"),  # downloads packages
    ("docs/page.md", "python -m http.server 8002 --bind 127.0.0.1 --directory models/export/page"),  # until stopped
    ("docs/page.md", "python -m apps.page site --models models/export/classifier.tflite other/classifier_b.tflite"),
    ("docs/training.md", "dvc exp run --queue -S lr=1e-4"),  # tests/test_links.py runs experiments in the queue
    ("docs/queue.md", "make queue"),  # downloads packages
    ("docs/queue.md", "python -m apps.queue --jobs 2"),  # runs until it is stopped
    ("docs/queue.md", POSTED),  # asks a server: tests/test_queue_runs.py does the same
    ("docs/queue.md", "python -m apps.queue repair --jobs 2"),  # needs a queue: tests/test_queue_runs.py runs it
    ("docs/queue.md", "dvc exp run --pull -n NAME -S lr=3e-6 && dvc exp push origin NAME    # on one machine"),
    *(("docs/cluster.md", line) for line in CLUSTER),
    ("README.md", "make test"),  # the tests themselves
    ("README.md", "make GPU=1"),  # downloads CUDA and needs a GPU
    ("CONTRIBUTING.md", "make test         # makes .venv if it is not there, and runs the fast tests"),
    ("docs/detection.md", "python3 -m venv .venv-detectron2"),  # downloads PyTorch and compiles
    ("docs/backbones.md", "make hub"),  # downloads packages
    ("docs/retrain.md", "dvc import-url s3://my-bucket/photos.zip data/photos.zip    # once; commit the .dvc file"),
    ("docs/trackers.md", "make trackers"),  # downloads packages
    ("docs/trackers.md", "tensorboard --logdir .temper/tensorboard"),  # runs until it is stopped
    ("docs/trackers.md", "python -m apps.track               # the one of the working folder"),  # needs a server
    ("docs/predict.md", "python -m apps.predict photo.jpg my_photos 'holiday/**/*.jpg' https://example.org/flower.jpg"),
    ("docs/predict.md", "python -m apps.predict photo.jpg --model models/export/classifier.tflite"),
    ("docs/sweep.md", "make sweep        # Optuna and matplotlib, once"),  # downloads packages
    ("docs/sweep.md", "dvc repro                                    # what the trials have in common"),  # takes long
    ("docs/sweep.md", "uvx --with 'psycopg[binary]' optuna-dashboard sqlite:///.temper/sweeps/fine_tune/study.db"),
    (
        "docs/sweep.md",
        "export SWEEP_STORAGE='postgresql+psycopg://USER:PASSWORD@HOST/DATABASE' # or mysql+pymysql://...",
    ),
    (
        "docs/sweep.md",
        "dvc exp push origin fine_tune-78c5-0019 # there: files to DVC's remote, the experiment to git's",
    ),
    ("docs/scale.md", "python -m benchmarks.scale --yolox yolox_nano.onnx    # 500, 2,000 and 8,000 photos"),
    ("docs/scale.md", "export KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:23456 KERAS_DISTRIBUTION_NUM_PROCESSES=2"),
}
SECTIONS = (
    *("fetch", "normalize", "detect", "pack", "backbone", "embed"),
    *("warm_up", "fine_tune", "evaluate", "export", "trackers"),
)
# Outputs that the toy pipeline does not have.
NOT_IN_THE_TOY = {
    "metrics/gallery/boxes.png",
    "metrics/gallery/mixing.png",
    "metrics/overview/pictures/",
    "surest_mistakes.png",
    "probable_label_errors.png",
    "unlabelled.png",
    "to_label.png",
    ".temper/batch_sizes/",
    ".temper/boxes/",
    ".temper/downloads/",
    ".temper/npm/",
    ".temper/tensorboard/",
    "train.csv",
    "report.json",  # of a retraining
    "unlike.csv",
    ".temper/retrain/report/",
    "predictions.csv",
    "config.json",  # of a published network
    "preprocessor_config.json",
    "card.json",
    "SWEEP.yaml",
    "trials.csv",
    "classifier.tflite",
    "models/export/*.tflite",
    "models/export/classifier.tflite",
    "models/export/page/",
    "classifier_saved_model/",
    "classifier_float16.tflite",
    "classifier_int8.tflite",
    "classifier.onnx",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the HTML comment on the line above it."""

    page: str
    language: str
    text: str
    comment: str

    @property
    def first(self) -> str:
        return self.text.splitlines()[0]


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, all or those of a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^(?:<!-- (.*?) -->\n)?```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [Block(page, kind, inside, comment) for comment, kind, inside in found if language in (None, kind)]


def prose(page: str) -> str:
    """A page without its blocks; of the changelog, without what things were called before."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"^\|[^|]*\|", "|", text, flags=re.M) if page == "CHANGELOG.md" else text


def in_backticks(page: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", prose(page)))


# --- The commands


def runnable(page: str) -> list[Block]:
    return [block for block in blocks(page, "sh") if not block.comment.startswith("not run: ")]


def toy_recipe(text: str) -> str:
    """A recipe that runs in seconds: small images, a small backbone, few epochs."""
    values: dict[str, Any] = yaml.safe_load(text)
    values |= {"image_size": 16, "batch_size": 16, "backbone": {"name": "tiny", "weights": "none"}}
    values["detect"] = {"detector": "none"}
    values["warm_up"] = {"epochs": 2}  # too few to be the best: the fine-tune has something to gain
    values["fine_tune"] = {"epochs": 2, "margin": 0}
    return yaml.safe_dump(values, sort_keys=False)


def write_zip(path: Path, photos: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for photo in sorted(photos.rglob("*.png")):
            archive.write(photo, photo.relative_to(photos))


@pytest.fixture
def readers_clone(pipeline: Workspace, tmp_path: Path) -> Workspace:
    """The toy pipeline with what a page takes for granted: an environment in .venv, and photos of the reader's own."""
    for recipe in (pipeline.folder / "recipes").glob("*.yaml"):
        recipe.write_text(toy_recipe(recipe.read_text(encoding="utf-8")), encoding="utf-8")
    pipeline.commit("toy recipes")
    environment = pipeline.folder / ".venv"
    (environment / "bin").mkdir(parents=True)
    for name in ("python", "dvc"):
        (environment / "bin" / name).symlink_to(Path(sys.executable).parent / name)
    (environment / "bin/activate").touch()
    (environment / "requirements.lock").write_text((ROOT / "requirements.lock").read_text("utf-8"), encoding="utf-8")
    write_toy_photos(pipeline.folder / "data/photos")
    write_toy_photos(pipeline.folder / "my_photos", per_class=5, first=300)
    write_zip(pipeline.folder / "photos.zip", write_toy_photos(tmp_path / "other", first=100))
    write_zip(pipeline.folder / "more.zip", write_toy_photos(tmp_path / "more", per_class=10, first=200))
    (pipeline.folder / "photo.jpg").write_bytes(toy_photo(1, 7, 40, ".jpg"))
    return pipeline


def run_blocks(workspace: Workspace, page: str) -> list[str]:
    """Runs the `sh` blocks of a page in order, then its `python` blocks; what each printed."""
    outputs = []
    for block in runnable(page):
        (workspace.folder / ".git/block.sh").write_text(block.text, encoding="utf-8")
        outputs.append(workspace.run("bash -ex .git/block.sh"))
    for block in blocks(page, "python"):
        (workspace.folder / ".git/block.py").write_text(block.text, encoding="utf-8")
        outputs.append(workspace.run("env PYTHONPATH=. python .git/block.py"))
    return outputs


@pytest.mark.slow
def test_the_commands_of_the_readme(readers_clone: Workspace) -> None:
    outputs = run_blocks(readers_clone, "README.md")
    change = next(output for output in outputs if "+ dvc exp run" in output)
    assert ran(change) == ["fine_tune", "evaluate", "export", "overview"]
    assert "metrics/evaluate/metrics.json" in change and re.search(r"lr +0\.0003 +3e-06", change)
    (columns,) = re.findall(r"^ +Experiment .*$", next(o for o in outputs if "+ dvc exp show" in o), re.M)
    assert columns.split() == ["Experiment", "validation_accuracy", "lr"] or columns.split() == ["Experiment", "lr"]
    assert re.search(r"\[\('(ant|bee|cat)', 0\.\d+\), ", outputs[-1])


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in NAMES if page != "README.md" and runnable(page)])
def test_the_commands_of_a_page(readers_clone: Workspace, page: str) -> None:
    readers_clone.set(export__formats=[], evaluate__occlusion_maps=0)  # no page but the README's asks for them
    readers_clone.run("git commit --quiet --all -m params")  # for apps.retrain; the photos stay out of git
    assert all(run_blocks(readers_clone, page))


@pytest.mark.slow
def test_the_readme_shows_what_the_default_prints(make_workspace: Callable[[dict[str, Any]], Workspace]) -> None:
    """Line by line and in order; other processors may come to other digits, but to an accuracy like the README's."""
    workspace = make_workspace(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    printed = iter(re.sub(r"\d", "0", line) for line in workspace.run("dvc repro").splitlines())
    (shown,) = (block for block in blocks("README.md", "text") if block.comment == "output: digits")
    for line in shown.text.splitlines():
        assert line == "..." or re.sub(r"\d", "0", line) in printed, line
    metrics = json.loads((workspace.folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert metrics["accuracy"] >= 0.97


def test_blocks_that_are_not_run_are_few_and_known() -> None:
    found = [block for page in NAMES for block in blocks(page) if block.comment.startswith("not run: ")]
    assert {(block.page, block.first) for block in found} == NOT_RUN
    assert {block.language for page in NAMES for block in blocks(page)} <= {"sh", "json", "python", "yaml", "text", ""}
    assert sum(len(runnable(page)) for page in NAMES) > 15


@pytest.mark.parametrize("page", [page for page in NAMES if blocks(page, "yaml")])
def test_yaml_blocks_are_valid_params(page: str, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a block that names a layer has the backbone built by a stage's module
    keras_file = in_tmp_path / "models/backbone.keras"  # as after `dvc pull`: KerasHub is not asked for its networks
    keras_file.parent.mkdir()
    keras_file.touch()
    for block in blocks(page, "yaml"):
        if block.comment == "sweep":
            loading.validate(Sweep, yaml.safe_load(block.text), page)
            continue
        params = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
        for key, value in yaml.safe_load(block.text).items():
            params[key] = value if key in ("fetch", "detect", "trackers") else params[key] | value
        (in_tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        refuse_wrong_params("params.yaml")


# --- What is named


def names_of_files(page: str) -> Iterator[str]:
    for text in in_backticks(page):
        if re.fullmatch(r"(?:[\w.-]+/)+[\w.*-]*|[\w-]+\.(?:yaml|lock|json|toml|txt|py|parquet|csv)", text):
            yield text


@pytest.mark.parametrize("page", NAMES)
def test_files_that_a_page_names_exist(page: str, toy_pipeline: Workspace) -> None:
    there = [path for path in toy_pipeline.folder.rglob("*") if ".dvc" not in path.parts and ".git" not in path.parts]
    folders = tuple({path.relative_to(toy_pipeline.folder).parts[0] for path in there if path.is_dir()})
    for name in names_of_files(page):
        if name in NOT_IN_THE_TOY:
            continue
        if "/" not in name:
            assert name in {path.name for path in there}, name
        elif name.startswith(folders) and not name.startswith("data/photos/"):
            if "/NAME" in name and not name.startswith("data/raw/"):
                continue  # one that the reader will make
            pattern = name.replace("NAME", "photos").rstrip("/")
            assert list(toy_pipeline.folder.glob(pattern)), name


@pytest.mark.parametrize("page", NAMES)
def test_keys_that_a_page_names_are_in_the_schema(page: str) -> None:
    known = set(re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs/params.md").read_text(encoding="utf-8"), re.M))
    known |= {"fetch.NAME.source", "detect.detector"}
    for text in in_backticks(page):
        for key in re.findall(rf"(?<![\w./-])((?:{'|'.join(SECTIONS)})\.(?!py|keras)\w[\w.]*)", text):
            assert key in known, key


@pytest.mark.parametrize("page", NAMES)
def test_make_targets_that_a_page_names_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [*in_backticks(page), *(line for block in blocks(page, "sh") for line in block.text.splitlines())]
    for command in commands:
        for target in re.findall(r"^make ([a-z-]+)", command):
            assert f"\n{target}:" in makefile, target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NAMES)
def test_links_resolve(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not link.startswith("https://"):
            place, _, anchor = link.partition("#")
            target = (ROOT / page).parent / place if place else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", prose("README.md"))
    assert {page for page in NAMES if page != "README.md"} <= set(links)


def tree() -> set[str]:
    """The files and folders in the README's tree, relative to the root."""
    (block,) = (block for block in blocks("README.md") if block.comment == "tree")
    found, folder = set(), ""
    for line in block.text.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        if not line.startswith(" "):
            folder = names[0] if names[0].endswith("/") else ""
        found |= {folder + name if line.startswith(" ") else name for name in names}
    return found


def test_the_tree_of_the_readme_is_that_of_the_repository() -> None:
    named = tree()
    for name in named - {"data/", "models/", ".temper/"}:
        assert (ROOT / name).exists(), name
    for folder in ("stages", "apps", "temper", "recipes"):
        for path in (ROOT / folder).iterdir():
            inside = f"{folder}/{path.name}" + ("/" if path.is_dir() else "")
            assert path.name.startswith("__") or inside in named, f"{inside} is not in the tree of the README"
