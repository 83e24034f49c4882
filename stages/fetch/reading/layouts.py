"""Where a published file belongs: its split and label, by the names of its folders or by a pattern.

The names travel as published: a split folder called `training_set` gives the split `training_set`, and `normalize`
decides which split that is. What was understood is printed (`describe`) and written to source.json (`facts`); folders
that can be read in two ways stop the run, with both readings and the `layout` that chooses each.
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

Place = tuple[str | None, str | None]  # split, label, both as published; None: the source says none
Home = tuple[str, ...]  # the folders that a file is in, from the top

_SHOWN = 5  # names in a line


# --- By patterns


def place_by_patterns(files: Iterable[str], patterns: Sequence[str]) -> dict[str, Place]:
    """The (split, label) of each image by the first of `patterns` that fits the end of its path.

    A pattern is a path such as `{split}/{label}/{name}` or `{split}/{label}.{name}`. `{split}` is any one folder,
    whatever its name; `*` is anything within one folder's name; `**/` is any number of folders, also none. Images
    that no pattern fits are unlabelled; files that are no images are left out.

    A label that only repeats the split does not count: Kaggle unpacks `test.zip`, which holds `test/`, into
    `test/test/`, and that is no class. It does count beside other folders, as in `train/{bus,car,train}/`.

    Raises:
        TemperError: no pattern fits any image.
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
    """The place of an image by one pattern, at the first folder from which it fits to the end."""
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

    Folders that hold everything (`flowers/...`) say nothing. Below them come split folders (all named as one, see
    `temper.split_names`) with class folders in them, or class folders at once, or class folders that each hold split
    folders. Inside a split, a folder that holds the whole of it and is called like the split (`test/test/`) or only
    after what it is (`train/images/`) is passed over. Images directly in a split, or above all class folders, are
    unlabelled. Other files above or beside these folders (a README, `annotations/`) are left out.

    Raises:
        TemperError: no class folder, a class folder without files, split folders among other folders, or folders
            that could be read in two ways.
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
    """At which depths of a path the split and the label stand. The folder below `above` is called a head."""

    above: Home  # the folders that hold every image
    split: int | None
    labels: Mapping[str, int]  # by head, since one split may be nested deeper than another

    def label_depth(self, home: Home) -> int | None:
        """Where the label of a file stands; None outside of them, as in `annotations/` beside splits."""
        top = len(self.above)
        if len(home) <= top or home[:top] != self.above:
            return None
        # A class folder without images, whose files may be of an unknown format, is a class nevertheless.
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
    """The folders that hold images, and how many leading ones of them (`top`) hold everything."""

    homes: Counter[Home]  # the number of images directly in each
    top: int

    @cached_property
    def heads(self) -> dict[str, list[Home]]:
        """The first folders that tell images apart, sorted, each with the folders of images in it."""
        heads: dict[str, list[Home]] = defaultdict(list)
        for home in sorted(self.homes):
            if len(home) > self.top:
                heads[home[self.top]].append(home)
        return heads

    @property
    def above(self) -> Home:
        """The folders that hold every image."""
        return next(iter(self.homes))[: self.top]

    @cached_property
    def children(self) -> Mapping[Home, set[str]]:
        """The folders in each folder."""
        return _children(self.homes)

    def holds_images(self, head: str) -> bool:
        """Whether images lie directly in a head, as they do in a class and not in a split."""
        return any(len(home) == self.top + 1 for home in self.heads[head])

    def counted(self, heads: Iterable[str]) -> str:
        """Some heads with their numbers of images."""
        return _counted({head: sum(self.homes[home] for home in self.heads[head]) for head in heads})

    def layout(self, *fields: str, folders: int | None = None) -> str:
        """The setting that reads the folders from the heads on as `fields`.

        Args:
            folders: how many an image lies in, if all lie equally deep and the last are `fields`.
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
    """How many leading folders hold every image and are neither a split nor the only class."""
    first, last = min(homes), max(homes)
    differ = (depth for depth, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    shared = next(differ, min(len(first), len(last)))
    meanings = {meaning(home[shared]) if len(home) > shared else None for home in homes}
    if len(meanings) > 1 and None not in meanings:
        return shared  # train/ and test/, whatever the folder that holds both is called
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
    """Whether a folder is named as a split of the dataset that the others are of.

    Plain `train` is, and `cars_train` alone or beside `cars_test`; not `steam_train` beside `freight_train` or `bus`.
    """
    if not meaning(head) or not prefix(head) or len(heads) == 1:
        return meaning(head) is not None
    return any(meaning(other) and prefix(other) in ("", prefix(head)) for other in heads if other != head)


def _holds_splits_only(inside: Iterable[Home], top: int) -> bool:
    """Whether a head holds nothing but folders named as splits."""
    return all(len(home) > top + 1 and meaning(home[top + 1]) for home in inside)


def _read_splits(tree: _Tree) -> _Reading:
    """The reading of heads that are all splits: where in each its classes are."""
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
    """Goes one folder deeper where every split has its classes in one: `train/flowers/{rose,tulip}`."""
    filled = {path: names for path in paths.values() if (names := tree.children.get(path))}
    names = set().union(*filled.values())
    if len(names) != 1:
        return paths
    below = [tree.children.get((*path, *names), set()) for path in filled]
    if not all(below) or len(set().union(*below)) < 2:
        return paths
    return {head: (*path, *names) if path in filled else path for head, path in paths.items()}


def _refuse_empty_classes(homes: set[Home], folders: Iterable[str], reading: _Reading) -> None:
    """Stops at a folder beside the class folders that holds no file."""
    depths = {home: depth for home in homes if (depth := reading.label_depth(home)) is not None}
    filled = {home[:end] for home in homes for end in range(1, len(home) + 1)}
    parents = {home[:depth] for home, depth in depths.items() if len(home) > depth}
    for folder in folders:
        parts = tuple(folder.split("/"))
        if parts[:-1] in parents and parts not in filled:
            raise TemperError(f"expected images in every class folder, found none in {folder}; fill it or remove it")


# --- What can be read in two ways


def _two_ways(received: str, first: str, second: str) -> TemperError:
    return TemperError(
        f"{received}. They can be read in two ways; choose one in the settings of the source. (1) {first}. (2) {second}"
    )


def _refuse_several_prefixes(tree: _Tree) -> None:
    """Stops at `cats_train/`, `cats_test/`, `dogs_train/`, `dogs_test/`."""
    prefixes = sorted({prefix(head) for head in tree.heads} - {""})
    if len(prefixes) > 1:
        between = next((mark for mark in "_- ." if all(mark in head for head in tree.heads)), "_")
        raise _two_ways(
            f"expected split folders of one dataset, received those of {_few(prefixes)}: {_few(list(tree.heads))}",
            f"All are splits: {tree.layout('{split}', '{label}')}",
            f"{_few(prefixes)} are the classes: {tree.layout('{label}' + between + '{split}')}",
        )


def _refuse_mixed_heads(tree: _Tree) -> None:
    """Stops at split folders among others. One that holds images itself, beside class folders, is a class."""
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
    """Stops where some class folders hold folders for several splits and others do not."""
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
    """Stops at `train/{train,val}/...`."""
    deeper = any(tree.children.get((*path, name)) for name in tree.children[path])
    inner = ["{split}/{label}/{name}", "{split}/{name}"] if deeper else ["{split}/{name}"]
    raise _two_ways(
        f"expected class folders in the split {'/'.join(path)}, received folders that are named as splits again: "
        f"{_few(sorted(tree.children[path]))}",
        f"They are the splits: layout: {json.dumps(inner)}",
        f"They are classes in a split: {tree.layout('{split}', '{label}')}",
    )


def _refuse_look_alikes(tree: _Tree, reading: _Reading) -> None:
    """Stops where class folders hold folders of the same names: `set1/{cats,dogs}`, `set2/{cats,dogs}`.

    The other reading, in which those are the classes, needs two of them: `ant/images/`, `bee/images/` can be read in
    one way only. It also needs most folders to take part, which one does if at least half of the names in it are found
    in another folder too: two genera with one species name in common are no splits.
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


