"""Runs the server as a process on uvicorn, one for each repository."""

from pathlib import Path

import uvicorn

from apps.queue.app import build
from apps.serve.listening import Server

_MOST_CONNECTIONS = 512


def serve(root: Path, host: str, port: int, jobs: int, token: str | None) -> None:
    """Runs the server until it is told to end. Tasks and workers continue without it.

    Raises:
        TemperError: the folder is no repository of Temper.
    """
    config = uvicorn.Config(
        build(root, jobs, token),
        host=host,
        port=port,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    Server(config).run()
