"""Archives that are small and hold too much, or lie about it: one line, in bounded memory."""

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.fetch.__main__ import describe, fetch
from stages.fetch.reading import archives, tars
from stages.fetch.reading.archives import list_contents, read_files
from stages.fetch.reading.bundles import open_bundle
from stages.fetch.source import Photo
from temper.base import disk
from temper.base.errors import TemperError
from temper.settings.fetch import ArchiveSettings, Limits, Settings
from tests.toys import published
from tests.toys.photos import toy_photo
from tests.toys.workspace import ROOT

PHOTO = toy_photo(0, 0)
MB = 2**20
LIMITS = Limits(10 * MB, 100 * MB)


def zip_of(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED, claimed: int | None = None) -> bytes:
    """A zip of one file; `claimed` is what its headers say of its length, where that is a lie."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, data)
    whole = buffer.getvalue()
    return whole if claimed is None else whole.replace(struct.pack("<I", len(data)), struct.pack("<I", claimed))


def tar_of(*members: tuple[str, int], data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar whose headers claim these lengths, each followed by `data`."""
    blocks = []
    for name, length in members:
        member = tarfile.TarInfo(name)
        member.size, member.type = length, kind
        padding = bytes(-len(data) % 512)
        blocks.append(member.tobuf(tarfile.GNU_FORMAT) + data + padding)
    return b"".join(blocks) + bytes(1024)


def large_dictionary() -> bytes:
    """An xz that needs 1.5 GB to be unpacked."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**26}]
    data = bytearray(lzma.compress(tar_of(("a/1.png", 0)), filters=filters))
    place = data.index(b"\x21\x01", 12) + 2  # the filter's number, one byte of properties, and the dictionary's size
    assert data[place] == 28
    data[place] = 37  # 3 << (37 // 2 + 11) bytes
    start, length = 12, (data[12] + 1) * 4
    data[start + length - 4 : start + length] = struct.pack("<I", zlib.crc32(bytes(data[start : start + length - 4])))
    return bytes(data)


PHOTOS = {"a/1.png": PHOTO, "b/1.png": PHOTO}
ZEROS = bytes(200 * MB)
BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a zip": ("b.zip", lambda: zip_of("a/1.png", ZEROS), r"received a/1.png of 209715200 bytes; .* raise max_file_mb"),
    "a zip that lies": ("b.zip", lambda: zip_of("a/1.png", ZEROS, claimed=5 * MB), "received a damaged or unreadable"),
    "a zip by bzip2 that lies": (
        "b.zip",
        lambda: zip_of("a/1.png", ZEROS, zipfile.ZIP_BZIP2, 5 * MB),
        "received a damaged or unreadable",
    ),
    "a zip by LZMA that lies": (
        "b.zip",
        lambda: zip_of("a/1.png", ZEROS[: 100 * MB], zipfile.ZIP_LZMA, 5 * MB),
        "received a damaged or unreadable",
    ),
    "a tgz": ("b.tgz", lambda: gzip.compress(tar_of(("a/1.png", len(ZEROS)), data=ZEROS)), "received a/1.png of 2097"),
    "a bz2": ("b.tbz2", lambda: bz2.compress(tar_of(("a/1.png", len(ZEROS)), data=ZEROS)), "received a/1.png of 2097"),
    "a long name of a tar": (
        "b.tgz",
        lambda: gzip.compress(tar_of(("x", len(ZEROS)), data=ZEROS, kind=tarfile.GNUTYPE_LONGNAME)),
        "expected a folder, zip or tar",
    ),
    "extended headers of a tar": (
        "b.tgz",
        lambda: gzip.compress(
            tar_of(("a/1.png", 0))[:512] + tar_of(("x", len(ZEROS)), data=ZEROS, kind=tarfile.XHDTYPE)
        ),
        r"\(ReadError: after 'a/1.png': a header of more than",
    ),
    "many files": (
        "b.tgz",
        lambda: gzip.compress(b"".join(tar_of((f"a/{n}.png", 5 * MB), data=bytes(5 * MB))[:-1024] for n in range(40))),
        "expected files of at most 105 MB in an archive, received more; raise max_unpacked_gb",
    ),
    "an xz with a large dictionary": ("b.txz", large_dictionary, "Memory usage limit exceeded"),
}
READ = """
    import resource, sys
    from pathlib import Path
    from stages.fetch.reading.archives import list_contents
    from temper.base.errors import TemperError
    from temper.settings.fetch import Limits
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        listing = list_contents(Path(sys.argv[1]), Limits(10 * 2**20, 100 * 2**20))
        sum(len(data) for _, data in listing.read(set(listing.files)))
    except TemperError as error:
        print(error)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(("name", "make", "message"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(
    tmp_path: Path, name: str, make: Callable[[], bytes], message: str
) -> None:
    (path := tmp_path / name).write_bytes(make())
    assert path.stat().st_size < 1.5 * MB
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ), str(path)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, peak = done.stdout.splitlines()
    assert re.search(message, said), said
    assert float(peak) < 100, f"{peak} MB"


HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a length beyond the end": (lambda: tar_of(("a/1.png", 9 * MB)), "unexpected end of data"),
    "a negative length": (lambda: tar_of(("a/1.png", -1024)), "'a/1.png' has a negative length"),
    "a negative length in pax": (lambda: pax("a/1.png", b"14 size=-1024\n"), "negative length"),
    # By the version of Python:
    "no number": (lambda: pax("a/1.png", b"%d size=%s\n" % (5010, b"x" * 5000)), "^a/1.png$|folder, zip or tar"),
    "endless digits": (lambda: pax("a/1.png", b"1" * 900_000), "expected a folder, zip or tar|endless digits"),
    "a sparse file": (
        lambda: pax("a/1.png", b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n31 GNU.sparse.size=10000000000\n"
                    b"22 GNU.sparse.map=0,0\n"),
        "expected files without holes|damaged|folder, zip or tar",
    ),
}  # fmt: skip


