"""Requests to Kaggle through its own client: authentication, lists of files, download addresses; and its errors.

The client prints each step, waits without a timeout, and logs requests if an environment variable says so; `_asked` and
`_make_client` prevent that. Answers of Kaggle are shown without the credentials, which a server may repeat in them.
"""

import contextlib
import difflib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

import requests

from temper.base.errors import TemperError
from temper.network.downloads import in_time
from temper.network.redaction import forms, redacted

_PAGE = 200  # names per answer, the most that Kaggle allows
_MOST_PAGES = 50_000
_SLUG = re.compile(r"(?:(?P<owner>[\w-]+)/)?(?P<name>[\w-]+)(?:/versions/(?P<version>[1-9]\d*))?", re.ASCII)
_CREDENTIALS = (
    "credentials come from https://www.kaggle.com/settings/api: save kaggle.json in ~/.kaggle, "
    "or set the environment variables KAGGLE_USERNAME and KAGGLE_KEY (or KAGGLE_API_TOKEN)"
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """A dataset on Kaggle, or a competition, which has neither owner nor version."""

    owner: str | None  # None: a competition
    name: str
    version: int | None  # None: for a dataset, the latest version, whose number is not known yet

    @classmethod
    def parse(cls, slug: str) -> "Place":
        """Parses a slug, the end of an address on kaggle.com.

        Raises:
            TemperError: the slug is malformed.
        """
        found = _SLUG.fullmatch(slug)
        if found is None or (found["version"] and not found["owner"]):
            raise TemperError(
                f"{slug!r}: expected a Kaggle dataset (owner/name, owner/name/versions/3) or competition (name), "
                "the end of its address on kaggle.com; correct it in params.yaml"
            )
        return cls(found["owner"], found["name"], int(found["version"]) if found["version"] else None)

    @property
    def slug(self) -> str:
        """`owner/name`, or the name of a competition."""
        return f"{self.owner}/{self.name}" if self.owner else self.name

    @property
    def page(self) -> str:
        """The URL of its page on kaggle.com."""
        if self.owner is None:
            return f"https://www.kaggle.com/competitions/{self.name}"
        pinned = f"/versions/{self.version}" if self.version else ""
        return f"https://www.kaggle.com/datasets/{self.slug}{pinned}"

    @property
    def folder(self) -> str:
        """The name of its download folder, unique for each version; the dots are unambiguous, as slugs have none."""
        return f"{self.owner}.{self.name}.{self.version}" if self.owner else self.name


def _asked(call: Callable[[], Result]) -> Result:
    """Calls the client with a timeout and without its output, and returns its result."""
    with contextlib.redirect_stdout(io.StringIO()):
        return in_time(call)


def authenticate(slug: str, secrets: set[str]) -> Any:
    """The client, logged in with the user's credentials. These are added to `secrets`, even if Kaggle refuses them.

    Raises:
        TemperError: there are no credentials, or Kaggle refuses an access token.
    """
    from kagglesdk import get_access_token_from_env  # noqa: PLC0415

    user = os.environ.get("KAGGLE_USERNAME")
    secrets |= forms(os.environ.get("KAGGLE_KEY"), user) | forms(os.environ.get("KAGGLE_API_TOKEN"), user)
    token, where = get_access_token_from_env()
    secrets |= forms(token)
    api = None
    try:
        api = _asked(_make_client)
        _asked(api.authenticate)
    except SystemExit:
        received = f"an access token ({where}) that Kaggle refuses" if token else "none"
        raise TemperError(f"{slug}: expected Kaggle's credentials, received {received}; {_CREDENTIALS}") from None
    finally:
        if api is not None:
            secrets |= forms(api.config_values.get("key"), api.config_values.get("username"))
            secrets |= forms(api.config_values.get("token"))
    return api


def _make_client() -> Any:
    # With the environment variable VERBOSE, which is common in CI, the client would log the Authorization header and
    # read each download into memory.
    verbose = {name: os.environ.pop(name) for name in ("VERBOSE", "VERBOSE_OUTPUT") if name in os.environ}
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi  # noqa: PLC0415 (it authenticates when imported)
    finally:
        os.environ.update(verbose)
    return KaggleApi()


def describe(api: Any, place: Place) -> tuple[Place, dict[str, object]]:
    """The place with the number of its version filled in, and facts about it for source.json."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionRequest  # noqa: PLC0415
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest  # noqa: PLC0415

    with api.build_kaggle_client() as client:
        if place.owner is None:
            request = ApiGetCompetitionRequest()
            request.competition_name = place.name
            title = _asked(lambda: client.competitions.competition_api_client.get_competition(request)).title
            licence = f"the competition's rules, {place.page}/rules"
        else:
            request = ApiGetDatasetRequest()
            request.owner_slug, request.dataset_slug = place.owner, place.name
            dataset = _asked(lambda: client.datasets.dataset_api_client.get_dataset(request))
            latest = dataset.current_version_number
            if not 1 <= (place.version or latest) <= latest:
                raise TemperError(f"{place.page}: expected a version from 1 to {latest}; correct it in params.yaml")
            place = replace(place, version=place.version or latest)
            title, licence = dataset.title, dataset.license_name or "none stated"
    facts = {"from": place.page, "slug": place.slug, "version": place.version, "title": title, "licence": licence}
    return place, facts


def check_names(api: Any, place: Place, names: Sequence[str]) -> None:
    """Raises a TemperError for names that the dataset does not have, before anything is downloaded."""
    published: list[str] = []
    token: str | None = None
    for _ in range(_MOST_PAGES):
        if set(names) <= set(published):
            break
        page = _asked(lambda: _files_listed(api, place, token))  # noqa: B023 (it is called at once)
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


def _files_listed(api: Any, place: Place, token: str | None) -> Any:
    """A page of the list of files; `token` comes from the page before, None for the first page."""
    if place.owner is None:
        return api.competition_list_files(place.name, token, _PAGE)
    return api.dataset_list_files(f"{place.slug}/{place.version}", token, _PAGE)


def ask(api: Any, place: Place, name: str | None) -> requests.Response:
    """Starts a download through the client, which follows Kaggle's redirect to a signed URL.

    Args:
        name: the file to download; None: all files, as a zip.

    Returns:
        The response, with its body unread.
    """
    from kagglesdk.competitions.types import competition_api_service as competitions  # noqa: PLC0415
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest  # noqa: PLC0415

    answer: requests.Response
    with api.build_kaggle_client() as client:
        if place.owner is not None:
            request = ApiDownloadDatasetRequest()
            request.owner_slug, request.dataset_slug = place.owner, place.name
            request.dataset_version_number, request.file_name = place.version, name
            answer = _asked(lambda: client.datasets.dataset_api_client.download_dataset(request))
        elif name is not None:
            request = competitions.ApiDownloadDataFileRequest()
            request.competition_name, request.file_name = place.name, name
            answer = _asked(lambda: client.competitions.competition_api_client.download_data_file(request))
        else:
            request = competitions.ApiDownloadDataFilesRequest()
            request.competition_name = place.name
            answer = _asked(lambda: client.competitions.competition_api_client.download_data_files(request))
    return answer


# Errors

_RAISED = (  # RequestException is an OSError
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


@contextlib.contextmanager
def in_one_line(place: Place) -> Iterator[set[str]]:
    """Turns the exceptions of the client and the network into a TemperError of one line.

    It yields a set; secrets that are added to it are removed from the messages. `_RAISED` is long because the client
    does not validate answers: an unexpected one makes its own code fail with any of these exceptions.
    """
    secrets: set[str] = set()
    try:
        yield secrets
    except TemperError as error:  # it may contain texts from a server, which may repeat a secret
        raise TemperError(redacted(str(error), secrets)) from None
    except _RAISED as error:
        reason = redacted(_reason(error), secrets)
        raise TemperError(f"{place.page}: expected a download, received {reason}; {_advice(error, place)}") from None


def _reason(error: Exception) -> str:
    """The reason that Kaggle, the client or the network gives, without the query strings (signatures) of URLs."""
    answer = getattr(error, "response", None)
    if answer is None:
        cause = error.args[0] if error.args else error
        text = f"{type(error).__name__}: {getattr(cause, 'reason', None) or error}"
    else:
        text = f"{answer.status_code} {answer.reason}"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):  # a page, or nothing to read
            text += f": {answer.json()['message']}"
    return re.sub(r"\?[^\s'\")]*", "", text).rstrip(".")


def _advice(error: Exception, place: Place) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == requests.codes.forbidden and place.owner is None:
        return f"accept its rules at {place.page}/rules with the account of your credentials; {_CREDENTIALS}"
    if status in (requests.codes.forbidden, requests.codes.not_found):
        return f"see whether its page exists and your account may read it; {_CREDENTIALS}"
    if status == requests.codes.unauthorized:
        return f"Kaggle refuses these credentials; {_CREDENTIALS}"
    return "when that is mended, run it again: it goes on where it stopped"
