"""Parses bodies of the type multipart/form-data (RFC 7578) in memory.

Starlette's `request.form()` is not used, because it writes photos of more than a megabyte to disk.
"""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from apps.serve.limits import Refusal

_MOST_HEADERS = 20  # in a part; browsers send two
_HEADER_BYTES = 8192  # of all headers of a part together


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""  # of the header that is being read
    value: bytes = b""
    read: int = 0  # bytes of headers
    data: bytearray = field(default_factory=bytearray)


def files(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """The name and the bytes of each file, in order.

    Args:
        content_type: the request's header, with the boundary in it.
        most: how many files there may be.

    Raises:
        Refusal: the body is malformed or cut off, or has more files.
    """
    _, options = parse_options_header(content_type)
    collected = _Collected(most)
    try:
        parser = MultipartParser(options.get(b"boundary", b""), collected.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _malformed("that can be read" if options.get(b"boundary") else "with a boundary") from error
    if not collected.whole:
        raise _malformed("with its last boundary")
    return [_file(part) for part in collected.parts]


class _Collected:
    """Collects the parts that the parser finds."""

    def __init__(self, most: int) -> None:
        self.parts: list[_Part] = []
        self.whole = False
        self._most = most

    def callbacks(self) -> dict[str, object]:
        """The functions that the parser calls, by event."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._most:
            raise too_many(self._most)
        self.parts.append(_Part())

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.parts[-1].name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.parts[-1].value += data[start:end]

    def _count(self, read: int) -> None:
        part = self.parts[-1]
        part.read += read
        if part.read > _HEADER_BYTES or len(part.headers) > _MOST_HEADERS:
            raise _malformed("with short headers")

    def _header_end(self) -> None:
        part = self.parts[-1]
        part.headers[part.name.lower()] = part.value
        part.name = part.value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def _end(self) -> None:
        self.whole = True


def _file(part: _Part) -> tuple[str, bytes]:
    _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
    if b"filename" not in options:
        raise Refusal(400, "expected only files in the form, received another field: with curl, -F photo=@FILE")
    return options[b"filename"].decode("utf-8", "replace"), bytes(part.data)


def too_many(most: int) -> Refusal:
    """The refusal of a request with too many photos."""
    return Refusal(413, f"expected at most {most} photos in a request, received more: send several requests")


def _malformed(expected: str) -> Refusal:
    return Refusal(400, f"expected a body of the type multipart/form-data {expected}, received something else")
