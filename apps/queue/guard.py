"""Middleware around every request: checks the token and the host name, and adds security headers."""

import hmac
import sys
import traceback

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # The page may load files of this server and send requests to it, nothing else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOCAL = {"127.0.0.1", "localhost", "[::1]"}


class Guard:
    """An ASGI middleware. Posting a run means running code, so it keeps out pages of other sites in the user's browser.

    Without a token, only requests to 127.0.0.1 or localhost are answered. A page of another site whose host name
    resolves to this machine (DNS rebinding) sends its own host name, and is refused. POST requests must have the
    content type JSON, which pages of other sites cannot send without permission.

    Args:
        open_paths: the paths that need no token.
        token: the token that clients must send; None: none is needed.
    """

    def __init__(self, app: ASGIApp, open_paths: set[str], token: str | None) -> None:
        self._app, self._open = app, open_paths
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request itself, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, sending)
        except Exception:  # a defect of the server: its log gets the trace, the client does not
            traceback.print_exc(file=sys.stderr)
            if not begun:
                await _DEFECT(scope, receive, sending)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if self._expected is None:
            if headers.get("host", "").rsplit(":", 1)[0] not in _LOCAL:
                return _STRANGE
        elif scope["path"] not in self._open and not self._has_token(headers):
            return _NO_TOKEN
        if scope["method"] == "POST" and headers.get("content-type", "").split(";")[0] != "application/json":
            return _NO_JSON
        return None

    def _has_token(self, headers: Headers) -> bool:
        given = headers.get("authorization", "").encode("latin-1", "replace")
        return self._expected is not None and hmac.compare_digest(given, self._expected)


_NO_TOKEN = JSONResponse(
    {"error": "expected the header Authorization: Bearer TOKEN with the right token"},
    401,
    {"WWW-Authenticate": "Bearer"},
)
_STRANGE = JSONResponse(
    {"error": "expected a request to 127.0.0.1 or localhost; for other names, set TEMPER_TOKEN"}, 403
)
_NO_JSON = JSONResponse({"error": "expected the header Content-Type: application/json"}, 415)
_DEFECT = JSONResponse({"error": "the server failed at this request: its log says how"}, 500)
