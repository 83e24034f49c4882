"""The repository tested about itself: dvc.yaml against the code (laws 7, 9, 11, 12), names, imports, README, lock."""

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dvc.repo import Repo
from pydantic import BaseModel

from temper.settings.check import settings_in, stage_settings
from tests.toys.workspace import ROOT, Workspace

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
# The stages as they are written: `fetch` once, for all named sources.
STAGES: dict[str, dict[str, Any]] = {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}
SOURCES, DETECTORS = ROOT / "stages/fetch/sources", ROOT / "stages/detect/detectors"
# Of these stages each choice is a module of its own, which the stage imports by name.
CHOICES = {"fetch": ("${item.source}", SOURCES), "detect": ("${detect.detector}", DETECTORS)}
# They check or describe, so no output depends on them (law 7).
ONLY_REFUSES = {"temper/settings/check.py", "temper/settings/reference.py", "stages/backbone/layers.py"}
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]


def module_file(module: str) -> Path | None:
    """The file of one of our own modules; packages' docstring-only __init__.py do not count."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if path.exists() else None


def imported(path: Path) -> Iterator[Path]:
    """The files of our own modules that a file imports itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            continue
        yield from filter(None, map(module_file, names))


def needed(*entries: Path) -> set[str]:
    """The files, relative to the root, that running `entries` reads as code."""
    found: set[Path] = set()
    waiting = list(entries)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(imported(path))
    return {path.relative_to(ROOT).as_posix() for path in found}


def entry(stage: str) -> Path:
    """The file that a stage runs."""
    module = str(STAGES[stage]["cmd"]).split()[3]
    folder = ROOT / module.replace(".", "/")
    return folder / "__main__.py" if folder.is_dir() else folder.with_suffix(".py")


def modules_in(folder: Path) -> list[Path]:
    """The modules of a folder and of those in it, without docstring-only __init__.py."""
    return sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")


def code_deps(stage: str, key: str = "", choice: str = "") -> set[str]:
    """The files of code that a stage depends on; a folder counts for every module in it."""
    files: set[str] = set()
    for dep in STAGES[stage]["deps"]:
        path = ROOT / dep.replace(key, choice)
        if path.suffix == ".py":
            files.add(path.relative_to(ROOT).as_posix())
        elif path.is_dir() and path.parts[len(ROOT.parts)] in ("stages", "temper"):
            files |= {inside.relative_to(ROOT).as_posix() for inside in modules_in(path)}
    return files


def choices(stage: str) -> dict[str, set[str]]:
    """What each choice of a stage needs; a stage without choices has one, called ""."""
    if stage not in CHOICES:
        return {"": needed(entry(stage))}
    modules = [path for path in CHOICES[stage][1].glob("*.py") if "\nclass Settings(" in path.read_text("utf-8")]
    return {path.stem: needed(entry(stage), path) for path in modules}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_code_that_the_stage_imports(stage: str) -> None:
    """Law 7. DVC cannot list a file for one choice alone: what some choice needs is a dep of all."""
    key = CHOICES[stage][0] if stage in CHOICES else ""
    needs = choices(stage)
    shared = {file for file in code_deps(stage) if file.startswith("temper/base/")}
    for choice, files in needs.items():
        assert files <= code_deps(stage, key, choice), choice
        assert not code_deps(stage, key, choice) - shared - set().union(*needs.values()), choice
    assert shared == {path.relative_to(ROOT).as_posix() for path in modules_in(ROOT / "temper/base")}


def test_a_missing_dep_would_be_noticed() -> None:
    assert "temper/raw.py" in needed(entry("normalize")) and "temper/base/atomic.py" in needed(entry("evaluate"))


