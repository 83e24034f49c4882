"""Reads tables of the URLs of published photos: CSV, TSV, Parquet, or a Darwin Core archive.

Only the needed columns are read, and they stay in Arrow's memory: 665,803 rows take some 100 MB instead of some GB of
Python objects.
"""

import codecs
import csv
import difflib
import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from stages.fetch.reading import zips
from stages.fetch.reading.archives import DAMAGE, is_of_the_disk
from temper.base.disk import in_words
from temper.base.errors import TemperError
from temper.network.redaction import redacted

COLUMNS = ("url", "label", "split", "licence")
MOST_BYTES = 4 * 10**9
_BLOCK = 4 * 2**20  # bytes that Arrow reads at a time; no row may be longer
_LONGEST_LINE = 2**20  # characters of the header
_LONGEST_FILE_NAME = 255
_META_BYTES = 2**20  # how much of meta.xml is read; published files have 30 KB
_LICENCES = 20  # how many licences source.json lists by name


@dataclass(frozen=True)
class UrlTable:
    """The rows of a table, and facts about it."""

    rows: pa.Table  # COLUMNS as texts, null for empty cells (a url never is); each (url, label, split) once, in order
    facts: dict[str, object]


def read_url_table(path: Path, label: str, most_bytes: int = MOST_BYTES) -> UrlTable:
    """Reads the table at `path`, with the labels of its column `label`.

    Args:
        most_bytes: how much memory the needed columns may take.

    Raises:
        TemperError: the file, or a column of it, is missing, damaged, too large or of another format.
    """
    if path.is_dir() or path.suffix.lower() == ".zip":
        rows, facts = _read_archive(path, label, most_bytes)
    elif path.suffix.lower() in {".csv", ".tsv", ".txt", ".parquet"}:
        rows, facts = _read_table(path, label, most_bytes), {}
    else:
        raise TemperError(f"{path}: expected .csv, .tsv, .txt, .parquet, or a Darwin Core archive (.zip or a folder)")
    rows = _without_repeats(rows)
    return UrlTable(rows, _checksum(path) | {"label": label, "licence": _count_licences(rows["licence"])} | facts)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the libraries' exceptions for damaged files or other formats into a TemperError of one line."""
    try:
        yield
    except FileNotFoundError:
        raise TemperError(f"{path}: expected a table, found nothing there; correct it") from None
    except (pa.ArrowException, csv.Error, LookupError, *DAMAGE) as error:
        if is_of_the_disk(error):
            raise
        # The error may quote a row, and the row may contain a URL with a token.
        raise TemperError(f"{path}: expected a readable table, received {redacted(str(error))[:300]}") from None


# --- CSV, TSV, Parquet


def _read_table(path: Path, label: str, most_bytes: int) -> pa.Table:
    with _readable(path):
        layout = _Layout("," if path.suffix.lower() == ".csv" else "\t")
        names = pq.read_schema(path).names if path.suffix.lower() == ".parquet" else _header(path, layout)
        url, named = _column(path, names, "url"), _column(path, names, label, key="label")
        split = _column(path, names, "split", optional=True)
        licence = _column(path, names, "licence", "license", optional=True)
        wanted = [url, named, split, licence]
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as parquet:
                schema = pa.schema([parquet.schema_arrow.field(name) for name in _named(names, wanted)])
                table = _gather(parquet.iter_batches(columns=schema.names), schema, path, most_bytes)
            columns = [None if index is None else table[names[index]].cast(pa.string()) for index in wanted]
        else:
            with path.open("rb") as file:
                columns = _read_columns(file, replace(layout, width=len(names)), wanted, path, most_bytes)
    rows = _as_rows(columns)
    if rows["url"].null_count:
        number = pc.index(pc.is_null(rows["url"]), True).as_py() + 1
        raise TemperError(f"{path}: expected a url in every row, found none in data row {number}; remove the row")
    return rows


@dataclass(frozen=True)
class _Layout:
    """The format of a table in a text file."""

    delimiter: str
    quote: str | None = '"'
    header_lines: int = 1
    encoding: str = "utf8"
    width: int | None = None  # how many columns each row must have; None: as many as the first row


