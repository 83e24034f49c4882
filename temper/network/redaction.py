"""Removes secrets from texts, such as messages and tables, that may repeat credentials or addresses with credentials.

A server can repeat whatever it was sent, such as the header `Authorization`, in an error page, in a header or in the
title of a dataset. So every text from outside passes through `redacted` before it goes to a terminal, a log or a file.
"""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
_SHORTEST = 6  # characters: a shorter secret would mask parts of ordinary words

_USERINFO = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")
_AUTHORIZATION = re.compile(r"(?i)(authorization\W{1,4}(?:(?:basic|bearer|token)\s+)?)[^\s'\",;]+")
# URL parameters that contain a secret, or a signature of Google, Amazon, Azure or CloudFront.
_PARAMETER = re.compile(
    r"(?i)((?:^|[?&;])(?:[\w.-]*(?:token|signature|credential|password|passwd|secret|api[_-]?key|access[_-]?key(?:id)?)"
    r"|sig|key|pwd|auth|policy|key-pair-id|googleaccessid)=)[^\s&;#'\"<>)\]]+"
)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Masks in a text the `secrets`, users and passwords in addresses, and tokens and signatures in their queries.

    Args:
        secrets: the results of `forms` for all known credentials.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USERINFO.sub(f"{MASK}@", text)
    text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    return _PARAMETER.sub(rf"\1{MASK}", text)


def forms(key: str | None, user: str | None = None) -> set[str]:
    """The forms in which a key, or the pair of a user and a key, may be repeated.

    These are the key itself, the percent-encoded key, and `user:key` in Base64 (RFC 7617), standard and URL-safe, with
    and without padding.
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
    except ValueError:  # not an address, so nothing is sent anywhere
        return set()
    return forms(unquote(parts.password or ""), unquote(parts.username or "")) | forms(parts.password)
