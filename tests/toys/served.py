"""The server of apps/serve as users run it, a process in an environment with its own lock; and a client for it."""

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
    """A running server."""

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
        """The contents of its log."""
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
        """The same for one process."""
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1000

    def processor_seconds(self) -> float:
        """The processor time of the server and its decoders so far."""
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in [self.process.pid, *self.decoders()]]
        ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends the server; returns its exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


def require_environment() -> None:
    """Skips the test if the server's environment has not been made."""
    if not PYTHON.exists():
        pytest.skip("the server's environment is not here: make serve-environment")


# The server in another environment, which lacks some packages: those of the server's come last.
_IN_ANOTHER = "import runpy, sys; sys.path.append({!r}); runpy.run_module('apps.serve', run_name='__main__')"


def command_with(python: Path) -> list[str]:
    """The command that starts the server with the Python of another environment, such as the one with Keras."""
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
    """Runs a server on a free port until the context ends.

    Args:
        start: the command that starts it.
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