def test_a_stage_tracks_the_params_that_its_settings_have() -> None:
    """A stage reads nothing of params.yaml but its `Settings`, so those are what dvc.yaml tracks."""
    declared = stage_settings()
    for stage, written in STAGES.items():
        tracked = {key.split(".")[0] for key in written.get("params", [])}
        assert tracked == set(declared[stage].model_fields if stage in declared else ()), stage
    readers = [path for path in modules_in(ROOT / "stages") if "safe_load" in path.read_text(encoding="utf-8")]
    assert readers == [], "params.yaml is read in one place: temper/base/loading.py"


def test_laws_are_listed() -> None:
    """A comment that says "law 5" helps who finds law 5."""
    listed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The laws")[1].split("\n## ")[0]
    numbers = set(re.findall(r"^(\d+)\. ", listed, re.M))
    mentioned: set[str] = set()
    for path in (path for path in TRACKED if path.suffix == ".py"):
        for found in re.findall(r"\blaws? ([\d, ]*\d)", path.read_text(encoding="utf-8"), re.I):
            mentioned |= set(found.split(", "))
    assert len(numbers) == 14 and mentioned <= numbers and len(mentioned) > 10


# --- Law 7: what an edit of each module runs

EVERY = set(STAGES)
TRAINING = {"warm_up", "fine_tune"}
MODELS = {"activations", "backbone", "embed", *TRAINING, "evaluate", "export"}
DRAWING = {"activations", "embed", "fine_tune"}  # they augment images
HEADS = {"cross_validate", "warm_up"}
# For every module of temper/ and stages/, by the longest pattern that fits it. The toy pipeline has the source `folder`
# and the detector `none`, so other sources and detectors touch nothing.
TOUCHES: dict[str, set[str]] = {
    "stages/activations/*": {"activations"},
    "stages/audit.py": {"audit"},
    "stages/backbone/*": {"backbone"},
    "stages/boundary.py": {"boundary"},
    "stages/cross_validate/*": {"cross_validate"},
    "stages/detect/*": {"detect"},
    "stages/detect/detectors/*": set(),
    "stages/detect/detectors/none.py": {"detect"},
    "stages/detect/detectors/detectron2_worker.py": {"detect"},
    "stages/embed.py": {"embed"},
    "stages/evaluate/*": {"evaluate"},
    "stages/export/*": {"export"},
    "stages/fetch/*": {"fetch"},
    "stages/fetch/sources/*": set(),
    "stages/fetch/sources/folder.py": {"fetch"},
    "stages/fine_tune/*": {"fine_tune"},
    "stages/gallery.py": {"gallery"},
    "stages/normalize/*": {"normalize"},
    "stages/overview/*": {"overview"},
    "stages/pack.py": {"pack"},
    "stages/warm_up/*": {"warm_up"},
    "temper/base/*": EVERY,
    "temper/augmentation/*": {"gallery", *DRAWING},
    "temper/comparing/*": set(),
    "temper/explanations/*": {"evaluate", "overview"},
    "temper/explanations/layer_names.py": {"evaluate"},
    "temper/inference/*": set(),
    "temper/measures/*": {"cross_validate", "evaluate"},
    "temper/measures/calibration.py": {"cross_validate", "evaluate", "export", "fine_tune", "overview", "warm_up"},
    "temper/measures/figures.py": {"evaluate"},
    "temper/measures/figure_tables.py": {"evaluate"},
    "temper/measures/uncertainty.py": {"evaluate", "overview"},
    "temper/network/*": {"fetch"},
    "temper/network/downloads.py": {"fetch", "detect"},
    "temper/network/redaction.py": {"fetch", "detect"},
    "temper/freezing/activations.py": {"activations", "fine_tune"},
    "temper/aside.py": {"fetch", "detect", "backbone"},
    "temper/databases.py": {"fetch", "detect"},
    "temper/freezing/boundary.py": {"boundary", "activations"},
    "temper/boxes.py": {"detect", "pack"},
    "temper/detections.py": {"detect", "pack"},
    "temper/card.py": {"pack", "gallery", "overview", *MODELS},
    "temper/classes.py": {"cross_validate", "normalize", "pack", "gallery", "warm_up"},
    "temper/freezing/classifier.py": {"activations", *TRAINING},
    "temper/crops.py": {"pack", "gallery"},
    "temper/cuts.py": EVERY - {"backbone", "boundary"},
    "temper/devices.py": MODELS - {"backbone", "export"},
    "temper/graph_checksums.py": {"export"},
    "temper/images.py": {"cross_validate", "normalize", "detect", "pack", "gallery", "evaluate", "export"},
    "temper/keras_files.py": MODELS,
    "temper/logistic.py": HEADS,
    "temper/main_object.py": {"pack"},
    "temper/packs.py": {"pack", "gallery", "overview", *MODELS} - {"backbone", "warm_up"},
    "temper/page/*": {"export"},
    "temper/parallel.py": {"fetch", "normalize", "detect", "pack", "activations", "embed"},
    "temper/noise.py": set(),
    "temper/embeddings.py": HEADS,
    "temper/endings.py": {"fetch"},
    "temper/folds.py": HEADS,
    "temper/headers.py": {"fetch", "audit", "detect", "pack", "gallery", "overview"},
    "temper/photos.py": {"fetch", "audit", "detect", "pack", "gallery", "overview"},
    "temper/predictions.py": {"evaluate", "overview"},
    "temper/predictor.py": set(),
    "temper/command_line.py": set(),
    "temper/preparation.py": {"pack"},
    "temper/raw.py": {"fetch", "normalize", "audit", "detect", "pack", "gallery"},
    "temper/settings/base.py": EVERY,
    "temper/settings/augmentation.py": {"gallery", "boundary", *DRAWING},
    "temper/settings/mixing.py": {"gallery", "fine_tune"},
    "temper/settings/place.py": {"boundary", "fine_tune"},
    "temper/settings/training.py": TRAINING,
    **{f"temper/settings/{stage}.py": {stage} for stage in stage_settings()},
    **{file: set() for file in ONLY_REFUSES},
    "temper/shards.py": {"cross_validate", "pack", "gallery", "overview", *MODELS} - {"backbone"},
    "temper/sheets.py": {"audit", "gallery", "overview"},
    "temper/split_names.py": {"fetch", "normalize"},
    "temper/table_checksums.py": EVERY - TRAINING - {"activations", "backbone", "boundary", "embed"},
    "temper/tables.py": {"cross_validate", "normalize", "detect", "pack", "gallery", "evaluate", "export", "overview"},
    "temper/settings/trackers.py": set(),
    "temper/tracking/*": set(),
    "temper/training/*": TRAINING,
    "temper/mixing.py": {"gallery", "fine_tune"},
    "temper/batches.py": {"warm_up", "evaluate", *DRAWING},
    "temper/freezing/cutting.py": {"activations", "fine_tune"},
    "temper/drawn_views.py": {"activations", "embed"},
    "temper/freezing/unfreezing.py": {"activations", *TRAINING},
    "temper/views.py": {"evaluate"},
    "temper/wrapping.py": {"audit", "gallery", "overview"},
    "temper/yolox.py": {"detect"},
}


