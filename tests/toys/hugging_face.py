"""A server that answers Hugging Face's client as its hub does, with the files of one folder as one repository."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serving(folder: Path, repository: str, commit: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the server's address and the requested paths. It answers for this repository and commit only."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            asked.append(self.path)
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            path = self.path.split("?")[0]
            place = folder / path.rsplit("/", 1)[-1]
            listed = path == f"/api/models/{repository}/tree/{commit}"
            if not listed and not (path.startswith(f"/{repository}/resolve/{commit}/") and place.is_file()):
                self.send_error(404)
                return b""
            sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
            tree = [{"type": "file", "path": name, "oid": "0" * 40, "size": size} for name, size in sizes.items()]
            data = json.dumps(tree).encode() if listed else place.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if listed else "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            return data

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
