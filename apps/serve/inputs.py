"""Extracts the photos of a request, which are sent as files of a form, raw bytes, or JSON with base64 or URLs."""

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Protocol

from apps.serve import multipart
from apps.serve.limits import MEGA, Limits, Refusal, Share
from temper import headers

_MOST_SCANS = 100  # in a JPEG: progressive ones have about ten, and each scan takes as long as all pixels
_SHAPE = 'expected JSON such as {"photos": [{"base64": "..."}, {"address": "https://..."}]}'
EXAMPLE = {"photos": [{"name": "rose.jpg", "base64": "/9j/4AAQSkZJRg..."}, {"address": "https://example.org/rose.jpg"}]}


class Fetcher(Protocol):
    """Fetches photos by URL. `apps.serve.addresses.Addresses` implements it; its import takes a tenth of a second."""

    async def fetch(self, address: str, share: Share) -> bytes:
        """The bytes at a URL.

        Raises:
            Refusal: the URL is malformed or its host not public, or it gives no photo within the limits of bytes and
                time.
        """


@dataclass(frozen=True)
class Sent:
    """A photo of a request.

    Attributes:
        name: the client's name for it; only a text, never used as a path here.
        data: the encoded photo, within the limits; or why there is none.
    """

    name: str
    data: bytes | Refusal


async def photos(body: bytes, content_type: str, limits: Limits, addresses: Fetcher | None, share: Share) -> list[Sent]:
    """The photos in a body, at least one. A problem of one photo does not affect the others.

    Args:
        addresses: fetches photos by URL; None: no photos are fetched.
        share: counts the bytes of fetched photos.

    Raises:
        Refusal: the body has no photos or too many, or is malformed.
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
    """The entries for photos in a JSON body."""
    # Each JSON value takes about a hundred bytes of memory when it is parsed. Base64 does not contain these characters.
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
    """Decodes base64, or a `data:` URL."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "expected base64, received other characters or a part of it") from None


def _checked(data: bytes | Refusal, limits: Limits) -> bytes | Refusal:
    """The photo, or a refusal if its header shows that it is no image or exceeds the limits. Nothing is decoded here.

    The header says how many pixels there would be: a PNG of less than a megabyte can decode to gigabytes.
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
