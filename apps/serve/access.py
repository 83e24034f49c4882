"""The access token, and the security headers of every answer."""

import hmac

from apps.serve.limits import Refusal

HEADERS = {
    # The page may load files of this server, send requests to it, and show pictures that it made itself; nothing else.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
DEFECT = Refusal(500, "the server failed at this request: its log says how")
NO_TOKEN = Refusal(401, "expected the header Authorization: Bearer TOKEN with the right token")
NO_TOKEN_HEADERS = {"WWW-Authenticate": "Bearer"}
NO_PATH = Refusal(404, "there is nothing at this path")
NO_METHOD = Refusal(405, "this path takes another method")


def may_ask(token: str | None, given: bytes) -> bool:
    """Whether the value of the header Authorization contains the token; True if no token is needed (None)."""
    return token is None or hmac.compare_digest(given, f"Bearer {token}".encode())
