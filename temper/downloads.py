"""Published files, from a URL or a local path, known by their checksums."""

import hashlib
from pathlib import Path

import requests
from tqdm import tqdm

from temper.base.errors import TemperError
from temper.base.paths import existing, scratch

_BLOCK = 2**17  # bytes: what a kill loses at most
_TIMEOUT = 60  # seconds without a byte


def obtain(place: str, sha256: str, key: str) -> Path:
    """A local path of the file at `place`, with its checksum verified.

    A URL is downloaded once into `.temper/downloads/`, outside DVC's outputs; a download that was cut off goes on
    where it stopped, if the server can do that.

    Args:
        key: the param that names the place, for messages.

    Raises:
        TemperError: nothing is there, the server refuses, or the bytes have another checksum.
    """
    if not place.startswith(("http://", "https://")):
        try:
            path = existing(place)
        except TemperError as error:
            raise TemperError(f"{key}: expected a file or an http(s) URL; {error}") from None
        _verify(path, place, sha256)
        return path
    folder = scratch("downloads")
    path, partial = folder / sha256, folder / f"{sha256}.partial"
    if not path.exists():
        _download(place, partial)
        partial.rename(path)
    try:
        _verify(path, place, sha256)  # each time: a disk, or a power cut, may have damaged what was whole
    except TemperError:
        path.unlink()
        raise
    return path


def _verify(path: Path, place: str, sha256: str) -> None:
    with path.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if received != sha256:
        raise TemperError(
            f"{place}: expected sha256 {sha256}, received {received}; it changed or arrived damaged: "
            "fetch it again, or correct sha256 in params.yaml if that is the file you want"
        )


def _download(url: str, partial: Path) -> None:
    """Downloads `url` to the end of `partial`."""
    done = partial.stat().st_size if partial.exists() else 0
    try:
        headers = {"Range": f"bytes={done}-"} if done else {}
        with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as answer:
            if done and answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # it was whole already; the checksum decides
            answer.raise_for_status()
            resumes = answer.status_code == requests.codes.partial_content
            total = int(answer.headers.get("Content-Length", 0)) + (done if resumes else 0)
            with (
                partial.open("ab" if resumes else "wb") as file,
                tqdm(desc=url.rsplit("/", 1)[-1], total=total or None, unit="B", unit_scale=True, disable=None) as bar,
            ):
                for block in answer.iter_content(_BLOCK):
                    bar.update(file.write(block))
    except requests.ConnectionError:
        raise TemperError(
            f"{url}: expected a download, received no connection to its host, or a broken one; run it again to go on "
            "where it stopped, or set a local path in params.yaml"
        ) from None
    except requests.RequestException as error:
        raise TemperError(
            f"{url}: expected a download, received {error}; run it again to go on where it stopped"
        ) from None
