"""Locations of files that are not outputs of DVC: downloads, unfinished states, caches, and paths in params.yaml.

DVC runs experiments with `--temp` and from the queue in a copy of the repository; there, DVC_ROOT is the original.
"""

import os
import re
import sys
from pathlib import Path

from temper.base.errors import TemperError


def repository() -> Path:
    """The repository that this run belongs to: the original, even if the run works in a copy."""
    return Path(os.environ.get("DVC_ROOT", "."))


def program() -> str:
    """The name of the running program: "embed" of `python -m stages.embed`, "fetch-cub" of `... stages.fetch cub`.

    Its lock and its log have this name. Every character but letters, digits, dots and hyphens becomes `_`.
    """
    path = Path(sys.argv[0])
    name = path.parent.name if path.stem == "__main__" else path.stem
    return re.sub(r"[^\w.-]", "_", "-".join([name, *sys.argv[1:2]]))


def scratch(name: str) -> Path:
    """A folder below `.temper`, which all runs of the repository share and DVC does not track; created if missing."""
    folder = repository() / ".temper" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def existing(path: str) -> Path:
    """The file or folder that a path in params.yaml means.

    The path is resolved from the working folder first, then from the original repository. So in a copy of the
    repository, files that git or DVC track are found in the copy, at the experiment's version; others, such as
    `../weights.h5`, are found from the original.

    Raises:
        TemperError: there is no such file or folder.
    """
    for folder in (Path(), repository()):
        if (folder / path).exists():
            return folder / path
    where = "" if Path(path).is_absolute() else f", from {repository().resolve()}"
    raise TemperError(f"{path}: expected a file or folder, found nothing there{where}; correct it in params.yaml")
