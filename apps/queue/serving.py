"""The server as a process: one a repository, on uvicorn."""

import sys
from pathlib import Path

import uvicorn

from apps.queue.app import build

_MOST_CONNECTIONS = 512


def serve(root: Path, host: str, port: int, jobs: int, token: str | None) -> None:
    """Runs until it is told to end. Tasks and workers go on without it.

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


class Server(uvicorn.Server):
    """uvicorn's, which says in one line where it listens."""

    def _log_started_message(self, listeners: object) -> None:
        found = [one.getsockname() for server in self.servers for one in server.sockets]
        for host, port, *_ in found:
            print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", file=sys.stderr, flush=True)
