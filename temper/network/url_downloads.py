"""Downloads photos from many addresses at once, each only once: asynchronous, resumable and polite to the hosts.

The retry loop is our own, because aiohttp-retry does not suffice: it returns at the header, so it does not retry a body
that is cut off; it does not read Retry-After; and it keeps sending other requests to a host that asks to wait.
"""

import asyncio
import base64
import random
import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Never
from urllib.request import getproxies, proxy_bypass

import aiohttp
from tqdm import tqdm
from yarl import URL

from temper.base.disk import require_room
from temper.base.locks import held
from temper.network import url_cache
from temper.network.public_hosts import NotPublicError, is_named_privately, public_socket

_HEADERS = {
    "User-Agent": "temper/0.1 (+photo fetcher)",
    "Accept": "image/*, */*;q=0.1",
    "Accept-Encoding": "identity",  # the published bytes, untouched
}
_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {408, 425, 429}  # worth another attempt, as are all 5xx
_MOST_REDIRECTS = 10
_NO_ADDRESS = "not an http(s) address"
_PRIVATE = "leads to an address that is not public"
_LARGE = 2**24  # bytes; for a larger photo, the free disk space is checked first


@dataclass(frozen=True)
class Manners:
    """How many requests hosts get, and how long to wait for them; all times in seconds."""

    per_host: int  # the most requests at a time to one host
    attempts: int  # the most attempts for each address
    at_once: int = 64  # the most requests at a time to all hosts together
    silence: float = 60  # the longest time without a byte
    longest: float = 900  # the longest time for one photo
    pause: float = 1  # after a first failure; doubled after each further one
    longest_pause: float = 60
    longest_wait: float = 3600  # the longest Retry-After to wait for; a host that asks for more is given up
    unanswered: int = 32  # after this many failures in a row without any answer, a host is given up
    most_bytes: int = 200 * 10**6  # the largest photo
    slowest: float = 1000  # the lowest average speed in bytes per second, checked after `silence` seconds
    private: bool = False  # whether to request addresses that are not public


