"""Turns photos into the inputs of models, in child processes (apps/serve/decoder.py) or in this process."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import cv2

from apps.serve import decoder
from apps.serve.limits import MEGA, Limits, Refusal
from temper.photos import Pixels
from temper.preparation import Preparation

_SECONDS = 10.0  # the most time for decoding a photo; fifty megapixels of PNG take half a second
_BYTES_A_PIXEL = 20  # memory for decoding; with 16 or more, photos.py can tell that a failure is the photo's fault
_OWN_BYTES = 1500 * MEGA  # address space of the process itself, mostly of libraries and never touched


class Decoders:
    """Child processes that decode photos, each one photo at a time. They start when they are needed, or by `start`.

    Args:
        count: how many processes there are at most.
        limits: the largest number of pixels, which determines the memory of a process.
        seconds: the most time for decoding a photo.

    Attributes:
        restarts: how many processes were lost because they crashed, took too long, or the request was cancelled.
    """

    def __init__(self, count: int, limits: Limits, seconds: float = _SECONDS) -> None:
        self.restarts = 0
        self._seconds = seconds
        self._most = _OWN_BYTES + int(limits.megapixels * MEGA * _BYTES_A_PIXEL)
        self._idle: asyncio.LifoQueue[Process | None] = asyncio.LifoQueue()  # None: not started
        self._count = count
        for _ in range(count):
            self._idle.put_nowait(None)

    async def start(self) -> None:
        """Starts one process, so that the first photo need not wait for it.

        The others start only when several photos are decoded at the same time, since each of them takes time to start
        and 45 MB. The process that became idle last gets the next photo.
        """
        self._idle.get_nowait()
        self._idle.put_nowait(await self._start())

    async def prepare(self, data: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
        """A photo prepared in each of the wanted ways, each uint8 (height, width, 3), RGB, 0-255.

        Raises:
            Refusal: it cannot be decoded, or not within the time and the memory that a photo gets.
        """
        for attempt in (1, 2):  # the process may have died for another reason, so the photo gets a second one
            process = await self._idle.get()
            try:
                if process is None or process.returncode is not None:
                    process = await self._start()
                async with asyncio.timeout(self._seconds):
                    return await _ask(process, data, wanted)
            except TimeoutError:
                process = self._ended(process)
                raise Refusal(422, f"expected a photo that is decoded within {self._seconds:g} seconds") from None
            except (asyncio.IncompleteReadError, OSError):
                process = self._ended(process)
                if attempt == 2:
                    raise Refusal(
                        422, "expected a photo, received one that ends the program which decodes it"
                    ) from None
            except asyncio.CancelledError:
                process = self._ended(process)
                raise
            finally:
                self._idle.put_nowait(process)
        raise AssertionError("each attempt returns or raises")

    async def close(self) -> None:
        """Ends the processes, each as soon as it is idle."""
        for _ in range(self._count):
            process = await self._idle.get()
            if process is not None and process.returncode is None and process.stdin is not None:
                process.stdin.close()
                await process.wait()

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "apps.serve.decoder", str(self._most)),
            stdin=PIPE,
            stdout=PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OPENCV_LOG_LEVEL": "SILENT"},
        )

    def _ended(self, process: Process | None) -> Process | None:
        """Kills a process that can no longer be used; returns None, which stands for a process not started yet."""
        self.restarts += 1
        if process is not None and process.returncode is None:
            process.kill()
        return None


class DecodingHere:
    """Decodes in this process, one photo at a time, for AWS Lambda, where each request has a machine to itself."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # hides warnings about damaged photos
        self._pool = ThreadPoolExecutor(1, "decoder")

    async def prepare(self, data: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
        """As `Decoders.prepare`, but without limits of memory and time for each photo."""
        loop = asyncio.get_running_loop()
        said, pixels = await loop.run_in_executor(self._pool, decoder.answer, data, [asdict(one) for one in wanted])
        if "status" in said:
            raise Refusal(said["status"], said["sentence"])
        return decoder.unpacked(pixels, wanted)


async def _ask(process: Process, data: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
    assert process.stdin is not None and process.stdout is not None
    question = {"length": len(data), "wanted": [asdict(one) for one in wanted]}
    process.stdin.write(json.dumps(question).encode() + b"\n")
    process.stdin.write(data)
    await process.stdin.drain()
    said = json.loads(await process.stdout.readuntil(b"\n"))
    if "status" in said:
        raise Refusal(said["status"], said["sentence"])
    return decoder.unpacked(await process.stdout.readexactly(said["length"]), wanted)