def touched(file: str) -> set[str]:
    """The stages that an edit of a file should run, by the table."""
    fitting = [pattern for pattern in TOUCHES if fnmatch.fnmatch(file, pattern)]
    assert fitting, f"{file} is not in the table: which stages should an edit of it run?"
    return TOUCHES[max(fitting, key=len)]


def changed_stages(folder: Path) -> set[str]:
    """The stages whose deps have changed, as DVC itself says; `fetch` once for all named sources."""
    with Repo(str(folder)) as repo:
        return {stage.split("@")[0] for stage in repo.status()}


@pytest.mark.slow  # 130 modules, and the real DVC asked for each
def test_an_edit_of_a_module_runs_the_stages_of_the_table(
    toy_pipeline: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each module is edited alone, and the real DVC asked: an edit of the code costs what it changes and no more."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", toy_pipeline.environment["DVC_SITE_CACHE_DIR"])
    folder = toy_pipeline.copy(tmp_path / "pipeline").folder
    monkeypatch.chdir(folder)
    assert changed_stages(folder) == set()
    for path in [*modules_in(folder / "stages"), *modules_in(folder / "temper")]:
        file, before = path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")
        path.write_text(f"{before}# edited\n", encoding="utf-8")
        assert changed_stages(folder) == touched(file), file
        path.write_text(before, encoding="utf-8")


