"""Reads a photo's format and dimensions from its header, before anything is decoded.

Nothing large is allocated. Temper reads only formats that have a reader here, and takes a photo whose header states no
dimensions for damaged. So no photo is decoded without its size being known before.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

Dimensions = tuple[int, int]  # height, width

_FORMATS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",  # a bare code stream, without the boxes of a .jp2 file
    **{b"P%d" % number: "PNM" for number in range(1, 7)},  # .pbm, .pgm, .ppm
}
# AVIF files have some of these brands too, and in addition one of their own, by which OpenCV recognizes them.
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])"  # what separates the numbers of a PNM: white space and comments
_PNM = re.compile(rb"P[1-6]" + _GAP + rb"+(\d{1,10})" + _GAP + rb"+(\d{1,10})" + _GAP)
_MOST_OF_PNM = 65_536  # bytes: no more of a header is read, because matching comments takes 100 times their memory
_MOST_PARTS = 10_000  # segments, boxes or entries: no more are read; real headers have fewer than a thousand
_TIFF_SIDES = {257: "height", 256: "width", 323: "tile height", 322: "tile width"}
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # the `struct` format of an integer, by its TIFF type


def kind(data: bytes) -> str | None:
    """The name of a photo's format, from its first bytes; `None` if Temper does not read the format."""
    if data[4:8] == b"ftyp":
        return _kind_by_brands(data)
    return next((name for magic, name in _FORMATS.items() if data.startswith(magic)), None)


