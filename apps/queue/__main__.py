"""python -m apps.queue [serve] [--host 127.0.0.1] [--port 8001] [--jobs 1]
   python -m apps.queue repair [--jobs 1]

`serve`: serves DVC's queue of the repository in the working folder over HTTP, with a page for people at /. Clients that
may post a run may run code, so a server that others can reach needs the environment variable TEMPER_TOKEN, which
clients send as `Authorization: Bearer TOKEN`.

`repair`: repairs the queue after a crash. Tasks that DVC would show as running forever are queued again, copies of the
repository that no process uses are removed, and workers are started. Nothing that belongs to a living process is
touched.
"""

import argparse
import ipaddress
import os
from pathlib import Path

from apps.queue.repair import repair
from apps.queue.repository import Repository
from apps.queue.tasks import Queue
from apps.queue.workers import start_workers
from temper import command_line
from temper.base.errors import TemperError

_MOST_JOBS = 16  # DVC's workers fail at random when there are more of them (dvc#10673)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.queue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=["serve", "repair"], default="serve")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all of the network (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8001, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="tasks that run at once; 0: no worker is started")
    return parser.parse_args()


def main() -> int:
    """Serves until it is told to end, or repairs; returns the exit code."""
    chosen = parsed()
    if not 0 <= chosen.jobs <= _MOST_JOBS:
        raise TemperError(f"--jobs: expected 0 to {_MOST_JOBS}, received {chosen.jobs}")
    if chosen.command == "repair":
        return _repair(chosen.jobs)
    token = os.environ.get("TEMPER_TOKEN")
    if token is not None and len(token) < 8:
        raise TemperError(f"TEMPER_TOKEN: expected at least 8 characters, received {len(token)}; or unset it")
    if token is None and not _is_local(chosen.host):
        raise TemperError(f"--host {chosen.host}: expected TEMPER_TOKEN to be set, since a queue runs code")
    _serve(chosen, token)
    return 0


def _serve(chosen: argparse.Namespace, token: str | None) -> None:
    try:
        from apps.queue.serving import serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise TemperError(f"expected {error.name} to be installed, found none: make queue") from None
    serve(Path(), chosen.host, chosen.port, chosen.jobs, token)


def _repair(jobs: int) -> int:
    repository = Repository(Path())
    queue = Queue(repository.root)
    for line in repair(repository, queue).lines():
        print(line)
    if jobs and start_workers(repository, queue, jobs):
        print("started workers")
    return 0


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    command_line.run(main)
