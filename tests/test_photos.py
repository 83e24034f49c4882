"""Encoded photos to pixels."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from temper.photos import BadPhoto, decode, perceptual_hash, resize


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
        (b"hello, world", "no image format that OpenCV reads"),
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