def pax(name: str, records: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    return header.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + tar_of((name, 0))


@pytest.mark.parametrize(("make", "message"), HEADERS.values(), ids=HEADERS)
def test_a_tar_that_lies_in_its_headers_ends_at_once(tmp_path: Path, make: Callable[[], bytes], message: str) -> None:
    (path := tmp_path / "t.tar").write_bytes(make())
    begun = os.times().user
    try:
        said = " ".join(list_contents(path, LIMITS).files)
    except TemperError as error:
        said = str(error)
    assert re.search(message, said), said
    assert os.times().user - begun < 2


def test_all_compressions_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    whole = published.tgz(PHOTOS)
    plain = gzip.decompress(whole)
    alone = lzma.compress(plain, lzma.FORMAT_ALONE)
    two_streams = lzma.compress(plain[:1000]) + bytes(8) + lzma.compress(plain[1000:])
    for number, data in enumerate((whole, plain, bz2.compress(plain), lzma.compress(plain), alone, two_streams)):
        (path := tmp_path / f"{number}.tar").write_bytes(data)
        assert dict(list_contents(path, LIMITS).read(set(PHOTOS))) == PHOTOS
        with tars.open_tar(path) as tar:
            assert tar.tell() if hasattr(tar, "tell") else True
            assert tar.fileobj is not None and tar.fileobj.seek(600) == 600
            assert tar.fileobj.seek(10) == 10
    (path := tmp_path / "cut.tar").write_bytes(lzma.compress(plain)[:-20])
    with pytest.raises(TemperError, match="damaged or unreadable"):
        list_contents(path, LIMITS)


@pytest.mark.usefixtures("in_tmp_path")
def test_archives_in_archives_count_together_and_end() -> None:
    data = zip_of("1.png", bytes(8 * MB))
    Path("outer.zip").write_bytes(published.zipped({f"{number}.zip": data for number in range(3)}))
    limits = Limits(10 * MB, 20 * MB)  # the copies of three zips and what is in them, of whom one is too much
    with pytest.raises(TemperError, match="^outer.zip/2.zip: expected files of at most 21 MB .*max_unpacked_gb"):
        open_bundle(Path("outer.zip"), limits)
    assert len(open_bundle(Path("outer.zip"), Limits(10 * MB, 40 * MB)).files) == 3
    deep = published.zipped({"1.png": b"1"})
    for _ in range(4):
        deep = published.zipped({"a.zip": deep})
    Path("deep.zip").write_bytes(deep)
    with pytest.raises(TemperError, match="^deep.zip/a.zip/a.zip/a.zip/a.zip: expected at most 3 archives inside each"):
        open_bundle(Path("deep.zip"), LIMITS)


@pytest.mark.usefixtures("in_tmp_path")
def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = published.zipped({"1.png": bytes(MB)})
    Path("outer.zip").write_bytes(zip_of("m.zip", inner, zipfile.ZIP_STORED))
    Path("photos.zip").write_bytes(published.zipped(PHOTOS))
    monkeypatch.setattr(disk, "SPARE", 2**62)
    with pytest.raises(TemperError, match="outer.zip: copies of the archives in it: expected .* free disk space"):
        open_bundle(Path("outer.zip"), LIMITS)
    assert not list(Path().rglob("copy"))
    settings = Settings.model_validate({"fetch": {"mine": {"source": "folder", "path": "photos.zip"}}})
    with pytest.raises(TemperError, match="the raw table of 2 files: expected .* of free disk space at data/raw/mine"):
        fetch(settings, "mine")


def test_a_file_that_grew_is_counted_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(bytes(11 * MB))
    with pytest.raises(TemperError, match="a/1.png of more than 10 MB.*max_file_mb"):
        list(read_files(tmp_path, {"a/1.png"}, LIMITS))


def test_the_defaults_hold_a_large_data_set(tmp_path: Path) -> None:
    """3 million photos of 100 KB, one of them a TIFF of 590 MB."""
    seen = archives._Seen(tmp_path / "photos.zip", ArchiveSettings(source="folder", path="x").limits, False)
    assert seen.keeps(archives._Entry("a/large.tif", False, 590 * 10**6))
    for number in range(3000):
        assert seen.keeps(archives._Entry(f"a/{number}.jpg", False, 100 * 10**6))


NAMES: dict[str, tuple[str, str]] = {
    "no UTF-8": (
        "a/caf\udce9.png",
        r"expected names in UTF-8 without line breaks, received 'a/caf\\xe9.png'; rename it",
    ),
    "a terminal's escape": ("a/\x1b[2J.png", r"received 'a/\\x1b\[2J.png'; rename it"),
    "a line separator": ("a/\u2028.png", "expected names in UTF-8 without line breaks"),
    "endless": ("a/" + "b" * 5000 + ".png", r"at most 4096 bytes in at most 100 folders, received 'a/bbb.*\.\.\."),
    "deep": ("a/" * 101 + "1.png", "in at most 100 folders"),
}


@pytest.mark.parametrize(("name", "message"), NAMES.values(), ids=NAMES)
def test_a_name_that_cannot_be_used_is_shown_escaped(tmp_path: Path, name: str, message: str) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        tar.addfile(tarfile.TarInfo("b/1.png"))
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(TemperError, match=message) as caught:
        list_contents(tmp_path / "t.tar", LIMITS)
    assert "pack it anew" in str(caught.value) or "rename it" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_zip_whose_names_are_no_utf_8_says_which(tmp_path: Path) -> None:
    data = zip_of("a/caf\u00e9.png", PHOTO).replace("caf\u00e9".encode(), b"caf\xff\xff")
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(TemperError, match=r"expected names in UTF-8, received b'a/caf\\xff\\xff.png'; rename"):
        list_contents(tmp_path / "t.zip", LIMITS)


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere refuse such names")
def test_a_folder_with_a_name_that_is_no_utf_8_says_which(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(bytes(tmp_path) + b"/a/caf\xe9.png")).write_bytes(PHOTO)
    with pytest.raises(TemperError, match=r"received 'a/caf\\xe9.png'; rename it \(docs/sources.md says how\)"):
        list_contents(tmp_path, LIMITS)


@pytest.mark.parametrize("key", ["path", "label", "split", "coarse", "licence"])
@pytest.mark.parametrize("value", ["a\x1b[31m", "a\0", "two\nlines", "\udce9"])
def test_a_text_with_control_characters_reaches_no_table(key: str, value: str) -> None:
    values: dict[str, Any] = {"path": "a.png", "label": "a", "split": None, "data": PHOTO} | {key: value}
    with pytest.raises(TemperError, match=f"expected a {key} of text in one line, received"):
        describe(Photo(**values))
