"""`source: folder`: a folder, zip or tar of class folders, with or without split folders above them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from stages.fetch.archives import list_contents, read_files
from stages.fetch.source import Photo, Source
from temper.errors import TemperError
from temper.params import FolderSource

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "tests": "test",
    "testing": "test",
}
_ENDINGS = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif", ".ppm", ".pgm"}

Place = tuple[str | None, str | None]  # split, label


def open_source(settings: FolderSource) -> Source:
    """The files below class folders, each labelled by the class folder it is in.

    Raises:
        TemperError: nothing is there, it cannot be read, or it does not hold class folders with files in them.
    """
    path = Path(settings.path)
    listing = list_contents(path)
    try:
        places = place_files(listing.files, listing.folders)
    except TemperError as error:
        raise TemperError(f"sources.folder.path {path}: {error}") from None

    def photos() -> Iterator[Photo]:
        for name, data in read_files(path, set(places)):
            split, label = places[name]
            yield Photo(name, label, split, data)

    facts: dict[str, object] = {"source": "folder", "from": path.name, "licence": "as its owner says"}
    if path.is_file():
        with path.open("rb") as archive:
            facts["sha256"] = hashlib.file_digest(archive, "sha256").hexdigest()
    return Source(facts, len(places), photos())


def place_files(files: list[str], folders: list[str]) -> dict[str, Place]:
    """The (split, label) of each file, from the names of the folders that it is in.

    Folders that hold everything (`flowers/...`) say nothing. Below them come split folders (all of them named
    as in SPLITS) and then class folders, or class folders at once. Images directly in a split folder, or above all
    class folders, are unlabelled. Other files above the class folders (a README, a CSV) are left out.

    Raises:
        TemperError: no class folder, a class folder without files, or split folders among other folders.
    """
    parents = {name: PurePosixPath(name).parts[:-1] for name in files}
    homes = {parents[name] for name in files if PurePosixPath(name).suffix.lower() in _ENDINGS}
    if not homes:
        raise TemperError(f"expected class folders of images, found none (of {len(files)} files)")
    top = _depth_of_top(homes)
    heads = sorted({home[top] for home in homes if len(home) > top})
    if not heads:
        raise TemperError("expected class folders, received images that lie in no folder")
    has_splits = all(head.lower() in SPLITS for head in heads)
    others = [head for head in heads if not _holds_only_folders(head, homes, top)]
    if not has_splits and len(others) < len(heads):
        splits = [head for head in heads if head not in others]
        raise TemperError(f"expected split folders only ({', '.join(splits)}), received also {', '.join(others)}")
    class_depth = top + has_splits
    _refuse_empty_classes(parents, folders, class_depth)
    places: dict[str, Place] = {}
    for name, parent in parents.items():
        label = parent[class_depth] if len(parent) > class_depth else None
        split = SPLITS[parent[top].lower()] if has_splits and len(parent) > top else None
        if label is not None or PurePosixPath(name).suffix.lower() in _ENDINGS:
            places[name] = (split, label)
    return places


def _holds_only_folders(head: str, homes: set[tuple[str, ...]], top: int) -> bool:
    """Whether a folder is named as a split and holds its images in folders, as a split does and a class does not."""
    inside = [home for home in homes if len(home) > top and home[top] == head]
    return head.lower() in SPLITS and all(len(home) > top + 1 for home in inside)


def _depth_of_top(homes: set[tuple[str, ...]]) -> int:
    """How many leading folders hold every image and are neither a split nor the only class."""
    first, last = min(homes), max(homes)
    shared = next((depth for depth, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    for depth in range(shared):
        if first[depth].lower() in SPLITS:
            return depth
    return max(0, shared - 1) if homes == {first} else shared


def _refuse_empty_classes(parents: dict[str, tuple[str, ...]], folders: list[str], class_depth: int) -> None:
    filled = {parent[: class_depth + 1] for parent in parents.values()}
    siblings = {home[:class_depth] for home in filled}
    for folder in folders:
        parts = PurePosixPath(folder).parts
        if len(parts) == class_depth + 1 and parts[:-1] in siblings and parts not in filled:
            raise TemperError(f"expected images in every class folder, found none in {folder}; fill it or remove it")
