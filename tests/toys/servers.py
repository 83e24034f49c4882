"""A temporary PostgreSQL server, for machines on which PostgreSQL is installed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PASSWORD = "secret-of-the-toy"


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian does not put on PATH; `None` if there is none."""
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    return Path(found).resolve().parent if found else None


def _as_nobody() -> dict[str, Any]:
    """Options with which root runs a process as `nobody`, because PostgreSQL refuses to run as root."""
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}


@contextmanager
def postgres() -> Iterator[str]:
    """Runs a server with an empty database until the block ends; yields its address, password included."""
    folder, bin_ = Path(tempfile.mkdtemp(prefix="pg")), programs()
    assert bin_ is not None
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", pwd.getpwnam("nobody").pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    how: dict[str, Any] = _as_nobody() | {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    options = ["-A", "scram-sha-256", "--pwfile", "password", "-U", "sweeps", "-N"]
    subprocess.run([bin_ / "initdb", "-D", "data", *options], check=True, **how)
    server = subprocess.Popen(
        [bin_ / "postgres", "-D", "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"], **how
    )
    try:
        deadline = time.monotonic() + 30
        while subprocess.run([bin_ / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], check=False, **how).returncode:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.1)
        yield f"postgresql+psycopg://sweeps:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL then does not wait for its clients
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
