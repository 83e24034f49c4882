"""python -m apps.verify, or make verify: checks whether all files are still as the stages wrote them.

Reads every output in dvc.lock that exists here and every object of DVC's cache, including those of earlier experiments,
and compares their MD5 with the one that DVC recorded. DVC itself computes it when an output is made, and trusts the
file from then on.

Prints a line for each file that differs, and how to repair it. The exit code is 1 if a file is damaged or differs from
dvc.lock, and 0 otherwise: files that are merely missing can be pulled or made again.
"""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tqdm import tqdm

from temper.base.disk import in_words
from temper.base.errors import TemperError
from temper.parallel import ordered_map

LOCK = Path("dvc.lock")
FOLDER = ".dir"  # the ending of a folder's checksum, which is the MD5 of the list of its files
MEND = """
To mend what is damaged, remove it here and from the cache:
{commands}
Then get it anew:
  dvc pull     # if it was pushed
  dvc repro    # if not: runs the stages that wrote it
"""
GO_BACK = """
A changed file may be damaged, edited, or written by a stage run by hand. To have those of dvc.lock again:
  dvc checkout --force    # and git checkout metrics for the figures that git holds
"""


@dataclass(frozen=True)
class Output:
    """An output in dvc.lock: its path, and its MD5 when it was written."""

    path: Path
    md5: str