# --- What was understood, as patterns


def read_as(places: Mapping[str, Place]) -> list[str]:
    """The patterns that folders were read as, in the form of the setting `layout`: ["{split}/{label}/{name}"]."""
    found = [(_home(name), split, label) for name, (split, label) in places.items() if is_image(name)]
    by_split: dict[str | None, list[tuple[Home, str]]] = defaultdict(list)
    for home, split, label in found:
        if label is not None:
            by_split[split].append((home, label))
    split_depth = _usual_depth((home, split) for home, split, _ in found if split is not None)
    label_depths = {split: _usual_depth(pairs, split_depth) for split, pairs in by_split.items()}
    deepest: dict[Home, int] = {}  # of each shape, how deep its images lie
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
    """At which depth the names stand in their paths, most often; None: in none."""
    depths = Counter(
        depth for home, name in pairs for depth, folder in enumerate(home) if folder == name and depth != other_than
    )
    return min(depths, key=lambda depth: (-depths[depth], depth), default=None)


# --- Words


def _home(name: str) -> Home:
    return tuple(name.split("/")[:-1])


def _children(homes: Iterable[Home]) -> dict[Home, set[str]]:
    """The folders in each folder."""
    children: dict[Home, set[str]] = defaultdict(set)
    for home in homes:
        for depth, name in enumerate(home):
            children[home[:depth]].add(name)
    return children


def _repeats(name: str, split: str) -> bool:
    """Whether a folder is called like the split that it is in, or stands for the same one."""
    return name.casefold() == split.casefold() or (meaning(split) is not None and meaning(name) == meaning(split))


def _literal(folder: str) -> str:
    """A folder's name in a pattern, where braces and stars have a meaning of their own."""
    return "*" if re.search(r"[{}*]", folder) else folder


def _few(names: Sequence[str], most: int = _SHOWN) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _counted(counts: Mapping[str, int]) -> str:
    return _few([f"{name} ({counts[name]:,})" for name in sorted(counts)])
