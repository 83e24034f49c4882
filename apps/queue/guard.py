"""What stands around every request: the token, the name under which the server is asked, headers for browsers."""

import hmac
import sys
import traceback

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # The page may load what is beside it and ask this server, nothing else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOCAL = {"127.0.0.1", "localhost", "[::1]"}


class Guard:
    """An ASGI middleware. Who may post may run code here, so that no page of another site may, even on this machine.

    Without a token, only requests to this machine by its own name are answered: the page of a stranger, whose name
    leads here, asks under its own. What writes must say that it sends JSON, which another site's page may not.

    Args:
        open_paths: those that need no token.
        token: None: nobody needs one.
    """

    def __init__(self, app: ASGIApp, open_paths: set[str], token: str | None) -> None:
        self._app, self._open = app, open_paths
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
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
