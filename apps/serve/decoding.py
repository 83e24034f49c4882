"""Photos to the inputs of models, in processes of their own (apps/serve/decoder.py), or in this one."""

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

_SECONDS = 10.0  # for a photo; fifty megapixels of PNG take half a second
_BYTES_A_PIXEL = 20  # of decoding; photos.py wants 16 to be sure that a failure is the photo's own fault
_OWN_BYTES = 1500 * MEGA  # of address space, most of it of libraries and never touched


class Decoders:
    """Some processes that decode, each one photo at a time. They start when they are needed, or by `start`.

    Attributes:
        restarts: how many processes were lost to photos: ended because they took too long, or crashed.
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
        """Starts one process, so that the first photo need not wait for it; the last that was idle works next.

        The others start when several photos are decoded at once: each takes as long to start, and 45 MB.
        """
        self._idle.get_nowait()
        self._idle.put_nowait(await self._start())

    async def prepare(self, data: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
        """A photo prepared in each of the wanted ways, each uint8 (height, width, 3), RGB, 0-255.

        Raises:
            Refusal: it cannot be decoded, or not with the time and the memory that a photo gets.
        """
        for attempt in (1, 2):  # a process may have been ended by something else: the photo gets another one
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
        """Ends the processes, when all of them are idle."""
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
        """Ends a process that is of no use any more; returns what takes its place: none, until one is needed."""
        self.restarts += 1
        if process is not None and process.returncode is None:
            process.kill()
        return None


class DecodingHere:
    """Decodes in this process, one photo at a time: where each request has a machine to itself, as on AWS Lambda."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it thinks of damaged photos
        self._pool = ThreadPoolExecutor(1, "decoder")

    async def prepare(self, data: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
        """As `Decoders.prepare`, without a limit of memory and time for a photo alone."""
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
