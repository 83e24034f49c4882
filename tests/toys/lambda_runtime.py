"""AWS Lambda as a function sees it: a small runtime API, with which the real `awslambdaric` communicates.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import base64
import http.server
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.toys.served import PYTHON, require_environment
from tests.toys.workspace import ROOT

COMMAND = ("-m", "apps.serve.lambda_handler")


class Runtime:
    """A running function, and the service that sends it events."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, api: "Api") -> None:
        self.process, self.log, self._api = process, log, api

    def invoke(self, event: Any, seconds: float = 30) -> dict[str, Any]:
        """The function's answer to an event.

        Args:
            seconds: how much time it is told that it has.
        """
        self._api.events.put((json.dumps(event).encode(), seconds))
        kind, answer = self._api.answers.get(timeout=60)
        assert kind == "response", answer
        found: dict[str, Any] = answer
        return found

    def said(self) -> str:
        """The contents of its log."""
        return self.log.read_text(encoding="utf-8")

    def processor_seconds(self, processes: Sequence[int] = ()) -> float:
        """The processor time so far, of the function or of these processes."""
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in processes or [self.process.pid]]
        ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, processes: Sequence[int] = ()) -> float:
        """The largest memory so far in megabytes, of the function or of these processes."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in processes or [self.process.pid]]
        return sum(int(status.split("VmHWM:")[1].split()[0]) for status in statuses) / 1000


class Api(http.server.ThreadingHTTPServer):
    """The runtime API: `next` waits for an event, `response` and `error` receive its result."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.SimpleQueue[tuple[bytes, float]] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def handle_error(self, *_: object) -> None:
        """Ignores connections that end with the function."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        event, seconds = self.server.events.get()
        deadline = str(int((time.time() + seconds) * 1000))
        told = {"Aws-Request-Id": "1", "Deadline-Ms": deadline, "Invoked-Function-Arn": "arn", "Trace-Id": "Root=1"}
        headers = {f"Lambda-Runtime-{name}": value for name, value in told.items()}
        self._send(200, event, headers | {"Content-Type": "application/json"})  # without, awslambdaric crashes

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.answers.put((self.path.rpartition("/")[2], content))
        self._send(202, b"", {})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(
    log: Path,
    options: str,
    command: Sequence[str] = COMMAND,
    python: str = str(PYTHON),
    folder: Path = ROOT,
    **environment: str,
) -> Iterator[Runtime]:
    """Runs the function in the server's environment, or with another Python, until the context ends.

    Args:
        command: the arguments for Python.
        folder: the working folder.
    """
    with Api() as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        told = {name: value for name, value in os.environ.items() if not name.startswith("TEMPER_")}
        told |= {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}", "TEMPER_OPTIONS": options} | environment
        with log.open("wb") as file:
            process = subprocess.Popen([python, *command], cwd=folder, stdout=file, stderr=file, env=told)
        try:
            yield Runtime(process, log, api)
        finally:
            process.kill()
            process.wait()
            api.shutdown()


def event_1(
    body: bytes | str = b"", path: str = "/predict", query: Mapping[str, Sequence[str]] | None = None,
    method: str = "POST", **headers: str,
) -> dict[str, Any]:  # fmt: skip
    """An event of format 1.0, as a REST API sends it; bytes are sent in base64."""
    several = {name: [*values] for name, values in (query or {}).items()}
    return {
        "version": "1.0",
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()} or None,
        "multiValueHeaders": {name.replace("_", "-"): [value] for name, value in headers.items()} or None,
        "queryStringParameters": {name: values[-1] for name, values in several.items()} or None,
        "multiValueQueryStringParameters": several or None,
        "requestContext": {"stage": "prod", "path": f"/prod{path}", "httpMethod": method},
        "stageVariables": None,
        **_body(body),
    }


def event_2(
    body: bytes | str = b"", path: str = "/predict", query: Mapping[str, Sequence[str]] | None = None,
    method: str = "POST", stage: str = "$default", **headers: str,
) -> dict[str, Any]:  # fmt: skip
    """An event of format 2.0, as an HTTP API or a function URL sends it; bytes are sent in base64."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path if stage == "$default" else f"/{stage}{path}",
        "rawQueryString": urlencode(query or {}, doseq=True),
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {"stage": stage, "http": {"method": method, "path": path}},
        **_body(body),
    }


def _body(body: bytes | str) -> dict[str, Any]:
    if isinstance(body, str):
        return {"body": body or None, "isBase64Encoded": False}
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def require_lambda() -> None:
    """Skips the test if the server's environment has not been made, or has no `awslambdaric`."""
    require_environment()
    if not has_lambda():
        pytest.skip("awslambdaric is not in the server's environment: make serve-environment, on Linux")


def has_lambda() -> bool:
    """Whether the environment of the server has `awslambdaric`, which is for Linux."""
    return bool([*(PYTHON.parent.parent / "lib").glob("python3*/site-packages/awslambdaric")])