def _header(path: Path, layout: _Layout) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = iter(lambda: file.readline(_LONGEST_LINE), "")
        return [name.strip() for name in next(csv.reader(lines, delimiter=layout.delimiter), [])]


def _named(names: Sequence[str], wanted: Sequence[int | None]) -> list[str]:
    return list(dict.fromkeys(names[index] for index in wanted if index is not None))


def _gather(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, most_bytes: int) -> pa.Table:
    """A table of these batches. Their size is counted as they arrive, since a small file may expand to many equal rows.

    Raises:
        TemperError: they take more than `most_bytes`.
    """
    kept, left = [], most_bytes
    for batch in batches:
        left -= batch.nbytes
        if left < 0:
            raise TemperError(
                f"{path}: expected columns of at most {in_words(most_bytes)}, received more; raise max_table_mb of "
                "its source if that is right"
            )
        kept.append(batch)
    return pa.Table.from_batches(kept, schema)


def _column(
    path: Path, names: Sequence[str], *wanted: str, optional: bool = False, key: str | None = None
) -> int | None:
    """The index of the column with one of the names `wanted`; if there is none, upper and lower case are ignored.

    Args:
        optional: whether None is returned if there is no such column.
        key: the setting that the name comes from, for the error message.
    """
    lower = ([name.lower() for name in names], [name.lower() for name in wanted])
    for known, asked in ((list(names), list(wanted)), lower):
        for name in asked:
            if known.count(name) > 1:
                raise TemperError(f"{path}: expected one column {name}, found {known.count(name)}; rename one")
            if name in known:
                return known.index(name)
    if optional:
        return None
    close = difflib.get_close_matches(wanted[0], names, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    where = f" ({key})" if key else ""
    raise TemperError(f"{path}: expected a column {wanted[0]}{where}, found {', '.join(names)[:500] or 'none'}{hint}")


def _read_columns(
    file: IO[bytes], layout: _Layout, wanted: Sequence[int | None], path: Path, most_bytes: int
) -> list[pa.ChunkedArray | None]:
    """Reads some columns of a text file, chosen by index, as text.

    Arrow reads the stream block by block. It does not limit the length of a field, as the csv module does; only a row
    cannot be longer than a block.
    """
    names = {index: f"f{index}" for index in wanted if index is not None}  # Arrow's own names for unnamed columns
    reader = arrow_csv.open_csv(
        file,
        arrow_csv.ReadOptions(
            skip_rows=layout.header_lines,
            column_names=[f"f{index}" for index in range(layout.width or 0)],
            autogenerate_column_names=layout.width is None,
            block_size=_BLOCK,
            encoding=layout.encoding,
        ),
        arrow_csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char=layout.quote or False,
            newlines_in_values=layout.quote is not None,
        ),
        arrow_csv.ConvertOptions(
            include_columns=list(names.values()), column_types=dict.fromkeys(names.values(), pa.string())
        ),
    )
    table = _gather(reader, reader.schema, path, most_bytes)
    return [None if index is None else table[names[index]] for index in wanted]


def _as_rows(columns: Sequence[pa.ChunkedArray | None]) -> pa.Table:
    """A table with the columns COLUMNS; empty cells and missing columns (None) are null."""
    count = next(len(column) for column in columns if column is not None)
    return pa.table(
        [pa.nulls(count, pa.string()) if column is None else _tidy(column) for column in columns], names=COLUMNS
    )


