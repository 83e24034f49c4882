"""Finds the split and label of each published file, from the names of its folders or by a pattern.

Names are kept as published: a split folder called `training_set` gives the split `training_set`, and `normalize`
decides which split that is. The interpretation is printed and written to source.json (`understood.describe`,
`understood.facts`, `read_as`). Folders that can be interpreted in two ways stop the run; the error shows both
interpretations and the `layout` that selects each.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from temper.base.errors import TemperError
from temper.endings import is_image
from temper.split_names import meaning, prefix, says_nothing

Place = tuple[str | None, str | None]  # split and label, both as published; None: the source gives none
Home = tuple[str, ...]  # the names of the folders that a file is in, from the top

_SHOWN = 5  # how many names of a list a message shows


# --- By patterns


def place_by_patterns(files: Iterable[str], patterns: Sequence[str]) -> dict[str, Place]:
    """The (split, label) of each image, by the first of `patterns` that matches the end of its path.

    A pattern is a path such as `{split}/{label}/{name}` or `{split}/{label}.{name}`. `{split}` matches any folder,
    whatever its name; `*` matches anything within a folder's name; `**/` matches any number of folders, including none.
    Images that no pattern matches are unlabelled; files other than images are left out.

    A folder that repeats the name of its split is not a class if it is the only folder in the split: Kaggle unpacks
    `test.zip`, which contains `test/`, into `test/test/`. Next to other folders it is a class, as in
    `train/{bus,car,train}/`.

    Raises:
        TemperError: no pattern matches any image.
    """
    images = [name for name in files if is_image(name)]
    compiled = [_compile(pattern) for pattern in patterns]
    children = _children({_home(name) for name in images})
    places: dict[str, Place] = {}
    fitted = 0
    for name in images:
        place = next(filter(None, (_fit(pattern, name, children) for pattern in compiled)), None)
        places[name] = place or (None, None)
        fitted += place is not None
    if not fitted:
        raise TemperError(
            f"expected images that fit {' or '.join(patterns)}, found none; the first of {len(images)} images is "
            f"{images[0] if images else 'missing'}; correct the layout"
        )
    return places


def _compile(pattern: str) -> re.Pattern[str]:
    fields = {
        "{split}": "(?P<split>[^/]+?)",
        "{label}": "(?P<label>[^/]+?)",
        "{name}": "(?P<name>[^/]+)",
        "**/": "(?:[^/]+/)*",
        "*": "[^/]*",
    }
    pieces = re.split(r"(\{[^}]*\}|\*\*/|\*)", pattern)
    return re.compile("(?:^|/)" + "".join(fields.get(piece, re.escape(piece)) for piece in pieces) + "$")


def _fit(pattern: re.Pattern[str], name: str, children: Mapping[Home, set[str]]) -> Place | None:
    """The (split, label) of an image by one pattern, which is tried from each folder of its path on; None: no match."""
    found = pattern.search(name)
    while found:
        parts = found.groupdict()
        split, label = parts.get("split"), parts.get("label")
        repeated = split is not None and label is not None and _repeats(label, split)
        if not repeated or len(children.get(tuple(name[: found.end("split")].split("/")), ())) != 1:
            return split, label
        found = pattern.search(name, found.start() + 1)
    return None


# --- By folders


def place_by_folders(files: Iterable[str], folders: Iterable[str]) -> dict[str, Place]:
    """The (split, label) of each file, from the names of the folders that it is in.

    Folders that contain everything (`flowers/...`) are skipped. Below them there are either split folders (all of them
    with names of splits, see `temper.split_names`) that contain class folders, or class folders, or class folders that
    each contain split folders. A folder that holds the whole of a split is skipped if it repeats the split's name
    (`test/test/`) or has a generic name (`train/images/`). Images directly in a split, or above all class folders, are
    unlabelled. Other files above or beside these folders (a README, `annotations/`) are left out.

    Raises:
        TemperError: there are no class folders, a class folder has no files, split folders stand among other folders,
            or the folders can be interpreted in two ways.
    """
    homes_of = {name: _home(name) for name in files}
    homes = Counter(home for name, home in homes_of.items() if is_image(name))
    if not homes:
        raise TemperError(f"expected class folders of images, found none (of {len(homes_of)} files)")
    tree = _Tree(homes, _depth_of_top(set(homes)))
    reading = _read(tree)
    _refuse_empty_classes(set(homes_of.values()), folders, reading)
    places: dict[str, Place] = {}
    for name, home in homes_of.items():
        split, label = reading.place(home)
        if label is not None or is_image(name):
            places[name] = (split, label)
    return places


@dataclass(frozen=True)
class _Reading:
    """An interpretation of the folders: the depths at which a path has its split and its label.

    The folders directly below `above` are called heads.
    """

    above: Home  # the folders that contain every image
    split: int | None  # the depth of the split's name; None: no splits
    labels: Mapping[str, int]  # the depth of the label for each head; splits may be nested differently

    def label_depth(self, home: Home) -> int | None:
        """The depth of a file's label; None for a file outside all heads, as in `annotations/` beside splits."""
        top = len(self.above)
        if len(home) <= top or home[:top] != self.above:
            return None
        # Without splits, a head that is not listed has no images. It is a class nevertheless: its files may be photos
        # of an unknown format.
        return self.labels.get(home[top], None if self.split == top else top)

    def place(self, home: Home) -> Place:
        """The split and label of a file in the folder `home`."""
        depth = self.label_depth(home)
        if depth is None:
            return None, None
        split = home[self.split] if self.split is not None and len(home) > self.split else None
        return split, home[depth] if len(home) > depth else None


