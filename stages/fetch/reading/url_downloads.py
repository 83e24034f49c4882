"""Photos from many addresses at once, each asked for once: asynchronous, resumable, polite.

The loop is our own, because aiohttp-retry repeats requests only: it returns at the header, so a body that is cut off is
not its business, it does not read Retry-After, and it lets one host's other requests go on while that host begs off.
"""

import asyncio
import fcntl
import hashlib
import os
import random
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Never

import aiohttp
from tqdm import tqdm
from yarl import URL

from temper.base.errors import TemperError

_HEADERS = {
    "User-Agent": "temper/0.1 (+photo fetcher)",
    "Accept": "image/*, */*;q=0.1",
    "Accept-Encoding": "identity",  # the published bytes, untouched
}
_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {408, 425, 429}  # and all 5xx: worth another attempt
_MOST_REDIRECTS = 10
_NO_ADDRESS = "not an http(s) address"


@dataclass(frozen=True)
class Manners:
    """How many requests the hosts get, and how long they are waited for; all times in seconds."""

    per_host: int  # requests at a time
    attempts: int  # of each address
    at_once: int = 64  # requests at a time to all hosts
    silence: float = 60  # without a byte
    longest: float = 900  # for one photo
    pause: float = 1  # after a first failure, doubled after each further one
    longest_pause: float = 60
    longest_wait: float = 3600  # the longest Retry-After that is waited for; a host that asks for more is left alone
    unanswered: int = 32  # failures in a row without any answer, after which a host counts as gone
    most_bytes: int = 200 * 10**6  # of one photo


def cached(folder: Path, url: str) -> Path:
    """Where the bytes of `url` are, or will be, in the cache `folder`."""
    name = hashlib.sha256(url.encode()).hexdigest()
    return folder / name[:2] / name


