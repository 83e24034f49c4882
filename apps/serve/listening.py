"""uvicorn's server as a process of this project."""

import sys

import uvicorn


class Server(uvicorn.Server):
    """uvicorn's server, which prints in one line where it listens."""

    def _log_started_message(self, listeners: object) -> None:
        found = [one.getsockname() for server in self.servers for one in server.sockets]
        for host, port, *_ in found:
            print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", file=sys.stderr, flush=True)
