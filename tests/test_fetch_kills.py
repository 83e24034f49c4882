"""`kill -9` of `dvc repro fetch` at five random moments: the same raw table, and little is fetched twice."""

import functools
import hashlib
import http.server
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from tests.toys import published
from tests.toys.workspace import ROOT, Workspace

pytestmark = pytest.mark.slow

Make = Callable[[dict[str, Any]], Workspace]
KILLS = 5
SECONDS = 6.0  # that one download takes


class SlowHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges at a speed that the server decides, and counts the bytes."""

    server: "SlowServer"

    def do_GET(self) -> None:
        """Answers with a file from the byte that is asked for."""
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        for place in range(start, len(data), 2**14):
            block = data[place : place + 2**14]
            time.sleep(len(block) / self.server.bytes_a_second)
            try:
                self.wfile.write(block)
            except OSError:
                return
            self.server.served += len(block)

    def log_message(self, *_: object) -> None:
        pass


class SlowServer(http.server.ThreadingHTTPServer):
    """A web server of a folder."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(SlowHandler, directory=str(folder)))
        self.folder, self.served, self.bytes_a_second = folder, 0, 1e9

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SlowServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with SlowServer(folder) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening
        listening.shutdown()


def noise(number: int, side: int) -> bytes:
    """A photo that takes about three bytes a pixel."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


def raw_checksum(workspace: Workspace) -> Any:
    lock = yaml.safe_load((workspace.folder / "dvc.lock").read_text(encoding="utf-8"))
    (fetched,) = (stage for name, stage in lock["stages"].items() if name.startswith("fetch@"))
    return fetched["outs"][0]["md5"]


def kill_while_fetching(workspace: Workspace, server: SlowServer, size: int, seed: int) -> None:
    """Starts the stage KILLS times, and kills it as soon as another random share of all bytes is served."""
    moments = random.Random(seed)
    for moment in sorted(moments.uniform(0.1, 0.9) for _ in range(KILLS)):
        process = workspace.start("dvc repro fetch")
        while server.served < moment * size:
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.001)
        process.kill()
        process.communicate()
        time.sleep(0.5)  # the stage dies with dvc
        assert not list((workspace.folder / "data/raw").glob("[!.]*")), "a raw table is whole or absent"


def check(workspace: Workspace, server: SlowServer, size: int, seed: int) -> None:
    """Fetches once in peace, for the checksum, and once with kills, in an empty cache."""
    workspace.run("dvc repro fetch")
    expected = raw_checksum(workspace)
    assert size <= server.served < 1.01 * size
    workspace.run("rm -rf .temper dvc.lock data/raw .dvc/cache")
    server.served, server.bytes_a_second = 0, size / SECONDS
    kill_while_fetching(workspace, server, size, seed)
    done = server.served
    server.bytes_a_second = 1e9
    workspace.run("dvc repro fetch")
    assert raw_checksum(workspace) == expected
    again = server.served - size
    assert again < 0.1 * done, f"{again} of {done} bytes were fetched twice"


def test_an_archive_by_its_address(make_workspace: Make, server: SlowServer) -> None:
    data = published.tgz({f"f/{name}/{number}.png": noise(number, 500) for name in "ab" for number in range(10)})
    (server.folder / "f.tgz").write_bytes(data)
    params = yaml.safe_load((ROOT / "recipes/flowers.yaml").read_text(encoding="utf-8"))
    params["fetch"]["flowers"] |= {"archive": f"{server.address}/f.tgz", "sha256": hashlib.sha256(data).hexdigest()}
    check(make_workspace(params), server, len(data), seed=0)


def test_many_addresses(make_workspace: Make, server: SlowServer, tmp_path: Path) -> None:
    rows, size = ["url,label"], 0
    for number in range(300):
        size += (server.folder / f"{number}.png").write_bytes(noise(number, 64))
        rows.append(f"{server.address}/{number}.png,{'ab'[number % 2]}")
    (tmp_path / "photos.csv").write_text("\n".join(rows), encoding="utf-8")
    params = yaml.safe_load((ROOT / "recipes/fungi.yaml").read_text(encoding="utf-8"))
    params["fetch"]["gbif"] |= {"path": str(tmp_path / "photos.csv"), "label": "label", "per_host": 2}
    params["fetch"]["gbif"]["allow_private_addresses"] = True  # the server is on this machine
    check(make_workspace(params), server, size, seed=1)
