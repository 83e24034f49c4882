"""`make verify` finds damage that DVC trusts, here and in its cache; what it says mends it, with the real DVC."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apps.verify import read_outputs
from temper.base.errors import TemperError
from tests.toys.workspace import ROOT

# Two outputs of one content, a folder in a folder, an empty one, a figure that git holds. A dot sorts before a slash.
DVC_YAML = """
stages:
  first:
    cmd: mkdir -p data/pack/a && for name in a/1 a.npy a-b; do echo $name > data/pack/$name; done && touch data/none
    outs: [data/pack, data/none]
  second:
    cmd: mkdir -p models && cp data/pack/a.npy models/copy && echo 1 > metrics.json
    deps: [data/pack]
    outs: [models/copy]
    metrics:
    - metrics.json: {cache: false}
"""


class Clone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT)}
        self.environment["DVC_SITE_CACHE_DIR"] = str(folder / "site")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def verify(self) -> tuple[int, list[str], list[str]]:
        """The exit code, the lines about files, and the commands that remove what is damaged."""
        done = self.run(f"{sys.executable} -m apps.verify")
        assert not done.stderr or done.returncode == 1, done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        about = [line for line in lines if re.match("damaged|changed|missing|error", line)]
        return done.returncode, about, [line.strip() for line in lines if line.startswith("  rm ")]

    def object_of(self, path: str) -> Path:
        md5: str = re.findall(rf"path: {path}\n *hash: md5\n *md5: (\S+)", self.lock)[0]
        return Path(".dvc/cache/files/md5") / md5[:2] / md5[2:]

    @property
    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text(encoding="utf-8")

    def overwrite(self, path: str | Path, text: str) -> None:
        """As a disk or root does it, without a new time: neither DVC nor its database notices."""
        place = self.folder / path
        before = place.stat()
        place.chmod(0o644)
        place.write_text(text, encoding="utf-8")
        place.chmod(before.st_mode)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which everything ran."""
    clone = Clone(tmp_path_factory.mktemp("made"))
    (clone.folder / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    done = clone.run("dvc init -q --no-scm && dvc config cache.type hardlink && dvc repro")
    assert done.returncode == 0, done.stderr
    return clone.folder


@pytest.fixture
def clone(made: Path, tmp_path: Path) -> Clone:
    """A copy of it, whose files are linked to its own cache as in the original."""
    subprocess.run(["cp", "-a", str(made), str(tmp_path / "clone")], check=True)
    return Clone(tmp_path / "clone")


@pytest.mark.parametrize("links", ["hardlink", "symlink", "copy"])
def test_a_damaged_object_is_named_and_what_is_said_mends_it(clone: Clone, links: str) -> None:
    assert clone.run(f"dvc config cache.type {links} && dvc checkout --relink && dvc status -q").returncode == 0
    shared = clone.object_of("models/copy")  # and of data/pack/a.npy
    clone.overwrite(shared, "b.npy\n")
    if links == "hardlink":
        assert clone.run("dvc status -q").returncode == 0, "DVC notices nothing"
    code, about, commands = clone.verify()
    of = "no file that is here: another experiment's, or an older one's" if links == "copy" else "data/pack/a.npy, mod"
    assert code == 1 and len(about) == len(commands) == 1
    assert about[0].startswith(f"damaged: {shared} ({of}")
    assert clone.run(f"{commands[0]} && dvc repro").returncode == 0
    assert clone.verify() == (0, [], [])
    assert (clone.folder / "models/copy").read_text(encoding="utf-8") == "a.npy\n"


def test_a_damaged_list_of_a_folder_is_mended_too(clone: Clone) -> None:
    clone.overwrite(clone.object_of("data/pack"), "[]")
    code, about, commands = clone.verify()
    assert code == 1 and len(about) == len(commands) == 1 and "data/pack" not in commands[0], "the folder is whole"
    assert clone.run(f"{commands[0]} && dvc repro").returncode == 0
    assert clone.verify() == (0, [], [])


def test_what_was_pushed_is_pulled_again(clone: Clone, tmp_path: Path) -> None:
    assert clone.run(f"dvc remote add -d there {tmp_path / 'there'} && dvc push -q").returncode == 0
    clone.overwrite("data/pack/a.npy", "b.npy\n")
    _, _, commands = clone.verify()
    assert clone.run(f"{commands[0]} && dvc pull").returncode == 0
    assert clone.verify() == (0, [], [])


def test_what_differs_and_what_is_missing_is_named(clone: Clone) -> None:
    (clone.folder / "data/pack/a/1").unlink()
    (clone.folder / "data/none").unlink()
    (clone.folder / clone.object_of("data/none")).unlink()
    missing = [
        "missing: data/none: not in the cache: dvc pull, or dvc repro",
        "missing: data/pack/a/1: in the cache: dvc checkout",
    ]
    code, about, commands = clone.verify()
    assert code == 0 and sorted(about) == missing and not commands
    (clone.folder / "models/copy").unlink()
    (clone.folder / "models/copy").write_text("mine", encoding="utf-8")
    (clone.folder / "metrics.json").write_text("2", encoding="utf-8")
    (clone.folder / "data/pack/new").touch()
    code, about, commands = clone.verify()
    about.sort()
    assert code == 1 and about[3:] == missing and not commands, "an edited file is nothing to remove"
    assert about[0] == "changed: data/pack/new: is not in dvc.lock"
    assert [line.split(" expected the MD5 ")[0] for line in about[1:3]] == [
        "changed: metrics.json:",
        "changed: models/copy:",
    ]


def test_a_folder_without_its_list_is_whole_if_it_has_the_name_that_dvc_gives_it(clone: Clone) -> None:
    (clone.folder / clone.object_of("data/pack")).unlink()
    assert clone.verify() == (0, [], [])
    (clone.folder / "data/pack/new").touch()
    code, about, _ = clone.verify()
    assert code == 1 and len(about) == 1 and about[0].startswith("changed: data/pack: expected the MD5 ")


def test_a_clone_without_data_is_not_damaged(clone: Clone) -> None:
    for name in ("data", "models", ".dvc/cache"):
        shutil.rmtree(clone.folder / name)
    code, about, _ = clone.verify()
    assert code == 0 and sorted(line.split(": ")[1] for line in about) == ["data/none", "data/pack", "models/copy"]
    assert all(line.endswith(": not in the cache: dvc pull, or dvc repro") for line in about)


def test_a_folder_without_dvc_is_refused(clone: Clone) -> None:
    shutil.rmtree(clone.folder / ".dvc")
    code, about, _ = clone.verify()
    assert code == 1 and len(about) == 1 and about[0].startswith("error: expected a repository of DVC here: ")


@pytest.mark.parametrize("content", [None, "stages: {a: {outs: 3", "[1, 2]", "stages: 3", "stages: {a: {outs: [{}]}}"])
def test_a_lock_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "dvc.lock").write_text(content, encoding="utf-8")
    with pytest.raises(TemperError, match="dvc.lock: expected (the|a) file"):
        read_outputs(tmp_path / "dvc.lock")
