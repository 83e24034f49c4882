"""Downloads datasets and competitions from kaggle.com once, into a cache that a killed run leaves intact.

Kaggle's own client finds the credentials, the list of files and their download addresses. The bytes are fetched here,
because the client (2.2.4) writes an incomplete download under its final name, overwrites it with an error page, and
then resumes behind that page (Kaggle/kaggle-cli#1179).
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from stages.fetch.reading import kaggle_client
from stages.fetch.reading.kaggle_client import Place
from temper.aside import is_file, put_aside
from temper.base.atomic import atomic_file, atomic_folder
from temper.base.disk import require_room
from temper.base.errors import TemperError
from temper.base.locks import held
from temper.base.paths import scratch
from temper.base.texts import write_json
from temper.network.downloads import complete, file_name, length_of
from temper.network.redaction import redacted

_TIMEOUT = 60  # seconds without receiving a byte
_WAITS = (0.5, 2, 5, 10, 20)  # seconds before each further attempt, as long as no attempt makes progress
_PROGRESS = 2**16  # received bytes that count as progress


@dataclass(frozen=True)
class Downloaded:
    """The downloaded files of a dataset or competition."""

    folder: Path  # has exactly the requested files, as published: archives are not unpacked
    facts: dict[str, object]  # for source.json: origin, version, licence, checksums; no times, no machine paths


def obtain_dataset(slug: str, files: Sequence[str]) -> Downloaded:
    """Downloads files of a dataset (`owner/name`, `owner/name/versions/3`) or competition (`name`).

    Downloads are kept in `.temper/downloads/kaggle/`, outside DVC's outputs, in a folder for each version. A download
    that was cut off, even by `kill -9`, continues where it stopped. A file that was damaged since is downloaded again.
    A competition has no versions, so a complete file of it is never checked for updates.

    Args:
        files: the names of the files; empty: all of them, as one zip.

    Raises:
        TemperError: the credentials are missing or refused, the slug, version or a file does not exist, the rules of a
            competition are not accepted, or there is no connection.
    """
    place = Place.parse(slug)
    names = sorted(set(files))
    with kaggle_client.in_one_line(place) as secrets:
        api = kaggle_client.authenticate(slug, secrets)
        place, said = kaggle_client.describe(api, place)
        kaggle_client.check_names(api, place, names)
        facts = {key: redacted(text, secrets) if isinstance(text, str) else text for key, text in said.items()}
        root = scratch("downloads/kaggle") / place.folder
        with held(root / "lock", f"{place.page}: waiting for the process that downloads it"):
            wanted: Sequence[str | None] = names or [None]
            listed = [_obtain(api, place, name, root) for name in wanted]
            folder = _gather(root, names) if names else root / "whole"
    return Downloaded(folder, {**facts, "files": listed})


# One file


def _obtain(api: Any, place: Place, name: str | None, root: Path) -> dict[str, object]:
    """Downloads a file unless it is in the cache, and returns its facts: name, bytes and sha256.

    The checksum is stored next to it, so that later damage is detected.

    Args:
        name: the file; None: all files, as one zip.
    """
    path = root / "whole" / f"{place.name}.zip" if name is None else root / "files" / name
    key = _digest(str(path.relative_to(root)))
    noted = root / "checksums" / f"{key}.json"
    if is_file(path, "a download", root):
        facts = _file_facts(name or path.name, path)
        if _read_note(noted) in (None, facts):
            return facts
        put_aside(path, "the bytes that were downloaded", "others", root)
    path.parent.mkdir(parents=True, exist_ok=True)
    _download(api, place, name, path, root / "partial" / key)
    facts = _file_facts(name or path.name, path)
    with atomic_file(noted) as partial:
        write_json(partial, facts)
    return facts


def _read_note(noted: Path) -> object | None:
    """The stored facts of a downloaded file; `None` if an earlier version stored none, or they are damaged."""
    if not is_file(noted, "the checksum of a download"):
        return None
    try:
        return dict(json.loads(noted.read_bytes()))
    except (ValueError, TypeError) as error:
        put_aside(noted, "the checksum of a download", type(error).__name__)
        return None


def _file_facts(name: str, path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256}


def _gather(root: Path, names: Sequence[str]) -> Path:
    """A folder with exactly these files (hard links), without the files that other calls downloaded."""
    folder = root / f"chosen-{_digest(chr(0).join(names))}"
    if not _holds(folder, root / "files", names):
        with atomic_folder(folder) as partial:
            for name in names:
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(root / "files" / name)
                except OSError:  # a file system without hard links
                    shutil.copyfile(root / "files" / name, target)
    return folder


def _holds(folder: Path, files: Path, names: Sequence[str]) -> bool:
    """Whether a folder has hard links to these files as they are now, and nothing else."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        put_aside(folder, "a folder of links", "something else")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return found == set(names) and all((folder / name).samefile(files / name) for name in names)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Its bytes


