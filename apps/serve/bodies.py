"""The body of a request, read within the limits of bytes and time."""

import asyncio

from starlette.requests import Request

from apps.serve.limits import MEGA, Limits, Refusal, Share, too_long

_TOLERATED = 5  # times the limit: so much is still read and thrown away, so that the client gets to read the answer


async def read(request: Request, limits: Limits, share: Share) -> bytes:
    """All bytes of the body.

    Raises:
        Refusal: it is too long, too slow, or the server holds too much.
        ClientDisconnect: the client went away.
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
