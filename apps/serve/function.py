"""Exported models as a function for AWS Lambda, which answers one request at a time; starts faster without FastAPI."""

import argparse
import asyncio
import json
import os
import shlex
import sys
import traceback
from functools import cache
from typing import Any

from apps.serve import inputs, options, questions
from apps.serve.access import DEFECT, NO_METHOD, NO_PATH, NO_TOKEN, NO_TOKEN_HEADERS, may_ask
from apps.serve.answers import Answering, Problem, describe, in_json
from apps.serve.decoding import DecodingHere
from apps.serve.events import Asked, answered, asked
from apps.serve.limits import Refusal, Room
from apps.serve.models import opened, require_names
from temper.base.errors import TemperError

OPTIONS = "TEMPER_OPTIONS"
_SPARE = 0.5  # seconds kept in reserve, so that the function can still answer that it ran out of time
_ROUTES = {"/predict": "POST", "/models": "GET", "/healthz": "GET"}


class Function:
    """Answers events of API Gateway; holds the state that all requests share.

    Raises:
        TemperError: a model cannot be read.
    """

    def __init__(self, given: options.Options) -> None:
        require_names(given.models)
        self._token, self._limits = given.token, given.limits
        self._models = [opened(path, given.detector) for path in given.models]
        self._answering = Answering(given.limits, DecodingHere(), threads=1)
        self._runner = asyncio.Runner()
        self._addresses: inputs.Fetcher | None = None
        if given.addresses:
            from apps.serve.addresses import Addresses  # noqa: PLC0415 (takes a tenth of a second, and is optional)

            self._addresses = Addresses(given.limits, given.private)

    def __call__(self, event: Any, seconds: float) -> dict[str, Any]:
        """The answer to an event of API Gateway; never raises.

        Args:
            seconds: how much time is left for the answer.
        """
        try:
            return self._answer(asked(event, self._limits), seconds)
        except Refusal as refusal:
            return refused(refusal)
        except Exception:  # a defect: the log gets the trace, the client does not
            traceback.print_exc(file=sys.stderr)
            return refused(DEFECT)

    def _answer(self, request: Asked, seconds: float) -> dict[str, Any]:
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        if request.path != "/healthz" and not may_ask(self._token, given):
            return refused(NO_TOKEN, NO_TOKEN_HEADERS)
        if request.path not in _ROUTES:
            return refused(NO_PATH)
        if request.method != _ROUTES[request.path]:
            return refused(NO_METHOD, {"Allow": _ROUTES[request.path]})
        if request.path == "/predict":
            return answered(200, self._runner.run(self._predict(request, seconds)))
        if request.path == "/models":
            return answered(200, _compact([describe(model).model_dump() for model in self._models]))
        fetches = self._addresses is not None
        return answered(200, _compact({"status": "ok", "models": len(self._models), "addresses": fetches}))

    async def _predict(self, request: Asked, seconds: float) -> str:
        wish = questions.wish(questions.read(request.query), self._models)
        with Room(self._limits).share() as share:
            share.take(len(request.body))
            kind = request.headers.get("content-type", "")
            photos = await inputs.photos(request.body, kind, self._limits, self._addresses, share)
            return in_json(await self._answering.all(photos, wish, seconds - _SPARE))


def refused(refusal: Refusal, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """A refusal as an answer for API Gateway."""
    again = {"Retry-After": str(refusal.again)} if refusal.again else {}
    return answered(refusal.status, Problem(error=refusal.sentence).model_dump_json(), again | (headers or {}))


@cache
def loaded() -> Function:
    """The function that the environment variables describe, created once per process.

    Raises:
        TemperError: the options are wrong, or a model cannot be read.
    """
    parser = argparse.ArgumentParser(prog=OPTIONS, add_help=False, exit_on_error=False)
    options.add_to(parser, without=("requests", "connections"))
    try:
        given, unknown = parser.parse_known_args(shlex.split(os.environ.get(OPTIONS, "")))
    except (argparse.ArgumentError, ValueError) as error:
        raise TemperError(f"{OPTIONS}: expected options of the server, received others: {error}") from None
    if unknown:
        raise TemperError(f"{OPTIONS}: expected options of the server, received others: {' '.join(unknown)}")
    return Function(options.chosen(given))


def _compact(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
