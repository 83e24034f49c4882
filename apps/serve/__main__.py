"""python -m apps.serve --models FILE ... [--host 127.0.0.1] [--port 8000] [limits]

Serves exported models over HTTP, with a page for people at /. Several models are chosen by their names, which are those
of their files. A file that is replaced is taken up while the server runs. On SIGTERM it finishes what it has begun.

If the environment variable TEMPER_TOKEN is set, clients must send it: `Authorization: Bearer TOKEN`.
"""

import argparse
import logging
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path

import uvicorn

from apps.serve.app import Options, build
from apps.serve.connections import connections
from apps.serve.limits import Limits
from temper.base.errors import TemperError

_MEANINGS = {
    "megabytes": "of a request, and of a photo that is fetched",
    "megapixels": "of a photo",
    "photos": "of a request",
    "seconds": "for a request to arrive, and again to be answered",
    "requests": "that are worked on at once; those beyond are asked to come back",
    "connections": "that are open at once",
}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m apps.serve", description=(__doc__ or "").split("\n\n", 1)[1])
    parser.add_argument("--models", nargs="*", type=Path, default=[], metavar="FILE", help="exported models")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all of the network (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--addresses", action="store_true", help="fetch photos by address, from public hosts")
    parser.add_argument("--private", action="store_true", help="with --addresses: also from hosts of this network")
    for one in fields(Limits):
        kind = int if isinstance(one.default, int) else float
        meaning = f"{_MEANINGS[one.name]} (default: %(default)g)"
        parser.add_argument(f"--{one.name}", type=kind, default=one.default, metavar="N", help=meaning)
    return parser.parse_args()


def main() -> None:
    """Runs until it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when all requests are answered
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what it thinks of damaged forms
    chosen = parsed()
    limits = Limits(**{one.name: getattr(chosen, one.name) for one in fields(Limits)})
    for one in fields(Limits):
        if not getattr(limits, one.name) > 0:
            raise TemperError(f"--{one.name}: expected a number above 0, received {getattr(limits, one.name)}")
    token = os.environ.get("TEMPER_TOKEN")
    if token is not None and len(token) < 8:
        raise TemperError(f"TEMPER_TOKEN: expected at least 8 characters, received {len(token)}; or unset it")
    options = Options(chosen.models, limits, token, chosen.addresses, chosen.private)
    config = uvicorn.Config(
        build(options),
        host=chosen.host,
        port=chosen.port,
        http=connections(limits.seconds),
        ws="none",
        log_level="error",  # a warning for each malformed request would fill disks
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=int(2 * limits.seconds) + 5,
    )
    Server(config).run()


class Server(uvicorn.Server):
    """uvicorn's, which says in one line where it listens."""

    def _log_started_message(self, listeners: object) -> None:
        found = [one.getsockname() for server in self.servers for one in server.sockets]
        for host, port, *_ in found:
            print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except TemperError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
