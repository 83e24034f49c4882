"""The page without a server: what it is made of, and in a real browser that it answers as Python does, also offline."""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apps import page_runtime
from apps.page import require_free, require_models
from temper.base.errors import TemperError
from temper.explanations.occlusion import occlusion_map
from temper.page import assembly, runtime
from temper.photos import resize
from temper.predictor import Predictor
from temper.preparation import Preparation, prepare
from temper.settings.check import refuse_missing_exporters
from tests.toys.browser import PROGRAM, Page, browser
from tests.toys.colours import CLASSES, append_card, photo, write_colours_for_browsers
from tests.toys.hosted import Host, hosted
from tests.toys.workspace import ROOT

FETCHED = all((ROOT / ".temper/npm" / package.archive).exists() for package in runtime.PACKAGES)
needs_runtime = pytest.mark.skipif(not FETCHED, reason="LiteRT.js is not here: make page-runtime")
Story = Callable[[Page], Awaitable[None]]


def model(path: Path, content: bytes = b"not run here") -> Path:
    """A file with a card; LiteRT itself would refuse it."""
    path.write_bytes(content)
    append_card(path, CLASSES)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- Without a browser


@needs_runtime
def test_equal_models_give_equal_bytes_and_a_list_of_all_that_is_loaded(tmp_path: Path) -> None:
    """Law 10; and the service worker, in which browsers look for changes, changes with every file of the page."""
    models = [model(tmp_path / "colours.tflite"), model(tmp_path / "<b>bold.tflite", b"another")]
    assembly.assemble(tmp_path / "one", models)
    assembly.assemble(tmp_path / "two", models)
    require_free(tmp_path / "two")  # an older page holds nothing that would count as another's
    found = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == found
    listed = found["service_worker.js"].decode()
    stored = json.loads(listed[len("const STORED = ") : listed.index(";")])
    assert stored == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in found.items()
        if name not in ("service_worker.js", "LICENSE.txt", "NOTICE.txt")
    }
    described = json.loads(found["models.json"])
    assert [one["name"] for one in described] == ["colours", "<b>bold"]
    assert [found[one["file"]] for one in described] == [path.read_bytes() for path in models]
    assert assembly.model_files(tmp_path / "one")[0].read_bytes() == models[0].read_bytes()
    assert b"Apache License" in found["LICENSE.txt"] and b"LiteRT.js 2." in found["NOTICE.txt"]


@needs_runtime
def test_the_page_asks_no_other_host(tmp_path: Path) -> None:
    assembly.assemble(tmp_path, [model(tmp_path / "colours.tflite")])
    every = contents(tmp_path)
    own = {name: data.decode() for name, data in every.items() if re.fullmatch(r"\w+\.(html|css|js)", name)}
    assert {"index.html", "script.js", "answers.js", "worker.js", "service_worker.js"} <= set(own)
    for name, text in own.items():
        assert "innerHTML" not in text and "://" not in text.replace('placeholder="https://"', ""), name
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', own["index.html"])
    assert policy and set(re.findall(r"'[\w-]+'", policy[1])) == {"'none'", "'self'", "'wasm-unsafe-eval'"}
    assert '"@litertjs/' not in (tmp_path / "runtime/litert.js").read_text(), "a bare name needs an import map"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, r"litertjs-core-2.*: expected @litertjs/core 2.*, found none; make page-runtime fetches it$"),
        (
            b"an error page",
            r"core-2.*: expected @litertjs/core 2.* the checksum sha512-PlGmbM.*, received sha512-",
        ),
    ],
)
def test_a_missing_or_damaged_runtime_stops_a_run_before_any_work(
    in_tmp_path: Path, damage: bytes | None, message: str
) -> None:
    params = {"seed": 0, "export": {"formats": ["litert", "page"]}}
    if damage:
        (in_tmp_path / ".temper/npm").mkdir(parents=True)
        (in_tmp_path / ".temper/npm" / runtime.CORE.archive).write_bytes(damage)
    with pytest.raises(TemperError, match=message):
        refuse_missing_exporters(params, "params.yaml")
    params["export"] = {"formats": ["litert"]}
    refuse_missing_exporters(params, "params.yaml")


