"""The server of apps/serve as its users have it: a process in the environment of its own lock, with clients."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.toys.workspace import ROOT

PYTHON = ROOT / ".venv-serve/bin/python"


@dataclass
class Served:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, data: bytes, query: str = "", kind: str = "image/jpeg", **arguments: Any) -> requests.Response:
        """Sends bytes to /predict."""
        headers = {"Content-Type": kind} | arguments.pop("headers", {})
        return requests.post(f"{self.url}/predict{query}", data=data, headers=headers, timeout=60, **arguments)

    def said(self) -> str:
        """What it has written to its log."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Waits until the log has a text."""
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < deadline, f"expected {text!r} in the log: {self.said()}"
            time.sleep(0.02)

    def decoders(self) -> list[int]:
        """The processes that decode."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def memory(self, field: str = "VmRSS") -> float:
        """Megabytes of memory of the server and its decoders; VmHWM is the most that each ever had."""
        return sum(self.memory_of(pid, field) for pid in [self.process.pid, *self.decoders()])

    def memory_of(self, pid: int, field: str = "VmRSS") -> float:
        """The same of one process."""
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1000

    def processor_seconds(self) -> float:
        """What the server and its decoders have computed so far."""
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in [self.process.pid, *self.decoders()]]
        ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; returns its exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


def require_environment() -> None:
    """Skips where the environment of the server has not been made."""
    if not PYTHON.exists():
        pytest.skip("the server's environment is not here: make serve-environment")


# The server in another environment, which lacks some packages: those of the server's come last.
_IN_ANOTHER = "import runpy, sys; sys.path.append({!r}); runpy.run_module('apps.serve', run_name='__main__')"


def command_with(python: Path) -> list[str]:
    """What starts the server with the Python of another environment, such as the one that has Keras."""
    (site,) = (PYTHON.parent.parent / "lib").glob("python3*/site-packages")
    return [str(python), "-c", _IN_ANOTHER.format(str(site))]


@contextmanager
def served(
    models: Sequence[Path],
    log: Path,
    *options: str,
    token: str | None = None,
    start: Sequence[str] = (str(PYTHON), "-m", "apps.serve"),
) -> Iterator[Served]:
    """Starts a server on a free port, and ends it.

    Args:
        start: the command.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TEMPER_TOKEN"}
    environment |= {"TMPDIR": str(log.parent)} | ({"TEMPER_TOKEN": token} if token else {})
    command = [*start, "--port", "0", *options, "--models", *map(str, models)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment)
    server = Served(process, "", log)
    try:
        server.wait_for("serving on ", 60)
        server.url = server.said().split("serving on ")[1].split()[0]
        yield server
    finally:
        process.kill()
        process.wait()
