"""Dockerfiles without Docker: parses their instructions and builds images in folders, as far as this is possible.

Each stage is a folder with the absolute paths of the image in it; `FROM` gives an empty one. `RUN` and the image's
command are run on this machine with rewritten paths. So the programs of the base image, the user and the network are
those of this machine.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

# How this machine reaches a package index: HOME has pip's configuration.
_OF_THE_NETWORK = re.compile(r"HOME|PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|(?i:.*_proxy)")
_OWN = re.compile(r"(?<![\w./-])/(opt|app)\b")  # the paths that the images have beside those of their base


@dataclass(frozen=True)
class Instruction:
    """A line of a Dockerfile: `FROM`, ..., and what follows it."""

    name: str
    rest: str

    def words(self) -> list[str]:
        """The exec form, a list in JSON; otherwise the words."""
        found: list[str] = json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)
        return found


def read(path: Path) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments, each in one line."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def is_sent(file: str, patterns: list[str]) -> bool:
    """Whether a file is part of the build context, by the lines of .dockerignore; the last line that fits decides."""
    parts = file.split("/")
    beginnings = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    sent = True
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        names = parts if bare.startswith("**/") else [one for one in beginnings if one.count("/") == bare.count("/")]
        if any(fnmatch(one, bare.removeprefix("**/")) for one in names):
            sent = pattern.startswith("!")
    return sent


@dataclass
class Image:
    """The image that a Dockerfile makes.

    Attributes:
        root: the folder with its paths.
        environment: the variables that ENV sets.
        start: ENTRYPOINT and CMD.
        health: the command of HEALTHCHECK; none: NONE.
    """

    root: Path
    work: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    start: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """A command or a path of the image, for this machine."""
        return _OWN.sub(lambda found: f"{self.root}{found[0]}", text)

    @property
    def folder(self) -> Path:
        """The working folder."""
        return Path(self.here(self.work))

    def told(self) -> dict[str, str]:
        """The environment of a container of the image, without variables of this machine."""
        return {"PATH": f"{_python(self.root.parent)}:/usr/bin:/bin", **self.environment}


def _python(folder: Path) -> Path:
    """A folder with the program `python`, which images of Python have and not every machine."""
    program = folder / "bin/python"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(
        f'#!/bin/sh\nexec {sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]} "$@"\n'
    )
    program.chmod(0o755)
    return program.parent


def build(instructions: list[Instruction], context: Path, folder: Path, stages: dict[str, Image]) -> Image:
    """Builds an image of a context in a folder.

    Args:
        stages: stages that were built before, by name; they are used again, and new ones are added.
    """
    patterns = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in patterns if line and not line.startswith("#")]
    there = False
    for number, one in enumerate(instructions):
        if one.name == "FROM":
            _, named, name = one.rest.rpartition(" AS ")
            there = bool(named) and name in stages
            image = stages[name] if there else Image(folder / f"stage-{number}")
            image.root.mkdir(parents=True, exist_ok=True)
            stages |= {name: image} if named else {}
        elif there:
            continue
        elif one.name == "COPY":
            _copy(one.words(), image, stages, context, patterns)
        elif one.name == "RUN":
            environment = image.told() | {key: of for key, of in os.environ.items() if _OF_THE_NETWORK.fullmatch(key)}
            image.folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["sh", "-ec", image.here(one.rest)], cwd=image.folder, env=environment, check=True)
        elif one.name == "WORKDIR":
            image.work = one.rest
        elif one.name == "ENV":
            image.environment |= dict(word.split("=", 1) for word in one.words())
        elif one.name == "USER":
            image.user = one.rest
        elif one.name in ("ENTRYPOINT", "CMD"):
            image.start += [image.here(word) for word in one.words()]
        elif one.name == "HEALTHCHECK" and one.rest != "NONE":
            command = json.loads(one.rest.partition(" CMD ")[2])
            image.health = [image.here(word) for word in command]
    return image


def _copy(words: list[str], image: Image, stages: dict[str, Image], context: Path, patterns: list[str]) -> None:
    """COPY, of the context or of another stage, of files and of folders."""
    *sources, target = [word for word in words if not word.startswith("--")]
    given = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
    place = Path(image.here(os.path.join(image.work, target)))  # noqa: PTH118 (it keeps an absolute path)
    for source in sources:
        if given is not None:
            shutil.copytree(stages[given].here(source), place, symlinks=True)
            continue
        found = context / source
        files = [found] if found.is_file() else sorted(path for path in found.rglob("*") if path.is_file())
        sent = [file for file in files if is_sent(file.relative_to(context).as_posix(), patterns)]
        assert sent, f"COPY {source}: there is no such file in the context"
        for file in sent:
            path = place / (file.name if found.is_file() else file.relative_to(found))
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, path)
