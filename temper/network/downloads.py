"""Obtains published files by URL or local path and verifies their checksums; large downloads can be resumed.

A host that the user wrote into params.yaml is trusted to be the right one, even if it is in the local network: the
checksum decides whether the file is kept. But the host is not trusted to behave: no answer, however slow, long,
ill-formed or redirected, may hang a run, fill the disk or end in a traceback.
"""

import hashlib
import http.client
import io
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.exceptions import InvalidHeader
from tqdm import tqdm

from temper.aside import is_file, put_aside
from temper.base.disk import require_room
from temper.base.errors import TemperError
from temper.base.locks import held
from temper.base.paths import existing, scratch
from temper.network.redaction import redacted, secrets_of

_BLOCK = 2**17  # bytes read at a time: the most that a kill loses
_TIMEOUT = 60.0  # the most seconds without a byte; also the seconds over which the speed is measured
_ANSWER = 180.0  # the most seconds until the headers of the last redirect have arrived
_SLOWEST = 1000  # bytes per second; a slower answer counts as a timeout
_LOOK_AT_DISK = 2**26  # bytes; a download of unknown size checks the free disk space again after each so many
_REMEDY = "put .temper on another disk"

Ask = Callable[[Mapping[str, str]], requests.Response]  # sends a request with these headers; leaves the body unread
Result = TypeVar("Result")


def obtain(place: str, sha256: str, key: str) -> Path:
    """Returns a local path of the file at `place`, with its checksum verified.

    A URL is downloaded once into `.temper/downloads/`, outside DVC's outputs. A download that was cut off resumes where
    it stopped, if the server supports that. A damaged file there is put aside and downloaded again.

    Args:
        place: an http(s) URL or a local path.
        key: the param that names the place, for messages.

    Raises:
        TemperError: there is no such file, the server refuses, or the bytes have another checksum.
    """
    if not place.startswith(("http://", "https://")):
        try:
            path = existing(place)
        except TemperError as error:
            raise TemperError(f"{key}: expected a file or an http(s) URL; {error}") from None
        _refuse_other(place, sha256, _checksum(path))
        return path
    folder = scratch("downloads")
    path = folder / sha256
    shown = redacted(place, secrets_of(place))
    with held(folder / f"{sha256}.lock", f"{shown}: waiting for the process that downloads it"):
        # Verified each time: a disk or a power cut may have damaged a file that was whole.
        if is_file(path, "a download"):
            received = _checksum(path)
            if received == sha256:
                return path
            put_aside(path, f"a download with sha256 {sha256}", received)
        _download(place, shown, sha256, partial := folder / f"{sha256}.partial")
        partial.rename(path)
    return path


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other(shown: str, sha256: str, received: str) -> None:
    if received != sha256:
        raise TemperError(
            f"{shown}: expected sha256 {sha256}, received {received}; it changed or arrived damaged: "
            "fetch it again, or correct sha256 in params.yaml if that is the file you want"
        )


def _download(url: str, shown: str, sha256: str, partial: Path) -> None:
    """Downloads the missing part of `url` to the end of `partial`, and verifies the whole file."""
    resumed = is_file(partial, "a part of a download") and partial.stat().st_size > 0
    _complete_in_one_line(url, shown, partial)
    received = _checksum(partial)
    if received != sha256 and resumed:
        put_aside(partial, f"the beginning of the file with sha256 {sha256}", "bytes that it does not begin with")
        _complete_in_one_line(url, shown, partial)
        received = _checksum(partial)
    if received != sha256:
        partial.unlink()
    _refuse_other(shown, sha256, received)


def _complete_in_one_line(url: str, shown: str, partial: Path) -> None:
    def ask(headers: Mapping[str, str]) -> requests.Response:
        hooks = {"response": _leave_unread}
        return requests.get(url, stream=True, timeout=_TIMEOUT, headers=dict(headers), hooks=hooks)

    try:
        complete(ask, partial, redacted(file_name(url)))
    except requests.Timeout as error:
        reason = f"no answer in time ({redacted(str(error), secrets_of(url))})"
    except requests.ConnectionError:
        reason = "no connection to its host, or a broken one"
    except (requests.RequestException, ValueError) as error:  # ValueError: the URL is not an address
        reason = redacted(str(error), secrets_of(url) | secrets_of(unquote(url)))
    else:
        return
    raise TemperError(
        f"{shown}: expected a download, received {reason}; run it again to go on where it stopped, or set a local path "
        "in params.yaml"
    )


def _leave_unread(answer: requests.Response, **_: Any) -> requests.Response:
    """A hook that drops the body of a redirect, which requests would read into memory, however long it is."""
    if answer.is_redirect:
        answer.raw.close()
        answer.raw = urllib3.HTTPResponse(io.BytesIO(), headers=answer.raw.headers, preload_content=False)
    return answer


