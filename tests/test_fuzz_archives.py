"""Whatever bytes a source is given, the outcome is rows or one TemperError: no traceback, no hang, bounded memory.

FUZZ=10000 python -m pytest -n0 tests/test_fuzz_archives.py    # examples of each; 60 in the suite, always the same
"""

import bz2
import gzip
import io
import lzma
import os
import pickle
import resource
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.fetch.__main__ import refuse_unusable_names
from stages.fetch.reading.archives import Listing, list_contents
from stages.fetch.reading.bundles import Bundle, forget_unpacked, open_bundle
from stages.fetch.reading.layouts import place_by_folders
from stages.fetch.reading.url_tables import read_url_table
from stages.fetch.sources import cifar100, csv
from temper.base.errors import TemperError
from temper.settings.fetch import Limits
from temper.split_names import meaning
from tests.toys.gbif import META, MULTIMEDIA, OCCURRENCE, gbif_archive, text_table
from tests.toys.photos import toy_photo

EXAMPLES = int(os.environ.get("FUZZ", "60"))
pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ" not in os.environ,
    deadline=5000 if "FUZZ" not in os.environ else 20_000,  # milliseconds of one example, on a loaded machine
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
LIMITS = Limits(2**16, 2**19)
MOST_GROWTH = 200  # MB of memory, over all examples of a test
PHOTO = toy_photo(0, 0)

names = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text(alphabet="ab/.\\ \n\x00\x1b\u202e\u00e9", min_size=1, max_size=12),
    st.sampled_from(["a/1.png", "b/2.png", "train/a/1.png", "test/b/1.png", "a/../../x.png", "/x.png", "./a/1.png"]),
    st.sampled_from(["m.zip", "a/m.tar", "a/m.tgz", "train.csv", "__MACOSX/a/1.png", "a/Icon\r", "a/" * 200 + "1.png"]),
    st.sampled_from(
        ["dataset" * 40 + "/1.png", "train" * 50 + "/x.png", "a" * 300 + ".png", ".png", "a/.png", "..png"]
    ),
    st.builds("/".join, st.lists(st.sampled_from(["train", "test", "a", "b", "images", "val", ""]), max_size=5)),
)
contents = st.one_of(st.just(PHOTO), st.binary(max_size=200), st.sampled_from([bytes(60_000), bytes(70_000)]))
files = st.lists(st.tuples(names, contents), max_size=6)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MOST_GROWTH, f"{grown} MB"


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some changed, cut out or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["set", "set", "set", "cut", "insert", "repeat", "end"]))
        if kind == "set" and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 600))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=40))
        elif kind == "repeat":
            data[place:place] = data[place : place + 512]
        elif kind == "end":
            del data[place:]
    return bytes(data)


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    method = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in draw(files):
            info = zipfile.ZipInfo(name.encode(errors="replace").decode() or "x")
            archive.writestr(info, data, compress_type=draw(method))
    return buffer.getvalue()


