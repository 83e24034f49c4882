"""Encoded photos to pixels."""

import importlib
import importlib.util
import io
import struct
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from temper import photos
from temper.endings import is_image
from temper.photos import (
    HASHED,
    BadPhoto,
    Pixels,
    decode,
    decode_with_dimensions,
    dimensions,
    perceptual_hash,
    resize,
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([4 * x, 5 * y, 255 - 4 * x], axis=2).astype(np.uint8)


PICTURE = Image.fromarray(gradient())
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # the viewer must turn it by 90 degrees

EXAMPLES = {
    "rgb": (encoded(PICTURE, "PNG"), gradient()),
    "gray": (encoded(PICTURE.convert("L"), "PNG"), np.asarray(PICTURE.convert("L").convert("RGB"))),
    "palette": (encoded(PICTURE.quantize(16), "PNG"), np.asarray(PICTURE.quantize(16).convert("RGB"))),
    "one bit": (encoded(PICTURE.convert("1"), "PNG"), np.asarray(PICTURE.convert("1").convert("RGB"))),
    "alpha": (encoded(Image.fromarray(np.dstack([gradient(), gradient()[..., 0]])), "PNG"), gradient()),
    "16 bit": (bytes(cv2.imencode(".png", gradient()[..., ::-1].astype(np.uint16) * 257)[1]), gradient()),
    "gif": (encoded(PICTURE.quantize(16), "GIF"), np.asarray(PICTURE.quantize(16).convert("RGB"))),
    "webp": (encoded(PICTURE, "WEBP", lossless=True), gradient()),
    "bmp": (encoded(PICTURE, "BMP"), gradient()),
    "avif": (bytes(cv2.imencode(".avif", gradient()[..., ::-1], [cv2.IMWRITE_AVIF_QUALITY, 100])[1]), gradient()),
    "avif with alpha": (
        bytes(cv2.imencode(".avif", np.dstack([gradient()[..., ::-1], np.full((40, 60), 200)]).astype(np.uint8))[1]),
        gradient(),
    ),
    "tiff": (encoded(PICTURE, "TIFF"), gradient()),
    "exif": (encoded(PICTURE, "JPEG", exif=ROTATED, quality=95), np.rot90(gradient(), -1)),
    "cmyk": (encoded(PICTURE.convert("CMYK"), "JPEG", quality=95), gradient()),
}


@pytest.mark.parametrize(("data", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_decodes_to_upright_8_bit_rgb(data: bytes, expected: np.ndarray) -> None:
    pixels = decode(data)
    assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
    lossy = data.startswith(b"\xff\xd8") or data[4:8] == b"ftyp"
    assert np.abs(pixels.astype(int) - expected).max() <= (24 if lossy else 1)
    assert np.abs(pixels.astype(int) - expected).mean() <= (4 if lossy else 0.5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"hello, world", "no image format that Temper reads"),
        (encoded(PICTURE, "PNG")[:-40], "a truncated or corrupt PNG"),
        (encoded(PICTURE, "JPEG")[:-40], "a truncated or corrupt JPEG"),
        (encoded(PICTURE, "WEBP")[:-40], "a truncated or corrupt WebP"),
        (encoded(PICTURE, "GIF")[:-40], "a truncated or corrupt GIF"),
    ],
)
def test_says_why_bytes_are_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(BadPhoto, match=reason):
        decode(data)


def test_a_bomb_is_refused() -> None:
    header = encoded(PICTURE, "BMP")
    huge = header[:18] + (2**20).to_bytes(4, "little") + (2**20).to_bytes(4, "little") + header[26:]
    with pytest.raises(BadPhoto):
        decode(huge)


def test_the_odd_files_of_real_datasets(shared: Path) -> None:
    """Each decodes as Pillow shows it, or is refused with a reason."""
    refused = {}
    for path in sorted((shared / "data/odd").iterdir()):
        try:
            pixels = decode(path.read_bytes())
        except BadPhoto as reason:
            refused[path.name] = str(reason)
            continue
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if image.mode == "I;16":  # Pillow's own conversion clips 16 bits instead of scaling them
                expected = np.repeat((np.asarray(upright) / 257).astype(np.uint8)[..., None], 3, axis=2)
            else:
                expected = np.asarray(upright.convert("RGB"))
        assert np.abs(pixels.astype(int) - expected).mean() < 1, path.name
    assert sorted(refused) == ["broken.png", "reallybig.bmp", "truncated_jpeg.jpg"]


def turned(orientation: int | None, mode: str = "RGB", height: int = 152, width: int = 200, **options: object) -> bytes:
    """A JPEG of smooth noise with an EXIF orientation, and other EXIF entries before and after it."""
    exif = Image.Exif()
    if orientation is not None:
        entries = {0x010F: "A maker of cameras", 0x0110: "Model", 0x0112: orientation, 0x0132: "2020:01:01 00:00:00"}
        exif.update(entries)
        options["exif"] = exif
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return encoded(Image.fromarray(smooth).convert(mode), "JPEG", quality=92, **options)


JPEGS = {
    "plain": turned(None),
    **{f"orientation {number}": turned(number) for number in range(9)},
    **{f"odd sides, orientation {number}": turned(number, height=902, width=1206) for number in (1, 3, 6, 8)},
    "progressive": turned(6, progressive=True),
    "gray": turned(8, "L"),
    "CMYK": turned(5, "CMYK"),
    "full colour": turned(None, subsampling="4:4:4"),
    "half colour": turned(7, subsampling="4:2:2"),
    "restarts": turned(3, restart_marker_blocks=2),
    "with a profile and XMP": turned(6, icc_profile=b"profile" * 20_000, xmp=b"<xmp/>", comment=b"a comment"),
}


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_tells_its_upright_dimensions_without_being_decoded(data: bytes) -> None:
    assert dimensions(data) == decode(data).shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_are_decoded_to_know(kind: str) -> None:
    data = encoded(PICTURE, kind)
    assert dimensions(data) is None
    pixels, full = decode_with_dimensions(data, (2, 2))
    assert full == (40, 60) and np.array_equal(pixels, decode(data))


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize(("least", "scale"), [((30, 40), 2), ((16, 16), 4), ((8, 8), 8)])
def test_a_reduced_jpeg_is_upright_large_enough_and_looks_the_same(
    data: bytes, least: tuple[int, int], scale: int
) -> None:
    """Resized to what it was decoded for, it differs from the full way by 2.4 of 255 at most, on average."""
    whole = decode(data)
    if whole.shape[0] > whole.shape[1]:
        least = least[::-1]
    scale = 8 if whole.size > 10**6 else scale  # of the large ones
    pixels, full = decode_with_dimensions(data, least)
    assert full == whole.shape[:2] and np.array_equal(pixels, decode(data, least))
    assert pixels.shape[:2] == tuple(-(-side // scale) for side in full)
    assert all(side >= 2 * wanted for side, wanted in zip(pixels.shape, least, strict=False))
    small, expected = resize(pixels, *least, "stretch"), resize(whole, *least, "stretch")
    assert np.abs(small.astype(int) - expected).mean() < 3


def test_a_photo_that_is_not_twice_as_large_is_decoded_whole() -> None:
    data = turned(6)  # 200 x 152
    assert decode(data, (50, 38)).shape == (100, 76, 3)
    assert decode(data, (51, 38)).shape == decode(data, (50, 39)).shape == decode(data).shape == (200, 152, 3)


def test_a_scale_that_would_shift_the_picture_is_not_used() -> None:
    """3001 rows are 750 and a quarter at 1/4: as 751 rows they would end 0.22 pixels too early at 224."""
    assert decode(turned(None, height=3001, width=4000), (224, 224)).shape == (1501, 2000, 3)
    assert decode(turned(None, height=3000, width=4000), (224, 224)).shape == (750, 1000, 3)


def test_a_damaged_jpeg_is_refused_as_by_the_full_way_and_never_mistaken() -> None:
    """Mutated anywhere, mostly in the header: the same dimensions and the same reasons, or the full way is taken."""
    random = np.random.default_rng(0)
    seeds = [data for data in JPEGS.values() if len(data) < 50_000]
    known = 0
    for _ in range(3000):
        data = bytearray(seeds[random.integers(len(seeds))])
        end = data.index(b"\xff\xda") if random.random() < 0.8 else len(data)
        for place in random.integers(2, end, random.integers(1, 4)).tolist():
            data[place : place + int(random.integers(3))] = random.choice([0, 1, 6, 18, 217, 225, 255], 1).tobytes()[:1]
        mutant = bytes(data if random.random() < 0.8 else data[: random.integers(len(data))])
        expected, received = outcome(mutant, None), outcome(mutant, (8, 8))
        assert received == expected
        stated = dimensions(mutant)
        assert stated is None or isinstance(expected, str) or stated == expected
        known += stated is not None and not isinstance(expected, str)
    assert known > 300


def with_exif(*entries: tuple[int, int, int, int], copies: int = 1) -> bytes:
    """A JPEG with hand-made EXIF segments before its own; an entry is a tag, a kind, a number of values and a value."""
    directory = b"".join(struct.pack(">HHI", *entry[:3]) + struct.pack(">I", entry[3]) for entry in entries)
    content = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + directory + bytes(4)
    data, segment = turned(None), b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    return data[:2] + segment * copies + data[2:]


TURN, MAKE, BROKEN_MAKE = (0x0112, 3, 1, 6 << 16), (0x010F, 2, 4, 0x41424300), (0x010F, 2, 400, 60_000)


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (with_exif(MAKE, TURN), True),
        (with_exif(MAKE), True),
        (with_exif(TURN, BROKEN_MAKE), True),
        (with_exif(TURN, TURN), True),
        (with_exif(BROKEN_MAKE, TURN), False),  # OpenCV does not turn it
        (with_exif((0x011A, 5, 1, 60_000), TURN), False),
        (with_exif((0x010F, 99, 400, 60_000), TURN), False),
        (with_exif((0x0112, 4, 1, 6)), False),
        (with_exif((0x0112, 3, 2, 6 << 16)), False),
        (with_exif((0x0112, 3, 1, 9 << 16)), False),
        (with_exif(TURN, copies=2), False),
    ],
)
def test_unusual_exif_is_not_guessed_at(data: bytes, known: bool) -> None:
    assert dimensions(data) == (decode(data).shape[:2] if known else None)
    assert outcome(data, (8, 8)) == outcome(data, None)


FRAME = b"\xff\xc0\0\x11\x08"  # the frame header of a baseline JPEG of three colours and 8 bits


@pytest.mark.parametrize(
    "other",
    [
        b"\xff\xc3\0\x11\x08",  # lossless
        b"\xff\xc9\0\x11\x08",  # arithmetic codes
        b"\xff\xc0\0\x11\x0c",  # 12 bits
        b"\xff\xc0\0\x10\x08",  # too short for its colours
        b"\xff\xc0\0\x01\x08",  # shorter than its own length
        b"\xff\xd0" + FRAME,  # a restart before the scan
        b"\xff" + FRAME,  # filled up
        FRAME + bytes(12) + FRAME,  # two frames
    ],
)
def test_an_unusual_header_is_not_guessed_at(other: bytes) -> None:
    data = turned(None)
    assert data.count(FRAME) == 1 and dimensions(data) is not None
    assert dimensions(data.replace(FRAME, other)) is None


def test_where_opencv_sees_other_dimensions_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "dimensions", lambda _: (200, 152))
    pixels, full = decode_with_dimensions(turned(None), (8, 8))
    assert full == pixels.shape[:2] == (152, 200)


