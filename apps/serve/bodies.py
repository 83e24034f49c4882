"""Reads the body of a request within the limits of bytes and time."""

import asyncio

from starlette.requests import Request

from apps.serve.limits import MEGA, Limits, Refusal, Share, too_long

# A body of up to this many times the limit is read to its end and discarded, so that the client, which sends first,
# gets to read the answer.
_TOLERATED = 5


async def read(request: Request, limits: Limits, share: Share) -> bytes:
    """All bytes of the body.

    Raises:
        Refusal: the body is too long or arrives too slowly, or the server holds too many bytes at the moment.
        ClientDisconnect: the client has closed the connection.
    """
    most = int(limits.megabytes * MEGA)
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > _TOLERATED * most:
        raise too_long(limits)
    body, length = bytearray(), 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                length += len(chunk)
                if length > _TOLERATED * most:
                    break
                if length > most:
                    body.clear()
                    continue
                share.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise Refusal(408, f"expected the whole request within {limits.seconds:g} seconds, received a part") from None
    if length > most:
        raise too_long(limits)
    return bytes(body)