@dataclass(frozen=True)
class _Tree:
    """The folders that contain images."""

    homes: Counter[Home]  # the number of images directly in each folder
    top: int  # how many leading folders of every path are the same and contain everything

    @cached_property
    def heads(self) -> dict[str, list[Home]]:
        """The first folders in which paths differ (heads), sorted, each with the folders of images below it."""
        heads: dict[str, list[Home]] = defaultdict(list)
        for home in sorted(self.homes):
            if len(home) > self.top:
                heads[home[self.top]].append(home)
        return heads

    @property
    def above(self) -> Home:
        """The folders that contain every image."""
        return next(iter(self.homes))[: self.top]

    @cached_property
    def children(self) -> Mapping[Home, set[str]]:
        """The names of the folders in each folder."""
        return _children(self.homes)

    def holds_images(self, head: str) -> bool:
        """Whether a head has images directly in it, which is typical of a class and not of a split."""
        return any(len(home) == self.top + 1 for home in self.heads[head])

    def counted(self, heads: Iterable[str]) -> str:
        """The names of some heads with their numbers of images, for messages."""
        return _counted({head: sum(self.homes[home] for home in self.heads[head]) for head in heads})

    def layout(self, *fields: str, folders: int | None = None) -> str:
        """The setting `layout` that interprets the folders from the heads on as `fields`, for messages.

        Args:
            folders: how deep the images are nested, if all are nested equally deep and `fields` are the last folders.
        """
        if {len(home) for home in self.homes} == {folders or self.top + len(fields)}:
            return f"layout: {json.dumps(['/'.join([*fields, '{name}'])], ensure_ascii=False)}"
        above = list(map(_literal, self.above))
        shapes = [fields[:-1] if fields[-1] == "*" else fields]
        if fields[0] == "{split}" and len(fields) > 1:
            shapes.append(("{split}",))  # images without a label
        patterns = ["/".join([*above, *shape, "**", "{name}"]) for shape in shapes]
        return f"layout: {json.dumps(patterns, ensure_ascii=False)}"


