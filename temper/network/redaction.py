"""What is shown without its secrets: messages, tables and facts that may repeat credentials, or addresses with them.

A server can repeat whatever it was sent, such as the header `Authorization`, in its error page, in a header or in the
title of a dataset. So a text from outside passes through `redacted` before a terminal, a log or a file gets it.
"""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
_SHORTEST = 6  # characters: a shorter secret would mask parts of ordinary words

_USERINFO = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")
_AUTHORIZATION = re.compile(r"(?i)(authorization\W{1,4}(?:(?:basic|bearer|token)\s+)?)[^\s'\",;]+")
# Parameters that hold a secret, or the signature of Google, Amazon, Azure or CloudFront.
_PARAMETER = re.compile(
    r"(?i)((?:^|[?&;])(?:[\w.-]*(?:token|signature|credential|password|passwd|secret|api[_-]?key|access[_-]?key(?:id)?)"
    r"|sig|key|pwd|auth|policy|key-pair-id|googleaccessid)=)[^\s&;#'\"<>)\]]+"
)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without the `secrets`, the user and password of addresses, tokens and signatures in their queries.

    Args:
        secrets: what `forms` returns for each credential.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USERINFO.sub(f"{MASK}@", text)
    text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    return _PARAMETER.sub(rf"\1{MASK}", text)


def forms(key: str | None, user: str | None = None) -> set[str]:
    """The ways in which a key, or the pair of a user and a key, may be repeated.

    The key itself, percent-encoded, and `user:key` in Base64 (RFC 7617), standard and URL-safe, with and without
    padding.
    """
    if not key:
        return set()
    found = {key, quote(key, safe="")} if len(key) >= _SHORTEST else set()
    if user is not None:
        pair = f"{user}:{key}".encode()
        for encoded in (base64.b64encode(pair).decode(), base64.urlsafe_b64encode(pair).decode()):
            found |= {encoded, encoded.rstrip("="), quote(encoded, safe="")}
    return found


def secrets_of(url: str) -> set[str]:
    """The forms of the user and password in an address, which are sent as a header."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address, so nothing is sent anywhere
        return set()
    return forms(unquote(parts.password or ""), unquote(parts.username or "")) | forms(parts.password)