@pytest.mark.parametrize(
    ("npm", "message"),
    [
        (None, "^@litertjs/core@2.*: expected npm .of Node.js., which fetches it, found none: install it$"),
        ("echo 'npm error code E404' >&2; exit 1", "^@litertjs/core@2.*: expected npm to fetch it, .* code E404$"),
        (
            f"echo other > {runtime.CORE.archive}",
            "^@litertjs/core@2.* the checksum sha512-PlG.*, received sha512-",
        ),
    ],
)
def test_a_runtime_that_cannot_be_fetched_leaves_nothing(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: str | None, message: str
) -> None:
    monkeypatch.setenv("PATH", str(in_tmp_path))
    if npm is not None:
        (in_tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (in_tmp_path / "npm").chmod(0o755)
    with pytest.raises(TemperError, match=message):
        page_runtime.main()
    assert contents(in_tmp_path / ".temper") == {}


def test_models_and_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TemperError, match="expected no folder, an empty one or an older page, found something else"):
        require_free(tmp_path)
    for folder in ("new", "empty", "old"):
        if folder != "new":
            (tmp_path / folder).mkdir()
    (tmp_path / "old" / assembly.LIST).write_text("[]")
    for folder in ("new", "empty", "old"):
        require_free(tmp_path / folder)
    (tmp_path / "old/models").mkdir()
    for name in ("CNAME", ".git/config", "models/mine.tflite"):
        (tmp_path / "old" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "old" / name).write_text("mine")
    strange = r"old: expected nothing but an older page, .* received .git, CNAME, models/mine.tflite too"
    with pytest.raises(TemperError, match=strange):
        require_free(tmp_path / "old")
    with pytest.raises(TemperError, match="expected models of different names"):
        require_models([tmp_path / "a/one.tflite", tmp_path / "b/one.tflite"])
    with pytest.raises(TemperError, match="one.onnx: expected a LiteRT model"):
        require_models([tmp_path / "one.onnx"])
    with pytest.raises(TemperError, match="one.tflite: "):
        require_models([model(tmp_path / "one.tflite")])


# --- In a browser

EVIL = "<img src=x onerror=document.title='stolen'>.png"
TEXTS = "[...document.querySelectorAll({})].map(one => one.textContent)"
READY = "document.readyState == 'complete' && document.getElementById('said').textContent.startsWith('Ready')"
BOTH = "document.querySelectorAll('#models input').forEach(box => box.checked = true)"
# A worker as the page has it, asked for every class.
ASKED = """(async () => {
    const worker = new Worker("worker.js");
    const photo = await (await fetch("photos/NAME")).blob();
    const names = (await (await fetch("models.json")).json()).map((one) => one.name);
    worker.postMessage({ number: 0, what: "WHAT", photo, names, name: names[0], top: 1000 });
    const { data } = await new Promise((resolve) => { worker.onmessage = resolve; });
    worker.terminate();
    return data;
})()"""
PREPARED = """(async () => {
    const { prepare } = await import("./preparation.js");
    const photo = await (await fetch("photos/NAME")).blob();
    const [pixels] = await prepare(photo, [WANTED]);
    return btoa(Array.from(pixels, (value) => String.fromCharCode(value)).join(""));
})()"""
WANTED = (224, 200)  # height and width
SIDES = [(240, 320), (100, 90), (448, 448), (500, 200), (37, 600), (1, 1), (223, 225), (600, 223), (224, 224)]


def busy(height: int, width: int) -> Any:
    """Pixels with shapes and noise."""
    random = np.random.default_rng([height, width])
    shapes = random.integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    large = cv2.resize(shapes, (width, height), interpolation=cv2.INTER_LINEAR).astype(int)
    return (large + random.integers(-20, 21, large.shape)).clip(0, 255).astype(np.uint8)