@dataclass
class Found:
    """The files that are not as they should be.

    Attributes:
        damaged: a line for each damaged object of the cache.
        together: for each damaged object, the files that must be removed together with it.
        changed: a line for each file that differs from dvc.lock.
        missing: a line for each file that does not exist here.
        files: how many files were read.
        bytes: their total size.
    """

    damaged: list[str] = field(default_factory=list)
    together: list[list[Path]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


def md5_of(path: Path) -> str:
    """The MD5 of a file, or the reason why the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        return f"no readable file ({error.strerror})"


def read_outputs(lock: Path = LOCK) -> list[Output]:
    """The outputs of all stages, metrics and plots among them.

    Raises:
        TemperError: there is no dvc.lock, or it was not written by DVC.
    """
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        return [Output(Path(out["path"]), out["md5"]) for stage in stages.values() for out in stage.get("outs", [])]
    except FileNotFoundError:
        raise TemperError(
            f"{lock}: expected the file in which DVC writes what it ran, found none; run dvc repro"
        ) from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TemperError(f"{lock}: expected a file that DVC wrote: {error}; get it from git again") from None


def find_cache() -> Path:
    """The folder of DVC's cache that contains the objects, wherever this clone keeps it."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TemperError(f"expected a repository of DVC here: {done.stderr}")
    folder = Path(done.stdout.strip()) / "files" / "md5"
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def object_of(cache: Path, md5: str) -> Path:
    """The path in the cache of the file with this MD5."""
    return cache / md5[:2] / md5[2:]


def objects_in(cache: Path) -> list[Path]:
    """All objects of the cache, without the temporary files that a killed DVC leaves there."""
    return sorted(path for path in cache.glob("??/*") if re.fullmatch(rf"[0-9a-f]{{30}}({FOLDER})?", path.name))


def files_of(output: Output, cache: Path, sound: set[str]) -> list[Output] | None:
    """The files of an output, each with its MD5; `None` for a folder whose list of files is missing or damaged.

    Args:
        sound: the MD5s of the undamaged objects of the cache.
    """
    if not output.md5.endswith(FOLDER):
        return [output]
    if output.md5 not in sound:
        return None
    listed = json.loads(object_of(cache, output.md5).read_text(encoding="utf-8"))
    return [Output(output.path / one["relpath"], one["md5"]) for one in listed]


def md5_of_folder(folder: Path) -> str:
    """The MD5 that DVC gives a folder: that of the list of its files, in the format of DVC's cache."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [{"md5": md5_of(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    listed.sort(key=lambda one: one["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + FOLDER


def read_all(paths: list[Path], found: Found, words: str) -> Iterator[tuple[Path, str]]:
    """Yields each file with its MD5; reads on all cores, and counts files and bytes."""
    shown = tqdm(zip(paths, ordered_map(md5_of, paths), strict=True), words, len(paths), unit="file", disable=None)
    for path, md5 in shown:
        found.files += 1
        found.bytes += path.stat().st_size if path.is_file() else 0
        yield path, md5


def check_cache(cache: Path, found: Found) -> dict[str, str]:
    """The actual MD5 of each object of the cache, by the MD5 that it should have."""
    return {
        f"{path.parent.name}{path.name}": md5 + (FOLDER if path.suffix else "")
        for path, md5 in read_all(objects_in(cache), found, "the cache")
    }


def check_outputs(outputs: Iterable[Output], cache: Path, has: dict[str, str], found: Found) -> dict[str, list[Path]]:
    """Compares the files that exist here with dvc.lock, and adds the differences to `found`.

    Args:
        has: the result of `check_cache`.

    Returns:
        By the MD5 that a damaged object should have, the files here that are links to it.
    """
    sound = {md5 for md5, real in has.items() if md5 == real}
    linked: dict[str, list[Path]] = {}
    own: dict[Path, str] = {}
    for output in outputs:
        files = files_of(output, cache, sound)
        if not output.path.exists():
            where = "in the cache: dvc checkout" if output.md5 in sound else "not in the cache: dvc pull, or dvc repro"
            found.missing.append(f"{output.path}: {where}")
        elif files is None:
            real = md5_of_folder(output.path)
            if real != output.md5:
                linked.setdefault(output.md5, []).append(output.path)
                found.changed.append(f"{output.path}: expected the MD5 {output.md5}, found {real}")
        else:
            own |= _compare(files, output, cache, has, linked, found)
    for path, real in read_all(list(own), found, "data and models"):
        if real != own[path]:
            found.changed.append(f"{path}: expected the MD5 {own[path]}, found {real}")
    return linked


def _compare(
    files: list[Output],
    output: Output,
    cache: Path,
    has: dict[str, str],
    linked: dict[str, list[Path]],
    found: Found,
) -> dict[Path, str]:
    """Checks the files of an output that exists here, without reading them.

    Returns:
        The files that must be read because they are no links to the cache, with the MD5 that they should have.
    """
    own = {}
    for one in files:
        if not one.path.exists():
            where = "in the cache: dvc checkout" if one.md5 in has else "not in the cache: dvc pull, or dvc repro"
            found.missing.append(f"{one.path}: {where}")
        elif one.md5 not in has or not one.path.samefile(object_of(cache, one.md5)):
            own[one.path] = one.md5
        elif has[one.md5] != one.md5:
            linked.setdefault(one.md5, []).append(one.path)
    if output.path.is_dir():
        strangers = {path for path in output.path.rglob("*") if path.is_file()} - {one.path for one in files}
        found.changed += [f"{path}: is not in dvc.lock" for path in sorted(strangers)]
    return own


def verify() -> Found:
    """Compares all files here with dvc.lock, and the objects of the cache with their names, which are their MD5s.

    Raises:
        TemperError: this is not a DVC repository, or nothing has run in it.
    """
    found = Found()
    outputs, cache = read_outputs(), find_cache()
    has = check_cache(cache, found)
    linked = check_outputs(outputs, cache, has, found)
    for md5, real in has.items():
        if md5 != real:
            paths = linked.get(md5, [])
            whose = ", ".join(map(str, paths)) or "no file that is here: another experiment's, or an older one's"
            found.damaged.append(f"{object_of(cache, md5)} ({whose}): expected the MD5 {md5}, found {real}")
            found.together.append([object_of(cache, md5), *paths])
    return found


def main() -> int:
    """Prints what `verify` found; returns the exit code."""
    found = verify()
    for word, lines in (("damaged", found.damaged), ("changed", found.changed), ("missing", found.missing)):
        for line in lines:
            print(f"{word}: {line}")
    if found.damaged:
        commands = "\n".join("  " + shlex.join(["rm", "-rf", *map(str, paths)]) for paths in found.together)
        print(MEND.format(commands=commands))
    if found.changed:
        print(GO_BACK)
    counts = f"{len(found.damaged)} damaged, {len(found.changed)} changed, {len(found.missing)} missing"
    print(f"read {found.files:,} files, {in_words(found.bytes)}: {counts}")
    return 1 if found.damaged or found.changed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TemperError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
