"""Where a published file belongs: the split and label that the names of its folders say."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from temper.errors import TemperError

Place = tuple[str | None, str | None]  # split, label; None: the source says none

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
_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif", ".ppm", ".pgm"),
    *(".heic", ".heif"),  # which need pillow-heif: without it they are rows with a problem
}


def is_image(name: str) -> bool:
    """Whether a file is an image by the ending of its name."""
    return PurePosixPath(name).suffix.lower() in _ENDINGS


def split_named(name: str) -> str | None:
    """The split that a folder or a table means by `name`, whatever its case."""
    return SPLITS.get(name.lower())


def place_by_patterns(files: list[str], patterns: Sequence[str], splits: Mapping[str, str]) -> dict[str, Place]:
    """The (split, label) of each image by the first of `patterns` that fits the end of its path.

    A pattern is a path such as `{split}/{label}/{name}` or `{split}/{label}.{name}`; `*` is anything within one
    folder's name. Images that no pattern fits are unlabelled; other files are left out.

    Args:
        splits: folders that stand for a split, beside those of SPLITS. `{split}` fits no other folder.

    Raises:
        TemperError: none fits any image.
    """
    known = {**SPLITS, **{name.lower(): split for name, split in splits.items()}}
    images = [name for name in files if is_image(name)]
    compiled = [_compile(pattern, known) for pattern in patterns]
    places: dict[str, Place] = {}
    fitted = 0
    for name in images:
        found = next(filter(None, (pattern.search(name) for pattern in compiled)), None)
        parts = found.groupdict() if found else {}
        places[name] = (known[parts["split"].lower()] if "split" in parts else None, parts.get("label"))
        fitted += found is not None
    if not fitted:
        raise TemperError(
            f"expected images that fit {' or '.join(patterns)}, found none; the first of {len(images)} images is "
            f"{images[0] if images else 'missing'}; folders that mean a split: {', '.join(known)}"
        )
    return places


def _compile(pattern: str, splits: Mapping[str, str]) -> re.Pattern[str]:
    pieces = re.split(r"(\{[^}]*\}|\*)", pattern)
    fields = {
        "{split}": f"(?P<split>(?i:{'|'.join(map(re.escape, splits))}))",
        "{label}": "(?P<label>[^/]+?)",
        "{name}": "(?P<name>[^/]+)",
        "*": "[^/]*",
    }
    if "{split}" in pieces and "{label}" in pieces[pieces.index("{split}") :]:
        # Not the split's own name again: Kaggle unpacks test.zip, which holds test/, into test/test/.
        fields["{label}"] = "(?!(?P=split)/)" + fields["{label}"]
    return re.compile(r"(?:^|/)" + "".join(fields.get(piece, re.escape(piece)) for piece in pieces) + "$", re.ASCII)


def place_by_folders(files: list[str], folders: list[str]) -> dict[str, Place]:
    """The (split, label) of each file, from the names of the folders that it is in.

    Folders that hold everything (`flowers/...`) say nothing. Below them come split folders (all of them named
    as in SPLITS) and then class folders, or class folders at once. Images directly in a split folder, or above all
    class folders, are unlabelled. Other files above the class folders (a README, a CSV) are left out.

    Raises:
        TemperError: no class folder, a class folder without files, or split folders among other folders.
    """
    parents = {name: PurePosixPath(name).parts[:-1] for name in files}
    homes = {parents[name] for name in files if is_image(name)}
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
        if label is not None or is_image(name):
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
