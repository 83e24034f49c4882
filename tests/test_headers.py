"""What photos claim before they are decoded: a fixed number of pixels decides, never the memory that is free."""

import io
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from temper import headers, photos
from temper.photos import BadPhoto, decode
from tests.toys.photos import toy_photo
from tests.toys.workspace import ROOT


def encoded(kind: str, height: int, width: int, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 90).save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(ending: str, height: int, width: int) -> bytes:
    return bytes(cv2.imencode(ending, np.full((height, width, 3), 90, np.uint8))[1])


def one_bit_png(side: int) -> bytes:
    """A whole PNG, black, of a bit a pixel: 900 megapixels are 110 KB."""
    row, packer = bytes(1 + -(-side // 8)), zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def os2_bmp(height: int, width: int) -> bytes:
    rows = bytes(-(-3 * width // 4) * 4 * height)
    return struct.pack("<2sIIIIHHHH", b"BM", 26 + len(rows), 0, 26, 12, width, height, 1, 24) + rows


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (31, 20), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


EXAMPLES = {
    "JPEG": encoded("JPEG", 20, 31),
    "JPEG, progressive": encoded("JPEG", 20, 31, progressive=True),
    "JPEG, filled up": encoded("JPEG", 20, 31).replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1),
    "JPEG, litter between segments": encoded("JPEG", 20, 31).replace(b"\xff\xc0", b"litter\xff\0\xff\xc0", 1),
    "PNG": encoded("PNG", 20, 31),
    "PNG, animated": animated("PNG"),
    "GIF": encoded("GIF", 20, 31, "P"),
    "GIF, animated": animated("GIF"),
    "BMP": encoded("BMP", 20, 31),
    "BMP, of OS/2": os2_bmp(20, 31),
    "WebP": encoded("WEBP", 20, 31),
    "WebP, lossless": encoded("WEBP", 20, 31, lossless=True),
    "WebP, with a profile": encoded("WEBP", 20, 31, icc_profile=b"profile"),
    "WebP, animated": animated("WEBP"),
    "TIFF": encoded("TIFF", 20, 31),
    "TIFF, big-endian": encoded("TIFF", 20, 31, "I;16B"),
    "TIFF, big": encoded("TIFF", 20, 31, big_tiff=True),
    "AVIF": by_opencv(".avif", 20, 31),
    "JPEG 2000": encoded("JPEG2000", 20, 31, num_resolutions=1),
    "PNM": by_opencv(".ppm", 20, 31),
    "PNM, gray with a comment": b"P5 # of a\n # camera\n31\t20\n255\n" + bytes(620),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_header_claims_what_is_decoded(name: str) -> None:
    data = EXAMPLES[name]
    assert headers.kind(data) == name.split(",", maxsplit=1)[0]
    assert headers.claimed(data, name.split(",", maxsplit=1)[0]) == (20, 31) == decode(data).shape[:2]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_damaged_header_claims_no_fewer_pixels_than_are_decoded(name: str) -> None:
    """Mutated and cut: nothing else than BadPhoto is raised, and no picture is larger than its header claims."""
    random = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(EXAMPLES[name])
        for place in random.integers(4, min(len(data), 300), random.integers(1, 4)).tolist():
            data[place] = random.choice([0, 1, 8, 31, 255, int(random.integers(256))])
        mutant = bytes(data if random.random() < 0.8 else data[: random.integers(len(data))])
        kind = headers.kind(mutant)
        claimed = headers.claimed(mutant, kind) if kind else None
        if claimed and claimed[0] * claimed[1] > 10**6:
            continue  # claims much, and takes its time
        try:
            height, width = decode(mutant).shape[:2]
        except BadPhoto:
            continue
        assert claimed is not None and height * width <= claimed[0] * claimed[1]


def tall_tiles() -> bytes:
    """A TIFF of 31 x 20 pixels whose only tile claims 2**24 x 2**24."""
    entries = [(256, 4, 1, 31), (257, 4, 1, 20), (322, 4, 1, 2**24), (323, 4, 1, 2**24)]
    return struct.pack("<4sIH", b"II*\0", 8, 4) + b"".join(struct.pack("<HHII", *entry) for entry in entries)


def claiming_more(name: str, side: bytes, other: bytes) -> bytes:
    assert side in EXAMPLES[name]
    return EXAMPLES[name].replace(side, other)


BOMBS = {
    "PNG": one_bit_png(30_000),
    "JPEG": claiming_more("JPEG", struct.pack(">HH", 20, 31), struct.pack(">HH", 20_000, 31_000)),
    "GIF": claiming_more("GIF", struct.pack("<HH", 31, 20), struct.pack("<HH", 31_000, 20_000)),
    "BMP": claiming_more("BMP", struct.pack("<ii", 31, 20), struct.pack("<ii", 31_000, -20_000)),
    "WebP": claiming_more("WebP, animated", bytes([30, 0, 0, 19, 0, 0]), b"\xff\xff\x00\xff\xff\x00"),
    "TIFF": tall_tiles(),
    "AVIF": claiming_more("AVIF", struct.pack(">II", 31, 20), struct.pack(">II", 31_000, 20_000)),
    "JPEG 2000": claiming_more("JPEG 2000", struct.pack(">II", 31, 20), struct.pack(">II", 31_000, 20_000)),
    "PNM": b"P6\n31000 20000\n255\n" + bytes(100),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_size_before_anything_is_decoded(name: str) -> None:
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(BadPhoto, match=f"^a {name} of .* pixels: expected at most 200 megapixels"):
        decode(BOMBS[name])
    assert time.perf_counter() - start < 0.05 and tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    assert describe(Photo("a/b", "a", None, BOMBS[name]))["problem"].startswith(f"a {name} of ")


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "MOST_PIXELS", 620)
    assert decode(EXAMPLES["PNG"]).shape == (20, 31, 3)
    monkeypatch.setattr(photos, "MOST_PIXELS", 619)
    with pytest.raises(BadPhoto, match="a PNG of 31 x 20 pixels"):
        decode(EXAMPLES["PNG"])


def test_headers_without_end_take_no_time() -> None:
    start = time.perf_counter()
    for data in (
        b"P6 " + b"#\n" * 9_500_000,
        b"\xff\xd8\xff" + b"\xe0\0\2\xff" * 3_000_000,
        b"\xff\xd8" + b"\xff" * 10**7,
        b"\xff\xd8\xff" + b"\xff\0" * 10**7,
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 10**6,
        b"P6" + b"#\n" * 10**6,
        b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 10**6,
    ):
        kind = headers.kind(data)
        assert kind is not None and headers.claimed(data, kind) is None
    assert time.perf_counter() - start < 2


LITTLE_MEMORY = """
import resource, sys, time
from pathlib import Path
from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from temper.base.errors import TemperError
import cv2
cv2.setNumThreads(1)
describe(Photo("a.png", None, None, Path(sys.argv[1]).read_bytes()))
data = Path(sys.argv[2]).read_bytes()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)
start = time.perf_counter()
try:
    print(describe(Photo("ant/b.png", None, None, data))["problem"])
    assert time.perf_counter() - start < 0.05
except TemperError as error:
    print("TemperError:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as Linux does it")
@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (30_000, "a PNG of 30,000 x 30,000 pixels: expected at most 200 megapixels; make it smaller"),
        (12_000, "TemperError: ant/b.png: expected the memory to decode a PNG of 12,000 x 12,000 pixels, received"),
    ],
)
def test_with_50_mb_a_bomb_is_refused_and_any_other_photo_ends_the_run(
    tmp_path: Path, side: int, expected: str
) -> None:
    (tmp_path / "small.png").write_bytes(toy_photo(0, 0))
    (tmp_path / "large.png").write_bytes(one_bit_png(side))
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, tmp_path / "small.png", tmp_path / "large.png"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(expected), done.stderr


def refusing(message: str) -> object:
    def imdecode(*_: object) -> None:
        raise cv2.error(message)

    return imdecode


def test_a_failed_allocation_is_no_property_of_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether OpenCV says so, or a decoder in it only that it failed; and also at a reduced size."""
    large = encoded("JPEG", 400, 600)
    lack = "OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes in function 'x'\n"
    for message in (lack, "std::bad_alloc"):
        monkeypatch.setattr(cv2, "imdecode", refusing(message))
        for least in (None, (8, 8)):
            with pytest.raises(MemoryError, match="expected the memory to decode a JPEG of 600 x 400 pixels"):
                decode(large, least)
    monkeypatch.setattr(cv2, "imdecode", refusing("OpenCV(5.0.0) x.cpp:1: error: (-215:Assertion failed) a < b in"))
    with pytest.raises(BadPhoto, match="a JPEG that OpenCV refuses: a < b"):
        decode(large)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(BadPhoto, match="a truncated or corrupt JPEG"):
        decode(large)
    monkeypatch.setattr(photos, "_MOST_BYTES_A_PIXEL", 2**40)
    with pytest.raises(MemoryError, match="expected the memory to decode a JPEG"):
        decode(large)


def test_a_stage_without_memory_ends_in_one_line(tmp_path: Path) -> None:
    script = (
        "import temper.base.running as running\nfrom temper.settings.fetch import Settings\n"
        "def main(settings): raise MemoryError('expected the memory to decode a PNG')\n"
        "running.run(main, Settings)"
    )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "expected the memory to decode a PNG; nothing half-written was kept: free some memory" in done.stderr