def _depth_of_top(homes: set[Home]) -> int:
    """How many leading folders contain every image and are neither a split nor the only class."""
    first, last = min(homes), max(homes)
    differ = (depth for depth, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    shared = next(differ, min(len(first), len(last)))
    meanings = {meaning(home[shared]) if len(home) > shared else None for home in homes}
    if len(meanings) > 1 and None not in meanings:
        return shared  # train/ and test/, whatever the folder that contains both is called
    for depth in range(shared):
        if meaning(first[depth]):
            return depth
    return max(0, shared - 1) if homes == {first} else shared


def _read(tree: _Tree) -> _Reading:
    heads = list(tree.heads)
    if not heads:
        raise TemperError("expected class folders, received images that lie in no folder")
    if all(_is_split_among(head, heads) for head in heads):
        _refuse_several_prefixes(tree)
        reading = _read_splits(tree)
    elif all(_holds_splits_only(inside, tree.top) for inside in tree.heads.values()):
        return _Reading(tree.above, tree.top + 1, dict.fromkeys(heads, tree.top))
    else:
        _refuse_mixed_heads(tree)
        _refuse_splits_in_some_classes(tree)
        reading = _Reading(tree.above, None, dict.fromkeys(heads, tree.top))
    _refuse_look_alikes(tree, reading)
    return reading


def _is_split_among(head: str, heads: Sequence[str]) -> bool:
    """Whether a folder has the name of a split, judged together with the folders beside it.

    `train` is a split. `cars_train` is a split if it stands alone or beside `cars_test`. `steam_train` beside
    `freight_train` or `bus` is a class.
    """
    if not meaning(head) or not prefix(head) or len(heads) == 1:
        return meaning(head) is not None
    return any(meaning(other) and prefix(other) in ("", prefix(head)) for other in heads if other != head)


def _holds_splits_only(inside: Iterable[Home], top: int) -> bool:
    """Whether a head contains only folders with names of splits, and no images of its own."""
    return all(len(home) > top + 1 and meaning(home[top + 1]) for home in inside)


def _read_splits(tree: _Tree) -> _Reading:
    """The interpretation of heads that are all splits: at which depth each one has its class folders."""
    paths: dict[str, Home] = {}
    for head, inside in tree.heads.items():
        path = inside[0][: tree.top + 1]
        while len(below := tree.children.get(path, set())) == 1:
            (only,) = below
            if not (_repeats(only, head) or says_nothing(only)):
                break
            path = (*path, only)
        if below and all(map(meaning, below)):
            _refuse_splits_in_a_split(tree, path)
        paths[head] = path
    paths = _past_a_folder_of_all_classes(tree, paths)
    reading = _Reading(tree.above, tree.top, {head: len(path) for head, path in paths.items()})
    if all(reading.place(home)[1] is None for home in tree.homes):
        raise TemperError(
            f"expected class folders, found none in {tree.counted(tree.heads)}, which are named as splits and hold "
            f"images without a label. If they are the classes, set {tree.layout('{label}')} in the settings of the "
            "source; if a table has the labels, use the source `csv`"
        )
    return reading


def _past_a_folder_of_all_classes(tree: _Tree, paths: dict[str, Home]) -> dict[str, Home]:
    """Goes one folder deeper if all splits have their classes in a folder of one name: `train/flowers/{rose,tulip}`."""
    filled = {path: names for path in paths.values() if (names := tree.children.get(path))}
    names = set().union(*filled.values())
    if len(names) != 1:
        return paths
    below = [tree.children.get((*path, *names), set()) for path in filled]
    if not all(below) or len(set().union(*below)) < 2:
        return paths
    return {head: (*path, *names) if path in filled else path for head, path in paths.items()}


def _refuse_empty_classes(homes: set[Home], folders: Iterable[str], reading: _Reading) -> None:
    """Refuses a folder beside the class folders that contains no files."""
    depths = {home: depth for home in homes if (depth := reading.label_depth(home)) is not None}
    filled = {home[:end] for home in homes for end in range(1, len(home) + 1)}
    parents = {home[:depth] for home, depth in depths.items() if len(home) > depth}
    for folder in folders:
        parts = tuple(folder.split("/"))
        if parts[:-1] in parents and parts not in filled:
            raise TemperError(f"expected images in every class folder, found none in {folder}; fill it or remove it")


# --- What can be interpreted in two ways


def _two_ways(received: str, first: str, second: str) -> TemperError:
    return TemperError(
        f"{received}. They can be read in two ways; choose one in the settings of the source. (1) {first}. (2) {second}"
    )


def _refuse_several_prefixes(tree: _Tree) -> None:
    """Refuses folders such as `cats_train/`, `cats_test/`, `dogs_train/`, `dogs_test/`."""
    prefixes = sorted({prefix(head) for head in tree.heads} - {""})
    if len(prefixes) > 1:
        between = next((mark for mark in "_- ." if all(mark in head for head in tree.heads)), "_")
        raise _two_ways(
            f"expected split folders of one dataset, received those of {_few(prefixes)}: {_few(list(tree.heads))}",
            f"All are splits: {tree.layout('{split}', '{label}')}",
            f"{_few(prefixes)} are the classes: {tree.layout('{label}' + between + '{split}')}",
        )


def _refuse_mixed_heads(tree: _Tree) -> None:
    """Refuses split folders among other folders. A folder with images directly in it counts as a class, not a split."""
    named = [head for head in tree.heads if _is_split_among(head, list(tree.heads))]
    splits = [head for head in named if not tree.holds_images(head)]
    others = [head for head in tree.heads if head not in named]
    if splits:
        raise _two_ways(
            f"expected split folders only ({', '.join(splits)}), received also {tree.counted(others)}; remove what is "
            "neither a split nor a class",
            f"All are splits: {tree.layout('{split}', '{label}')}, and say in normalize.splits what "
            f"{_few(others)} stands for",
            f"All are classes: {tree.layout('{label}', '*')}",
        )


def _refuse_splits_in_some_classes(tree: _Tree) -> None:
    """Refuses class folders of which some contain folders for several splits and others do not."""
    for head, inside in tree.heads.items():
        names = {home[tree.top + 1] for home in inside if len(home) > tree.top + 1}
        splits = sorted(filter(meaning, names))
        if len(set(map(meaning, splits))) < 2:
            continue
        others = [other for other, below in tree.heads.items() if not _holds_splits_only(below, tree.top)]
        raise _two_ways(
            f"expected split folders in every class folder or in none, received {head} with {_few(splits)}, and "
            f"{_few(others)} with other folders or images",
            f"{_few(splits)} are splits, and images outside of them are unlabelled: "
            f"{tree.layout('{label}', '{split}')}",
            f"All images are of the class whose folder they are in, at any depth: {tree.layout('{label}', '*')}",
        )


def _refuse_splits_in_a_split(tree: _Tree, path: Home) -> None:
    """Refuses splits in a split, such as `train/{train,val}/...`."""
    deeper = any(tree.children.get((*path, name)) for name in tree.children[path])
    inner = ["{split}/{label}/{name}", "{split}/{name}"] if deeper else ["{split}/{name}"]
    raise _two_ways(
        f"expected class folders in the split {'/'.join(path)}, received folders that are named as splits again: "
        f"{_few(sorted(tree.children[path]))}",
        f"They are the splits: layout: {json.dumps(inner)}",
        f"They are classes in a split: {tree.layout('{split}', '{label}')}",
    )


def _refuse_look_alikes(tree: _Tree, reading: _Reading) -> None:
    """Refuses class folders that contain folders of the same names: `set1/{cats,dogs}`, `set2/{cats,dogs}`.

    The inner folders could be the classes instead, but only if there are at least two different ones: `ant/images/`,
    `bee/images/` can be interpreted in one way only. In addition, at least half of the class folders must be alike. A
    class folder counts as alike if at least half of the names in it also occur in another class folder: two genera that
    share one species name are not splits.
    """
    counts: Counter[str] = Counter()
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for home, images in tree.homes.items():
        label = reading.place(home)[1]
        depth = reading.label_depth(home)
        if label is not None and depth is not None:
            counts[label] += images
            for name in home[depth + 1 :][:1]:
                inside[label][name] += images
    holders = Counter(name for names in inside.values() for name in names)
    alike = [label for label, names in inside.items() if 2 * sum(holders[name] > 1 for name in names) >= len(names)]
    below: Counter[str] = Counter()
    for label in alike:
        below.update(inside[label])
    if len(alike) < 2 or len(below) < 2 or 2 * len(alike) < len(inside):
        return
    folders = max(reading.labels.values()) + 2
    if reading.split is None:
        first = (
            f"They are splits of the classes {_counted(below)}: {tree.layout('{split}', '{label}', folders=folders)}"
        )
        first += ", and say in normalize.splits what each stands for"
        second = tree.layout("{label}", "*", folders=folders)
    else:
        first = f"The classes are {_counted(below)}: {tree.layout('{split}', '*', '{label}', folders=folders)}"
        second = tree.layout("{split}", "{label}", "*", folders=folders)
    raise _two_ways(
        f"expected class folders, received {len(alike)} folders that hold folders of the same names: "
        f"{_few(sorted(alike))}",
        first,
        f"They are the classes, {_counted(counts)}: {second}",
    )


# --- The interpretation as patterns


def read_as(places: Mapping[str, Place]) -> list[str]:
    """The patterns that describe how folders were interpreted, as in `layout`: ["{split}/{label}/{name}"]."""
    found = [(_home(name), split, label) for name, (split, label) in places.items() if is_image(name)]
    by_split: dict[str | None, list[tuple[Home, str]]] = defaultdict(list)
    for home, split, label in found:
        if label is not None:
            by_split[split].append((home, label))
    split_depth = _usual_depth((home, split) for home, split, _ in found if split is not None)
    label_depths = {split: _usual_depth(pairs, split_depth) for split, pairs in by_split.items()}
    deepest: dict[Home, int] = {}  # pattern, as a tuple of folders -> the largest depth of its images
    for home, split, label in found:
        fields = {} if split is None else {split_depth: "{split}"}
        if label is not None:
            fields[label_depths[split]] = "{label}"
        if not fields or None in fields:
            continue
        last = max(depth for depth in fields if depth is not None)
        first = min(depth for depth in fields if depth is not None)
        shape = tuple(fields.get(depth, _literal(home[depth]) if depth < first else "*") for depth in range(last + 1))
        deepest[shape] = max(deepest.get(shape, 0), len(home))
    order = sorted(deepest, key=lambda shape: ("{label}" not in shape, -len(shape), shape))
    return ["/".join([*shape, *(["**"] if deepest[shape] > len(shape) else []), "{name}"]) for shape in order]


def _usual_depth(pairs: Iterable[tuple[Home, str]], other_than: int | None = None) -> int | None:
    """The depth at which the names most often occur in their paths; None if no name occurs in its path."""
    depths = Counter(
        depth for home, name in pairs for depth, folder in enumerate(home) if folder == name and depth != other_than
    )
    return min(depths, key=lambda depth: (-depths[depth], depth), default=None)


# --- Words


def _home(name: str) -> Home:
    return tuple(name.split("/")[:-1])


def _children(homes: Iterable[Home]) -> dict[Home, set[str]]:
    """The names of the folders in each folder."""
    children: dict[Home, set[str]] = defaultdict(set)
    for home in homes:
        for depth, name in enumerate(home):
            children[home[:depth]].add(name)
    return children


def _repeats(name: str, split: str) -> bool:
    """Whether a folder has the same name as the split that it is in, or a name with the same meaning."""
    return name.casefold() == split.casefold() or (meaning(split) is not None and meaning(name) == meaning(split))


def _literal(folder: str) -> str:
    """A folder's name as part of a pattern: "*" if it has braces or stars, which are special characters there."""
    return "*" if re.search(r"[{}*]", folder) else folder


def _few(names: Sequence[str], most: int = _SHOWN) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _counted(counts: Mapping[str, int]) -> str:
    return _few([f"{name} ({counts[name]:,})" for name in sorted(counts)])
