"""Where files lie that are not outputs of DVC: downloads, unfinished states, caches, and what params.yaml names.

DVC runs experiments of `--temp` and of the queue in a copy of the repository; DVC_ROOT is the original in each of them.
"""

import os
import re
import sys
from pathlib import Path

from temper.base.errors import TemperError


def repository() -> Path:
    """The repository that this run belongs to, also when it works in a copy of it."""
    return Path(os.environ.get("DVC_ROOT", "."))


def program() -> str:
    """The name of the running program: "embed" of `python -m stages.embed`, "fetch-cub" of `... stages.fetch cub`.

    Its lock and its log are called so; whatever is no letter, digit, dot or hyphen in it becomes `_`.
    """
    path = Path(sys.argv[0])
    name = path.parent.name if path.stem == "__main__" else path.stem
    return re.sub(r"[^\w.-]", "_", "-".join([name, *sys.argv[1:2]]))


def scratch(name: str) -> Path:
    """A folder below `.temper`, shared by all runs of the repository and outside DVC's outputs; made if missing."""
    folder = repository() / ".temper" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def existing(path: str) -> Path:
    """The file or folder that a path in params.yaml means.

    It is looked for from the working folder, then from the repository that the run belongs to. In a copy of the
    repository, files that git and DVC track are found in the copy, at the experiment's version; others, such as
    `../weights.h5`, are found from the original.

    Raises:
        TemperError: nothing is there.
    """
    for folder in (Path(), repository()):
        if (folder / path).exists():
            return folder / path
    where = "" if Path(path).is_absolute() else f", from {repository().resolve()}"
    raise TemperError(f"{path}: expected a file or folder, found nothing there{where}; correct it in params.yaml")
