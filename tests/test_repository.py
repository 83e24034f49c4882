"""The repository tested about itself: dvc.yaml against the code (laws 7, 9, 11, 12), names, imports, README, lock."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from conftest import ROOT
from temper.params import Detect, Params

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = DVC["stages"]
SOURCES = [*get_args(Params.model_fields["source"].annotation)]
# Of these stages each choice is a module of its own, which the stage imports by name.
CHOICES = {
    "fetch": ("${source}", SOURCES),
    "auxiliary": ("${auxiliary.source}", [*SOURCES, "none"]),
    "detect": ("${detect.detector}", [*get_args(Detect.model_fields["detector"].annotation)]),
}
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
    module = str(STAGES[stage]["cmd"]).split()[3]
    folder = ROOT / module.replace(".", "/")
    return folder / "__main__.py" if folder.is_dir() else folder.with_suffix(".py")


def code_deps(stage: str, key: str = "", choice: str = "") -> set[str]:
    deps = [dep.replace(key, choice) for dep in STAGES[stage]["deps"]]
    return {dep for dep in deps if dep.endswith(".py")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_code_that_the_stage_imports(stage: str) -> None:
    """Law 7. DVC cannot list a file for one choice alone: what some choice needs is a dep of all."""
    if stage not in CHOICES:
        assert code_deps(stage) == needed(entry(stage))
        return
    key, choices = CHOICES[stage]
    needs = {choice: needed(entry(stage), entry(stage).parent / f"{choice}.py") for choice in choices}
    for choice, files in needs.items():
        assert files <= code_deps(stage, key, choice), choice
        assert not code_deps(stage, key, choice) - set().union(*needs.values())


def test_a_missing_dep_would_be_noticed() -> None:
    assert "temper/tables.py" in needed(entry("normalize")) and "temper/atomic.py" in needed(entry("evaluate"))


def read_params(path: Path) -> set[str]:
    """The params keys that a file reads: `params.a.b` as "a.b", where `params` is the validated object."""
    keys = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        chain = []
        while isinstance(node, ast.Attribute):
            chain.append(node.attr)
            node = node.value
        if chain and isinstance(node, ast.Name) and node.id == "params" and chain[-1] in Params.model_fields:
            keys.add(".".join(reversed(chain)))
    return keys


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_only_params_that_it_tracks(stage: str) -> None:
    tracked = [re.sub(r"\.\$\{.*\}", "", key) for key in STAGES[stage].get("params", [])]
    if entry(stage) == entry("fetch"):  # one module for two stages
        tracked = ["source", "sources", "auxiliary"]
    for path in entry(stage).parent.glob("*.py") if entry(stage).stem == "__main__" else [entry(stage)]:
        for key in read_params(path):
            covered = any(key == own or key.startswith(f"{own}.") for own in tracked)
            inner = any(own.startswith(f"{key}.") for own in tracked) and not covered
            longer = any(other.startswith(f"{key}.") for other in read_params(path))
            assert covered or (inner and longer), f"{path.name} reads {key}, dvc.yaml tracks {tracked}"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_tracked_param_is_in_every_recipe(recipe: Path) -> None:
    """DVC refuses to run with a tracked key missing."""
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    chosen = {"${source}": values["source"], "${detect.detector}": values["detect"]["detector"]}
    assert (ROOT / "stages/fetch" / f"{values['auxiliary']['source']}.py").exists()
    for stage in STAGES.values():
        for key in stage.get("params", []):
            for name, value in chosen.items():
                key = key.replace(name, value)
            inside = values
            for part in key.split("."):
                assert part in inside, f"{recipe.name} lacks {key}"
                inside = inside[part]


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
    keys = set(section_keys(Params))
    assert {"units", "factors", "patience", "sha256"} <= keys
    assert not keys & {"size", "nfiles"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_execs_its_module_and_keeps_the_run_cache(stage: str) -> None:
    """Law 12, and what switches the run cache off: `persist`, and an uncached output that is no metric or plot."""
    declared = STAGES[stage]
    assert declared["cmd"] == f"exec python -m stages.{'fetch auxiliary' if stage == 'auxiliary' else stage}"
    assert all(isinstance(out, str) for out in declared.get("outs", []))
    for key in ("metrics", "plots"):
        for out in declared.get(key, []):
            assert "persist" not in str(out)
            assert key == "plots" or next(iter(out.values()))["cache"] is False, "metrics belong into git"


def test_live_leaves_dvc_yaml_alone() -> None:
    """Law 9: the only place that makes one."""
    makers = [path for path in TRACKED if path.suffix == ".py" and "Live(" in path.read_text(encoding="utf-8")]
    assert [path.relative_to(ROOT).as_posix() for path in makers if "tests" not in path.parts] == ["temper/fitting.py"]
    text = (ROOT / "temper/fitting.py").read_text(encoding="utf-8")
    assert "save_dvc_exp=False, dvcyaml=None" in text


def test_only_fetch_lists_folders() -> None:
    """Law 1: what the classes are is read from classes.txt; the library globs its own numbered parts and shards."""
    for path in [*(ROOT / "temper").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        if path.parent.name != "fetch":
            patterns = re.findall(r"(?:rglob|glob|iterdir|listdir|scandir|walk)\(.*", path.read_text(encoding="utf-8"))
            assert (
                all(re.match(r'glob\("(part|images)-\*', pattern) for pattern in patterns) or path.stem == "unfinished"
            )


def test_one_stage_imports_no_other() -> None:
    for stage in STAGES:
        others = [file for file in needed(entry(stage)) if file.startswith("stages/")]
        own = {file.removeprefix("stages/").split("/")[0].removesuffix(".py") for file in others}
        assert own == {"fetch" if stage == "auxiliary" else stage}
    for path in (ROOT / "temper").glob("*.py"):
        assert not any(file.startswith("stages/") for file in needed(path))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_with_keras_keeps_its_noise_out_before_anything_else(stage: str) -> None:
    body = ast.parse(entry(stage).read_text(encoding="utf-8")).body
    first = [ast.unparse(node) for node in body[1:3]]
    quiet = ["from temper import quiet", "if __name__ == '__main__':\n    quiet.keep_out_noise()"]
    code = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in needed(entry(stage)))
    assert (first == quiet) == bool(re.search(r"^import keras", code, re.M))


def test_the_library_holds_no_tensorflow() -> None:
    for path in [*(ROOT / "temper").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        assert not re.search(r"^\s*(import|from) tensorflow|\btf\.", path.read_text(encoding="utf-8"), re.M), path


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("temper", "pydantic numpy cv2 keras"), ("temper.params", "numpy cv2 keras"), ("stages.pack", "keras tensorflow")],
)
def test_importing_brings_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & set({heavy.split()!r})))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_no_module_works_at_import() -> None:
    """Only definitions, constants and the call of `main` behind its guard stand at the top of a module."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If, ast.Expr)
    for path in [*(ROOT / "temper").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
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


def test_the_lock_is_exact_hashed_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^[a-z0-9][^\s;]*", lock, re.M)
    assert len(packages) > 100 and all("==" in package for package in packages)
    assert lock.count("--hash=sha256:") > len(packages)
    assert not re.search(r"https?:|file:|--index|--extra-index|--find-links|@", lock)


def test_the_code_fits_a_screen() -> None:
    for path in TRACKED:
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
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
