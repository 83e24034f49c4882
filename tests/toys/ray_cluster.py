"""A Ray cluster of several nodes on this machine, each with its own folder; only the holder of its token can use it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.toys.queued import wait_until


class Cluster:
    """A cluster of local nodes.

    Attributes:
        folder: has the token, the log of each node, and each node's folder for jobs.
        environment: variables with which a command, such as `ray job`, reaches the cluster.
        nodes: the names of the nodes; the first is the head.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._token = os.urandom(16).hex()
        (folder / "token").write_text(self._token, encoding="utf-8")
        self._sockets = tempfile.mkdtemp(prefix="ray-")  # short: paths of sockets have at most 107 characters
        self._head, self._dashboard, self._client = free_ports(3)
        self._url = f"http://127.0.0.1:{self._dashboard}"
        self.environment = environment | {
            "RAY_API_SERVER_ADDRESS": self._url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.nodes: list[str] = []

    def start(self, name: str, *options: str) -> None:
        """Starts a node with a custom resource of its own name, amount 4. The first node is the head."""
        if self.nodes:
            options += (f"--address=127.0.0.1:{self._head}",)
        else:
            options += ("--head", f"--port={self._head}", f"--dashboard-port={self._dashboard}")
            options += (f"--temp-dir={self._sockets}", f"--ray-client-server-port={self._client}")
        options += ("--include-log-monitor=false", "--object-store-memory=80000000", f'--resources={{"{name}": 4}}')
        options += (f"--dashboard-agent-listen-port={free_ports(1)[0]}",)  # nodes on one machine cannot share a port
        self.nodes.append(name)
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            done = subprocess.run(
                [Path(sys.executable).parent / "ray", "start", *options],
                env=self.environment | {"TEMPER_CLUSTER": str(self.folder / name)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                check=False,
            )
        assert done.returncode == 0, log.read_text()

    def processes(self, name: str) -> list[psutil.Process]:
        """The processes of a node, which inherit the environment variable that names the node's folder."""
        return [one for one in psutil.process_iter() if _folder_of(one) == str(self.folder / name)]

    def kill(self, name: str) -> None:
        """Kills all processes of a node, as a power cut would."""
        dying = self.processes(name)
        for process in list(dying):
            with suppress(psutil.Error):
                dying += process.children(recursive=True)  # two of Ray's processes lack the variable
        for process in dying:
            with suppress(psutil.Error):
                process.kill()
        wait_until(lambda: all(map(_is_gone, dying)))

    def jobs(self) -> dict[str, str]:
        """The status of each job, by submission id."""
        return {job["submission_id"]: job["status"] for job in self._ask("GET", "").json()}

    def log(self, job: str) -> str:
        """What a job has printed."""
        return str(self._ask("GET", f"{job}/logs").json()["logs"])

    def stop(self, job: str) -> None:
        """Stops a job, as `ray job stop` does."""
        self._ask("POST", f"{job}/stop")

    def _ask(self, how: str, path: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = requests.request(how, f"{self._url}/api/jobs/{path}", headers=headers, timeout=60)
        answer.raise_for_status()
        return answer

    def close(self) -> None:
        """Kills all nodes and removes their files outside `folder`."""
        for name in self.nodes:
            self.kill(name)
        shutil.rmtree(self._sockets, ignore_errors=True)


@contextmanager
def started(folder: Path, environment: dict[str, str], **nodes: list[str]) -> Iterator[Cluster]:
    """A running cluster, until the block ends.

    Args:
        nodes: for each node by name, further options for `ray start`. The first one is the head.
    """
    folder.mkdir()
    cluster = Cluster(folder, environment)
    try:
        for name, options in nodes.items():
            cluster.start(name, *options)
        yield cluster
    finally:
        cluster.close()


def free_ports(count: int) -> list[int]:
    """Different ports on which no process listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)  # dead, but not yet waited for
    except psutil.Error:
        return True


def _folder_of(process: psutil.Process) -> Any:
    try:
        return process.environ().get("TEMPER_CLUSTER")
    except psutil.Error:
        return None
