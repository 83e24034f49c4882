"""Decodes photos to upright RGB pixels, or raises BadPhoto with the reason why it cannot."""

import importlib
import re
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from temper import headers
from temper.headers import Dimensions

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright photo at its full size

HASHED = (32, 32)  # the height and width to which `perceptual_hash` reduces a photo

# A photo with more pixels than this is refused before anything is decoded. The limit is a fixed number, because the
# free memory of a machine must not decide which photos a data set holds. The largest cameras take photos of 200
# megapixels (16320 x 12240). Such a photo has 600 MB of pixels, takes 1.2 GB while its channels are reordered, and is a
# hundred times larger than any model's input.
MOST_PIXELS = 200_000_000

_REDUCTIONS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_LARGEST_SHIFT = 1 / 8  # in pixels of the final picture; see `decode_with_dimensions`
_XMP = (b"http://ns.adobe.com/", b"XMP\0://ns.adobe.com/")  # how an APP1 segment begins that holds XMP, not EXIF
_EXIF_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8), 1))  # bytes of a value, by its EXIF type
_OPENCV_ERROR = re.compile(r"error: \((-?\d+):[^)]*\) (.*?)(?: in function '[^']*')?\s*$", re.DOTALL)
_MOST_BYTES_A_PIXEL = 16  # the most that a decoder needs for itself, in addition to the pixels
_MOST_SEGMENTS = 1000  # before the pixels of a JPEG; real photos have about ten, or hundreds with large profiles


class BadPhoto(ValueError):
    """The bytes are not a usable image; the message says why in a few words."""


def decode(data: bytes, least: Dimensions | None = None) -> Pixels:
    """Decodes a photo to the pixels that a viewer would show.

    EXIF orientation is applied. Gray, palette, CMYK and 16-bit images become 8-bit RGB. An alpha channel is dropped and
    not blended, as in Pillow's `convert("RGB")` and TensorFlow's `decode_image`; only in a TIFF has OpenCV multiplied
    the colours by it. An animation gives its first picture. HEIC is decoded if pillow-heif is installed.

    Args:
        least: a height and width in pixels. If it is given, the result may be a smaller picture of the whole photo,
            with sides at least twice as long as these. That is much faster for a large JPEG which is resized to a
            small size anyway. `None`: the full size.

    Returns:
        uint8 (height, width, 3), RGB, 0-255.

    Raises:
        BadPhoto: the bytes are empty, of no known format, truncated or corrupt, or have more pixels than `MOST_PIXELS`.
        MemoryError: there is too little memory to decode the photo, which says nothing about the photo itself.
    """
    return _decode_whole(data) if least is None else decode_with_dimensions(data, least)[0]


