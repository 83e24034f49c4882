"""python -m apps.verify, or make verify: is everything that is here as the stages wrote it?

Reads every output of dvc.lock that is here and every object of DVC's cache, those of earlier experiments too, and
compares their MD5 with what DVC wrote down. DVC itself does so when an output is made, and trusts it from then on.

Prints a line for each file that is not as it was written, and how to mend it. The exit code is 1 if a file is damaged
or is not the one of dvc.lock, and 0 otherwise: what is merely missing can be pulled or made.
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
FOLDER = ".dir"  # the end of the checksum of a folder, which is that of the list of its files
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
    """An output of dvc.lock: its path, and the MD5 that it was written with."""

    path: Path
    md5: str


@dataclass
class Found:
    """What is not as it should be.

    Attributes:
        damaged: a line for each object of the cache that is damaged.
        together: the files that must be removed together, for each of these objects.
        changed: a line for each file that is not the one of dvc.lock.
        missing: a line for each file that is not here.
    """

    damaged: list[str] = field(default_factory=list)
    together: list[list[Path]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


def md5_of(path: Path) -> str:
    """The MD5 of a file; of one that the disk does not give, why not."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        return f"no readable file ({error.strerror})"


def read_outputs(lock: Path = LOCK) -> list[Output]:
    """The outputs of all stages, metrics and plots among them.

    Raises:
        TemperError: there is no such file, or it is none that DVC wrote.
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
    """The folder of DVC's objects, wherever this clone has it."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TemperError(f"expected a repository of DVC here: {done.stderr}")
    folder = Path(done.stdout.strip()) / "files" / "md5"
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def object_of(cache: Path, md5: str) -> Path:
    """Where the cache has the file of an MD5."""
    return cache / md5[:2] / md5[2:]


def objects_in(cache: Path) -> list[Path]:
    """All objects of the cache, without what a killed DVC left there."""
    return sorted(path for path in cache.glob("??/*") if re.fullmatch(rf"[0-9a-f]{{30}}({FOLDER})?", path.name))


def files_of(output: Output, cache: Path, sound: set[str]) -> list[Output] | None:
    """The files of an output, each with its MD5; `None` for a folder of whose files no list is left.

    Args:
        sound: the objects that are not damaged.
    """
    if not output.md5.endswith(FOLDER):
        return [output]
    if output.md5 not in sound:
        return None
    listed = json.loads(object_of(cache, output.md5).read_text(encoding="utf-8"))
    return [Output(output.path / one["relpath"], one["md5"]) for one in listed]


def md5_of_folder(folder: Path) -> str:
    """The MD5 that DVC gives a folder: of the list of its files, as its cache holds it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [{"md5": md5_of(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    listed.sort(key=lambda one: one["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + FOLDER


def read_all(paths: list[Path], found: Found, words: str) -> Iterator[tuple[Path, str]]:
    """Each file with its MD5, read on all cores."""
    shown = tqdm(zip(paths, ordered_map(md5_of, paths), strict=True), words, len(paths), unit="file", disable=None)
    for path, md5 in shown:
        found.files += 1
        found.bytes += path.stat().st_size if path.is_file() else 0
        yield path, md5


def check_cache(cache: Path, found: Found) -> dict[str, str]:
    """The MD5 that each object of the cache has, by the one that it should have."""
    return {
        f"{path.parent.name}{path.name}": md5 + (FOLDER if path.suffix else "")
        for path, md5 in read_all(objects_in(cache), found, "the cache")
    }


def check_outputs(outputs: Iterable[Output], cache: Path, has: dict[str, str], found: Found) -> dict[str, list[Path]]:
    """Compares the files that are here with dvc.lock; returns those that are links to a damaged object, by its MD5.

    Args:
        has: what `check_cache` returned.
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
    """Looks at the files of an output that is here; returns those to read, with the MD5 that they should have."""
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
    """Compares everything that is here with dvc.lock, and the cache with itself.

    Raises:
        TemperError: this is no repository of DVC, or nothing ran in it.
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
