"""python -m apps.serve --models FILE ... [--host 127.0.0.1] [--port 8000] [limits]

Serves exported models over HTTP, with a page for people at /. Of several models, clients choose one by its name, which
is the name of its file. If a file is replaced, the server loads the new one while it runs. On SIGTERM it finishes the
requests that it has begun.

If the environment variable TEMPER_TOKEN is set, clients must send it: `Authorization: Bearer TOKEN`.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # while modules are imported; this saves a tenth of the start-up time

import argparse
import logging
import signal
import sys

import uvicorn

from apps.serve import options
from apps.serve.app import build
from apps.serve.connections import connections
from apps.serve.listening import Server
from temper.base.errors import TemperError


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m apps.serve", description=(__doc__ or "").split("\n\n", 1)[1])
    options.add_to(parser)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all of the network (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Runs the server until it is told to end."""
    gc.enable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when all requests are answered
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # hides its warnings about malformed forms
    given = parsed()
    chosen = options.chosen(given)
    limits = chosen.limits
    config = uvicorn.Config(
        build(chosen),
        host=given.host,
        port=given.port,
        http=connections(limits.seconds),
        ws="none",
        log_level="error",  # logging a warning for each malformed request would fill the disk
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=int(2 * limits.seconds) + 5,
    )
    Server(config).run()


if __name__ == "__main__":
    try:
        main()
    except TemperError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