def _kind_by_brands(data: bytes) -> str | None:
    """AVIF or HEIC (which here includes other kinds of HEIF), from the brands in the file's first box, `ftyp`."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    # length, "ftyp", the brand, a version, then the brands of all readers that can read the file
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def claimed(data: bytes, kind: str) -> Dimensions | None:
    """The dimensions in a photo's header, before EXIF rotates the photo; `None` if the header is cut off or damaged.

    If there are several, such as those of tiles and thumbnails in an AVIF, the largest ones count.

    Args:
        kind: the photo's format, as the function `kind` names it.
    """
    try:
        return _READERS[kind](data)
    except struct.error:  # the header ends too early
        return None


def memory_to_decode(data: bytes) -> int:
    """About how many bytes of memory a photo takes while it is decoded: its encoded bytes, and three for each pixel.

    It is known before anything is decoded: 900 KB of PNG may be 600 MB of pixels.
    """
    format_name = kind(data)
    height, width = (claimed(data, format_name) if format_name else None) or (0, 0)
    return len(data) + 3 * height * width


def _largest(found: Iterable[Dimensions]) -> Dimensions | None:
    return max(found, key=lambda sides: sides[0] * sides[1], default=None)


def _of_jpeg(data: bytes) -> Dimensions | None:
    """The dimensions in the first frame header, found like libjpeg does: it skips everything that is not a marker."""
    place = 2
    for _ in range(_MOST_PARTS):
        found = _MARKER.search(data, place)
        if found is None or data[found.start() + 1] in (0xD8, 0xD9, 0xDA):  # start, end, or a scan before any frame
            return None
        marker, place = data[found.start() + 1], found.end()
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 3)  # after the length and the bits per sample
            return height, width
        place += max(2, struct.unpack_from(">H", data, place)[0])
    return None


def _of_png(data: bytes) -> Dimensions | None:
    first, width, height = struct.unpack_from(">4sII", data, 12)
    return (height, width) if first == b"IHDR" else None


def _of_gif(data: bytes) -> Dimensions:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _of_bmp(data: bytes) -> Dimensions | None:
    (length,) = struct.unpack_from("<I", data, 14)
    if length != 12 and length < 36:
        return None
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return abs(height), abs(width)  # a negative height means that the first row is the top one


def _of_webp(data: bytes) -> Dimensions | None:
    chunk, place = data[12:16], 20
    if data[8:12] != b"WEBP":
        return None
    if chunk == b"VP8 ":
        start, width, height = struct.unpack_from("<3sHH", data, place + 3)
        return (height & 0x3FFF, width & 0x3FFF) if start == b"\x9d\x01\x2a" else None
    if chunk == b"VP8L":
        start, bits = struct.unpack_from("<BI", data, place)
        return ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1) if start == 0x2F else None
    if chunk == b"VP8X":
        width, height = struct.unpack_from("<3s3s", data, place + 4)  # after four bytes of flags
        return int.from_bytes(height, "little") + 1, int.from_bytes(width, "little") + 1
    return None


def _of_tiff(data: bytes) -> Dimensions | None:
    """The dimensions of the first picture or of its tiles, if these are larger: a tile is always decoded whole."""
    order = "<" if data.startswith(b"II") else ">"
    big = b"+" in data[:4]
    start, count_of, entry = (8, "Q", "HHQ") if big else (4, "H", "HHI")
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
    (count,) = struct.unpack_from(order + count_of, data, _within(place))
    place += struct.calcsize(order + count_of)
    sides: dict[str, int] = {}
    for at in islice(range(place, len(data), 20 if big else 12), min(count, _MOST_PARTS)):
        tag, kind, _ = struct.unpack_from(order + entry, data, at)
        if tag in _TIFF_SIDES:
            if kind not in _TIFF_NUMBERS:
                return None
            (side,) = struct.unpack_from(order + _TIFF_NUMBERS[kind], data, at + struct.calcsize(order + entry))
            sides[_TIFF_SIDES[tag]] = max(side, sides.get(_TIFF_SIDES[tag], 0))
    if not {"height", "width"} <= set(sides):
        return None
    return _largest([(sides["height"], sides["width"]), (sides.get("tile height", 0), sides.get("tile width", 0))])


def _within(place: int) -> int:
    """Limits an offset to what `struct` accepts; such a large one is beyond the end of every file anyway."""
    return min(place, 2**62)


def _of_jpeg_2000(data: bytes) -> Dimensions | None:
    """The dimensions in the SIZ marker at the start of the code stream, which is in the box `jp2c` or on its own."""
    starts = [0] if data.startswith(b"\xff\x4f") else [start for start, _ in _boxes(data, (0, len(data)), [b"jp2c"])]
    if not starts or data[starts[0] : starts[0] + 4] != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, starts[0] + 8)
    return max(0, bottom - top), max(0, right - left)


def _of_pnm(data: bytes) -> Dimensions | None:
    found = _PNM.match(data, 0, _MOST_OF_PNM)
    return (int(found[2]), int(found[1])) if found else None


def _of_heif(data: bytes) -> Dimensions | None:
    """The largest dimensions in an AVIF or HEIC: of pictures (`ispe`), and of tracks in animations (`tkhd`)."""
    found = []
    for start, end in _boxes(data, (0, len(data)), [b"meta"]):
        for place, _ in _boxes(data, (start + 4, end), [b"iprp", b"ipco", b"ispe"]):  # 4 bytes: version and flags
            width, height = struct.unpack_from(">II", data, place + 4)
            found.append((height, width))
    for start, end in _boxes(data, (0, len(data)), [b"moov", b"trak", b"tkhd"]):
        width, height = struct.unpack_from(">II", data, max(start, end - 8))  # fixed point, 16 bits of fraction
        found.append((height >> 16, width >> 16))
    return _largest(found)


def _boxes(data: bytes, place: tuple[int, int], path: list[bytes]) -> Iterator[tuple[int, int]]:
    """Finds the boxes of a HEIF or JPEG 2000 file under the nested names `path`, within the bytes `place`.

    Yields:
        where the content of each begins and ends.
    """
    start, end = place
    for _ in range(_MOST_PARTS):
        if start + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", data, start)
        inside = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, inside)
            inside += 8
        after = start + length if length else end  # a length of 0 means: to the end
        if after < inside or after > end:
            return
        if name == path[0] and len(path) == 1:
            yield inside, after
        elif name == path[0]:
            yield from _boxes(data, (inside, after), path[1:])
        start = after


_READERS: dict[str, Callable[[bytes], Dimensions | None]] = {
    "JPEG": _of_jpeg,
    "PNG": _of_png,
    "GIF": _of_gif,
    "BMP": _of_bmp,
    "WebP": _of_webp,
    "TIFF": _of_tiff,
    "JPEG 2000": _of_jpeg_2000,
    "PNM": _of_pnm,
    "AVIF": _of_heif,
    "HEIC": _of_heif,
}
