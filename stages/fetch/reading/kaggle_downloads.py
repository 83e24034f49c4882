"""Datasets and competitions of kaggle.com, downloaded once into a cache that a kill cannot spoil.

Kaggle's own client finds the credentials, asks what there is and where it lies. The bytes are fetched here, because the
client (2.2.4) writes a half download under its final name, and an error page over it, behind which it then resumes
(Kaggle/kaggle-cli#1179).
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

_TIMEOUT = 60  # seconds without a byte
_WAITS = (0.5, 2, 5, 10, 20)  # seconds before another attempt, as long as none gets on
_PROGRESS = 2**16  # bytes that count as getting on


@dataclass(frozen=True)
class Downloaded:
    """What `obtain_dataset` was asked for."""

    folder: Path  # exactly the files asked for, as published: archives not unpacked
    facts: dict[str, object]  # for source.json: from where, version, licence, checksums; no times, no machine paths


def obtain_dataset(slug: str, files: Sequence[str]) -> Downloaded:
    """The files of a dataset (`owner/name`, `owner/name/versions/3`) or competition (`name`); by default all, as a zip.

    They are kept in `.temper/downloads/kaggle/`, outside DVC's outputs, a folder for each version. A download that was
    cut off, by `kill -9` too, goes on where it stopped; what was damaged since is downloaded again. A competition has
    no versions: what is whole stays as it is.

    Raises:
        TemperError: no or refused credentials, no such slug, version or file, rules not accepted, no connection.
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
    """Downloads a file, or all as a zip, unless it is there; returns its facts.

    Its checksum is noted beside it, so that damage of what was whole is found.
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
    """The facts of a file as it was downloaded; `None`: it was by an earlier version, or the note is damaged."""
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
    """A folder of exactly these files, without what other calls downloaded."""
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
    """Whether a folder holds these files as they are now, and nothing else."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        put_aside(folder, "a folder of links", "something else")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return found == set(names) and all((folder / name).samefile(files / name) for name in names)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Its bytes


@dataclass(frozen=True)
class _Located:
    """Where the bytes of one file lie at the moment."""

    request: requests.PreparedRequest  # its address is signed: it is never shown
    served_as: str
    size: int | None  # bytes
    identity: str | None  # of these bytes, an ETag or a date; None: they cannot be resumed
    md5: str | None  # base64


def _locate(api: Any, place: Place, name: str | None) -> _Located:
    with contextlib.closing(kaggle_client.ask(api, place, name)) as answer:
        headers = answer.headers
        plain = "Content-Encoding" not in headers  # else its length is not that of the file
        checksum = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", "")) if plain else None
        return _Located(
            request=answer.request,
            served_as=file_name(answer.url),
            size=length_of(answer) if plain else None,
            identity=headers.get("ETag") or headers.get("Last-Modified"),
            md5=checksum[1] if checksum else None,
        )


def _download(api: Any, place: Place, name: str | None, path: Path, partials: Path) -> None:
    """Downloads to `path`, which appears only when it is whole and has the checksum that Kaggle tells."""
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
    """Downloads what is missing; tries again as long as attempts get on."""
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
    """Where to collect exactly these bytes: others, such as those of an archive packed again, get another name."""
    partial = partials / _digest(f"{located.size} {located.identity}")
    if is_file(partial, "a part of a download"):
        if located.size is None or located.identity is None:
            partial.unlink()
        elif partial.stat().st_size > located.size:
            put_aside(partial, f"a part of {located.size} bytes", f"{partial.stat().st_size} bytes")
    return partial


def _append(located: _Located, partial: Path, label: str) -> None:
    """Downloads what is missing at the end of `partial`."""
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
    """Gives the whole file its name, without the zip in which Kaggle wraps some single files, such as large tables."""
    if located.served_as == f"{path.name}.zip" and zipfile.is_zipfile(partial):
        with zipfile.ZipFile(partial) as wrapper, wrapper.open(path.name) as member:
            require_room(path.parent, wrapper.getinfo(path.name).file_size, path.name, "put .temper on another disk")
            with atomic_file(path) as unwrapped, unwrapped.open("wb") as file:
                shutil.copyfileobj(member, file)
    else:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