@dataclass(frozen=True)
class _Located:
    """Where the bytes of a file can be downloaded at the moment."""

    request: requests.PreparedRequest  # its URL is signed and must never be shown
    served_as: str  # the file name in the URL
    size: int | None  # bytes
    identity: str | None  # identifies this version of the bytes: an ETag or a date; None: no resuming
    md5: str | None  # base64


def _locate(api: Any, place: Place, name: str | None) -> _Located:
    with contextlib.closing(kaggle_client.ask(api, place, name)) as answer:
        headers = answer.headers
        plain = "Content-Encoding" not in headers  # otherwise Content-Length is not the length of the file
        checksum = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", "")) if plain else None
        return _Located(
            request=answer.request,
            served_as=file_name(answer.url),
            size=length_of(answer) if plain else None,
            identity=headers.get("ETag") or headers.get("Last-Modified"),
            md5=checksum[1] if checksum else None,
        )


def _download(api: Any, place: Place, name: str | None, path: Path, partials: Path) -> None:
    """Downloads to `path`, which is created only when the file is complete and has the checksum that Kaggle sent."""
    if partials.exists() and not partials.is_dir():
        put_aside(partials, "a folder of parts of a download", "a file")
    partials.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        located, partial = _complete(api, place, name, partials, path.name)
        received = None if located.md5 is None else _md5(partial)
        if received == located.md5:
            break
        if last:
            raise TemperError(
                f"{place.page}: expected md5 {located.md5}, received {received}, twice: damaged; run it again later"
            )
        put_aside(partial, "the bytes that Kaggle tells the md5 of", "others")
    _finish(located, partial, path)
    shutil.rmtree(partials)


def _complete(api: Any, place: Place, name: str | None, partials: Path, label: str) -> tuple[_Located, Path]:
    """Downloads the missing bytes; tries again as long as attempts make progress, and `len(_WAITS)` times without."""
    failures = 0
    while True:
        before = _bytes_in(partials)
        try:
            located = _locate(api, place, name)
            partial = _partial(partials, located)
            _append(located, partial, label)
            return located, partial
        except requests.RequestException as error:
            failures = 1 if _bytes_in(partials) >= before + _PROGRESS else failures + 1
            if failures > len(_WAITS) or not _may_pass(error):
                raise
            time.sleep(_WAITS[failures - 1])


def _bytes_in(partials: Path) -> int:
    return sum(partial.stat().st_size for partial in partials.iterdir() if partial.suffix != ".damaged")


def _partial(partials: Path, located: _Located) -> Path:
    """The file that collects exactly these bytes. Other bytes, as of a newly packed archive, get another file."""
    partial = partials / _digest(f"{located.size} {located.identity}")
    if is_file(partial, "a part of a download"):
        if located.size is None or located.identity is None:
            partial.unlink()
        elif partial.stat().st_size > located.size:
            put_aside(partial, f"a part of {located.size} bytes", f"{partial.stat().st_size} bytes")
    return partial


def _append(located: _Located, partial: Path, label: str) -> None:
    """Downloads the bytes that are missing at the end of `partial`."""
    if partial.exists() and partial.stat().st_size == located.size:
        return

    def ask(headers: Mapping[str, str]) -> requests.Response:
        request = located.request.copy()
        request.headers.update(headers)
        settings = session.merge_environment_settings(str(request.url), {}, True, None, None)
        return session.send(request, timeout=_TIMEOUT, **settings)

    with requests.Session() as session:
        complete(ask, partial, label, located.identity)
    received = partial.stat().st_size
    if located.size not in (None, received):
        raise requests.ConnectionError(f"{received} bytes instead of {located.size}")


def _may_pass(error: requests.RequestException) -> bool:
    if error.response is not None:
        return error.response.status_code == requests.codes.too_many_requests or error.response.status_code >= 500
    return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()


def _finish(located: _Located, partial: Path, path: Path) -> None:
    """Moves the complete file to `path`, unpacked if Kaggle has wrapped it in a zip, as it does with large tables."""
    if located.served_as == f"{path.name}.zip" and zipfile.is_zipfile(partial):
        with zipfile.ZipFile(partial) as wrapper, wrapper.open(path.name) as member:
            require_room(path.parent, wrapper.getinfo(path.name).file_size, path.name, "put .temper on another disk")
            with atomic_file(path) as unwrapped, unwrapped.open("wb") as file:
                shutil.copyfileobj(member, file)
    else:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
