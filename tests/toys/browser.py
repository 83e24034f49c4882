"""A real headless browser, controlled through the Chrome DevTools protocol, for tests of the server's page."""

import asyncio
import base64
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --remote-debugging-port=0"
)


class Page:
    """One page, as wide as is said.

    Attributes:
        said: what the page wrote to its console, and errors.
    """

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.said: list[str] = []
        self._line, self._numbers = line, itertools.count(1)

    async def tell(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the protocol; returns its result."""
        number = next(self._numbers)
        await self._line.send_json({"id": number, "method": method, "params": arguments})
        while True:
            message = await self._line.receive_json(timeout=60)
            if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(str(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def run(self, script: str) -> Any:
        """The value of JavaScript, awaited."""
        found = await self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def open(self, url: str, width: int, dark: bool = False) -> None:
        """Opens an address in a window of a width, on a phone if that is small."""
        for domain in ("Runtime", "Log", "Page", "DOM"):
            await self.tell(f"{domain}.enable")
        await self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.tell("Emulation.setEmulatedMedia", features=[scheme])
        await self.tell("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def until(self, condition: str, seconds: float = 30) -> None:
        """Waits until JavaScript is true."""
        deadline = time.monotonic() + seconds
        while not await self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"expected {condition}; {self.said}"
            await asyncio.sleep(0.05)

    async def give(self, selector: str, *files: Path) -> None:
        """Chooses files in an input."""
        root = (await self.tell("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.tell("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.tell("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    async def press(self, key: str, code: int) -> None:
        """Presses a key, such as Tab, 9."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            await self.tell("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    async def picture(self, path: Path) -> None:
        """A picture of the whole page."""
        found = await self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A browser with one page, its files in a folder."""
    assert PROGRAM is not None
    command = [PROGRAM, *_FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        place = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not place.exists() or not place.read_text().strip():
            assert time.monotonic() < deadline, "expected the browser to start"
            await asyncio.sleep(0.05)
        port = place.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (page,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as line:
                yield Page(line)
    finally:
        process.kill()
        process.wait()
