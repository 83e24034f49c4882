"""A web host as simple as possible: it sends the files of a folder, without any headers of its own."""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Host:
    """A running host.

    Attributes:
        sent: the path and the bytes of each file that was sent, in order.
        missing: the requested paths that do not exist.
        url: the URL of the folder.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.sent: list[tuple[str, int]] = []
        self.missing: list[str] = []
        handler = functools.partial(_handler(self), directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"

    def end(self) -> None:
        """Stops the host: from now on, requests are not answered."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _handler(host: Host) -> type[SimpleHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            data = source.read()
            host.sent.append((self.path, len(data)))
            outputfile.write(data)

        def send_error(self, *arguments: Any, **named: Any) -> None:
            host.missing.append(self.path)
            super().send_error(*arguments, **named)

    return Handler


@contextmanager
def hosted(folder: Path, port: int = 0) -> Iterator[Host]:
    """Runs a host for a folder, on a free port if none is given, until the context ends."""
    host = Host(folder, port)
    try:
        yield host
    finally:
        host.end()