def decode_with_dimensions(data: bytes, least: Dimensions) -> tuple[Pixels, Dimensions]:
    """What `decode` returns, and the height and width of the upright photo at its full size.

    A JPEG is decoded at the smallest of 1/2, 1/4 and 1/8 of its size that is large enough; its 8x8 blocks of
    frequencies give these sizes directly. A reduced size is rounded up, so its last row and column stand for less than
    a whole pixel. A scale at which this would shift any content by more than 1/8 pixel of the final picture is not
    used.

    Raises:
        BadPhoto: as in `decode`.
        MemoryError: as in `decode`.
    """
    full = dimensions(data)
    scale = next((scale for scale in _REDUCTIONS if full and _is_enough(full, scale, least)), None)
    if full and scale:
        reduced = _decode_reduced(data, scale, full)
        # If OpenCV fails, or disagrees with the dimensions read from the header, the photo is decoded at full size.
        if reduced is not None and reduced.shape[:2] == (-(-full[0] // scale), -(-full[1] // scale)):
            return reduced, full
    pixels = _decode_whole(data)
    return pixels, (pixels.shape[0], pixels.shape[1])


def _is_enough(full: Dimensions, scale: int, least: Dimensions) -> bool:
    """Whether a photo reduced to 1/`scale` has at least twice the wanted sides, and is not shifted by rounding."""
    for side, wanted in zip(full, least, strict=True):
        rounded_up = -side % scale / side  # the fraction by which the reduced picture is too long
        if side < 2 * wanted * scale or rounded_up * wanted > _LARGEST_SHIFT:
            return False
    return True


def _decode_reduced(data: bytes, scale: int, full: Dimensions) -> Pixels | None:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCTIONS[scale])
    except cv2.error as error:
        _refuse_lack_of_memory(error, "JPEG", full)
        return None
    if pixels is None:
        return None
    upright: Pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return upright


def _decode_whole(data: bytes) -> Pixels:
    if not data:
        raise BadPhoto("an empty file")
    kind = headers.kind(data)
    if kind is None:
        raise BadPhoto(f"no image format that Temper reads (first bytes {data[:8].hex(' ')})")
    claimed = headers.claimed(data, kind)
    if claimed is not None:
        _refuse_too_large(kind, claimed)
    if kind == "HEIC":
        return _decode_heic(data)
    if claimed is None:
        raise BadPhoto(f"a truncated or corrupt {kind}")
    try:
        # Not IMREAD_COLOR_RGB: OpenCV 5.0 returns BGR for an AVIF with alpha in spite of it.
        pixels = cv2.imdecode(np.frombuffer(_still_png(data), np.uint8), cv2.IMREAD_COLOR_BGR)
        if pixels is not None:
            upright: Pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    except cv2.error as error:
        _refuse_lack_of_memory(error, kind, claimed)
        raise BadPhoto(f"a {kind} that OpenCV refuses: {_what_opencv_said(error)[1]}") from None
    if pixels is None:
        _require_memory(kind, claimed)
        raise BadPhoto(f"a truncated or corrupt {kind}")
    _refuse_too_large(kind, (upright.shape[0], upright.shape[1]))  # whatever the header claimed
    return upright


def _refuse_too_large(kind: str, claimed: Dimensions) -> None:
    height, width = claimed
    if height * width > MOST_PIXELS:
        raise BadPhoto(
            f"a {kind} of {width:,} x {height:,} pixels: expected at most {MOST_PIXELS // 10**6} megapixels; "
            "make it smaller"
        )


def _what_opencv_said(error: cv2.error) -> tuple[int, str]:
    """The code and the words of an error, parsed from its text: its attributes may belong to another thread's error."""
    found = _OPENCV_ERROR.search(str(error))
    return (int(found[1]), " ".join(found[2].split())) if found else (0, " ".join(str(error).split()))


def _refuse_lack_of_memory(error: cv2.error, kind: str, claimed: Dimensions) -> None:
    """Raises MemoryError if OpenCV's error says that memory ran out."""
    code, words = _what_opencv_said(error)
    if code == cv2.Error.StsNoMem or "bad_alloc" in words:
        raise _no_memory(kind, claimed) from None


def _require_memory(kind: str, claimed: Dimensions) -> None:
    """Raises MemoryError if there is too little memory to decode: decoders do not tell this from other failures."""
    try:
        np.empty(claimed[0] * claimed[1] * _MOST_BYTES_A_PIXEL, np.uint8)  # memory is reserved but never touched
    except MemoryError:
        raise _no_memory(kind, claimed) from None


def _no_memory(kind: str, claimed: Dimensions) -> MemoryError:
    return MemoryError(
        f"expected the memory to decode a {kind} of {claimed[1]:,} x {claimed[0]:,} pixels, received too little"
    )


def dimensions(data: bytes) -> Dimensions | None:
    """The height and width of the upright photo, read from the header of a JPEG without decoding it.

    EXIF orientations 5 to 8 swap the sides that the header states.

    Returns:
        height and width; `None` for every other format and for a header that is unusual in any way. Then only decoding
        tells them, and `decode` returns the full size.
    """
    segments = _jpeg_segments(data)
    frames = [(marker, content) for marker, content in segments if 0xC0 <= marker <= 0xCF and marker != 0xC4]
    exif = [content for marker, content in segments if marker == 0xE1 and not content.startswith(_XMP)]
    if len(frames) != 1 or len(exif) > 1:
        return None
    stated = _frame_dimensions(*frames[0])
    orientation = _exif_orientation(exif[0]) if exif else 1
    if stated is None or orientation is None:
        return None
    return stated[::-1] if orientation >= 5 else stated


def _jpeg_segments(data: bytes) -> list[tuple[int, bytes]]:
    """The marker and content of each segment before the first scan of a JPEG; an empty list if any of them is wrong."""
    segments: list[tuple[int, bytes]] = []
    place = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while place + 4 <= len(data) and data[place] == 0xFF and len(segments) < _MOST_SEGMENTS:
        marker, start = data[place + 1], place + 4
        if marker == 0xDA:
            return segments
        end = place + 2 + int.from_bytes(data[place + 2 : start], "big")  # the length counts its own two bytes
        # The markers below 0xC0 and from 0xD0 to 0xD9 have no length and do not belong here; 0xFF is padding.
        if end < start or marker < 0xC0 or 0xD0 <= marker <= 0xD9 or marker == 0xFF:
            return []
        segments.append((marker, data[start:end]))
        place = end
    return []


def _frame_dimensions(marker: int, frame: bytes) -> Dimensions | None:
    """Height and width in a JPEG's frame header; `None` if the frame is unusual.

    A usual frame is baseline or progressive with Huffman codes, 8 bits, and gray, colour or CMYK.
    """
    if marker > 0xC2 or len(frame) < 6 or frame[0] != 8:
        return None
    height, width, channels = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5]
    usual = channels in (1, 3, 4) and len(frame) == 6 + 3 * channels and 0 < height * width <= MOST_PIXELS
    return (height, width) if usual else None


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of EXIF data; 1 if it has none; `None` if OpenCV might read another one.

    OpenCV takes the first of several, and reads none after an entry whose value it does not find.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Any = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None or len(tiff) == len(exif) or len(tiff) < 8:
        return None
    start = int.from_bytes(tiff[4:8], order) + 2
    count = int.from_bytes(tiff[start - 2 : start], order)
    if start + 12 * count > len(tiff):
        return None
    usual = True  # so far, the entries are in the order of their tags, and their values exist
    for place in range(start, start + 12 * count, 12):
        tag, kind, short = (int.from_bytes(tiff[at : at + 2], order) for at in (place, place + 2, place + 8))
        values, offset = (int.from_bytes(tiff[at : at + 4], order) for at in (place + 4, place + 8))
        if tag == 0x0112:
            return short if usual and (kind, values) == (3, 1) and short <= 8 else None
        size = values * _EXIF_SIZES.get(kind, len(tiff))
        usual = usual and tag < 0x0112 and (size <= 4 or offset + size <= len(tiff))  # up to 4 bytes fit into the entry
    return 1


