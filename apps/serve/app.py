"""The server's routes, their answers, and the meaning of the HTTP statuses."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from apps.serve import bodies, inputs, questions
from apps.serve.access import NO_METHOD, NO_PATH
from apps.serve.answers import Answered, Answering, Description, Problem, describe, in_json
from apps.serve.counts import TYPE, Counts
from apps.serve.decoding import Decoders
from apps.serve.guard import Guard
from apps.serve.limits import Refusal, Room
from apps.serve.models import Models, print_line
from apps.serve.options import Options
from apps.serve.questions import Question
from apps.serve.refusals import gone, problem, refused
from temper.base.machine import cores

_ROOT = Path(__file__).parent.parent.parent
_FILES = {  # path -> file, media type
    "/": ("temper/page/shared/index.html", "text/html"),
    "/style.css": ("temper/page/shared/style.css", "text/css"),
    "/theme.css": ("temper/page/shared/theme.css", "text/css"),
    "/script.js": ("temper/page/shared/script.js", "text/javascript"),
    "/answers.js": ("apps/serve/page/answers.js", "text/javascript"),
}
_STATUSES = {
    400: "The request is malformed, or has no photo.",
    401: "The token is missing or wrong.",
    403: "Addresses are not fetched here, or this one is not public.",
    404: "There is no such model.",
    408: "The request arrived too slowly.",
    413: "Too many bytes, pixels or photos.",
    415: "What was sent is no photo.",
    422: "The photo is damaged.",
    502: "The address gives no photo.",
    503: "The server has too much to do; Retry-After says when to come back.",
    504: "It took too long.",
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"photo": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {"schema": {"type": "object"}, "example": inputs.EXAMPLE},
        },
    }
}


class Service:
    """The state that all requests share, and the handlers of the routes."""

    def __init__(self, options: Options) -> None:
        self.options, self.limits = options, options.limits
        self.counts, self.room = Counts(), Room(options.limits)
        self.models = Models(options.models, options.detector, self._say)
        self.decoders = Decoders(cores(), options.limits)
        self.answering = Answering(options.limits, self.decoders, cores())
        self.addresses = _addresses(options) if options.addresses else None
        self._page = {path: (_ROOT / name).read_bytes() for path, (name, _) in _FILES.items()}

    def _say(self, name: str, taken_up: bool, line: str) -> None:
        self.counts.reloads.labels(name, str(taken_up).lower()).inc()
        print_line(name, taken_up, line)

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Watches the models' files while the server runs; cleans up after the last request has been answered."""
        ended = threading.Event()
        await self.decoders.start()
        watching = asyncio.create_task(asyncio.to_thread(self.models.watch, ended))
        yield
        ended.set()
        await watching
        await self.decoders.close()
        if self.addresses:
            await self.addresses.close()
        self.answering.close()
        self.models.close()

    async def predict(
        self,
        request: Request,
        question: Annotated[Question, Query()],
    ) -> Response:
        """Predicts the classes of each photo.

        Photos are sent as the body itself, as files of a form, or as JSON with base64 or addresses. If some of several
        photos cannot be read, the others are answered and the status is 200. If none can be read, the status is that of
        the first photo.
        """
        wish = questions.wish(question, self.models.now())
        with self.room.share() as share:
            body = await bodies.read(request, self.limits, share)
            with self.room.place():
                content_type = request.headers.get("content-type", "")
                photos = await inputs.photos(body, content_type, self.limits, self.addresses, share)
                del body
                found = await self.answering.all(photos, wish)
        for photo in found:
            self.counts.photos.labels(photo.status).inc()
            for answer in photo.answers:
                self.counts.predictions.labels(answer.model).inc()
        return Response(in_json(found), media_type="application/json")

    async def list_models(self) -> Response:
        """The models that are served now: names, classes, how photos are prepared."""
        return JSONResponse([describe(model).model_dump() for model in self.models.now()])

    async def healthz(self) -> Response:
        """Whether the server is running, and whether it fetches photos by URL."""
        return JSONResponse({"status": "ok", "models": len(self.models.now()), "addresses": self.addresses is not None})

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        self.counts.working.set(self.room.requests)
        self.counts.bytes.set(self.room.bytes)
        self.counts.restarts.set(self.decoders.restarts)
        return Response(self.counts.text(), media_type=TYPE)

    async def page(self, request: Request) -> Response:
        """A file of the page."""
        path = request.url.path
        return Response(self._page[path], media_type=_FILES[path][1])


def build(options: Options) -> FastAPI:
    """The server, for uvicorn.

    Raises:
        TemperError: a model cannot be read.
    """
    service = Service(options)
    app = FastAPI(
        title="Temper",
        version="0.1.0",
        description="Image classifiers of Temper.",
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        lifespan=service.running,
    )
    responses: dict[int | str, Any] = {
        status: {"model": Problem, "description": meaning} for status, meaning in _STATUSES.items()
    }
    app.add_api_route(
        "/predict", service.predict, methods=["POST"], response_model=Answered, responses=responses, openapi_extra=_BODY
    )
    app.add_api_route("/models", service.list_models, response_model=list[Description])
    app.add_api_route("/healthz", service.healthz)
    app.add_api_route("/metrics", service.metrics)
    for path in _FILES:
        app.add_api_route(path, service.page, include_in_schema=False)
    app.add_middleware(
        Guard,
        counts=service.counts,
        paths={*_FILES, "/predict", "/models", "/healthz", "/metrics", "/openapi.json"},
        open_paths={*_FILES, "/healthz"},
        token=options.token,
    )
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, gone)
    return app


def _addresses(options: Options) -> Any:
    from apps.serve.addresses import Addresses  # noqa: PLC0415 (takes a tenth of a second, and is optional)

    return Addresses(options.limits, options.private)


async def _wrong_query(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(questions.wrong(error.errors()[0]))


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: NO_PATH, 405: NO_METHOD}
    return problem(known.get(error.status_code) or Refusal(error.status_code, "the request is malformed"))