def download_missing(urls: Sequence[str], folder: Path, manners: Manners) -> dict[str, str]:
    """Downloads those `urls` that are not in the cache, and returns the reason for each that failed.

    Every file in the cache is complete, because it is written under another name and then renamed. Failures are not
    remembered. If another process downloads into the same cache, this one waits for it.

    Args:
        urls: addresses, none twice.

    Raises:
        TemperError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / "lock", f"{folder}: waiting for the process that downloads into it"):
        missing = [url for url in urls if not url_cache.is_cached(folder, url)]
        with tqdm(desc="urls", total=len(urls), initial=len(urls) - len(missing), unit="image", disable=None) as bar:
            crawl = _Crawl(folder, manners, bar)
            if missing:
                asyncio.run(crawl.run(missing))
    return crawl.failures


@dataclass(slots=True)
class _Job:
    """One photo to download."""

    url: str  # as published
    address: str  # the address to request next; redirects change it
    redirects: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Host:
    jobs: deque[_Job] = field(default_factory=deque)
    slots: int = 0  # open slots, one request each: in use, pausing, or in the queue of free slots
    resume_at: float = 0.0  # no request before this time, by the clock of the event loop
    unanswered: int = 0  # failures in a row without any answer
    given_up: str | None = None  # why it gets no more requests


class _Failure(Exception):
    """Why an attempt returned no photo, and whether and when to try again."""

    def __init__(self, problem: str, again: bool, answered: bool = True, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.problem, self.again, self.answered, self.wait = problem, again, answered, wait


class _Crawl:
    """The work of one event loop: each host has a queue of jobs, and workers take one free slot of a host at a time.

    A host that asks to wait occupies no worker, and a slow host at most `per_host` of them, so neither delays the
    others.
    """

    def __init__(self, folder: Path, manners: Manners, bar: "tqdm[Never]") -> None:
        self.failures: dict[str, str] = {}
        self._folder, self._manners, self._bar = folder, manners, bar
        self._hosts: dict[str, _Host] = {}
        self._free: asyncio.Queue[_Host | None] = asyncio.Queue()  # a host once for each of its free slots; None: end
        self._left = 0

    async def run(self, urls: Sequence[str]) -> None:
        self._left = len(urls)
        for url in urls:
            self._add(_Job(url, url))
        async with _Sessions(self._manners) as sessions:
            await asyncio.gather(*(self._work(sessions) for _ in range(self._manners.at_once)))

    def _add(self, job: _Job, first: bool = False) -> None:
        """Puts a job into the queue of its host, and opens a slot if the host has fewer than it may have."""
        address = parse_address(job.address)
        if address is None:
            self._finish(job, _NO_ADDRESS)
            return
        host = self._hosts.setdefault(str(address.host).lower(), _Host())
        if host.given_up:
            self._finish(job, host.given_up)
            return
        if first:
            host.jobs.appendleft(job)
        else:
            host.jobs.append(job)
        if host.slots < self._manners.per_host:
            host.slots += 1
            self._free.put_nowait(host)

    def _finish(self, job: _Job, problem: str | None = None) -> None:
        if problem:
            self.failures[job.url] = problem
            self._bar.set_postfix(failed=len(self.failures), refresh=False)
        self._bar.update()
        self._left -= 1
        if not self._left:
            for _ in range(self._manners.at_once):
                self._free.put_nowait(None)

    async def _work(self, sessions: "_Sessions") -> None:
        loop = asyncio.get_running_loop()
        while (host := await self._free.get()) is not None:
            pause = host.resume_at - loop.time()
            if pause <= 0:
                if not host.jobs:
                    host.slots -= 1
                    continue
                pause = await self._serve(sessions, host, host.jobs.popleft())
            loop.call_later(max(0.0, pause), self._free.put_nowait, host)

    async def _serve(self, sessions: "_Sessions", host: _Host, job: _Job) -> float:
        """Makes one attempt at a job; returns how long the host's slot should pause, in seconds."""
        try:
            moved = await self._request(sessions, host, job)
        except _Failure as failure:
            return self._after_failure(host, job, failure)
        if moved is None:
            self._finish(job)
            return 0.0
        job.address, job.redirects = moved, job.redirects + 1
        if job.redirects > _MOST_REDIRECTS:
            self._finish(job, f"redirected more than {_MOST_REDIRECTS} times")
        else:
            self._add(job, first=True)  # next in the queue, because such an address may be valid for minutes only
        return 0.0

    def _after_failure(self, host: _Host, job: _Job, failure: _Failure) -> float:
        """Plans another attempt, or gives up this job, or gives up the host with all its jobs."""
        manners, loop = self._manners, asyncio.get_running_loop()
        job.failures += 1
        host.unanswered = 0 if failure.answered else host.unanswered + 1
        host.resume_at = max(host.resume_at, loop.time() + failure.wait)
        if not failure.again:
            self._finish(job, failure.problem)
            return 0.0
        if failure.wait > manners.longest_wait:
            self._give_up(host, f"{failure.problem}, to be asked again in {failure.wait / 60:.0f} minutes")
        elif host.unanswered >= manners.unanswered:
            self._give_up(host, f"{failure.problem}, as {manners.unanswered} times in a row on its host")
        pause = self._pause(host, job)
        if host.given_up:
            self._finish(job, host.given_up)
        elif job.failures >= manners.attempts:
            self._finish(job, failure.problem + (f" after {job.failures} attempts" if job.failures > 1 else ""))
        else:
            job.address, job.redirects = job.url, 0  # the address of the redirect may have been valid for minutes only
            loop.call_later(pause, self._add, job)
        return pause

    def _give_up(self, host: _Host, problem: str) -> None:
        """Sends a host no more requests in this run; all its jobs fail."""
        host.given_up = host.given_up or problem
        while host.jobs:
            self._finish(host.jobs.popleft(), host.given_up)

    def _pause(self, host: _Host, job: _Job) -> float:
        """The pause before another attempt: doubled after each failure of the photo or of the host, with jitter."""
        doublings = min(max(job.failures - 1, host.unanswered // self._manners.per_host), 16)
        return min(self._manners.pause * 2.0**doublings, self._manners.longest_pause) * random.uniform(0.5, 1)

    async def _request(self, sessions: "_Sessions", host: _Host, job: _Job) -> str | None:
        """Requests a photo and stores it; returns the new address if the answer is a redirect, otherwise `None`.

        aiohttp does not follow redirects here, because the new host has a queue and limits of its own.
        """
        address = parse_address(job.address)
        assert address is not None  # `_add` refuses all others
        try:
            # Not aiohttp's sock_read: with 3.14.5, an answer hidden behind another one's body is not limited by it.
            async with (
                asyncio.timeout(self._manners.silence) as waiting,
                sessions.get(address) as answer,
            ):
                if answer.status in _REDIRECTS:
                    host.unanswered = 0
                    return _redirection(address, answer)
                if answer.status != 200:
                    again = answer.status in _BUSY or answer.status >= 500
                    wait = _retry_after(answer.headers.get("Retry-After")) if again else 0.0
                    raise _Failure(f"HTTP {answer.status}", again, wait=wait)
                await self._keep(answer, job.url, waiting)
                host.unanswered = 0  # only now: a host whose answers never end counts as unanswered too
        except TimeoutError:
            raise _Failure("timed out", again=True, answered=False) from None
        except aiohttp.ClientConnectorCertificateError:
            raise _Failure("certificate not valid", again=False) from None
        except aiohttp.ClientPayloadError:
            raise _Failure("cut off", again=True) from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPublicError):
                raise _Failure(_PRIVATE, again=False) from None
            raise _Failure("no connection", again=True, answered=False) from None
        except (aiohttp.ClientConnectionError, ConnectionError):
            raise _Failure("connection lost", again=True, answered=False) from None
        except ValueError:  # from aiohttp, such as InvalidURL
            raise _Failure(_NO_ADDRESS, again=False) from None
        except aiohttp.ClientError:
            raise _Failure("answer is not HTTP", again=True) from None
        return None

    async def _keep(self, answer: aiohttp.ClientResponse, url: str, waiting: asyncio.Timeout) -> None:
        """Streams the body to the disk, where it gets its final name only if it is complete and an image."""
        loop, manners = asyncio.get_running_loop(), self._manners
        begun = loop.time()
        self._refuse_too_long(answer.content_length or 0)
        try:
            with url_cache.writing(self._folder, url) as photo:
                while block := await answer.content.readany():
                    now = loop.time()
                    waiting.reschedule(now + manners.silence)
                    photo.add(block)
                    self._refuse_too_long(photo.length)
                    if now - begun > manners.silence and photo.length < manners.slowest * (now - begun):
                        raise _Failure(f"slower than {manners.slowest:.0f} bytes a second", again=True, answered=False)
                if not photo.length:
                    raise _Failure("empty", again=True)
                waiting.reschedule(None)
                await asyncio.to_thread(photo.end)  # in a thread, because a slow disk must not block the event loop
        except url_cache.NoImageError:
            raise _Failure(f"no image that can be read{_said_type(answer)}", again=False) from None

    def _refuse_too_long(self, length: int) -> None:
        """Refuses a photo that is larger than allowed, or that does not fit on the disk."""
        if length > self._manners.most_bytes:
            raise _Failure(f"larger than {self._manners.most_bytes} bytes", again=False)
        if length > _LARGE:
            require_room(self._folder, length, "a photo", "put .temper on another disk")


class _Sessions:
    """Sends requests, directly or through the proxy that the environment names for an address (`HTTP_PROXY`, ...).

    A direct connection is checked when it is opened, after its name was resolved, so no time passes between check and
    use. A proxy resolves names itself, so there only the name is checked. No password from ~/.netrc is sent, because a
    table could name any host to get it.
    """

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> "_Sessions":
        guard = None if self._manners.private else public_socket
        # The connectors have no limits of their own: waiting for them would count as silence of the host.
        self._direct = await self._open(aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, socket_factory=guard))
        self._by_proxy = await self._open(aiohttp.TCPConnector(limit=0, ttl_dns_cache=300))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def _open(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=self._manners.longest)
        session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=_HEADERS, cookie_jar=aiohttp.DummyCookieJar()
        )
        return await self._closing.enter_async_context(session)

    def get(self, address: URL) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Requests an address, without following redirects.

        Raises:
            _Failure: the request would go through a proxy, and the host's name is not public.
        """
        proxy = _proxy_for(address)
        if proxy is None:
            return self._direct.get(address, allow_redirects=False)
        if not self._manners.private and is_named_privately(str(address.host)):
            raise _Failure(_PRIVATE, again=False)
        login = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        login_headers = {"Proxy-Authorization": f"Basic {login}"} if proxy.user else {}
        return self._by_proxy.get(
            address,
            allow_redirects=False,
            proxy=proxy.with_user(None),
            # For http, a proxy reads the headers of the request itself; for https, only those of the tunnel request.
            headers=login_headers if address.scheme == "http" else None,
            proxy_headers=login_headers if address.scheme == "https" else None,
        )


def _proxy_for(address: URL) -> URL | None:
    """The proxy that the environment names for an address."""
    proxy = getproxies().get(address.scheme)
    if not proxy or proxy_bypass(str(address.host)):
        return None
    return URL(proxy if "://" in proxy else f"http://{proxy}")


def _said_type(answer: aiohttp.ClientResponse) -> str:
    """The content type of an answer, for messages: " (text/html)"."""
    said = re.match(r"\s*([a-z]{1,20}/[a-z0-9.+-]{1,40})", answer.headers.get("Content-Type", ""), re.I)
    return f" ({said[1].lower()})" if said else ""


def parse_address(text: str, base: URL | None = None) -> URL | None:
    """Parses an absolute http(s) address without changing how it is written; `None` if the text is not one.

    By default yarl would decode some percent-encoded characters, which breaks signed addresses. Here, only characters
    that no request may contain, such as spaces and non-ASCII letters, are encoded.
    """
    try:
        url = URL(text, encoded=re.fullmatch("[!-~]+", text) is not None)
        url = base.join(url) if base else url
        (url.raw_host or "").rstrip(".").encode("idna")  # raises for names on which the resolver would raise
    except ValueError:  # UnicodeError is a subclass
        return None
    return url if url.scheme in {"http", "https"} and url.host else None


def _redirection(address: URL, answer: aiohttp.ClientResponse) -> str:
    location = answer.headers.get("Location")
    target = parse_address(location, address) if location else None
    if target is None:
        raise _Failure("redirected to what is no http(s) address", again=False)
    return str(target)


def _retry_after(value: str | None) -> float:
    """The seconds to wait by a Retry-After header (RFC 9110, 10.2.3: seconds or a date); 0 without such a header."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    until = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, until.timestamp() - time.time())
