"""python -m apps.page FOLDER [--models models/export/classifier.tflite]

Writes a page for any web host on which visitors' browsers run the models themselves: see docs/page.md. The stage
`export` makes the same page for the pipeline's own classifier if `export.formats` contains `page`. This program takes
any exported LiteRT files, also several, and needs neither Keras nor TensorFlow. `make page-runtime` fetches the runtime
that the browsers use.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from temper import command_line
from temper.base.atomic import atomic_folder
from temper.base.disk import in_words
from temper.base.errors import TemperError, printable
from temper.inference.runtimes.opening import open_model
from temper.page import assembly

DEFAULT = Path("models/export/classifier.tflite")
_FOLDERS = ("models", "runtime")
_AT_TOP = (*assembly.SHARED, *assembly.ALONE, assembly.LIST, "service_worker.js", "LICENSE.txt", "NOTICE.txt")
# Names in runtime/ differ between versions of LiteRT.js, and an older page may have another one.
_WRITTEN = re.compile(rf"{'|'.join(map(re.escape, _AT_TOP))}|models/[0-9a-f]{{12}}\.tflite|runtime/\w+\.(js|bin)")
_NAMED = 3  # how many files a message names


def require_models(paths: list[Path]) -> None:
    """Raises a TemperError unless each file is a LiteRT model that can be run, and their names differ."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise TemperError(f"expected models of different names, received {' '.join(map(str, paths))}; rename one")
    for path in paths:
        if path.suffix.lower() != ".tflite":
            raise TemperError(f"{path}: expected a LiteRT model, whose name ends in .tflite; export.formats: [litert]")
        open_model(path)
        _require_one_photo(path)


def _require_one_photo(path: Path) -> None:
    """Raises a TemperError unless a model takes exactly one photo in float32, as LiteRT.js requires.

    Keras's own exports take any number of photos, which LiteRT.js does not support.
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (half a second)

    (taken,) = Interpreter(str(path)).get_input_details()
    number, kind = int(taken["shape_signature"][0]), np.dtype(taken["dtype"])
    if number != 1 or kind != np.float32:
        many = "any number" if number < 0 else number
        raise TemperError(
            f"{path}: expected a model of one photo in float32, received one of {many} in {kind}; export it by "
            "export.formats: [litert]"
        )


def require_free(folder: Path) -> None:
    """Raises a TemperError if a folder contains anything but an older page, because the whole folder is replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / assembly.LIST).is_file():
        raise TemperError(f"{folder}: expected no folder, an empty one or an older page, found something else")
    foreign = _foreign(folder)
    if foreign:
        more = f", and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise TemperError(
            f"{folder}: expected nothing but an older page, all of which is replaced, received "
            f"{printable(', '.join(foreign[:_NAMED]))}{more} too: write the page into a folder of its own, and "
            "copy it from there"
        )


def _foreign(folder: Path) -> list[str]:
    """The files that no page has written: by their paths if they are in a page's folders, else by the top name."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not _WRITTEN.fullmatch(name) and name not in _FOLDERS:
            top = name.split("/")[0]
            found.add(name if top in _FOLDERS else top)
    return sorted(found)


def main() -> int:
    """Reads the command line and writes the page; returns the exit code."""
    description = (__doc__ or "").split("\n\n", 1)[1]
    parser = argparse.ArgumentParser(
        prog="python -m apps.page", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="what to put on the web host; an older page in it is replaced"
    )
    parser.add_argument("--models", type=Path, nargs="+", metavar="MODEL", default=[DEFAULT], help="LiteRT files")
    chosen = parser.parse_args()
    require_models(chosen.models)
    require_free(chosen.folder)
    with atomic_folder(chosen.folder) as partial:
        assembly.assemble(partial, chosen.models)
    taken = sum(path.stat().st_size for path in chosen.folder.rglob("*") if path.is_file())
    names = ", ".join(path.stem for path in chosen.models)
    print(f"{chosen.folder}: a page with {printable(names)}, {in_words(taken)}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