def exif(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG that says how its camera was held."""
    entry = b"\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2, "big") + b"\0\0"
    tiff = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(tiff) + 2).to_bytes(2, "big") + tiff + jpeg[2:]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of all kinds, and files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    corner = np.full((480, 640, 3), 90, np.uint8)
    corner[30:200, 380:600, 0] = 250
    large = cv2.resize(busy(750, 1000), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    large[..., 1] //= 2
    jpeg = bytes(cv2.imencode(".jpg", large)[1])
    (folder / "corner.png").write_bytes(bytes(cv2.imencode(".png", corner)[1]))
    (folder / EVIL).write_bytes(photo(1, 0, ".png"))
    (folder / "12_megapixels.jpg").write_bytes(jpeg)
    (folder / "on_its_side.jpg").write_bytes(exif(bytes(cv2.imencode(".jpg", corner)[1]), 6))
    (folder / "cut_off.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "text.jpg").write_bytes(b"nothing")
    for height, width in SIDES:
        name = f"{height}x{width}.png"
        (folder / name).write_bytes(bytes(cv2.imencode(".png", busy(height, width)[..., ::-1])[1]))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models."""
    folder = tmp_path_factory.mktemp("models")
    write_colours_for_browsers(folder / "colours.tflite")
    write_colours_for_browsers(folder / "<b>bold.tflite", side=48)
    return folder


def tell(folder: Path, story: Story) -> Page:
    """Opens a browser and does what the story says."""

    async def run() -> Page:
        async with browser(folder / "browser") as page:
            await story(page)
            return page

    return asyncio.run(run())


async def ask(page: Page, what: str, name: str) -> Any:
    found = await page.run(ASKED.replace("WHAT", what).replace("NAME", name))
    return found["found"]


async def prepared(page: Page, name: str, fit: str) -> Any:
    """What the page makes of a photo for a model of `WANTED` pixels."""
    wanted = json.dumps({"height": WANTED[0], "width": WANTED[1], "fit": fit})
    pixels = await page.run(PREPARED.replace("NAME", name).replace("WANTED", wanted))
    return np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(*WANTED, 3).astype(int)


async def on_a_host_that_changes_files(page: Page, folder: Path, given: Path) -> None:
    """Nothing is stored then, and the page still works; here with the build of the runtime for older browsers."""
    (folder / "runtime_name.js").write_text("self.runtimeName = () => 'litert_wasm_compat_internal';")
    with hosted(folder) as host:
        await page.open(host.url, 1280)
        await page.until(READY)
        assert "connection" not in await page.run("document.getElementById('said').textContent")
        await page.give("#files", given)
        await page.until("document.querySelectorAll('.answer').length == 1")
        assert (await page.run(TEXTS.format("'.name'")))[0] == CLASSES[2]
        sent = [path for path, _ in host.sent]
        assert "/runtime/litert_wasm_compat_internal.bin" in sent and "/runtime/litert_wasm_internal.bin" not in sent


def errors(page: Page) -> list[str]:
    return [line for line in page.said if "'level': 'error'" in line or "exceptionThrown" in line]


browsed = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


async def first_visit(page: Page, given: list[Path]) -> None:
    """Two photos and two files that are none, to both models."""
    await page.until("!document.getElementById('models').hidden")
    await page.until(READY)
    assert "without a connection" in await page.run("document.getElementById('said').textContent")
    await page.run(BOTH)
    await page.give("#files", *given)
    await page.until("document.querySelectorAll('.answer').length == 4")
    await page.until("document.querySelectorAll('.error').length == 2")
    assert await page.run(TEXTS.format("'.card h2'")) == [file.name for file in given]
    assert set(await page.run(TEXTS.format("'.error'"))) == {
        "This is no photo that the browser can read, or it is damaged."
    }
    assert (await page.run(TEXTS.format("'.name'")))[0] == CLASSES[2], "the markup of a class is text"
    assert await page.run(TEXTS.format("'.answer h3'")) == ["colours", "<b>bold"] * 2
    assert await page.run("document.querySelectorAll('main b, .card h2 img').length") == 0
    assert await page.run("document.title") == "Temper"
    await page.run("document.querySelector('.look').click()")
    await page.until("document.querySelector('.looked:not([hidden])')")
    assert "at the top right" in await page.run("document.getElementById('said').textContent")
    await page.until("document.querySelector('.looked img').naturalWidth == 32")  # the policy lets it show
    assert await page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off on a phone"


async def offline(page: Page, given: Path) -> None:
    await page.tell("Page.reload")
    await page.until(f"!document.querySelector('.card') && {READY}")
    await page.run(BOTH)
    await page.give("#files", given)
    await page.until("document.querySelectorAll('.answer').length == 2")


async def while_the_host_is_updated(page: Page, host: Host, half: str) -> None:
    """A new list of files, one of which is only half there: the service worker takes none of them."""
    await page.tell("Page.reload")
    async with asyncio.timeout(30):
        while half not in [path for path, _ in host.sent]:
            await asyncio.sleep(0.05)
    await page.until(f"!document.querySelector('.card') && {READY}")
    await page.until("navigator.serviceWorker.getRegistration().then((one) => !one.installing && !one.waiting)")
    assert await page.run(TEXTS.format("'#models label'")) == ["colours", "<b>bold"]


async def newer(page: Page, given: Path) -> None:
    await page.tell("Page.reload")
    await page.until("document.getElementById('newer')")
    assert await page.run(TEXTS.format("'#models label'")) == ["colours", "<b>bold"], "until it is asked for"
    await page.run("document.querySelector('#newer button').click()")
    await page.until(f"!document.getElementById('newer') && {READY}")
    await page.give("#files", given)
    await page.until("document.querySelectorAll('.answer').length == 1")
    assert (await page.run(TEXTS.format("'.name'")))[0] == "bleu"
    kept = await page.run(
        "caches.keys().then(async ([name]) => (await (await caches.open(name)).keys()).map((one) => one.url))"
    )
    assert len([url for url in kept if ".tflite" in url]) == 1, "nothing of old versions is left"


@pytest.mark.slow  # a browser
@browsed
@needs_runtime
def test_first_visit_then_offline_then_a_newer_model(models: Path, photos: Path, tmp_path: Path) -> None:
    given = [photos / name for name in ("corner.png", EVIL, "text.jpg", "cut_off.jpg")]
    folder = tmp_path / "page"
    assembly.assemble(folder, [models / "colours.tflite", models / "<b>bold.tflite"])
    later = write_colours_for_browsers(tmp_path / "newer.tflite", ["rouge", "vert", "bleu"], 40)

    async def story(page: Page) -> None:
        with hosted(folder) as host:
            await page.open(host.url, 390, dark=True)
            await first_visit(page, given)
            large = [path for path, size in host.sent if size > 100_000]
            assert len(large) == len(set(large)) == 2 and not host.missing, "the runtime once, one build of it"
        await offline(page, given[0])
        assembly.assemble(folder, [later])
        (newest,) = assembly.model_files(folder)
        newest.write_bytes(later.read_bytes()[:1000])
        with hosted(folder, host.port) as again:
            await while_the_host_is_updated(page, again, f"/models/{newest.name}")
            newest.write_bytes(later.read_bytes())
            await newer(page, given[0])
            assert not [path for path, _ in again.sent if "runtime/" in path], "what has not changed is kept"

    page = tell(tmp_path, story)
    refused = [line for line in errors(page) if "is not what was exported" not in line]
    assert refused == [], "neither the page's own policy nor anything else was in the way"


@pytest.mark.slow  # a browser
@browsed
@needs_runtime
def test_answers_and_pixels_are_those_of_python(models: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    assembly.assemble(folder, [models / "colours.tflite", models / "<b>bold.tflite"])
    shutil.copytree(photos, folder / "photos")
    predictors = [Predictor(models / "colours.tflite"), Predictor(models / "<b>bold.tflite")]

    async def story(page: Page) -> None:
        with hosted(folder) as host:
            await page.open(host.url, 1280)
            await page.until(READY)
            for name in ("corner.png", "12_megapixels.jpg", "on_its_side.jpg"):
                answers = await ask(page, "answer", name)
                for predictor, answer in zip(predictors, answers, strict=True):
                    expected = dict(predictor.predict(photos / name))
                    found = {one["name"]: one["probability"] for one in answer["classes"]}
                    assert found == pytest.approx(expected, abs=2e-3), name
                    assert next(iter(found)) == next(iter(expected)), name
            # Decoders differ a little, and large JPEGs are reduced while decoded or afterwards.
            for name, most, on_average in (("on_its_side.jpg", 2, 0.1), ("12_megapixels.jpg", 3, 0.3)):
                pixels = prepare((photos / name).read_bytes(), Preparation(*WANTED, "stretch", 0.0))
                difference = np.abs(await prepared(page, name, "stretch") - pixels)
                assert difference.max() <= most and difference.mean() < on_average, name
            look = (await ask(page, "look", "corner.png"))["look"]
            seen = predictors[0].prepare(photos / "corner.png")
            map_ = occlusion_map(lambda many: predictors[0].probabilities(list(many)), seen)
            assert np.allclose(look["map"], map_, atol=1e-3) and np.ptp(map_) > 0.1
            for height, width in SIDES:
                for fit in ("stretch", "crop", "pad"):
                    pixels = resize(busy(height, width), *WANTED, fit)
                    difference = np.abs(await prepared(page, f"{height}x{width}.png", fit) - pixels)
                    assert difference.max() <= 1 and (difference > 0).mean() < 0.15, (height, width, fit)
        await on_a_host_that_changes_files(page, folder, photos / "corner.png")

    tell(tmp_path, story)


@pytest.mark.slow  # a process that imports LiteRT
@needs_runtime
def test_the_command_makes_a_page(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "apps.page", str(tmp_path / "page"), "--models", str(models / "colours.tflite")]
    for _ in range(2):  # the second one replaces the first
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == 0 and "a page with colours, " in done.stdout, done.stderr
    assert (tmp_path / "page/index.html").exists()
    (tmp_path / "page/models.json").unlink()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
