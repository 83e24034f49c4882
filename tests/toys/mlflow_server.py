"""A real MLflow server on this machine for tests; its program is in a package that Temper itself does not need."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

_STARTS = 120  # seconds


def free_port() -> int:
    """A port that nobody listens to now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of a server whose database and artifacts are in a folder; skips the test without MLflow's program."""
    program = os.environ.get("TEMPER_MLFLOW") or shutil.which("mlflow")
    if program is None:
        pytest.skip("no mlflow server here: pip install mlflow elsewhere, and set TEMPER_MLFLOW to its program")
    port = free_port()
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    # It has an interpreter of its own, which must not get the variables that this one sets for itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}", folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 15)
            process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", uri: str, log: Path) -> None:
    end = time.monotonic() + _STARTS
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"{uri}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.3)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
    pytest.skip(f"the mlflow server of this machine does not start: {said[-1]}")