def download_missing(urls: Sequence[str], folder: Path, manners: Manners) -> dict[str, str]:
    """Downloads those of `urls` (each once) that are not in the cache; returns the reason for each that failed.

    A download that is there is whole: it is written beside its place, then renamed. Failures are not remembered.

    Raises:
        TemperError: another process is downloading into the same cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        missing = [url for url in urls if not cached(folder, url).exists()]
        with tqdm(desc="urls", total=len(urls), initial=len(urls) - len(missing), unit="image", disable=None) as bar:
            crawl = _Crawl(folder, manners, bar)
            if missing:
                asyncio.run(crawl.run(missing))
    return crawl.failures


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TemperError(f"{folder}: another process downloads into it; wait for it or stop it") from None
        yield


@dataclass(slots=True)
class _Job:
    """One photo on its way."""

    url: str  # as published
    address: str  # where it is now: after redirects another one
    redirects: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Host:
    jobs: deque[_Job] = field(default_factory=deque)
    slots: int = 0  # requests it may get at a time: each is under way, pausing, or in the queue of those that are free
    resume_at: float = 0.0  # by the clock of the event loop
    unanswered: int = 0  # failures in a row without any answer
    given_up: str | None = None  # why nothing more is asked of it


class _Failure(Exception):
    """Why an attempt brought no photo."""

    def __init__(self, problem: str, again: bool, answered: bool = True, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.problem, self.again, self.answered, self.wait = problem, again, answered, wait


class _Crawl:
    """One event loop's work: hosts with queues of jobs, and workers that take one free slot of a host at a time.

    Neither a host that is slow nor one that asks to wait holds a worker, so none holds up the others.
    """

    def __init__(self, folder: Path, manners: Manners, bar: "tqdm[Never]") -> None:
        self.failures: dict[str, str] = {}
        self._folder, self._manners, self._bar = folder, manners, bar
        self._hosts: dict[str, _Host] = {}
        self._free: asyncio.Queue[_Host | None] = asyncio.Queue()  # a host is in it once for each free slot; None: end
        self._left = 0

    async def run(self, urls: Sequence[str]) -> None:
        self._left = len(urls)
        for url in urls:
            self._add(_Job(url, url))
        timeout = aiohttp.ClientTimeout(total=self._manners.longest)
        # The connector has no limits of its own: time spent waiting for them would count as silence of the host.
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=_HEADERS, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True
        ) as session:
            await asyncio.gather(*(self._work(session) for _ in range(self._manners.at_once)))

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

    async def _work(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        while (host := await self._free.get()) is not None:
            pause = host.resume_at - loop.time()
            if pause <= 0:
                if not host.jobs:
                    host.slots -= 1
                    continue
                pause = await self._serve(session, host, host.jobs.popleft())
            loop.call_later(max(0.0, pause), self._free.put_nowait, host)

    async def _serve(self, session: aiohttp.ClientSession, host: _Host, job: _Job) -> float:
        """One attempt at a job; returns how long the host's slot should pause."""
        try:
            moved = await self._request(session, host, job)
        except _Failure as failure:
            return self._after_failure(host, job, failure)
        if moved is None:
            self._finish(job)
            return 0.0
        job.address, job.redirects = moved, job.redirects + 1
        if job.redirects > _MOST_REDIRECTS:
            self._finish(job, f"redirected more than {_MOST_REDIRECTS} times")
        else:
            self._add(job, first=True)  # at once: such addresses may be valid for minutes
        return 0.0

    def _after_failure(self, host: _Host, job: _Job, failure: _Failure) -> float:
        """Plans another attempt, or gives up this job, or every job of the host."""
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
            job.address, job.redirects = job.url, 0  # what it was redirected to may have been valid for minutes only
            loop.call_later(pause, self._add, job)
        return pause

    def _give_up(self, host: _Host, problem: str) -> None:
        """Asks a host for nothing more in this run."""
        host.given_up = host.given_up or problem
        while host.jobs:
            self._finish(host.jobs.popleft(), host.given_up)

    def _pause(self, host: _Host, job: _Job) -> float:
        """The pause before another attempt: doubled after each failure of the photo or the whole host, with jitter."""
        doublings = min(max(job.failures - 1, host.unanswered // self._manners.per_host), 16)
        return min(self._manners.pause * 2.0**doublings, self._manners.longest_pause) * random.uniform(0.5, 1)

    async def _request(self, session: aiohttp.ClientSession, host: _Host, job: _Job) -> str | None:
        """Asks for a photo and keeps it; returns where it is instead, if the answer is a redirect.

        Redirects are followed by hand: the host that they lead to has a queue, and limits, of its own.
        """
        address = parse_address(job.address)
        assert address is not None  # others are in no queue
        try:
            # Not aiohttp's sock_read: with 3.14.5, an answer hidden behind another one's body outlasts it.
            async with (
                asyncio.timeout(self._manners.silence) as silence,
                session.get(address, allow_redirects=False) as answer,
            ):
                host.unanswered = 0
                if answer.status in _REDIRECTS:
                    return _redirection(address, answer)
                if answer.status != 200:
                    again = answer.status in _BUSY or answer.status >= 500
                    wait = _retry_after(answer.headers.get("Retry-After")) if again else 0.0
                    raise _Failure(f"HTTP {answer.status}", again, wait=wait)
                await self._keep(answer, cached(self._folder, job.url), silence)
        except TimeoutError:
            raise _Failure("timed out", again=True, answered=False) from None
        except aiohttp.ClientConnectorCertificateError:
            raise _Failure("certificate not valid", again=False) from None
        except aiohttp.ClientPayloadError:
            raise _Failure("cut off", again=True) from None
        except aiohttp.ClientConnectorError:
            raise _Failure("no connection", again=True, answered=False) from None
        except (aiohttp.ClientConnectionError, ConnectionError):
            raise _Failure("connection lost", again=True, answered=False) from None
        except ValueError:  # of aiohttp, such as InvalidURL
            raise _Failure(_NO_ADDRESS, again=False) from None
        except aiohttp.ClientError:
            raise _Failure("answer is not HTTP", again=True) from None
        return None

    async def _keep(self, answer: aiohttp.ClientResponse, path: Path, silence: asyncio.Timeout) -> None:
        """Streams the body to the disk, where it gets its name only when it is whole."""
        loop, length = asyncio.get_running_loop(), 0
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".partial-{path.name}")
        try:
            with partial.open("wb") as file:
                while block := await answer.content.readany():
                    silence.reschedule(loop.time() + self._manners.silence)
                    length += file.write(block)
                    if length > self._manners.most_bytes:
                        raise _Failure(f"larger than {self._manners.most_bytes} bytes", again=False)
                if not length:
                    raise _Failure("empty", again=True)
                file.flush()
                silence.reschedule(None)
                await asyncio.to_thread(os.fsync, file.fileno())  # a disk may take long; the loop does not wait for it
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def parse_address(text: str, base: URL | None = None) -> URL | None:
    """An absolute http(s) address, to be asked for exactly as it is written; None if it is none.

    yarl would otherwise decode some of what is percent-encoded, which breaks signed addresses; only what no
    request may contain, such as spaces and letters beyond ASCII, is encoded here.
    """
    try:
        url = URL(text, encoded=re.fullmatch("[!-~]+", text) is not None)
        url = base.join(url) if base else url
        (url.raw_host or "").rstrip(".").encode("idna")  # what the resolver would raise on
    except ValueError:  # UnicodeError is one
        return None
    return url if url.scheme in {"http", "https"} and url.host else None


def _redirection(address: URL, answer: aiohttp.ClientResponse) -> str:
    location = answer.headers.get("Location")
    target = parse_address(location, address) if location else None
    if target is None:
        raise _Failure("redirected to what is no http(s) address", again=False)
    return str(target)


def _retry_after(value: str | None) -> float:
    """The seconds that a Retry-After header (RFC 9110, 10.2.3: seconds or a date) asks to wait; 0 without one."""
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
