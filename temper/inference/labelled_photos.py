"""Finds photos and their classes: in class folders, in a folder of photos without classes, or in a table.

The class that a name means is never guessed (law 14): the name of a folder or in a table is a class of the model if the
two differ at most in case, spaces, hyphens and underscores. All other names are reported as unknown.
"""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from temper.base.errors import TemperError
from temper.inference.named_photos import SCHEMES, NamedPhoto, files_in
from temper.network.redaction import redacted, secrets_of

TABLES = (".csv", ".tsv")
CLASS_COLUMNS = ("class", "class_name", "label")  # a table must have exactly one of them
_SHOWN = 10  # the most names in a message


@dataclass(frozen=True)
class Labelled:
    """A photo, and the name of its class as it was published; `None` if it has none."""

    photo: NamedPhoto
    published: str | None


def read_labelled(place: str) -> list[Labelled]:
    """The photos of a folder, sorted by path, or those of a table, in its order.

    Raises:
        TemperError: there is no such folder or table, it has no photos, or the folder can be read in two ways.
    """
    path = Path(place)
    if path.is_dir():
        found = _of_folder(path)
    elif path.is_file() and path.suffix.lower() in TABLES:
        found = _of_table(path)
    else:
        raise TemperError(f"{place}: expected a folder, or a table whose name ends in {' or '.join(TABLES)}")
    if not found:
        raise TemperError(f"{place}: expected photos, found none; photos are known by the endings of their names")
    return found


def _of_folder(folder: Path) -> list[Labelled]:
    """The photos in class folders, at any depth below each; or those in a folder without folders of photos inside."""
    found = []
    for path in files_in(folder):
        inside = Path(path).relative_to(folder).parts
        found.append(Labelled(NamedPhoto(path, path), inside[0] if len(inside) > 1 else None))
    beside = sum(one.published is None for one in found)
    if 0 < beside < len(found):
        names = sorted({str(one.published) for one in found if one.published is not None})
        raise TemperError(
            f"{folder}: expected class folders or photos alone, received both: {beside} photos beside {listed(names)}; "
            "name one class folder or the folder of photos, or list them in a table of path and class"
        )
    return found


def _of_table(path: Path) -> list[Labelled]:
    """The rows of a table. Paths are relative to its folder, http(s) addresses are kept, an empty class means none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            names = rows.fieldnames or []
            column = [name for name in CLASS_COLUMNS if name in names]
            if "path" not in names or len(column) != 1:
                raise TemperError(
                    f"{path}: expected the columns path and one of {', '.join(CLASS_COLUMNS)}, received "
                    f"{', '.join(names) or 'none'}; write them into its first line"
                )
            return [_row(path, row["path"], row[column[0]]) for row in rows if any(row.values())]
    except (csv.Error, UnicodeDecodeError) as error:
        raise TemperError(f"{path}: expected a table in UTF-8: {error}; save it anew") from None


def _row(table: Path, place: str | None, published: str | None) -> Labelled:
    place = place or ""
    if place.startswith(SCHEMES):
        photo = NamedPhoto(redacted(place, secrets_of(place)), place)
    else:
        photo = NamedPhoto(place, str(table.parent / place), None if place else "a row without a path")
    return Labelled(photo, published or None)


def normalized(name: str) -> str:
    """A name in a normal form without differences in case, spaces, hyphens, underscores and Unicode composition."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def match(published: Iterable[str], classes: Sequence[str]) -> dict[str, str | None]:
    """The class that each published name means; `None` if it means no class, or could mean several."""
    known: dict[str, list[str]] = {}
    for name in classes:
        known.setdefault(normalized(name), []).append(name)
    found: dict[str, str | None] = {}
    for name in published:
        alike = known.get(normalized(name), [])
        found[name] = name if name in classes else alike[0] if len(alike) == 1 else None
    return found


def strangers(photos: Iterable[Labelled], meant: dict[str, str | None]) -> Counter[str]:
    """The published names that mean no class, with their numbers of photos."""
    return Counter(one.published for one in photos if one.published is not None and meant[one.published] is None)


def listed(names: Iterable[str]) -> str:
    """The first of some names, and how many there are in all, for a message."""
    every = list(names)
    return ", ".join(every[:_SHOWN]) + (f", ... ({len(every)} in all)" if len(every) > _SHOWN else "")