def test_a_new_source_detector_or_settings_touch_nothing(
    toy_pipeline: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", toy_pipeline.environment["DVC_SITE_CACHE_DIR"])
    folder = toy_pipeline.copy(tmp_path / "pipeline").folder
    for name, like in (
        ("stages/fetch/sources/flickr.py", "stages/fetch/sources/flowers.py"),
        ("stages/detect/detectors/detr.py", "stages/detect/detectors/yolox.py"),
        ("temper/settings/publish.py", "temper/settings/pack.py"),
        ("stages/publish.py", "stages/audit.py"),
    ):
        shutil.copy(folder / like, folder / name)
    monkeypatch.chdir(folder)
    assert changed_stages(folder) == set()


def section_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        waiting = [field.annotation]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from section_keys(kind)
            else:
                waiting.extend(get_args(kind))


def test_no_param_has_a_name_that_the_run_cache_ignores() -> None:
    """Law 11 (dvc#10296)."""
    sections: list[type[BaseModel]] = [*stage_settings().values()]
    sections += settings_in("stages.fetch.sources").values()
    sections += settings_in("stages.detect.detectors").values()
    keys = {key for section in sections for key in section_keys(section)}
    assert {"units", "factors", "patience", "sha256", "archive", "floor"} <= keys
    assert not keys & {"size", "nfiles"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_execs_its_module_and_keeps_the_run_cache(stage: str) -> None:
    """Law 12, and what switches the run cache off: `persist`, and an uncached output that is no metric or plot."""
    declared = STAGES[stage]
    assert declared["cmd"] == f"exec python -m stages.{'fetch ${key}' if stage == 'fetch' else stage}"
    assert all(isinstance(out, str) for out in declared.get("outs", []))
    for key in ("metrics", "plots"):
        for out in declared.get(key, []):
            assert "persist" not in str(out)
            assert key == "plots" or next(iter(out.values()))["cache"] is False, "metrics belong into git"


def test_live_leaves_dvc_yaml_alone() -> None:
    """Law 9: the only place that makes one."""
    makers = [path for path in TRACKED if path.suffix == ".py" and "Live(" in path.read_text(encoding="utf-8")]
    assert [path.relative_to(ROOT).as_posix() for path in makers if "tests" not in path.parts] == [
        "temper/training/phases.py"
    ]
    text = (ROOT / "temper/training/phases.py").read_text(encoding="utf-8")
    assert "save_dvc_exp=False, dvcyaml=None" in text


def test_only_fetch_lists_folders() -> None:
    """Law 1: what the classes are is read from classes.txt; the library globs its own numbered parts and shards."""
    own = {
        "temper/training/unfinished.py",  # the states of stages
        "temper/settings/check.py",  # modules
        "stages/backbone/published_weights.py",  # what Keras downloaded
        "temper/base/atomic.py",  # what a stage is about to write
        "temper/base/locks.py",
        "temper/tracking/finished.py",  # what is told of what stages wrote, to no stage
        "temper/tracking/event_files.py",
        "temper/inference/named_photos.py",  # of new photos, which no stage sees
        "stages/export/exporting.py",  # the files that it has just written, to add up their bytes
    }
    for path in [*modules_in(ROOT / "temper"), *modules_in(ROOT / "stages")]:
        file = path.relative_to(ROOT).as_posix()
        if not file.startswith("stages/fetch/") and file not in own:
            patterns = re.findall(r"(?:rglob|glob|iterdir|listdir|scandir|walk)\(.*", path.read_text(encoding="utf-8"))
            assert all(re.match(r'glob\(f?"(part|{name}|\*/part)-', pattern) for pattern in patterns), file


def test_imports_point_down() -> None:
    """temper/settings <- temper <- stages | apps <- benchmarks, tests; a stage imports no stage, a test no test."""
    for stage in STAGES:
        others = [file for file in set().union(*choices(stage).values()) if file.startswith("stages/")]
        assert {file.removeprefix("stages/").split("/")[0].removesuffix(".py") for file in others} == {stage}
        assert not any(file.startswith("apps/") for files in choices(stage).values() for file in files), stage
    for path in modules_in(ROOT / "temper"):
        assert not any(file.startswith(("stages/", "apps/")) for file in needed(path)), path
    for path in modules_in(ROOT / "apps"):
        assert not any(file.startswith("stages/") for file in needed(path)), path
    for path in modules_in(ROOT / "temper/settings"):
        if path.relative_to(ROOT).as_posix() not in ONLY_REFUSES:
            assert all(file.startswith("temper/settings/") for file in needed(path)), path
    for path in (ROOT / "tests").glob("test_*.py"):
        assert not [file for file in needed(path) if re.match(r"tests/test_", file)][1:], path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_with_keras_keeps_its_noise_out_and_takes_a_gpu_before_anything_else(stage: str) -> None:
    """Those that compute say on what (temper/devices.py), and have a GPU for themselves; others with Keras see none."""
    body = ast.parse(entry(stage).read_text(encoding="utf-8")).body
    first = [ast.unparse(node) for node in body[1:3]]
    modules = needed(entry(stage))
    code = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in modules)
    with_keras, on_gpu = bool(re.search(r"^import keras", code, re.M)), "temper/devices.py" in modules
    if stage == "activations":  # which computes only if something is to be stored
        assert "starting.prepare_keras(on_gpu=True)\n    from stages.activations.frozen" in entry(stage).read_text()
        with_keras = on_gpu = False
    what = "with_keras=True, on_gpu=True" if on_gpu else "with_keras=True" if with_keras else ""
    assert first == ["from temper.base import starting", f"if __name__ == '__main__':\n    starting.begin({what})"]


def test_the_library_holds_no_tensorflow() -> None:
    """But for the converters of `export`, which exist only there."""
    for path in [*(ROOT / "temper").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        if (ROOT / "stages/export") in path.parents:
            continue
        assert not re.search(r"^\s*(import|from) tensorflow|\btf\.", path.read_text(encoding="utf-8"), re.M), path


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("temper", "pydantic numpy cv2 keras"),
        ("temper.settings.check", "numpy cv2 keras pyarrow"),
        ("temper.card", "numpy cv2 keras pyarrow"),
        ("stages.pack", "keras tensorflow"),
    ],
)
def test_importing_brings_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & set({heavy.split()!r})))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_no_module_works_at_import() -> None:
    """Only definitions, constants and the call of `main` behind its guard stand at the top of a module."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    allowed = (ast.Import, ast.ImportFrom, *functions, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If, ast.Expr)
    for path in [path for folder in ("temper", "stages", "apps") for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert isinstance(node, allowed), path
            if isinstance(node, ast.If):
                assert ast.unparse(node.test) == "__name__ == '__main__'", path
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), path
            if path.name == "__init__.py":
                assert isinstance(node, ast.Expr), f"{path}: dvc.yaml does not list it, so it must hold no code"


def test_nothing_is_called_utils_common_or_helpers() -> None:
    assert not [path for path in TRACKED if re.search(r"util|common|helper", path.stem, re.I)]


LOCKS = {  # with the least number of packages that each must have
    "requirements.lock": 100,
    "requirements-gpu.lock": 100,
    "requirements-jax.lock": 100,
    "requirements-trackers.lock": 30,
    "requirements-onnx.lock": 10,
    "requirements-sweep.lock": 20,
    "requirements-queue.lock": 10,
    "requirements-ray.lock": 40,
    "requirements-serve.lock": 25,
    "requirements-hub.lock": 40,
}
OWN = {  # a package that this lock has and the first has not
    "requirements-gpu.lock": "nvidia-cudnn-cu12",
    "requirements-jax.lock": "jaxlib",
    "requirements-trackers.lock": "mlflow-skinny",
    "requirements-onnx.lock": "tf2onnx",
    "requirements-sweep.lock": "optuna",
    "requirements-queue.lock": "fastapi",
    "requirements-ray.lock": "ray",
    "requirements-serve.lock": "uvicorn",
    "requirements-hub.lock": "keras-hub",
}


@pytest.mark.parametrize(("name", "least"), LOCKS.items())
def test_a_lock_is_exact_hashed_and_names_no_index(name: str, least: int) -> None:
    lock = (ROOT / name).read_text(encoding="utf-8")
    packages = re.findall(r"^[a-z0-9][^\s;]*", lock, re.M)
    assert len(packages) > least and all("==" in package for package in packages)
    assert lock.count("--hash=sha256:") > len(packages)
    assert not re.search(r"https?:|file:|--index|--extra-index|--find-links|@", lock)


@pytest.mark.parametrize("name", list(LOCKS)[1:])
def test_locks_agree_on_what_they_share(name: str) -> None:
    """An experiment on a GPU or on JAX then differs in nothing else from one on the CPU."""

    def versions(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        lock = (ROOT / name).read_text(encoding="utf-8")
        for package, version in re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", lock, re.M):
            found.setdefault(package, set()).add(version)
        return found

    ours, theirs = versions("requirements.lock"), versions(name)
    shared = ours.keys() & theirs.keys()
    older = {"kagglesdk"} if name == "requirements-hub.lock" else set()  # why it is an environment of its own
    assert len(shared) >= min(10, LOCKS[name] // 2)
    assert {package for package in shared if ours[package] != theirs[package]} == older
    assert OWN[name] in theirs and OWN[name] not in ours


def test_the_server_needs_no_tensorflow() -> None:
    lock = (ROOT / "requirements-serve.lock").read_text(encoding="utf-8")
    assert not re.search(r"^(tensorflow|keras|jax|pyarrow|scipy|dvc)", lock, re.M)


@pytest.mark.parametrize(("chosen", "kind"), [("", ""), ("GPU=1", "-gpu"), ("JAX=1", "-jax")])
def test_make_takes_the_environment_that_is_chosen(chosen: str, kind: str) -> None:
    command = ["make", "--dry-run", "--always-make", "test", *chosen.split()]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--require-hashes -r requirements{kind}.lock\ncp requirements{kind}.lock .venv{kind}/" in said
    assert set(re.findall(r"\.venv[-\w]*", said)) == {f".venv{kind}"}


def test_make_serve_needs_nothing_of_the_other_environments() -> None:
    command = ["make", "--dry-run", "--always-make", "serve", "MODELS=a.tflite", "OPTIONS=--port 1"]
    # As a user would, also where this test is part of `make test`.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout
    assert "--require-hashes -r requirements-serve.lock\ncp requirements-serve.lock .venv-serve/" in said
    assert said.endswith("\n.venv-serve/bin/python -m apps.serve --models a.tflite --port 1\n")
    assert set(re.findall(r"\.venv[-\w]*", said)) == {".venv-serve"}


def test_the_code_fits_a_screen() -> None:
    for path in TRACKED:
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno is not None and node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_the_readme_names_only_what_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for stage in STAGES:
        assert f"`{stage}`" in readme
    for name in re.findall(r"`((?:temper|stages|recipes|benchmarks|tests)/[\w./]*)`", readme):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"^ *make ([a-z-]+)", readme, re.M):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert recipe.name in readme
