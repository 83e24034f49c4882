"""Puts a file or folder aside that is damaged or unexpected, and prints its name, so that the work can start afresh.

For files below `.temper/`, all of which can be made again.
"""

import shutil
from pathlib import Path


def put_aside(path: Path, expected: str, received: str, folder: Path | None = None) -> Path:
    """Renames a file or folder to `<name>.damaged`, replacing an earlier one of that name, and prints a message.

    Args:
        expected: what should have been there, such as "a download".
        received: what was found instead.
        folder: where to put it, on the same disk; by default the folder that it is in.

    Returns:
        the new path.
    """
    aside = (folder or path.parent) / f"{path.name}.damaged"
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
    path.replace(aside)
    print(f"{path}: expected {expected}, received {received}: put aside as {aside.name}, starting afresh", flush=True)
    return aside


def is_file(path: Path, expected: str, folder: Path | None = None) -> bool:
    """Whether `path` is a regular file or a link to one. Anything else, such as a folder or a pipe, is put aside."""
    if not path.is_file() and (path.is_symlink() or path.exists()):
        kind = "a link to no file" if path.is_symlink() else "a folder" if path.is_dir() else "a special file"
        put_aside(path, expected, kind, folder)
    return path.is_file()
