"""Encoded photos to pixels: upright RGB, or the reason why not."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), RGB

_FORMATS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}


class BadPhoto(ValueError):
    """Why bytes are no usable image, in a few words."""


def decode(data: bytes) -> Pixels:
    """The pixels of an encoded photo as a viewer shows them.

    EXIF orientation is applied; gray, palette, CMYK and 16-bit images become 8-bit RGB; an alpha channel is
    dropped, not blended, as Pillow's `convert("RGB")` and TensorFlow's `decode_image` do (only in a TIFF has OpenCV
    multiplied the colours with it); of an animation, the first picture.

    Returns:
        uint8 (height, width, 3), RGB, 0-255.

    Raises:
        BadPhoto: the bytes are empty, of no known format, truncated or corrupt, or claim more than 2**30 pixels.
    """
    if not data:
        raise BadPhoto("an empty file")
    kind = next((name for magic, name in _FORMATS.items() if data.startswith(magic)), None)
    try:
        # Not IMREAD_COLOR_RGB: OpenCV 5.0 gives BGR all the same for an AVIF with alpha.
        pixels = cv2.imdecode(np.frombuffer(_still_png(data), np.uint8), cv2.IMREAD_COLOR_BGR)
    except cv2.error as error:  # such as a header that claims 2**31 pixels
        raise BadPhoto(f"a {kind or 'file'} that OpenCV refuses: {error.err or error.code}") from None
    if pixels is None and kind:
        raise BadPhoto(f"a truncated or corrupt {kind}")
    if pixels is None:
        raise BadPhoto(f"no image format that OpenCV reads (first bytes {data[:8].hex(' ')})")
    upright: Pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return upright


def _still_png(data: bytes) -> bytes:
    """`data`, or for an animated PNG its still picture alone.

    OpenCV 5.0 decodes a 16-bit animated PNG to black; without the animation's chunks it decodes it right.
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

    pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): the signs of the
    8x8 lowest frequencies of a 32x32 gray image around their median.
    """
    gray = cv2.cvtColor(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    frequencies = cv2.dct(gray.astype(np.float32))[:8, :8]
    bits = np.packbits(frequencies > np.median(frequencies))
    return int.from_bytes(bits.tobytes(), "big")


def resize(pixels: Pixels, height: int, width: int, fit: str) -> Pixels:
    """A photo at exactly `height` x `width`.

    Args:
        fit: "stretch" changes the proportions, "crop" cuts the longer sides off around the centre, "pad" adds
            black bars.
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
    scaled = _scale(pixels, max(1, round(old_height * min(ratios))), max(1, round(old_width * min(ratios))))
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    framed[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return framed


def _scale(pixels: Pixels, height: int, width: int) -> Pixels:
    shrinks = height < pixels.shape[0] or width < pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled: Pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)
    return scaled
