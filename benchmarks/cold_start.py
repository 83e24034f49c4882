"""Measures the start and the answers of the function for AWS Lambda, with FastAPI and without, in one run.

    python -m benchmarks.cold_start MODEL.tflite PHOTO [--rounds 7] [--warm 100]

Amazon's own awslambdaric runs the function in the server's environment, with the toy runtime API of the tests.
`function` is apps/serve/lambda_handler.py; `app` is the server's FastAPI app, called for each event. Printed are
medians and ranges of the processor seconds and megabytes from the start of the process to its first answer, including
decoders, and of the processor milliseconds of a later answer. Expected: the function needs half of the app's processor
time and memory to start.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.toys.lambda_runtime import COMMAND, Runtime, event_2, running

# What an adapter such as Mangum does, without its own costs.
_APP = """
import asyncio, base64, os, shlex
from pathlib import Path
from apps.serve.app import build
from apps.serve.options import Options
runner = asyncio.Runner()
app = build(Options([Path(shlex.split(os.environ["TEMPER_OPTIONS"])[1])]))
context = app.router.lifespan_context(app)
runner.run(context.__aenter__())

async def call(event):
    found, sent = {}, False
    scope = {"type": "http", "method": "POST", "path": event["rawPath"], "query_string": b"", "http_version": "1.1",
             "headers": [(name.encode(), value.encode()) for name, value in event["headers"].items()]}
    async def receive():
        return {"type": "http.request", "body": base64.b64decode(event["body"]), "more_body": False}
    async def send(message):
        found.update(message)
    await app(scope, receive, send)
    return {"statusCode": found["status"], "body": found["body"].decode()}

def handler(event, context):
    return runner.run(call(event))

import sys, types
sys.modules["handling"] = types.SimpleNamespace(handler=handler)
from awslambdaric.__main__ import main
main(["awslambdaric", "handling.handler"])
"""
WAYS = {"function": COMMAND, "app": ("-c", _APP)}


def processes(function: Runtime) -> list[int]:
    """Its own number, and those of its decoders."""
    pid = function.process.pid
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(int(child) for task in tasks for child in task.read_text().split())]


def measured(command: Sequence[str], model: Path, photo: bytes, warm: int) -> tuple[float, float, float]:
    """Processor seconds and megabytes to the first answer, and processor milliseconds of a later one."""
    log = Path(tempfile.gettempdir()) / "cold_start.log"
    with running(log, f"--models {model}", command) as function:
        event = event_2(photo, Content_Type="image/jpeg")
        assert function.invoke(event)["statusCode"] == 200
        own = processes(function)
        start, most = function.processor_seconds(own), function.memory(own)
        for _ in range(warm):
            function.invoke(event)
        return start, most, (function.processor_seconds(own) - start) / warm * 1000


def in_words(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(model: Path, photo: Path, rounds: int, warm: int) -> None:
    found = {name: [measured(of, model, photo.read_bytes(), warm) for _ in range(rounds)] for name, of in WAYS.items()}
    for name, rows in found.items():
        seconds, megabytes, milliseconds = zip(*rows, strict=True)
        print(
            f"{name}: first answer after {in_words(seconds, 2)} CPU s, with {in_words(megabytes, 0)} MB; "
            f"a further one {in_words(milliseconds, 1)} CPU ms"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.model, arguments.photo, arguments.rounds, arguments.warm)
