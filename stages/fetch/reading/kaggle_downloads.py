"""Datasets and competitions of kaggle.com, downloaded once into a cache that a kill cannot spoil.

Kaggle's own client finds the credentials, asks what there is and where it lies. The bytes are fetched here, because the
client (2.2.4) writes a half download under its final name, and an error page over it, behind which it then resumes
(Kaggle/kaggle-cli#1179).
"""

import base64
import contextlib
import difflib
import fcntl
import hashlib
import io
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from temper.base.atomic import atomic_file, atomic_folder
from temper.base.errors import TemperError
from temper.base.paths import scratch

_BLOCK = 2**17  # bytes; what a cut loses at most
_TIMEOUT = 60  # seconds without a byte
_WAITS = (0.5, 2, 5, 10, 20)  # seconds before another attempt, as long as none brings a byte
_PAGE = 200  # names in one answer; the most that Kaggle gives
_SLUG = re.compile(r"(?:(?P<owner>[\w-]+)/)?(?P<name>[\w-]+)(?:/versions/(?P<version>[1-9]\d*))?", re.ASCII)
_CREDENTIALS = (
    "credentials come from https://www.kaggle.com/settings/api: save kaggle.json in ~/.kaggle, "
    "or set the environment variables KAGGLE_USERNAME and KAGGLE_KEY (or KAGGLE_API_TOKEN)"
)


@dataclass(frozen=True)
class Downloaded:
    """What `obtain_dataset` was asked for."""

    folder: Path  # exactly the files asked for, as published: archives not unpacked
    facts: dict[str, object]  # for source.json: from where, version, licence, checksums; no times, no machine paths


def obtain_dataset(slug: str, files: Sequence[str]) -> Downloaded:
    """The files of a dataset (`owner/name`, `owner/name/versions/3`) or competition (`name`); by default all, as a zip.

    They are kept in `.temper/downloads/kaggle/`, outside DVC's outputs, a folder for each version. A download that was
    cut off, by `kill -9` too, goes on where it stopped. A competition has no versions: what is whole stays as it is.

    Raises:
        TemperError: no or refused credentials, no such slug, version or file, rules not accepted, no connection.
    """
    place = _Place.parse(slug)
    names = sorted(set(files))
    # The client prints every step.
    with _in_one_line(place) as secrets, contextlib.redirect_stdout(io.StringIO()):
        api = _authenticate(slug, secrets)
        place, facts = _describe(api, place)
        _check_names(api, place, names)
        root = scratch("downloads/kaggle") / place.folder
        root.mkdir(parents=True, exist_ok=True)
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then finds it whole
            paths: dict[str | None, Path] = {name: root / "files" / name for name in names}
            paths = paths or {None: root / "whole" / f"{place.name}.zip"}
            for name, path in paths.items():
                _obtain(api, place, name, path, root / "partial" / _digest(str(path.relative_to(root))))
            folder = _gather(root, names) if names else root / "whole"
    listed = [_file_facts(name or path.name, path) for name, path in paths.items()]
    return Downloaded(folder, {**facts, "files": listed})


@dataclass(frozen=True)
class _Place:
    """A dataset, or a competition, which has neither owner nor version."""

    owner: str | None
    name: str
    version: int | None  # None: of a dataset, the latest, not known yet

    @classmethod
    def parse(cls, slug: str) -> "_Place":
        found = _SLUG.fullmatch(slug)
        if found is None or (found["version"] and not found["owner"]):
            raise TemperError(
                f"{slug!r}: expected a Kaggle dataset (owner/name, owner/name/versions/3) or competition (name), "
                "the end of its address on kaggle.com; correct it in params.yaml"
            )
        return cls(found["owner"], found["name"], int(found["version"]) if found["version"] else None)

    @property
    def slug(self) -> str:
        return f"{self.owner}/{self.name}" if self.owner else self.name

    @property
    def page(self) -> str:
        if self.owner is None:
            return f"https://www.kaggle.com/competitions/{self.name}"
        pinned = f"/versions/{self.version}" if self.version else ""
        return f"https://www.kaggle.com/datasets/{self.slug}{pinned}"

    @property
    def folder(self) -> str:
        """A name of its own for each version; slugs have no dots."""
        return f"{self.owner}.{self.name}.{self.version}" if self.owner else self.name


# What Kaggle's client is asked