def _decode_heic(data: bytes) -> Pixels:
    """Decodes a HEIC photo with pillow-heif, which also turns it upright."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise BadPhoto(
            "a HEIC photo, which OpenCV does not read: `pip install pillow-heif`, or convert it to JPEG"
        ) from None
    try:
        photo = pillow_heif.open_heif(data)  # reads only the header; 10 and 12 bits become 8
        _refuse_too_large("HEIC", (photo.size[1], photo.size[0]))
        return np.array(photo.to_pillow().convert("RGB"), np.uint8)
    except (BadPhoto, MemoryError):
        raise
    except Exception as error:  # of damaged files it raises ValueError, IndexError and others
        raise BadPhoto(f"a truncated or corrupt HEIC photo: {' '.join(str(error).split())}") from None


def _still_png(data: bytes) -> bytes:
    """Removes the animation from an animated PNG and keeps its still picture; returns any other data unchanged.

    OpenCV 5.0 decodes a 16-bit animated PNG to black; without the animation's chunks it decodes it correctly.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or b"acTL" not in data[:256]:
        return data
    chunks, start = [data[:8]], 8
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")  # length, type, data, checksum
        if data[start + 4 : start + 8] not in (b"acTL", b"fcTL", b"fdAT"):
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits that stay nearly the same when a picture is re-encoded or resized.

    This is pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): for each of the
    8x8 lowest frequencies of a 32x32 gray image, whether it is above their median.
    """
    gray = cv2.cvtColor(cv2.resize(pixels, HASHED, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    frequencies = cv2.dct(gray.astype(np.float32))[:8, :8]
    bits = np.packbits(frequencies > np.median(frequencies))
    return int.from_bytes(bits.tobytes(), "big")


def resize(pixels: Pixels, height: int, width: int, fit: str, full: Dimensions | None = None) -> Pixels:
    """Resizes a photo to exactly `height` x `width`.

    Args:
        fit: "stretch" changes the proportions, "crop" cuts the longer sides off around the centre, "pad" adds
            black bars.
        full: the photo's height and width at full size, if it was decoded at a reduced one; they decide the size of the
            bars.
    """
    old_height, old_width = pixels.shape[:2]
    if (old_height, old_width) == (height, width):
        return pixels
    if fit == "stretch":
        return _scale(pixels, height, width)
    ratios = (height / old_height, width / old_width)
    if fit == "crop":
        kept_height = min(old_height, max(1, round(height / max(ratios))))
        kept_width = min(old_width, max(1, round(width / max(ratios))))
        top, left = (old_height - kept_height) // 2, (old_width - kept_width) // 2
        return _scale(pixels[top : top + kept_height, left : left + kept_width], height, width)
    tall, wide = full or (old_height, old_width)
    ratio = min(height / tall, width / wide)
    scaled = _scale(pixels, max(1, round(tall * ratio)), max(1, round(wide * ratio)))
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    framed[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return framed


def _scale(pixels: Pixels, height: int, width: int) -> Pixels:
    shrinks = height < pixels.shape[0] or width < pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled: Pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)
    return scaled
