"""Reads requests from the events of Amazon's API Gateway, as AWS Lambda passes them on, and writes the answers.

Both event formats are supported: 1.0, of REST APIs and load balancers, and 2.0, of HTTP APIs and function URLs. See
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from apps.serve.access import HEADERS
from apps.serve.limits import MEGA, Limits, Refusal, too_long

_MOST_KEYS = 100  # in a query


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        path: the path without the name of API Gateway's stage.
        query: the values of each key.
        headers: the headers, with names in lower case.
        body: the decoded bytes.
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


def asked(event: Any, limits: Limits) -> Asked:
    """The request of an event.

    Raises:
        Refusal: it is not an event of API Gateway, or its body is malformed or too long.
    """
    try:
        read = _of_2 if event.get("version") == "2.0" else _of_1
        method, path, query = read(event)
        several = event.get("multiValueHeaders") or {}
        headers = {name.lower(): values[-1] for name, values in several.items() if values}
        headers |= {name.lower(): str(value) for name, value in (event.get("headers") or {}).items()}
        text, encoded = event.get("body") or "", bool(event.get("isBase64Encoded"))
        text = text if isinstance(text, str) else ""
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise Refusal(400, "expected an event of API Gateway, format 1.0 or 2.0, received another one") from None
    return Asked(method, path, query, headers, _body(text, encoded, headers.get("content-type", ""), limits))


def _of_2(event: Mapping[str, Any]) -> tuple[str, str, Mapping[str, list[str]]]:
    """Method, path and query of an event in format 2.0, in which the path begins with the name of the stage."""
    context = event["requestContext"]
    path, stage = str(event["rawPath"]), f"/{context.get('stage') or '$default'}"
    path = path.removeprefix(stage) if path.startswith(f"{stage}/") else path
    query = parse_qs(event.get("rawQueryString") or "", keep_blank_values=True, max_num_fields=_MOST_KEYS)
    return str(context["http"]["method"]), path, query


def _of_1(event: Mapping[str, Any]) -> tuple[str, str, Mapping[str, list[str]]]:
    """Method, path and query of an event in format 1.0."""
    query = {name: [str(value)] for name, value in (event.get("queryStringParameters") or {}).items()}
    query |= {name: [*map(str, of)] for name, of in (event.get("multiValueQueryStringParameters") or {}).items()}
    return str(event["httpMethod"]), str(event["path"]), query


def _body(text: str, encoded: bool, content_type: str, limits: Limits) -> bytes:
    most = int(limits.megabytes * MEGA)
    if len(text) // 4 * 3 > most + 2 if encoded else len(text) > most:  # checked before decoding makes a second copy
        raise too_long(limits)
    if "\ufffd" in text and "json" not in content_type:  # REST APIs put this in place of each byte that is not text
        raise Refusal(400, "expected a photo in base64, received one as text: set the API's binary media types to */*")
    try:
        body = base64.b64decode(text, validate=True) if encoded else text.encode(errors="replace")
    except (binascii.Error, ValueError):
        raise Refusal(400, "expected a body in base64, as the event says, received another one") from None
    if len(body) > most:
        raise too_long(limits)
    return body


def answered(status: int, body: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """An answer with a JSON body, in a form that both formats accept."""
    told = HEADERS | {"Content-Type": "application/json"} | dict(headers or {})
    return {"statusCode": status, "headers": told, "body": body, "isBase64Encoded": False}
