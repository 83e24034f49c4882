"""Fetches photos by their URLs, from public hosts only, whatever a host name or a redirect leads to.

For each connection, the IP address that the socket is about to connect to is checked (temper/network/public_hosts.py).
So a name that resolves to another address the second time (DNS rebinding) gains nothing. No proxy is used, because a
proxy would connect to any host.
"""

import asyncio

import aiohttp
from yarl import URL

from apps.serve.limits import MEGA, Limits, Refusal, Share
from temper.network.public_hosts import NotPublicError, is_named_privately, public_socket

_SECONDS = 10.0
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_HEADERS = {"User-Agent": "temper/0.1", "Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity"}


class Addresses:
    """Fetches photos by their URLs.

    Args:
        limits: the limits of bytes and seconds for each photo.
        private: whether hosts that are not public are allowed too, for tests and for networks without secrets.
    """

    def __init__(self, limits: Limits, private: bool = False) -> None:
        self._limits, self._private = limits, private
        self._most = int(limits.megabytes * MEGA)
        self._seconds = min(_SECONDS, limits.seconds)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    async def fetch(self, address: str, share: Share) -> bytes:
        """The bytes at a URL.

        Raises:
            Refusal: the URL is malformed or its host not public, or it gives no photo within the limits of bytes and
                time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(_parse(address), share)
        except TimeoutError:
            raise Refusal(504, f"expected the address to answer within {self._seconds:g} seconds") from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPublicError):
                raise _not_public() from None
            raise Refusal(502, "expected the address to lead to a host that answers") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise Refusal(502, "expected the address to give a photo, received an answer that cannot be read") from None

    async def _follow(self, url: URL, share: Share) -> bytes:
        for _ in range(_MOST_REDIRECTS + 1):
            if not self._private and is_named_privately(str(url.host)):
                raise _not_public()
            async with self._opened().get(url, allow_redirects=False) as answer:
                if answer.status not in _REDIRECTS:
                    return await self._read(answer, share)
                url = _parse(answer.headers.get("Location", ""), url)
        raise Refusal(502, f"expected at most {_MOST_REDIRECTS} redirects of the address, received more")

    async def _read(self, answer: aiohttp.ClientResponse, share: Share) -> bytes:
        if answer.status != 200:
            raise Refusal(502, f"expected the address to give a photo, received HTTP {answer.status}")
        body = bytearray()
        async for block in answer.content.iter_any():
            if len(body) + len(block) > self._most:
                raise Refusal(413, f"expected a photo of at most {self._limits.megabytes:g} megabytes at the address")
            share.take(len(block))
            body += block
        return bytes(body)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            guard = None if self._private else public_socket
            # No decompression: a kilobyte can expand to a gigabyte.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, force_close=True, use_dns_cache=False, socket_factory=guard),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
            )
        return self._session


def _parse(text: str, base: URL | None = None) -> URL:
    try:
        url = base.join(URL(text)) if base else URL(text)
        (url.raw_host or "").rstrip(".").encode("idna")  # fails here for names that the resolver could not encode
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise Refusal(400, "expected an address that begins with http:// or https://, received another one")
    return url


def _not_public() -> Refusal:
    return Refusal(403, "expected the address of a public host, received one that is not")
