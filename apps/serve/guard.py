"""Middleware around every request: checks the token, counts, and adds security headers."""

import sys
import time
import traceback

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.serve.access import DEFECT, HEADERS, NO_TOKEN, NO_TOKEN_HEADERS, may_ask
from apps.serve.counts import Counts


class Guard:
    """An ASGI middleware.

    Args:
        counts: the figures for monitoring.
        paths: the paths that are counted by name; all others are counted together, since clients may ask for any.
        open_paths: the paths that need no token.
        token: the token that clients must send; None: none is needed.
    """

    def __init__(self, app: ASGIApp, counts: Counts, paths: set[str], open_paths: set[str], token: str | None) -> None:
        self._app, self._counts, self._paths, self._open = app, counts, paths, open_paths
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request itself, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            app = self._app if self._may(scope) else _NO_TOKEN
            await app(scope, receive, sending)
        except Exception:  # a defect of the server: its log gets the trace, the client does not
            traceback.print_exc(file=sys.stderr)
            if not status:
                await _DEFECT(scope, receive, sending)
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._counts.requests.labels(path, status).inc()
        self._counts.seconds.labels(path).observe(time.monotonic() - begun)

    def _may(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return scope["path"] in self._open or may_ask(self._token, given)


_NO_TOKEN = JSONResponse({"error": NO_TOKEN.sentence}, NO_TOKEN.status, NO_TOKEN_HEADERS)
_DEFECT = JSONResponse({"error": DEFECT.sentence}, DEFECT.status)