def outcome(data: bytes, least: tuple[int, int] | None) -> str | tuple[int, ...]:
    """The dimensions of the whole photo, or why it is none."""
    try:
        return decode(data).shape[:2] if least is None else decode_with_dimensions(data, least)[1]
    except BadPhoto as reason:
        return str(reason)


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_cut_header_tells_nothing(data: bytes) -> None:
    end = data.rindex(b"\xff\xda") if b"\xff\xc2" not in data else data.index(b"\xff\xda")
    assert {dimensions(data[:cut]) for cut in range(0, min(end, 3000))} == {None}


def test_a_header_without_end_takes_no_time() -> None:
    start = time.perf_counter()
    assert dimensions(b"\xff\xd8" + b"\xff\xe0\0\2" * 5_000_000) is None
    assert dimensions(b"\xff\xd8" + b"\xff" * 5_000_000) is None
    assert time.perf_counter() - start < 1


def test_a_jpeg_that_claims_too_many_pixels_is_refused_at_every_size() -> None:
    data = turned(None)
    place = data.index(b"\xff\xc0") + 5
    huge = data[:place] + b"\xff\x00\xff\x00" + data[place + 4 :]
    assert dimensions(huge) is None
    reason = outcome(huge, None)
    assert isinstance(reason, str) and outcome(huge, (8, 8)) == reason