COMPRESSIONS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    form: Literal[0, 1, 2] = draw(st.sampled_from([0, 1, 2]))  # USTAR, GNU, pax
    kinds = st.sampled_from([tarfile.REGTYPE] * 6 + [b"1", b"2", b"3", b"5", b"6", b"L", b"K", b"S", b"x", b"g", b"?"])
    for name, data in draw(files):
        member = tarfile.TarInfo(name)
        member.type, member.size = draw(kinds), len(data)
        if draw(st.integers(0, 5)) == 0:
            member.size = draw(st.sampled_from([-1, -512, 2**33 + 1, 2**60, 0, 511]))
        if draw(st.integers(0, 5)) == 0:
            keys = ["size", "path", "GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "hdrcharset", "mtime"]
            values = st.one_of(st.sampled_from(["-1", "0", "9" * 5000, "0,0", "BINARY", "1e999"]), st.text(max_size=9))
            member.pax_headers = {draw(st.sampled_from(keys)): draw(values).encode(errors="replace").decode()}
        try:
            buffer.write(member.tobuf(form, errors="replace") + data + bytes(-len(data) % 512))
        except (ValueError, OverflowError):  # a name or length that this format cannot hold
            continue
    buffer.write(bytes(1024))
    compress: Callable[[bytes], bytes] = draw(st.sampled_from(COMPRESSIONS))
    return compress(buffer.getvalue())


archives = st.one_of(mutated(zips()), mutated(tars()), zips(), tars(), st.binary(max_size=600))


def outcome(work: Callable[[], Any]) -> Any:
    """What a piece of work returns, or its one line."""
    try:
        return work()
    except TemperError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 5000
        return error


def read_all(tree: Listing | Bundle) -> list[tuple[str, bytes]]:
    """Places the files as `folder` and `kaggle` do, and reads them all."""
    outcome(lambda: place_by_folders(tree.files, tree.folders))
    found = list(tree.read(set(tree.files)))
    assert len(found) == len(tree.files) and all(len(data) <= LIMITS.file_bytes for _, data in found)
    return found


@fuzz
@given(archives)
def test_any_archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "any")).write_bytes(data)
        outcome(lambda: read_all(list_contents(path, LIMITS)))


@st.composite
def nested(draw: st.DrawFn) -> bytes:
    data = draw(archives)
    for _ in range(draw(st.integers(1, 5))):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(draw(st.sampled_from(["m.zip", "a/m.tar", "x/y.tgz", "a.tar.xz"])), data)
        data = buffer.getvalue()
    return data


@fuzz
@given(nested())
def test_any_archives_in_archives(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (path := Path(folder, "any.zip")).write_bytes(data)
        outcome(lambda: read_all(open_bundle(path, LIMITS)))
        forget_unpacked()
        assert not Path(".temper/unpacked").exists()


@fuzz
@given(st.lists(names, max_size=8))
def test_any_names_of_folders(paths: list[str]) -> None:
    """Names as a folder has them: no part of them is empty."""
    tidy = ["/".join(filter(None, path.split("/"))) or "x" for path in paths]
    folders = [tidy_path.rsplit("/", 1)[0] for tidy_path in tidy if "/" in tidy_path]
    outcome(lambda: place_by_folders(tidy, folders))
    for path in paths:
        for part in path.split("/"):
            assert meaning(part) in ("train", "validation", "test", None)


cells = st.one_of(
    st.sampled_from(["1.png", "2", "a", "ant", "train", "", "\x00", '"', '""', "'", "=cmd|x", "\ufeff", "x" * 140_000]),
    st.text(max_size=10),
    st.builds(lambda a, b: f"{a}/{b}", names, names),
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    delimiter = draw(st.sampled_from([",", "\t", ";"]))
    header = draw(
        st.sampled_from([["id", "label"], ["url", "label"], ["url", "label", "split", "licence"], ["id", "id"]])
    )
    rows = [header, *draw(st.lists(st.lists(cells, max_size=5), max_size=5))]
    line = draw(st.sampled_from(["\n", "\r\n", "\r", "\x85"]))
    quote = draw(st.sampled_from(['"', ""]))
    text = line.join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "latin1", "utf-8-sig", "cp1252"]))
    return text.encode(encoding, "replace")


@fuzz
@given(st.one_of(tables(), mutated(tables()), st.binary(max_size=100)))
def test_any_table_of_file_names(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train").mkdir()
        Path(folder, "train/1.png").write_bytes(PHOTO)
        Path(folder, "train.csv").write_bytes(data)

        def read() -> None:
            source = csv.open_source(csv.Settings(source="csv", path=folder))
            photos = list(source.photos)
            assert len(photos) == source.total
            for photo in photos:
                refuse_unusable_names(photo)

        outcome(read)


@fuzz
@given(st.one_of(tables(), mutated(tables()), st.binary(max_size=100)), st.sampled_from(["csv", "tsv", "parquet"]))
def test_any_table_of_addresses(data: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, f"t.{ending}")).write_bytes(data)
        outcome(lambda: read_url_table(path, "label", 2**24))


