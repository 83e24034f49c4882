"""The server's routes and their answers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from apps.queue.guard import Guard
from apps.queue.postings import MOST_BYTES, read
from apps.queue.queueing import Queueing
from apps.queue.repair import repair
from apps.queue.repository import Repository
from apps.queue.results import Results, curves
from apps.queue.tasks import Queue, Task
from apps.queue.workers import cancel, keep_working
from apps.serve.limits import Refusal
from apps.serve.refusals import gone, problem, refused
from temper.base.errors import TemperError

_ROOT = Path(__file__).parent.parent.parent
_FILES = {  # path -> file, media type
    "/": ("apps/queue/page/index.html", "text/html"),
    "/style.css": ("apps/queue/page/style.css", "text/css"),
    "/theme.css": ("temper/page/shared/theme.css", "text/css"),
    "/script.js": ("apps/queue/page/script.js", "text/javascript"),
}
_PAUSE = 0.5  # seconds between two reads of a log that is followed
_MOST_FOLLOWERS = 64
_FOLLOW = Annotated[bool, Query(description="Whether to send on what is written until the task has ended.")]
_FORCE = Annotated[bool, Query(description="Kill a task that does not end when it is asked to.")]


class Service:
    """The state that all requests share, and the handlers of the routes.

    Args:
        root: the repository.
        jobs: how many workers to keep running, and thus how many tasks run at the same time; 0: none are started.
    """

    def __init__(self, root: Path, jobs: int) -> None:
        self.repository, self.jobs = Repository(root), jobs
        self.queue = Queue(self.repository.root)
        self.queueing = Queueing(self.repository, self.queue)
        self.results = Results(self.repository)
        self._alone = self.repository.serve_alone()
        self._followers = 0
        self._page = {path: (_ROOT / name).read_bytes() for path, (name, _) in _FILES.items()}

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Queues what a crash interrupted, then queues new requests and keeps workers running until the server ends."""
        try:
            for line in await asyncio.to_thread(self.queueing.finish_interrupted):
                print(line, file=sys.stderr, flush=True)
        except TemperError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
        lost = [task.name for task in await asyncio.to_thread(self.queue.tasks) if task.state == "lost"]
        if lost:
            print(f"{len(lost)} tasks were left by a crash: python -m apps.queue repair", file=sys.stderr, flush=True)
        works = [asyncio.create_task(self.queueing.work())]
        works += [asyncio.create_task(keep_working(self.repository, self.queue, self.jobs))] if self.jobs else []
        yield
        for work in works:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def post(self, request: Request) -> Response:
        """Queues a run or a grid, completely or not at all. Answers when it is in the queue."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise Refusal(413, f"expected a request of at most {MOST_BYTES:,} bytes, received more")
        wish = read(bytes(body))
        names = await self.queueing.accept(wish)
        return JSONResponse({"id": wish.id, "tasks": names}, 202)

    async def tasks(self) -> Response:
        """All tasks of the queue, with the params that they change and, if they are done, their metrics."""
        return JSONResponse(await asyncio.to_thread(self._tasks))

    def _tasks(self) -> list[dict[str, Any]]:
        experiments = self.repository.experiments()
        return [self._row(task, experiments.get(task.ref or "")) for task in self.queue.tasks()]

    def _row(self, task: Task, commit: str | None) -> dict[str, Any]:
        row = {"name": task.name, "rev": task.rev, "state": task.state, "created": round(task.created, 3)}
        return row | {
            "baseline": task.baseline,
            "params": self.results.changed(task.rev, task.baseline),
            "metrics": self.results.metrics(commit) if commit else {},
        }

    async def list_results(self) -> Response:
        """All experiments of the repository, also those not queued here, with the changed params and the metrics."""
        return JSONResponse(await asyncio.to_thread(self._results))

    def _results(self) -> list[dict[str, Any]]:
        rows = []
        for ref, commit in self.repository.experiments().items():
            _, _, first, rest, name = ref.split("/")
            params = self.results.changed(commit, first + rest)
            rows.append({"name": name, "rev": commit, "baseline": first + rest, "params": params})
            rows[-1]["metrics"] = self.results.metrics(commit)
        return rows

    async def params(self) -> Response:
        """The keys and values of the committed params.yaml, from which runs start."""
        commit = (await asyncio.to_thread(self.repository.git, "rev-parse", "HEAD")).strip()
        return JSONResponse(await asyncio.to_thread(self.results.params, commit))

    async def log(self, name: str, follow: _FOLLOW = False) -> Response:
        """The output of a task."""
        task = await self._find(name)
        if follow and self._followers >= _MOST_FOLLOWERS:
            raise Refusal(503, f"{_MOST_FOLLOWERS} logs are followed already: try again later", again=10)
        return StreamingResponse(self._read_log(task, follow), media_type="text/plain; charset=utf-8")

    async def _read_log(self, task: Task, follow: bool) -> AsyncIterator[bytes]:
        self._followers += follow
        try:
            position = 0
            while True:
                ended = task.result.exists()
                with suppress(FileNotFoundError), task.log.open("rb") as log:
                    log.seek(position)
                    while text := log.read(65536):
                        position += len(text)
                        yield text
                if ended or not follow:
                    return
                await asyncio.sleep(_PAUSE)
        finally:
            self._followers -= follow

    async def curves(self, name: str) -> Response:
        """The curves of a running task."""
        return JSONResponse(await asyncio.to_thread(curves, await self._find(name)))

    async def cancel(self, name: str, force: _FORCE = False) -> Response:
        """Removes a task from the queue, or ends it if it is running."""
        task = await self._find(name)
        state = await asyncio.to_thread(cancel, self.repository, self.queue, task.rev, force)
        return JSONResponse({"name": task.name, "was": state})

    async def repair(self) -> Response:
        """Repairs the queue after a crash."""
        found = await asyncio.to_thread(repair, self.repository, self.queue)
        return JSONResponse(asdict(found) | {"said": found.lines()})

    async def healthz(self) -> Response:
        """Whether the server is running."""
        return JSONResponse({"status": "ok"})

    async def page(self, request: Request) -> Response:
        """A file of the page."""
        path = request.url.path
        return Response(self._page[path], media_type=_FILES[path][1])

    async def _find(self, name: str) -> Task:
        try:
            return await asyncio.to_thread(self.queue.find, name)
        except TemperError as error:
            several = "several" if "of one task" in str(error) else ""
            raise Refusal(409 if several else 404, str(error)) from None


def build(root: Path, jobs: int = 1, token: str | None = None) -> FastAPI:
    """The server, for uvicorn.

    Raises:
        TemperError: the folder is no repository of Temper.
    """
    service = Service(root, jobs)
    app = FastAPI(
        title="Temper's queue",
        version="0.1.0",
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        lifespan=service.running,
    )
    app.add_api_route("/runs", service.post, methods=["POST"], status_code=202)
    app.add_api_route("/tasks", service.tasks)
    app.add_api_route("/tasks/{name}/log", service.log)
    app.add_api_route("/tasks/{name}/curves", service.curves)
    app.add_api_route("/tasks/{name}", service.cancel, methods=["DELETE"])
    app.add_api_route("/results", service.list_results)
    app.add_api_route("/params", service.params)
    app.add_api_route("/repair", service.repair, methods=["POST"])
    app.add_api_route("/healthz", service.healthz)
    for path in _FILES:
        app.add_api_route(path, service.page, include_in_schema=False)
    app.add_middleware(Guard, open_paths={*_FILES, "/healthz"}, token=token)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(TemperError, _failed)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, gone)
    return app


async def _failed(_: Request, error: Exception) -> Response:
    return problem(Refusal(500, str(error)))


async def _wrong_query(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return problem(Refusal(400, f"the query's {first['loc'][-1]}: {first['msg'][0].lower()}{first['msg'][1:]}"))


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    expected = {404: "there is nothing at this path", 405: "this path takes another method"}
    return problem(Refusal(error.status_code, expected.get(error.status_code, "the request is malformed")))
