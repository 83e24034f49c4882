"""Compares the page without a server with Python: the answers, the bytes that are loaded, the time to the first answer.

    python -m benchmarks.page MODEL.tflite PHOTO... [--largest 100]

Assembles the page with this model, opens it in a headless Chromium from a plain web host, and classifies the photos
there (of each folder, at most the first --largest ones). `temper.predictor` classifies the same photos with the same
file. Then the host is stopped, and the page is loaded again and used once more.
Expected: at least 99 % of the photos get the same most probable class, no probability differs by more than 0.02, and
3.2 MB are loaded besides the model.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from temper.base.errors import TemperError
from temper.page import assembly
from temper.predictor import Predictor
from tests.toys.browser import Page, browser
from tests.toys.hosted import Host, hosted

READY = "document.getElementById('said').textContent.startsWith('Ready')"
# Every class of each photo, not just the five that the page shows.
ASK = """(async () => {
  const worker = new Worker("worker.js");
  const files = [...document.getElementById("given").files];
  const models = await (await fetch("models.json")).json();
  const found = [];
  for (const photo of files) {
    const begun = performance.now();
    worker.postMessage({ number: found.length, what: "answer", photo, names: [models[0].name], top: 1e6 });
    const { data } = await new Promise((resolve) => worker.addEventListener("message", resolve, { once: true }));
    const classes = data.problem ? null : data.found[0].classes.map((one) => [one.name, one.probability]);
    found.push([classes, performance.now() - begun]);
  }
  return found;
})()"""
INPUT = """document.body.append(Object.assign(document.createElement("input"),
  { id: "given", type: "file", multiple: true })), 0"""


async def in_browser(host: Host, folder: Path, photos: list[Path]) -> list[Any]:
    """What the page says of each photo, and in how many milliseconds."""
    async with browser(folder) as page:
        begun = time.monotonic()
        await page.open(host.url, 1280)
        await first_answer(page, photos[0])
        print(f"first visit to first answer: {time.monotonic() - begun:.2f} s, {sent(host)}")
        await page.run(INPUT)
        await page.give("#given", *photos)
        await page.tell("Runtime.evaluate", expression=f"{ASK}.then((found) => {{ window.found = found; }})")
        await page.until("window.found", 600)
        found: list[Any] = json.loads(await page.run("JSON.stringify(window.found)"))
        host.end()
        begun = time.monotonic()
        await page.tell("Page.reload")
        await page.until(f"document.readyState === 'complete' && !window.found && {READY}")
        await first_answer(page, photos[0])
        print(f"second visit, without the host, to first answer: {time.monotonic() - begun:.2f} s")
    return found


async def first_answer(page: Page, photo: Path) -> None:
    await page.give("#files", photo)
    await page.until("document.querySelector('.answer')", 60)


def sent(host: Host) -> str:
    return f"{sum(size for _, size in host.sent) / 1e6:.2f} MB in {len(host.sent)} files"


def main(model: Path, photos: list[Path]) -> None:
    predictor = Predictor(model)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:  # the browser may still write
        folder = Path(made)
        assembly.assemble(folder / "page", [model])
        with hosted(folder / "page") as host:
            found = asyncio.run(in_browser(host, folder / "browser", photos))
    same, largest, compared, times = 0, (0.0, photos[0]), 0, []
    for photo, (classes, milliseconds) in zip(photos, found, strict=True):
        try:
            expected = dict(predictor.predict(photo.read_bytes(), top=len(predictor.card.classes)))
        except TemperError as problem:
            print(f"{photo}: Python: {problem}; the page: {classes and classes[:2]}")
            continue
        if classes is None:
            print(f"{photo}: the page does not read it")
            continue
        compared += 1
        times.append(milliseconds)
        same += classes[0][0] == max(expected, key=lambda name: expected[name])
        largest = max(largest, (max(abs(share - expected[name]) for name, share in classes), photo))
    print(
        f"the same class for {same} of {compared} photos, the largest difference {largest[0]:.4f} ({largest[1].name})"
    )
    print(f"a photo: {sorted(times)[len(times) // 2]:.0f} ms (median), decoding included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+", help="photos, or folders of them")
    parser.add_argument("--largest", type=int, default=100, help="photos of each folder, evenly spread")
    given = parser.parse_args()
    every: list[Path] = []
    for place in given.photos:
        inside = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        every += inside[:: max(1, len(inside) // given.largest)][: given.largest]
    main(given.model, every)