REPLACED = [
    *('"UTF-8"', 'ignoreHeaderLines="1"', 'index="0"', 'index="3"', '"\\t"'),
    *("occurrence.txt", "multimedia.txt"),
]
ODD = [
    *("x", "hex", "rot13", "utf-16", "undefined", "idna", "punycode", "UTF-8", "", "-1", "7", "1e3", "0x10", "\u0661"),
    *("9" * 5000, "a" * 3000, "&#9;", "&lt;", "\\t", "../x", "occurrence.txt", "multimedia.txt"),
]
DECLARED = ["", "", '<?xml version="1.0" encoding="x"?>', '<?xml version="1.0" encoding="gbk"?>']


@st.composite
def descriptions(draw: st.DrawFn) -> str:
    """A meta.xml with other values in it."""
    text = META
    for _ in range(draw(st.integers(0, 3))):
        old, new = draw(st.sampled_from(REPLACED)), draw(st.sampled_from(ODD))
        before, quote, _ = old.partition('"')
        text = text.replace(old, f'{before}"{new}"' if quote else new, 1)
    return draw(st.sampled_from(DECLARED)) + text + draw(st.sampled_from(["", "", "<a>" * 5000, "\x01"]))


@fuzz
@given(descriptions(), st.lists(st.lists(cells, max_size=6), max_size=3), st.booleans())
def test_any_darwin_core_archive(meta: str, rows: list[list[str]], of_media: bool) -> None:
    terms, name = (MULTIMEDIA, "multimedia_txt") if of_media else (OCCURRENCE, "occurrence_txt")
    table = text_table(terms, rows).encode(errors="replace").decode()
    with tempfile.TemporaryDirectory() as folder:
        path = gbif_archive(Path(folder, "g.zip"), meta_xml=meta, **({name: table} if rows else {}))
        outcome(lambda: read_url_table(path, "species", 2**24))


@fuzz
@given(st.data())
def test_any_damaged_darwin_core_archive(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = gbif_archive(Path(folder, "g.zip"))
        path.write_bytes(data.draw(mutated(st.just(path.read_bytes()))))
        outcome(lambda: read_url_table(path, "species", 2**24))


simple = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 300), st.floats(), st.binary(max_size=5), st.text(max_size=5),
    st.sampled_from([10**5000, np.zeros(3072, np.uint8), np.zeros((1, 3072), np.uint8), np.array([None])]),
)  # fmt: skip
columns = st.one_of(simple, st.lists(simple, max_size=3), st.dictionaries(st.binary(max_size=3), simple, max_size=2))


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    content: dict[bytes, Any] = {
        b"filenames": [b"a.png"],
        b"fine_labels": [0],
        b"coarse_labels": [1],
        b"data": np.zeros((1, 3072), np.uint8),
        b"fine_label_names": [b"ant"],
        b"coarse_label_names": [b"x", b"y"],
    }
    for key in draw(st.lists(st.sampled_from(list(content)), max_size=2)):
        content[key] = draw(columns)
    whole = draw(st.sampled_from([content, [content]]))
    try:
        return pickle.dumps(whole, draw(st.integers(0, 5)))
    except ValueError:  # older protocols write numbers in digits, but none of 5,000
        return pickle.dumps(whole, 2)


@fuzz
@given(st.one_of(batches(), mutated(batches()), st.binary(max_size=60)))
def test_any_pickle(data: bytes) -> None:
    def read() -> None:
        content = cifar100.unpickle(data)
        fine = cifar100.names_of(content, b"fine_label_names")
        coarse = cifar100.names_of(content, b"coarse_label_names")
        batch = cifar100.batch_of(content, fine, coarse)
        assert len(batch.labels) == len(batch.pixels) == len(batch.names)

    try:
        read()
    except ValueError as error:  # which `open_source` turns into a line that names the file
        assert str(error)
