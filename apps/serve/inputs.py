"""The photos of a request, however they were sent: files of a form, raw bytes, or JSON with base64 or addresses."""

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Protocol

from apps.serve import multipart
from apps.serve.limits import MEGA, Limits, Refusal, Share
from temper import headers

_MOST_SCANS = 100  # of a JPEG: progressive ones have about ten, and each costs as much as all pixels
_SHAPE = 'expected JSON such as {"photos": [{"base64": "..."}, {"address": "https://..."}]}'
EXAMPLE = {"photos": [{"name": "rose.jpg", "base64": "/9j/4AAQSkZJRg..."}, {"address": "https://example.org/rose.jpg"}]}


class Fetcher(Protocol):
    """Fetches photos; `apps.serve.addresses.Addresses` is one, whose import takes a tenth of a second."""

    async def fetch(self, address: str, share: Share) -> bytes:
        """The bytes that an address gives.

        Raises:
            Refusal: it is none, is not public, or gives no photo within the limits of bytes and time.
        """


@dataclass(frozen=True)
class Sent:
    """A photo that was sent.

    Attributes:
        name: by which the client knows it; a text, never a path to anything here.
        data: the encoded photo, within the limits; or why there is none.
    """

    name: str
    data: bytes | Refusal


async def photos(body: bytes, content_type: str, limits: Limits, addresses: Fetcher | None, share: Share) -> list[Sent]:
    """The photos in a body; at least one. What is wrong with one of several does not concern the others.

    Args:
        addresses: what fetches photos; None: none are fetched.

    Raises:
        Refusal: the body has no photos, too many, or is malformed.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = [Sent(*file) for file in await asyncio.to_thread(multipart.files, body, content_type, limits.photos)]
    elif kind == "application/json":
        entries = await asyncio.to_thread(_entries, body, limits.photos)
        found = list(await asyncio.gather(*(_of_entry(entry, addresses, share) for entry in entries)))
    else:
        found = [Sent("", body)] if body else []
    if not found:
        raise Refusal(400, "expected at least one photo, received none")
    return [Sent(one.name[:200], _checked(one.data, limits)) for one in found]


def _entries(body: bytes, most: int) -> list[dict[str, str]]:
    """The photos in a body of JSON."""
    # Each value costs a hundred bytes or so of memory when it is read; base64 has none of these characters.
    if sum(body.count(one) for one in b"[{,:") > 1000 + 20 * most:
        raise Refusal(400, f"{_SHAPE}, received too many values")
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, f"{_SHAPE}, received what is no JSON") from None
    entries = content.get("photos") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Refusal(400, f"{_SHAPE}, received other JSON")
    if len(entries) > most:
        raise multipart.too_many(most)
    for entry in entries:
        if len(entry.keys() & {"base64", "address"}) != 1 or not entry.keys() <= {"base64", "address", "name"}:
            raise Refusal(400, f"{_SHAPE}, received a photo with other keys")
        if not all(isinstance(value, str) for value in entry.values()):
            raise Refusal(400, f"{_SHAPE}, received a value that is no text")
    return entries


async def _of_entry(entry: dict[str, str], addresses: Fetcher | None, share: Share) -> Sent:
    name = entry.get("name", entry.get("address", ""))
    try:
        if "base64" in entry:
            return Sent(name, await asyncio.to_thread(_decoded, entry["base64"]))
        if addresses is None:
            raise Refusal(
                403, "expected a photo, received an address: this server fetches none (--addresses allows it)"
            )
        return Sent(name, await addresses.fetch(entry["address"], share))
    except Refusal as refusal:
        return Sent(name, refusal)


def _decoded(text: str) -> bytes:
    """The bytes of base64, also as a `data:` URL."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "expected base64, received other characters or a part of it") from None


def _checked(data: bytes | Refusal, limits: Limits) -> bytes | Refusal:
    """A photo whose header promises what may be decoded; nothing is decoded here.

    The header alone says how many pixels there would be: less than a megabyte of PNG can be gigabytes of them.
    """
    if isinstance(data, Refusal):
        return data
    kind = headers.kind(data)
    if kind is None:
        return Refusal(415, "expected a photo, received no image format that is read here")
    claimed = headers.claimed(data, kind)
    if claimed is None or min(claimed) <= 0:
        return Refusal(422, f"expected a photo, received a truncated or corrupt {kind}")
    if claimed[0] * claimed[1] > limits.megapixels * MEGA:
        return Refusal(
            413,
            f"expected a photo of at most {limits.megapixels:g} megapixels, received {claimed[1]:,} x {claimed[0]:,} "
            "pixels: make it smaller",
        )
    if kind == "JPEG" and data.count(b"\xff\xda") > _MOST_SCANS:
        return Refusal(422, f"expected a JPEG of at most {_MOST_SCANS} scans, received more")
    return data