def _authenticate(slug: str, secrets: set[str]) -> Any:
    """The client, with the credentials it finds, which are added to `secrets` even if they are refused.

    Raises:
        TemperError: there are none, or an access token is refused.
    """
    from kagglesdk import get_access_token_from_env  # noqa: PLC0415

    secrets |= {os.environ.get(name, "") for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN")}
    token, where = get_access_token_from_env()
    secrets.add(token or "")
    api = None
    try:
        api = _import_client()()
        api.authenticate()
    except SystemExit:
        received = f"an access token ({where}) that Kaggle refuses" if token else "none"
        raise TemperError(f"{slug}: expected Kaggle's credentials, received {received}; {_CREDENTIALS}") from None
    finally:
        if api is not None:
            secrets |= {api.config_values.get(name) or "" for name in ("key", "token")}
    return api


def _import_client() -> Any:
    # VERBOSE, common in CI, would make the client log the Authorization header, and read each download into memory.
    verbose = {name: os.environ.pop(name) for name in ("VERBOSE", "VERBOSE_OUTPUT") if name in os.environ}
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi  # noqa: PLC0415 (it authenticates when imported)
    finally:
        os.environ.update(verbose)
    return KaggleApi


def _describe(api: Any, place: _Place) -> tuple[_Place, dict[str, object]]:
    """The place with its version decided, and what Kaggle says of it."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionRequest  # noqa: PLC0415
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest  # noqa: PLC0415

    with api.build_kaggle_client() as client:
        if place.owner is None:
            request = ApiGetCompetitionRequest()
            request.competition_name = place.name
            title = client.competitions.competition_api_client.get_competition(request).title
            licence = f"the competition's rules, {place.page}/rules"
        else:
            request = ApiGetDatasetRequest()
            request.owner_slug, request.dataset_slug = place.owner, place.name
            dataset = client.datasets.dataset_api_client.get_dataset(request)
            latest = dataset.current_version_number
            if not 1 <= (place.version or latest) <= latest:
                raise TemperError(f"{place.page}: expected a version from 1 to {latest}; correct it in params.yaml")
            place = replace(place, version=place.version or latest)
            title, licence = dataset.title, dataset.license_name or "none stated"
    facts = {"from": place.page, "slug": place.slug, "version": place.version, "title": title, "licence": licence}
    return place, facts


def _check_names(api: Any, place: _Place, names: Sequence[str]) -> None:
    """Raises a TemperError for names that are not published, before anything is downloaded."""
    published: list[str] = []
    token: str | None = None
    while not set(names) <= set(published):
        if place.owner is None:
            page = api.competition_list_files(place.name, token, _PAGE)
        else:
            page = api.dataset_list_files(f"{place.slug}/{place.version}", token, _PAGE)
        published += [file.name for file in page.files]
        token = page.next_page_token
        if not token:
            break
    for name in names:
        if name not in published:
            close = difflib.get_close_matches(name, published, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            more = f" and {len(published) - 20} more" if len(published) > 20 else ""
            there = ", ".join(sorted(published)[:20])
            raise TemperError(f"{place.page}: expected its files, received {name!r}{hint} there are: {there}{more}")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise TemperError(f"{place.page}: expected names inside the dataset, received {name!r}")


def _ask(api: Any, place: _Place, name: str | None) -> requests.Response:
    """The client's answer to a download, with its bytes unread: it followed the redirect to a signed address."""
    from kagglesdk.competitions.types import competition_api_service as competitions  # noqa: PLC0415
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest  # noqa: PLC0415

    answer: requests.Response
    with api.build_kaggle_client() as client:
        if place.owner is not None:
            request = ApiDownloadDatasetRequest()
            request.owner_slug, request.dataset_slug = place.owner, place.name
            request.dataset_version_number, request.file_name = place.version, name
            answer = client.datasets.dataset_api_client.download_dataset(request)
        elif name is not None:
            request = competitions.ApiDownloadDataFileRequest()
            request.competition_name, request.file_name = place.name, name
            answer = client.competitions.competition_api_client.download_data_file(request)
        else:
            request = competitions.ApiDownloadDataFilesRequest()
            request.competition_name = place.name
            answer = client.competitions.competition_api_client.download_data_files(request)
    return answer


# Bytes


@dataclass(frozen=True)
class _Located:
    """Where the bytes of one file lie at the moment."""

    request: requests.PreparedRequest  # its address is signed: it is never shown
    served_as: str
    size: int | None  # bytes
    identity: str | None  # of these bytes, an ETag or a date; None: they cannot be resumed
    md5: str | None  # base64


def _locate(ask: Callable[[], requests.Response]) -> _Located:
    with contextlib.closing(ask()) as answer:
        headers = answer.headers
        plain = "Content-Encoding" not in headers  # else its length is not that of the file
        checksum = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", "")) if plain else None
        return _Located(
            request=answer.request,
            served_as=unquote(urlsplit(answer.url).path).rsplit("/", 1)[-1],
            size=int(headers["Content-Length"]) if plain and "Content-Length" in headers else None,
            identity=headers.get("ETag") or headers.get("Last-Modified"),
            md5=checksum[1] if checksum else None,
        )


def _obtain(api: Any, place: _Place, name: str | None, path: Path, partials: Path) -> None:
    """Downloads to `path`, which appears only when it is whole; tries again as long as attempts bring bytes."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partials.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _bytes_in(partials)
        try:
            located = _locate(lambda: _ask(api, place, name))
            partial = _partial(partials, located)
            _append(located, partial, path.name)
            break
        except requests.RequestException as error:
            failures = 1 if _bytes_in(partials) > before else failures + 1
            if failures > len(_WAITS) or not _may_pass(error):
                raise
            time.sleep(_WAITS[failures - 1])
    _verify(located, partial, place)
    _finish(located, partial, path)
    shutil.rmtree(partials)


def _bytes_in(partials: Path) -> int:
    return sum(partial.stat().st_size for partial in partials.iterdir())


def _partial(partials: Path, located: _Located) -> Path:
    """Where to collect exactly these bytes: others, such as those of an archive packed again, get another name."""
    partial = partials / _digest(f"{located.size} {located.identity}")
    if located.size is None or located.identity is None:
        partial.unlink(missing_ok=True)
    return partial


def _append(located: _Located, partial: Path, label: str) -> None:
    """Downloads what is missing at the end of `partial`."""
    partial.touch()
    done = partial.stat().st_size
    if done == located.size:
        return
    request = located.request.copy()
    request.headers["Accept-Encoding"] = "identity"
    if done:
        request.headers.update({"Range": f"bytes={done}-", "If-Range": str(located.identity)})
    with requests.Session() as session:
        settings = session.merge_environment_settings(str(request.url), {}, True, None, None)
        with session.send(request, timeout=_TIMEOUT, **settings) as answer:
            answer.raise_for_status()
            resumes = answer.status_code == requests.codes.partial_content
            with (
                partial.open("ab" if resumes else "wb") as file,
                tqdm(desc=label, total=located.size, unit="B", unit_scale=True, disable=None) as bar,
            ):
                bar.update(done if resumes else 0)
                for block in answer.iter_content(_BLOCK):
                    bar.update(file.write(block))
    received = partial.stat().st_size
    if located.size not in (None, received):
        raise requests.ConnectionError(f"{received} bytes instead of {located.size}")


def _may_pass(error: requests.RequestException) -> bool:
    if error.response is not None:
        return error.response.status_code == requests.codes.too_many_requests or error.response.status_code >= 500
    return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)


def _verify(located: _Located, partial: Path, place: _Place) -> None:
    if located.md5 is None:
        return
    with partial.open("rb") as file:
        received = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
    if received != located.md5:
        partial.unlink()
        raise TemperError(
            f"{place.page}: expected md5 {located.md5}, received {received}: damaged; run it again to download it anew"
        )


def _finish(located: _Located, partial: Path, path: Path) -> None:
    """Gives the whole file its name, without the zip in which Kaggle wraps some single files, such as large tables."""
    if located.served_as == f"{path.name}.zip" and zipfile.is_zipfile(partial):
        with (
            zipfile.ZipFile(partial) as wrapper,
            wrapper.open(path.name) as member,
            atomic_file(path) as unwrapped,
            unwrapped.open("wb") as file,
        ):
            shutil.copyfileobj(member, file)
    else:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)


def _gather(root: Path, names: Sequence[str]) -> Path:
    """A folder of exactly these files, without what other calls downloaded."""
    folder = root / f"chosen-{_digest(chr(0).join(names))}"
    if not folder.exists():
        with atomic_folder(folder) as partial:
            for name in names:
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(root / "files" / name)
                except OSError:  # a file system without hard links
                    shutil.copyfile(root / "files" / name, target)
    return folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_facts(name: str, path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256}


# Errors


@contextlib.contextmanager
def _in_one_line(place: _Place) -> Iterator[set[str]]:
    """Turns what the client and the network raise into a TemperError that shows none of the secrets added meanwhile."""
    secrets: set[str] = set()
    try:
        yield secrets
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:  # RequestException is an OSError
        reason = _reason(error)
        for secret in filter(None, secrets):
            reason = reason.replace(secret, "***")
        raise TemperError(f"{place.page}: expected a download, received {reason}; {_advice(error, place)}") from None


def _reason(error: Exception) -> str:
    """What Kaggle, the client or the network says, without the signatures in addresses."""
    answer = getattr(error, "response", None)
    if answer is None:
        cause = error.args[0] if error.args else error
        text = f"{type(error).__name__}: {getattr(cause, 'reason', None) or error}"
    else:
        text = f"{answer.status_code} {answer.reason}"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):  # a page, or nothing to read
            text += f": {answer.json()['message']}"
    return re.sub(r"\?[^\s'\")]*", "", text).rstrip(".")


def _advice(error: Exception, place: _Place) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == requests.codes.forbidden and place.owner is None:
        return f"accept its rules at {place.page}/rules with the account of your credentials; {_CREDENTIALS}"
    if status in (requests.codes.forbidden, requests.codes.not_found):
        return f"see whether its page exists and your account may read it; {_CREDENTIALS}"
    if status == requests.codes.unauthorized:
        return f"Kaggle refuses these credentials; {_CREDENTIALS}"
    return "when that is mended, run it again: it goes on where it stopped"
