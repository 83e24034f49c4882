"""The server's routes: what is asked for, what is answered, and which statuses mean what."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from apps.serve import bodies, inputs
from apps.serve.addresses import Addresses
from apps.serve.answers import Answered, Answering, Description, Problem, Wish, describe
from apps.serve.counts import TYPE, Counts
from apps.serve.decoding import Decoders
from apps.serve.guard import Guard
from apps.serve.limits import Limits, Refusal, Room
from apps.serve.models import Model, Models, print_line
from temper.base.machine import cores

_ROOT = Path(__file__).parent.parent.parent
_FILES = {  # path: file, type
    "/": ("temper/page/shared/index.html", "text/html"),
    "/style.css": ("temper/page/shared/style.css", "text/css"),
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
_NAMES = Annotated[Sequence[str], Query(description="A model's name; several may be given. The first model if none.")]
_TOP = Annotated[int, Query(ge=1, le=1000, description="How many classes are named.")]
_LOOK = Annotated[bool, Query(description="Whether to find out where the model looked; for one photo.")]
_CALIBRATED = Annotated[bool, Query(description="Whether probabilities are scaled so that they can be believed.")]


@dataclass(frozen=True)
class Options:
    """How the server was started.

    Attributes:
        token: that clients must send, as `Authorization: Bearer TOKEN`; None: nobody needs one.
        addresses: whether photos are fetched by their addresses.
        private: whether these may be of hosts that are not public.
    """

    models: Sequence[Path]
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    addresses: bool = False
    private: bool = False


class Service:
    """What all requests share."""

    def __init__(self, options: Options) -> None:
        self.options, self.limits = options, options.limits
        self.counts, self.room = Counts(), Room(options.limits)
        self.models = Models(options.models, self._say)
        self.decoders = Decoders(cores(), options.limits)
        self.answering = Answering(options.limits, self.decoders, cores())
        self.addresses = Addresses(options.limits, options.private) if options.addresses else None
        self._page = {path: (_ROOT / name).read_bytes() for path, (name, _) in _FILES.items()}

    def _say(self, name: str, taken_up: bool, line: str) -> None:
        self.counts.reloads.labels(name, str(taken_up).lower()).inc()
        print_line(name, taken_up, line)

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Watches the models' files meanwhile, and cleans up when the last request has been answered."""
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
        model: _NAMES = (),
        top: _TOP = 5,
        look: _LOOK = False,
        calibrated: _CALIBRATED = False,
    ) -> Response:
        """What the models say of each photo.

        Photos are sent as the body itself, as files of a form, or as JSON with base64 or addresses. If some of several
        photos cannot be read, the others are answered, and the status is 200; if none can, it is that of the first.
        """
        wish = Wish(self._chosen(model), top, calibrated, look)
        with self.room.share() as share:
            body = await bodies.read(request, self.limits, share)
            with self.room.place():
                content_type = request.headers.get("content-type", "")
                photos = await inputs.photos(body, content_type, self.limits, self.addresses, share)
                if look and len(photos) > 1:
                    raise Refusal(400, f"expected one photo with look=true, received {len(photos)}")
                del body
                found = await self.answering.all(photos, wish)
        for photo in found:
            self.counts.photos.labels(photo.status).inc()
            for answer in photo.answers:
                self.counts.predictions.labels(answer.model).inc()
        if any(photo.status == 200 for photo in found):
            return _json(Answered(photos=found))
        return _problem(Refusal(found[0].status, str(found[0].error), 1 if found[0].status == 503 else None))

    def _chosen(self, names: Sequence[str]) -> list[Model]:
        now = {model.name: model for model in self.models.now()}
        for name in names:
            if name not in now:
                raise Refusal(404, f"expected the name of a model ({', '.join(now)}), received another one")
        return [now[name] for name in dict.fromkeys(names)] or [next(iter(now.values()))]

    async def list_models(self) -> Response:
        """The models, as they are now: names, classes, how photos are prepared."""
        return JSONResponse([describe(model).model_dump() for model in self.models.now()])

    async def healthz(self) -> Response:
        """Whether the server answers, and whether it fetches photos by their addresses."""
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
        docs_url=None,  # these load scripts of others
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
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


def _json(content: Answered) -> Response:
    return Response(content.model_dump_json(exclude_none=True), media_type="application/json")


def _problem(refusal: Refusal) -> Response:
    headers = {"Retry-After": str(refusal.again)} if refusal.again else {}
    return JSONResponse({"error": refusal.sentence}, refusal.status, headers)


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return _problem(refusal)


async def _wrong_query(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _problem(Refusal(400, f"the query's {first['loc'][-1]}: {first['msg'][0].lower()}{first['msg'][1:]}"))


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    expected = {404: "there is nothing at this path", 405: "this path takes another method"}
    return _problem(Refusal(error.status_code, expected.get(error.status_code, "the request is malformed")))


async def _gone(_: Request, __: Exception) -> Response:
    return _problem(Refusal(400, "the client went away"))  # which nobody reads but the counts
