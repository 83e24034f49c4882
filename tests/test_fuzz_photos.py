"""Whatever bytes come as a photo: pixels, or the reason why not; no crash, no hang, bounded memory.

FUZZ_EXAMPLES=20000 python -m pytest -n0 tests/test_fuzz_photos.py    # for longer
"""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from temper import headers, photos
from tests.toys import fuzzing
from tests.toys.bounds import bounded


def by_pillow(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = Image.effect_noise((31, 20), 80).convert(mode)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(ending: str) -> bytes:
    return bytes(cv2.imencode(ending, np.arange(20 * 31 * 3, dtype=np.uint8).reshape(20, 31, 3))[1])


EXIF = Image.Exif()
EXIF[0x0112] = 6
SEEDS = [
    by_pillow("JPEG"),
    by_pillow("JPEG", progressive=True, exif=EXIF),
    by_pillow("JPEG", "CMYK"),
    by_pillow("PNG"),
    by_pillow("PNG", "P"),
    by_pillow("PNG", "RGBA", save_all=True, append_images=[Image.new("RGBA", (31, 20))]),
    by_pillow("GIF", "P"),
    by_pillow("GIF", "P", save_all=True, append_images=[Image.new("P", (31, 20), 3)]),
    by_pillow("BMP"),
    by_pillow("BMP", "1"),
    by_pillow("TIFF"),
    by_pillow("TIFF", "L", compression="tiff_lzw"),
    by_pillow("WebP"),
    by_pillow("WebP", lossless=True),
    by_pillow("PPM"),
    by_pillow("PPM", "1"),
    by_opencv(".jp2"),
    by_opencv(".avif"),
    by_opencv(".tiff"),
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A small photo with bytes changed, mostly in its header, or with pieces cut off, taken out, doubled or swapped."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        reach = draw(st.sampled_from([40, 200, len(data)]))
        place = draw(st.integers(0, min(reach, len(data))))
        how = draw(st.integers(0, 4))
        if how <= 1:
            new = draw(
                st.sampled_from([b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff" * 8]) | st.binary(max_size=4)
            )
            data[place : place + len(new)] = new
        elif how == 2:
            del data[place : place + draw(st.integers(1, 20))]
        elif how == 3:
            data[place:place] = data[place : place + draw(st.integers(1, 40))]
        else:
            del data[place + draw(st.integers(0, 400)) :]
    return bytes(data)


def starts(data: bytes) -> list[bytes]:
    return [data[:length] for length in range(0, min(len(data), 300))]


def look(data: bytes) -> None:
    """The header and the decoder agree, or say in a few words why not."""
    with bounded(seconds=5, mebibytes=3000):
        kind = headers.kind(data)
        claimed = headers.claimed(data, kind) if kind else None
        sides = photos.dimensions(data)
        try:
            pixels = photos.decode(data)
        except photos.BadPhoto as reason:
            assert str(reason) and "\n" not in str(reason) and len(str(reason)) < 300
            return
        height, width = pixels.shape[:2]
        assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,) and 0 < height * width <= photos.MOST_PIXELS
        if sides:
            assert sides == (height, width)
        assert claimed is not None
        # EXIF turns; an AVIF or a TIFF may hold a larger picture or tile than the one that is decoded.
        assert {claimed, claimed[::-1]} & {(height, width)} or claimed[0] * claimed[1] >= height * width, (
            kind,
            claimed,
        )
        small, full = photos.decode_with_dimensions(data, (8, 8))
        assert full == (height, width) and small.shape[0] >= min(8, height)


same_every_time = fuzzing.same_every_time(300)


@pytest.mark.parametrize("data", SEEDS, ids=[f"{number}-{headers.kind(data)}" for number, data in enumerate(SEEDS)])
def test_the_start_of_a_photo(data: bytes) -> None:
    """Each format, cut off after each of its first bytes."""
    for start in starts(data):
        kind = headers.kind(start)
        if kind:
            headers.claimed(start, kind)
        photos.dimensions(start)
    look(data)


@same_every_time
@given(data=mutated())
def test_a_mutated_photo(data: bytes) -> None:
    look(data)


@same_every_time
@given(start=st.sampled_from([data[:16] for data in SEEDS]), rest=st.binary(max_size=200))
def test_random_bytes_behind_the_start_of_a_photo(start: bytes, rest: bytes) -> None:
    look(start + rest)
    look(rest)