def test_real_photos_tell_their_dimensions_and_are_refused_as_before(shared: Path) -> None:
    for folder in ("odd", "stanford_cars/cars_train", "cat_breeds/train"):
        for path in sorted((shared / "data" / folder).iterdir()):
            data = path.read_bytes()
            assert outcome(data, HASHED) == outcome(data, None), path.name
            if data.startswith(b"\xff\xd8") and not isinstance(outcome(data, None), str):
                assert dimensions(data) is not None, path.name


def test_the_row_of_a_large_photo_has_its_full_size_and_nearly_the_hash_of_it() -> None:
    data = turned(6, height=1500, width=2000)
    row = describe(Photo("a/b.jpg", "a", None, data))
    assert (row["height"], row["width"], row["problem"]) == (2000, 1500, None)
    assert (row["phash"] ^ perceptual_hash(decode(data))).bit_count() <= 2
    assert describe(Photo("a/b.jpg", "a", None, data[:-100]))["problem"] == "a truncated or corrupt JPEG"


@pytest.mark.parametrize(
    "brands", [b"heic\0\0\0\0mif1heic", b"heix\0\0\0\0mif1", b"mif1\0\0\0\0heic", b"msf1\0\0\0\0hevc"]
)
def test_a_heic_photo_is_refused_with_advice(brands: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    data = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(100)
    advice = "a HEIC photo, which OpenCV does not read: `pip install pillow-heif`, or convert it to JPEG"
    with pytest.raises(BadPhoto, match=advice):
        decode(data)
    assert describe(Photo("a/b.heic", "a", None, data))["problem"] == advice


def test_heic_files_are_taken_for_images() -> None:
    assert is_image("a/IMG_0001.HEIC") and is_image("a/b.heif") and not is_image("a/b.heics.txt")


needs_heif = pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is None, reason="pillow-heif is not installed: pip install pillow-heif"
)


