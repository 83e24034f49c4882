"""`source: csv`: a table of file names and labels beside a folder of images, as Kaggle's competitions ship them."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from stages.fetch.reading.bundles import Bundle, open_bundle
from stages.fetch.reading.kaggle_downloads import obtain_dataset
from stages.fetch.reading.layouts import Place
from stages.fetch.reading.notations import Slug
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.base.paths import existing
from temper.endings import is_image
from temper.settings.base import Text
from temper.settings.fetch import ArchiveSettings


class Settings(ArchiveSettings):
    """`source: csv`: a table of file names and labels beside a folder of images, from Kaggle or from `path`."""

    source: Literal["csv"]
    kaggle: Slug | None = Field(
        None, description="the dataset (owner/name) or competition on Kaggle to download; null: the files are at `path`"
    )
    table: Text = Field("train.csv", description="the path of the table within the data")
    images: str = Field(
        "train", description='the folder of the images within the data; "": the table has their whole paths'
    )
    unlabelled: Text | None = Field(
        None, description="a folder of unlabelled images within the data, which are only predicted; null: none"
    )
    image_column: Text = Field("id", description="the column of the file names, with or without their endings")
    label_column: Text = Field("label", description="the column of the class names")
    split_column: Text | None = Field(None, description="the column of the published splits; null: none")


def open_source(settings: Settings) -> Source:
    """The images that the table names, with their labels, and the unlabelled images.

    Files that cannot be read, and images that the table names but that do not exist, come last, as photos with a
    problem.

    Raises:
        TemperError: the table or one of its columns is missing, the table is not UTF-8 text, or none of its images
            exists.
    """
    downloaded = obtain_dataset(settings.kaggle, []) if settings.kaggle else None
    bundle = open_bundle(downloaded.folder if downloaded else existing(settings.path), settings.limits)
    rows = read_rows(bundle, settings)
    places, missing = match_rows(rows, bundle, settings)
    if not places:
        raise TemperError(
            f"table {settings.table}: expected images in {settings.images or 'the top folder'}, found none "
            f"of {len(rows)}, such as {next(iter(rows), 'none')}; correct images or image_column"
        )
    unlabelled = unlabelled_images(bundle, settings) - set(places)

    def photos() -> Iterator[Photo]:
        for name, data in bundle.read(set(places) | unlabelled):
            for split, label in places.get(name, [(None, None)]):
                yield Photo(name, label, split, data)
        for name in sorted(set(bundle.unreadable) & (set(places) | unlabelled)):
            for split, label in places.get(name, [(None, None)]):
                yield Photo(name, label, split, b"", problem=bundle.unreadable[name])
        for name in missing:
            for split, label in dict.fromkeys(rows[name]):
                yield Photo(name, label, split, b"", problem=f"named in {settings.table}, but not there")

    total = sum(map(len, places.values())) + len(unlabelled) + sum(len(set(rows[name])) for name in missing)
    facts = (
        downloaded.facts if downloaded else {"from": PurePosixPath(settings.path).name, "licence": "as its owner says"}
    )
    facts = {"source": "csv", **facts, "table": settings.table, "label": settings.label_column}
    return Source(facts, total, photos(), bundle.bytes_of(set(places) | unlabelled))


def read_rows(bundle: Bundle, settings: Settings) -> dict[str, list[Place]]:
    """The (split, label) pairs of each image name in the table; a name with two labels has two pairs."""
    table = bundle.find(settings.table)
    if table is None:
        raise TemperError(f"table: expected {settings.table}, found {', '.join(bundle.files[:5])}, ...")
    try:
        text = bundle.only(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemperError(f"{settings.table}: expected UTF-8 text, received {error}; save it as UTF-8") from None
    try:
        return _rows_of(text, settings)
    except csv.Error as error:
        raise TemperError(f"{settings.table}: expected a table of rows and columns, received {error}") from None


def _rows_of(text: str, settings: Settings) -> dict[str, list[Place]]:
    delimiter = "\t" if settings.table.lower().endswith(".tsv") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="", strict=True)
    for column in filter(None, (settings.image_column, settings.label_column, settings.split_column)):
        if (reader.fieldnames or []).count(column) != 1:
            names = reader.fieldnames or []
            hint = "; its separator is no comma: save it with commas" if len(names) == 1 and ";" in names[0] else ""
            raise TemperError(
                f"{settings.table}: expected one column {column}, received {str(reader.fieldnames)[:500]}{hint}; "
                "see image_column, label_column and split_column"
            )
    rows: dict[str, list[Place]] = defaultdict(list)
    for row in reader:
        rows[row[settings.image_column].strip()].append(_place(row, settings))
    return rows


def _place(row: dict[str, str], settings: Settings) -> Place:
    label = row[settings.label_column].strip() or None
    if settings.split_column is None or not row[settings.split_column].strip():
        return None, label
    return row[settings.split_column].strip(), label


def match_rows(
    rows: dict[str, list[Place]], bundle: Bundle, settings: Settings
) -> tuple[dict[str, list[Place]], list[str]]:
    """The (split, label) pairs of each file that the table names, and the names that no file has.

    The table may give the names with or without file extension.
    """
    inside = {_inside(name, settings.images): name for name in sorted(bundle.images(), reverse=True)}
    inside.pop("", None)
    # Try the full name first, then the name without extension: the table may omit it or write it in another case.
    spellings = [inside, {_stem(name): path for name, path in inside.items()}]
    places: dict[str, list[Place]] = {}
    missing = []
    for name, of_name in rows.items():
        stem = _stem(name) if is_image(name) else name
        path = spellings[0].get(name) or spellings[1].get(stem)
        if path is None:
            missing.append(name)
        else:
            known = places.setdefault(path, [])
            known.extend(place for place in dict.fromkeys(of_name) if place not in known)
    return places, missing


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if name else name


def unlabelled_images(bundle: Bundle, settings: Settings) -> set[str]:
    """The images in the folder `images`, also those that the table names, and in the folder `unlabelled`."""
    folders = [settings.images, *filter(None, [settings.unlabelled])]
    found = {name for name in bundle.images() for folder in folders if _inside(name, folder)}
    if settings.unlabelled and not any(_inside(name, settings.unlabelled) for name in found):
        raise TemperError(f"unlabelled: expected images in {settings.unlabelled}, found none; or set null")
    return found


def _inside(name: str, folder: str) -> str:
    """The path of a file relative to a folder, which may be at any depth; "" if the file is not in such a folder."""
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(folder).parts
    if not wanted:
        return name
    for start in range(len(parts) - len(wanted)):
        if parts[start : start + len(wanted)] == wanted:
            rest = parts[start + len(wanted) :]
            while len(rest) > len(wanted) and rest[: len(wanted)] == wanted:  # train.zip, which contains train/
                rest = rest[len(wanted) :]
            return "/".join(rest)
    return ""