# --- the bytes of one file


def complete(ask: Ask, partial: Path, label: str, identity: str | None = None) -> None:
    """Downloads what is missing at the end of `partial`; starts over if the server cannot resume.

    The caller must check whether the bytes are the right ones.

    Args:
        ask: sends the request, with the headers that it is given.
        label: the name of the progress bar.
        identity: the ETag or date of the file whose beginning is in `partial`; if the server has another file by now,
            the download starts over.

    Raises:
        requests.RequestException: the server refuses, is silent or too slow, or its answer is invalid.
        TemperError: the rest does not fit on the disk.
    """
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the published bytes, untouched
    if done:
        headers |= {"Range": f"bytes={done}-"} | ({"If-Range": identity} if identity else {})
    with in_time(lambda: ask(headers)) as answer:
        if done and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the file was already complete
        answer.raise_for_status()
        start = _start(answer, done)
        if start is not None:
            _receive(answer, partial, start, label)
            return
    partial.unlink()
    complete(ask, partial, label)


def in_time(ask: Callable[[], Result]) -> Result:
    """Returns the result of `ask`, if it arrives within `_ANSWER` seconds.

    The timeouts of requests apply to each read separately: a header that arrives at one byte a minute would take weeks.

    Raises:
        requests.Timeout: it did not arrive in time. The thread of `ask` ends with the process.
    """
    results: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((ask(), None))
        except BaseException as error:  # SystemExit too; it is raised again below, in the caller's thread
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=_ANSWER)
    except queue.Empty:
        raise requests.Timeout(f"no answer within {_ANSWER:.0f} seconds") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # without an error there is a result


def length_of(answer: requests.Response) -> int | None:
    """The number of bytes in the body of an answer, from its Content-Length; `None` if it has no such header.

    Raises:
        requests.exceptions.InvalidHeader: the header is not a number of bytes.
    """
    said = answer.headers.get("Content-Length")
    if said is None:
        return None
    lengths = {text.strip() for text in said.split(",")}  # several headers are allowed if equal (RFC 9110, 8.6)
    length = lengths.pop()
    if lengths or not re.fullmatch(r"[0-9]{1,18}", length):
        raise InvalidHeader(f"a Content-Length of {said[:40]!r} instead of a number of bytes")
    return int(length)


def _start(answer: requests.Response, done: int) -> int | None:
    """The offset in the file at which an answer's bytes begin; `None` if they are not the requested ones."""
    if answer.status_code != requests.codes.partial_content:
        return 0
    said = answer.headers.get("Content-Range", "")
    found = re.match(r"\s*bytes\s+([0-9]{1,18})-", said)
    if found and int(found[1]) == done:
        return done
    if done:
        return None
    raise InvalidHeader(f"a Content-Range of {said[:40]!r} that nobody asked for")


def _receive(answer: requests.Response, partial: Path, start: int, label: str) -> None:
    """Writes the body of an answer to `partial`, from the byte `start` on."""
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"  # although no encoding was requested
    length = None if encoded else length_of(answer)
    _require_room(partial, length or 0, label)
    total = None if length is None else start + length
    received = 0
    with (
        partial.open("ab" if start else "wb") as file,
        tqdm(desc=label, total=total, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for block in _blocks(answer, encoded):
            if length is None and received // _LOOK_AT_DISK != (received + len(block)) // _LOOK_AT_DISK:
                _require_room(partial, 0, label)
            received += file.write(block)
            bar.update(len(block))
    if length not in (None, received):
        raise requests.ConnectionError(f"{received} bytes instead of {length}")


def _require_room(partial: Path, expected: int, label: str) -> None:
    require_room(partial.parent, expected, f"the download of {label}", _REMEDY)


def _blocks(answer: requests.Response, encoded: bool) -> Iterator[bytes]:
    """Yields the body as it arrives, decoded if it is encoded.

    Raises:
        requests.Timeout: the body arrives too slowly.
        requests.ConnectionError: the connection breaks off.
    """
    begun, received = time.monotonic(), 0
    try:
        while block := answer.raw.read1(_BLOCK, decode_content=encoded):
            yield block
            received += len(block)
            passed = time.monotonic() - begun
            if passed >= _TIMEOUT:
                if received < _SLOWEST * passed:
                    raise requests.Timeout(f"{received} bytes in {passed:.0f} seconds")
                begun, received = time.monotonic(), 0
    except urllib3.exceptions.ReadTimeoutError:
        raise requests.Timeout(f"no byte in {_TIMEOUT:.0f} seconds") from None
    except (urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        raise requests.ConnectionError(error) from None


def file_name(url: str) -> str:
    """The last part of an address's path."""
    return unquote(urlsplit(url).path).rsplit("/", 1)[-1]
