"""`source: csv`: a table of file names and labels beside a folder of images, as Kaggle's competitions ship them."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from stages.fetch.bundles import Bundle, open_bundle
from stages.fetch.kaggle_downloads import obtain_dataset
from stages.fetch.layouts import Place, is_image, split_named
from stages.fetch.source import Photo, Source
from temper.errors import TemperError
from temper.params import CsvSource


def open_source(settings: CsvSource, local: Path) -> Source:
    """The images that the table names, with its labels; then the unlabelled; then what it names and is not there.

    Raises:
        TemperError: the table or one of its columns is missing, it is no UTF-8 text, or none of its images is there.
    """
    downloaded = obtain_dataset(settings.kaggle, []) if settings.kaggle else None
    bundle = open_bundle(downloaded.folder if downloaded else local)
    rows = read_rows(bundle, settings)
    places, missing = match_rows(rows, bundle, settings)
    if not places:
        raise TemperError(
            f"sources.csv.table {settings.table}: expected images in {settings.images or 'the top folder'}, found none "
            f"of {len(rows)}, such as {next(iter(rows), 'none')}; correct sources.csv.images or image_column"
        )
    unlabelled = unlabelled_images(bundle, settings) - set(places)

    def photos() -> Iterator[Photo]:
        for name, data in bundle.read(set(places) | unlabelled):
            for split, label in places.get(name, [(None, None)]):
                yield Photo(name, label, split, data)
        for name in missing:
            for split, label in rows[name]:
                yield Photo(name, label, split, b"", problem=f"named in {settings.table}, but not there")

    total = sum(map(len, places.values())) + len(unlabelled) + sum(len(rows[name]) for name in missing)
    facts = downloaded.facts if downloaded else {"from": local.name, "licence": "as its owner says"}
    return Source({"source": "csv", **facts, "table": settings.table, "label": settings.label_column}, total, photos())


def read_rows(bundle: Bundle, settings: CsvSource) -> dict[str, list[Place]]:
    """The (split, label) pairs of each name in the table; a name with two labels has two."""
    table = bundle.find(settings.table)
    if table is None:
        raise TemperError(f"sources.csv.table: expected {settings.table}, found {', '.join(bundle.files[:5])}, ...")
    try:
        text = bundle.only(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemperError(f"{settings.table}: expected UTF-8 text, received {error}; save it as UTF-8") from None
    delimiter = "\t" if table.lower().endswith(".tsv") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    for column in filter(None, (settings.image_column, settings.label_column, settings.split_column)):
        if column not in (reader.fieldnames or ()):
            raise TemperError(f"{settings.table}: expected a column {column}, received {reader.fieldnames}")
    rows: dict[str, list[Place]] = defaultdict(list)
    for row in reader:
        place = _place(row, settings, reader.line_num)
        if place not in rows[row[settings.image_column]]:
            rows[row[settings.image_column]].append(place)
    return rows


def _place(row: dict[str, str], settings: CsvSource, line: int) -> Place:
    label = row[settings.label_column].strip() or None
    if settings.split_column is None or not row[settings.split_column].strip():
        return None, label
    named = row[settings.split_column].strip()
    split = split_named(named)
    if split is None:
        raise TemperError(f"{settings.table}, line {line}: expected train, validation or test, received {named!r}")
    return split, label


def match_rows(
    rows: dict[str, list[Place]], bundle: Bundle, settings: CsvSource
) -> tuple[dict[str, list[Place]], list[str]]:
    """The places of each file that the table names, with or without its ending; and the names without a file."""
    inside = {_inside(name, settings.images): name for name in sorted(bundle.files, reverse=True) if is_image(name)}
    without_ending = {str(PurePosixPath(name).with_suffix("")): path for name, path in inside.items() if name}
    places: dict[str, list[Place]] = {}
    missing = []
    for name, of_name in rows.items():
        path = inside.get(name) or without_ending.get(name)
        if name and path:
            places.setdefault(path, []).extend(of_name)
        else:
            missing.append(name)
    return places, missing


def unlabelled_images(bundle: Bundle, settings: CsvSource) -> set[str]:
    """The images in the folder of the unlabelled, and those in the table's folder that it does not name."""
    folders = [settings.images, *filter(None, [settings.unlabelled])]
    found = {name for name in bundle.files for folder in folders if is_image(name) and _inside(name, folder)}
    if settings.unlabelled and not any(_inside(name, settings.unlabelled) for name in found):
        raise TemperError(f"sources.csv.unlabelled: expected images in {settings.unlabelled}, found none; or set null")
    return found


def _inside(name: str, folder: str) -> str:
    """The path of a file below a folder, which may itself lie below others; "" if it is not in it."""
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(folder).parts
    if not wanted:
        return name
    for start in range(len(parts) - len(wanted)):
        if parts[start : start + len(wanted)] == wanted:
            return "/".join(parts[start + len(wanted) :])
    return ""
