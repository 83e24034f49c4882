"""A local kaggle.com for the real client (kaggle 2.2): its API, and a storage with signed URLs.

The client reaches it as an HTTP proxy for http://localhost (KAGGLE_API_ENVIRONMENT=LOCALHOST), on any free port.
KaggleApi does not read the TEST environment of kagglesdk, whose port is fixed.
"""

import base64
import hashlib
import io
import json
import re
import socket
import threading
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

Files = Mapping[str, bytes]
USERNAME = "adam-secretname"
_BLOCK = 2**16
_STORAGE = "storage.googleapis.com"
_SIGNATURE = "5160a7e0"  # in the address to which a download is redirected


def pack(files: Files) -> bytes:
    """The zip in which Kaggle serves a whole dataset; the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name])
    return buffer.getvalue()


@dataclass(frozen=True)
class Request:
    """One request that the server answered, or is answering."""

    path: str  # an API method, such as "datasets.DatasetApiService/GetDataset", or a file's path in the storage
    range: str | None


class KaggleServer:
    """A context manager that serves datasets (`owner/name`, by version) and competitions to clients with the right key.

    Bytes that nobody reads fill the connection's buffers: of a response that the client drops, up to `UNREAD` bytes
    count as sent. So set faults further into a file than that.
    """

    UNREAD = 2**20

    def __init__(
        self,
        datasets: Mapping[str, Mapping[int, Files]] | None = None,
        competitions: Mapping[str, Files] | None = None,
        key: str = "sekret-key-31",
        token: str = "KGAT-sekret-token-17",
        *,
        denied: Collection[str] = (),  # slugs that answer 403: datasets private, competitions with rules to accept
        wrapped: Collection[str] = (),  # names of single files that are served in a zip of their own
        page: int = 200,  # names in one answer, at most
    ) -> None:
        self.datasets = {slug: dict(versions) for slug, versions in (datasets or {}).items()}
        self.competitions = dict(competitions or {})
        self.key, self.token, self.denied, self.wrapped, self.page = key, token, denied, wrapped, page
        self.requests: list[Request] = []
        self.served_bytes = 0  # of files, as the network took them
        self.ranges = True  # False: the storage ignores Range
        self.checksums = True  # False: the storage tells no x-goog-hash
        self.storage = f"http://{_STORAGE}"  # where downloads are redirected to
        self.holding = threading.Event()  # set while a response is held
        self.repeats = False  # True: what was sent as credentials comes back in all that it says
        self.length: str | None = None  # what the storage says as Content-Length, if that is a lie
        pair = f"{USERNAME}:{key}".encode()
        encoded = [base64.b64encode(pair).decode(), base64.urlsafe_b64encode(pair).decode()]
        self.credentials = (*encoded, *(text.rstrip("=") for text in encoded), key)
        self.secrets = (*self.credentials, token, _SIGNATURE, USERNAME)
        self._released = threading.Event()
        self._cuts: tuple[int, int] = (0, 0)  # bytes, times
        self._hold = 0
        self._failures: tuple[int, int, bool] = (0, 0, False)  # status, times, only requests with Range
        self._lock = threading.Lock()

    # What a test may do

    def __enter__(self) -> "KaggleServer":
        handler = type("Handler", (_Handler,), {"kaggle": self})
        self._listening = _Listening(("127.0.0.1", 0), handler)
        threading.Thread(target=self._listening.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listening.shutdown()
        self._listening.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment for a process that uses this server; also give it a HOME of its own without credentials."""
        address = f"http://127.0.0.1:{self._listening.server_port}"
        unset = ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME", "no_proxy", "NO_PROXY")
        return {
            **dict.fromkeys(unset, ""),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": address,
            "HTTP_PROXY": address,
            "KAGGLE_USERNAME": USERNAME,
            "KAGGLE_KEY": self.key,
        }

    def publish(self, slug: str, version: int, files: Files) -> None:
        """Adds a version of a dataset; the highest is the current one."""
        self.datasets[slug][version] = files

    def cut_after(self, size: int, times: int = 1) -> None:
        """Closes the connection `size` bytes into a file, in the next `times` responses that get that far."""
        self._cuts = (size, times)

    def hold_after(self, size: int) -> None:
        """Stops `size` bytes into a file, and sets `holding`, until `release`."""
        self._hold = size
        self.holding.clear()
        self._released.clear()

    def release(self) -> None:
        self._hold = 0
        self._released.set()

    def fail(self, status: int, times: int = 1, *, only_ranges: bool = False) -> None:
        """Answers the next requests for files with an error page."""
        self._failures = (status, times, only_ranges)

    def asked(self, ending: str) -> list[str | None]:
        """The Range headers of the requests whose path has this ending; None: without the header."""
        return [request.range for request in self.requests if request.path.endswith(ending)]

    # What it answers

    def answer(self, method: str, asked: dict[str, Any]) -> tuple[int, Any]:
        """The status and JSON of an API call; status 302: the path of a file in the storage."""
        if "competitionName" in asked:
            return self._answer_competition(method, asked["competitionName"], asked)
        slug = f"{asked.get('ownerSlug')}/{asked.get('datasetSlug')}"
        if slug in self.denied:
            return _error(403, "Permission 'datasets.get' was denied")
        versions = self.datasets.get(slug, {})
        version = asked.get("datasetVersionNumber") or max(versions, default=0)
        if version not in versions:
            return _error(404, "Not found")
        if method == "GetDataset":
            described = {"ref": slug, "title": f"Title of {slug}", "licenseName": "CC0: Public Domain"}
            return 200, {**described, "currentVersionNumber": max(versions), "totalBytes": 1}
        if method == "ListDatasetFiles":
            return 200, self._list(versions[version], asked, "datasetFiles")
        return self._redirect(f"/kaggle-data-sets/{slug}/{version}", versions[version], asked.get("fileName"))

    def _answer_competition(self, method: str, name: str, asked: dict[str, Any]) -> tuple[int, Any]:
        files = self.competitions.get(name)
        if files is None:
            return _error(404, "Not found")
        if method == "GetCompetition":
            return 200, {"ref": name, "title": f"Title of {name}"}
        if method == "ListDataFiles":
            return 200, self._list(files, asked, "files")
        if name in self.denied:
            return _error(403, "You must accept this competition's rules before you'll be able to download files.")
        return self._redirect(f"/kaggle-competitions-data/{name}", files, asked.get("fileName"))

    def _list(self, files: Files, asked: dict[str, Any], key: str) -> dict[str, Any]:
        start, count = int(asked.get("pageToken") or 0), min(self.page, asked.get("pageSize") or 20)
        names = sorted(files)[start : start + count]
        token = {"nextPageToken": str(start + count)} if start + count < len(files) else {}
        return {key: [{"name": name, "totalBytes": len(files[name])} for name in names], **token}

    def _redirect(self, folder: str, files: Files, name: str | None) -> tuple[int, Any]:
        if name is None:
            return 302, f"{folder}/bundle/archive.zip"
        if name not in files:
            return _error(404, "Not found")
        return 302, f"{folder}/{name}{'.zip' if name in self.wrapped else ''}"

    def stored(self, path: str) -> bytes:
        """The bytes of a file in the storage."""
        kind, *parts = path.lstrip("/").split("/")
        if kind == "kaggle-data-sets":
            files, inside = self.datasets["/".join(parts[:2])][int(parts[2])], "/".join(parts[3:])
        else:
            files, inside = self.competitions[parts[0]], "/".join(parts[1:])
        if inside == "bundle/archive.zip":
            return pack(files)
        if inside not in files:  # wrapped
            inside = inside.removesuffix(".zip")
            return pack({PurePosixPath(inside).name: files[inside]})
        return files[inside]

    def count(self, size: int) -> None:
        with self._lock:
            self.served_bytes += size

    def takes(self, ranged: bool) -> int:
        """The status with which the storage refuses the next request; 0: it accepts it."""
        status, times, only_ranges = self._failures
        if not times or (only_ranges and not ranged):
            return 0
        self._failures = (status, times - 1, only_ranges)
        return status

    def stops(self, sent: int) -> bool:
        """Whether the connection is to be closed `sent` bytes into a response; holds it first, if it is to be held."""
        if self._hold and sent >= self._hold:
            self.holding.set()
            self._released.wait(60)
        size, times = self._cuts
        if not times or sent < size:
            return False
        self._cuts = (size, times - 1)
        return True


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"code": status, "message": message}


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BLOCK)  # what nobody reads is soon not sent
        return connection, address

    def handle_error(self, *_: object) -> None:
        """A client that disconnects is not an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kaggle: KaggleServer
    headers: "Message[str, str]"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        service = urlsplit(self.path).path.removeprefix("/api/v1/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.kaggle.requests.append(Request(service, None))
        if service == "security.OAuthService/IntrospectToken":
            good = body["token"] == self.kaggle.token
            return self._json(200, {"active": good, "username": USERNAME if good else ""})
        if not self._is_allowed():
            return self._json(401, {"code": 401, "message": "Unauthenticated"})
        status, answer = self.kaggle.answer(service.rsplit("/", 1)[-1], body)
        if self.kaggle.repeats and status != 302:
            answer = self._with_credentials(answer)
        if status != 302:
            return self._json(status, answer)
        self.send_response(302)
        self.send_header("Location", f"{self.kaggle.storage}{quote(answer)}?X-Goog-Signature={_SIGNATURE}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _with_credentials(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer with the credentials in each text, and as names of files."""
        said = ", ".join([*self.kaggle.credentials, f"Authorization: {self.headers['Authorization']}"])
        more = {key: f"{text} {said}" for key, text in answer.items() if isinstance(text, str) and key != "ref"}
        files = [{"name": said, "totalBytes": 1}]
        return answer | more | {key: [*answer[key], *files] for key in ("files", "datasetFiles") if key in answer}

    def _is_allowed(self) -> bool:
        basic = base64.b64encode(f"{USERNAME}:{self.kaggle.key}".encode()).decode()
        return self.headers["Authorization"] in (f"Basic {basic}", f"Bearer {self.kaggle.token}")

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Kaggle-APIVersion", "99.0.0")  # of which the client prints that it is newer
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """The storage: it recognizes URLs by their signature, and needs no other credentials."""
        address = urlsplit(self.path)
        asked = self.headers["Range"]
        self.kaggle.requests.append(Request(unquote(address.path), asked))
        signed = parse_qs(address.query).get("X-Goog-Signature") == [_SIGNATURE]
        if address.hostname != _STORAGE or not signed or "Authorization" in self.headers:
            return self._page(400)
        if status := self.kaggle.takes(asked is not None):
            return self._page(status)
        data = self.kaggle.stored(unquote(address.path))
        checksum = hashlib.md5(data)
        etag = f'"{checksum.hexdigest()}"'
        resumes = asked and self.kaggle.ranges and self.headers.get("If-Range", etag) == etag
        found = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(found[1]) if found and resumes else 0
        if start >= len(data) > 0:
            return self._page(416)
        self.send_response(206 if resumes else 200)
        self.send_header("Content-Length", self.kaggle.length or str(len(data) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        if resumes:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.kaggle.repeats:
            self.send_header("x-goog-hash", f"md5={self.kaggle.credentials[0]}")
        elif self.kaggle.checksums:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={base64.b64encode(checksum.digest()).decode()}")
        self.end_headers()
        self._send(memoryview(data)[start:])

    def _page(self, status: int) -> None:
        data = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>" * 2**13  # 450 kB, to be seen in a file
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(data)

    def _send(self, data: memoryview) -> None:
        with suppress(OSError):  # the client went away
            for start in range(0, len(data), _BLOCK):
                if self.kaggle.stops(start):
                    self.close_connection = True
                    return
                block = data[start : start + _BLOCK]
                self.connection.sendall(block)
                self.kaggle.count(len(block))
            return
        self.close_connection = True