def heic(orientation: int, mode: str = "RGB") -> tuple[bytes, Pixels]:
    """A HEIC file of a picture that a viewer must turn, and what it must then show."""
    pillow_heif = importlib.import_module("pillow_heif")
    picture, buffer, exif = Image.fromarray(gradient(48, 64)).convert(mode), io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    pillow_heif.from_pillow(picture).save(buffer, quality=95, exif=exif.tobytes())
    picture.getexif()[0x0112] = orientation
    return buffer.getvalue(), np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@needs_heif
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_heic_photo_is_upright_rgb(orientation: int, mode: str) -> None:
    data, expected = heic(orientation, mode)
    pixels = decode(data)
    assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 3
    assert decode_with_dimensions(data, (8, 8))[1] == expected.shape[:2]


@needs_heif
def test_a_damaged_heic_photo_is_refused() -> None:
    data, _ = heic(1)
    random = np.random.default_rng(0)
    with pytest.raises(BadPhoto, match="a truncated or corrupt HEIC photo: "):
        decode(data[:-20])
    for _ in range(200):
        mutant = bytearray(data)
        for place in random.integers(12, len(data), 3).tolist():
            mutant[place] = random.integers(256)
        outcome(bytes(mutant), None)


def test_the_perceptual_hash_survives_reencoding_and_resizing_but_not_another_picture() -> None:
    random = np.random.default_rng(0)
    picture = cv2.resize(random.integers(0, 255, (9, 9, 3), np.uint8), (300, 200), interpolation=cv2.INTER_CUBIC)
    other = cv2.resize(random.integers(0, 255, (9, 9, 3), np.uint8), (300, 200), interpolation=cv2.INTER_CUBIC)
    reencoded = decode(encoded(Image.fromarray(picture), "JPEG", quality=60))
    smaller = cv2.resize(picture, (150, 100), interpolation=cv2.INTER_AREA)

    def distance(pixels: np.ndarray) -> int:
        return (perceptual_hash(picture) ^ perceptual_hash(pixels)).bit_count()

    assert distance(reencoded) <= 2 and distance(smaller) <= 4 and distance(other) >= 16


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 97), (5, 300), (20, 30)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_resize_gives_exactly_the_size(shape: tuple[int, int], fit: str) -> None:
    assert resize(gradient(*shape), 32, 48, fit).shape == (32, 48, 3)


def test_crop_keeps_the_centre_and_pad_keeps_everything() -> None:
    photo = np.zeros((10, 30, 3), np.uint8)
    photo[:, 10:20] = 255
    assert resize(photo, 10, 10, "crop").min() == 255
    assert resize(np.zeros((1, 60_000, 3), np.uint8), 224, 224, "crop").shape == (224, 224, 3)  # not by way of 38 GB
    padded = resize(photo, 30, 30, "pad")
    assert padded[:10].max() == padded[20:].max() == 0 and np.array_equal(padded[10:20], photo)