def _tidy(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without surrounding white space; null if nothing is left."""
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


# --- Darwin Core archives (https://dwc.tdwg.org/text/), the format of GBIF's downloads


@dataclass(frozen=True)
class _DwcFile:
    """A file of the archive, as described in meta.xml."""

    name: str
    layout: _Layout
    identity: int  # the index of the column that joins the extension to the core
    fields: dict[str, int]  # the indexes of the columns by the last part of their terms: species, identifier, ...


def _read_archive(path: Path, label: str, most_bytes: int) -> tuple[pa.Table, dict[str, object]]:
    """The images of multimedia.txt, in its order, each with the label and licence of its row in occurrence.txt.

    An image's own licence takes precedence over that of its occurrence.
    """
    with _readable(path):
        core, media = _read_meta(path)
        named = _field(path, core, label, key="label")
        address = _field(path, media, "accessURI" if "accessURI" in media.fields else "identifier")
        with _open_inside(path, media.name) as file:
            optional = [media.fields.get(term) for term in ("type", "format", "license")]
            wanted = [media.identity, address, *optional]
            joined, urls, *said = _read_columns(file, media.layout, wanted, path / media.name, most_bytes)
        with _open_inside(path, core.name) as file:
            wanted = [core.identity, named, core.fields.get("license")]
            identities, labels, licences = _read_columns(file, core.layout, wanted, path / core.name, most_bytes)
        doi = _doi(path)
    at = pc.index_in(joined, value_set=identities)
    nothing = pa.nulls(len(at), pa.string())
    kind, form, licence = (nothing if column is None else _tidy(column) for column in said)
    of_occurrence = nothing if licences is None else _tidy(pc.take(licences, at))
    rows = _as_rows([urls, pc.take(labels, at), None, pc.coalesce(licence, of_occurrence)])
    images = rows.filter(pc.and_(_are_images(kind, form), pc.is_valid(rows["url"])))
    return images, {"media_left_out": len(rows) - len(images)} | ({"doi": doi} if doi else {})


def _are_images(kind: pa.ChunkedArray, form: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each medium is an image. A medium without type and format is taken for one: decoding will show."""
    still = pc.fill_null(pc.match_substring_regex(kind, "(?i)(^|/)(StillImage|image)$"), False)
    image = pc.fill_null(pc.match_substring_regex(form, "(?i)^image/"), False)
    return pc.or_(pc.or_(still, image), pc.and_(pc.is_null(kind), pc.is_null(form)))


def _field(path: Path, file: _DwcFile, term: str, key: str | None = None) -> int:
    """The index of the column of `term`."""
    place = _column(path / file.name, list(file.fields), term, key=key)
    assert place is not None  # it is not optional
    return list(file.fields.values())[place]


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses document type declarations, the only place where XML entities (and entity bombs) can be declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("one with a DOCTYPE; remove that")


def _read_meta(path: Path) -> tuple[_DwcFile, _DwcFile]:
    """The core of the archive (occurrence.txt) and its images (multimedia.txt)."""
    with _open_inside(path, "meta.xml") as file:
        text = file.read(_META_BYTES)
    try:
        archive = ElementTree.fromstring(text, ElementTree.XMLParser(target=_WithoutDoctype()))
        cores, extensions = archive.findall("{*}core"), archive.findall("{*}extension")
        media = [extension for extension in extensions if extension.get("rowType", "").endswith("/Multimedia")]
        if len(cores) != 1 or not media:
            found = ", ".join(str(part.get("rowType")) for part in cores + extensions)
            raise ValueError(f"row types {found or 'none'} instead of a core and .../Multimedia")
        # Prefer GBIF's own extension, whose values are interpreted, to that of Audubon Core, with values as published.
        media.sort(key=lambda extension: "rs.gbif.org" not in extension.get("rowType", ""))
        return _described(cores[0], "id"), _described(media[0], "coreid")
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        raise TemperError(
            f"{path}: expected the meta.xml of a Darwin Core archive, received {str(error)[:500]}"
        ) from None


def _described(element: ElementTree.Element, identity: str) -> _DwcFile:
    """Parses the description of a file in meta.xml; the defaults are those of the Darwin Core text guide.

    Raises:
        ValueError, LookupError: the description is invalid, or the file cannot be read here.
    """
    names = [location.text or "" for location in element.findall("{*}files/{*}location")]
    joins = element.find(f"{{*}}{identity}")
    if len(names) != 1 or Path(names[0]).name != names[0] or len(names[0]) > _LONGEST_FILE_NAME or joins is None:
        raise ValueError(f"locations {str(names)[:300]} instead of one plain file name, or no <{identity} index=...>")
    delimiter = element.get("fieldsTerminatedBy", ",").replace("\\t", "\t")
    quote = element.get("fieldsEnclosedBy", '"')
    if len(delimiter) != 1 or len(quote) > 1 or not (delimiter + quote).isascii():
        raise ValueError(
            f"fields ended by {delimiter[:30]!r}, enclosed by {quote[:30]!r} instead of by one ASCII character"
        )
    header_lines = _number(element.get("ignoreHeaderLines", "0"), "ignoreHeaderLines")
    layout = _Layout(delimiter, quote or None, header_lines, _encoding(element.get("encoding", "UTF-8")))
    fields: dict[str, int] = {}
    for field in element.findall("{*}field"):
        if (index := field.get("index")) is not None:
            fields.setdefault(re.split("[/#]", field.get("term", ""))[-1], _number(index, "index"))
    return _DwcFile(names[0], layout, _number(joins.get("index", "0"), "index"), fields)


def _number(text: str, what: str) -> int:
    """A number of lines or columns.

    Raises:
        ValueError: the text is not a number from 0 to 9999.
    """
    if not re.fullmatch(r"[0-9]{1,4}", text.strip()):
        raise ValueError(f"{what}={text[:30]!r} instead of a number up to 9999")
    return int(text)


def _encoding(name: str) -> str:
    """Python's name for a text encoding.

    Raises:
        ValueError: Python does not know the encoding, or it is not one of text.
    """
    try:
        if "a\t".encode(name).decode(name) != "a\t":
            raise LookupError
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ValueError(f"encoding={name[:30]!r} instead of one such as UTF-8") from None


@contextmanager
def _open_inside(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Opens a file in an archive, or in the folder that the archive was unpacked to."""
    if path.is_dir():
        if not (path / name).is_file():
            raise TemperError(f"{path}: expected a Darwin Core archive, found no {name} in it")
        with (path / name).open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            raise TemperError(f"{path}: expected a Darwin Core archive, found no {name} in it")
        try:
            member = zips.open_member(archive, archive.getinfo(name))
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
            raise TemperError(f"{path}: expected a plain zip, received {error}") from None
        with member:
            yield member


def _doi(path: Path) -> str | None:
    """The DOI of a GBIF download, by which publications cite it; None if the archive does not contain it."""
    for name in ("metadata.xml", "citations.txt"):
        try:
            with _open_inside(path, name) as file:
                found = re.search(rb"10\.15468/dl\.[0-9a-z]+", file.read(_META_BYTES))
        except TemperError:  # not every archive has it
            continue
        if found:
            return found.group().decode()
    return None


# --- What all formats have in common


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Keeps the first row of each (url, label, split). A URL with two labels stays twice; `normalize` reports it."""
    keys = np.zeros(len(rows), np.int64)  # a number for each triple: Arrow's group_by on texts needs 3 times the memory
    for name in ("url", "label", "split"):
        values = pc.unique(rows[name])
        keys = keys * len(values) + pc.index_in(rows[name], value_set=values).to_numpy()
    first = np.sort(np.unique(keys, return_index=True)[1])
    return rows if len(first) == len(rows) else rows.take(pa.array(first))


def _count_licences(column: pa.ChunkedArray) -> str:
    """The number of photos with each licence: `CC_BY_4_0 (120), CC0_1_0 (3), none stated (1)`."""
    counts: list[dict[str, Any]] = pc.value_counts(pc.fill_null(column, "none stated")).to_pylist()
    counts.sort(key=lambda count: (-count["counts"], count["values"]))
    named = [f"{count['values']} ({count['counts']})" for count in counts[:_LICENCES]]
    others = sum(count["counts"] for count in counts[_LICENCES:])
    return ", ".join([*named, *([f"others ({others})"] if others else [])]) or "none stated"


def _checksum(path: Path) -> dict[str, object]:
    if path.is_dir():
        return {}
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
