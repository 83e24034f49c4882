"""The page of the server in a real browser: photos, models, where they looked, the keyboard, names that are text."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests

from tests.toys.browser import PROGRAM, Page, browser
from tests.toys.colours import CLASSES, photo, write_colours
from tests.toys.served import Served, require_environment, served

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
EVIL = "<img src=x onerror=document.title='stolen'>.png"
TEXTS = "[...document.querySelectorAll({})].map(one => one.textContent)"
GREEN_CAMERA = """
    const green = Object.assign(document.createElement("canvas"), {width: 64, height: 48});
    const pen = green.getContext("2d");
    pen.fillStyle = "rgb(20, 220, 20)";
    const paint = () => pen.fillRect(0, 0, 64, 48);
    paint();
    setInterval(paint, 20);
    navigator.mediaDevices.getUserMedia = async () => green.captureStream(25);
    0
"""
Story = Callable[[Page], Awaitable[None]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    require_environment()
    folder = tmp_path_factory.mktemp("models")
    path = write_colours(folder / "colours.tflite")
    return [path, Path(shutil.copy(path, folder / "<b>bold.tflite"))]


@pytest.fixture(scope="module")
def server(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(models, tmp_path_factory.mktemp("server") / "log", "--addresses") as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A photo with blue in the upper right, one with a name that means to be HTML, and a file that is no photo."""
    pixels = np.full((480, 640, 3), 90, np.uint8)
    pixels[30:200, 380:600, 0] = 250
    contents = {"corner.png": bytes(cv2.imencode(".png", pixels)[1]), EVIL: photo(1, 0, ".png"), "text": b"nothing"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def show(folder: Path, url: str, width: int, dark: bool, story: Story) -> Page:
    """Opens the page and does what the story says."""

    async def run() -> Page:
        async with browser(folder / "browser") as page:
            await page.open(url, width, dark)
            await story(page)
            return page

    return asyncio.run(run())


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_photos_are_answered(server: Served, files: list[Path], tmp_path: Path, width: int, dark: bool) -> None:
    async def story(page: Page) -> None:
        await page.until("!document.getElementById('models').hidden")
        await page.run("document.querySelectorAll('#models input').forEach(box => box.checked = true)")
        await page.give("#files", *files)
        await page.until("document.querySelectorAll('.answer').length == 4 && document.querySelector('.error')")
        assert await page.run(TEXTS.format("'.card h2'")) == [file.name for file in files]
        assert (await page.run(TEXTS.format("'.name'")))[0] == CLASSES[2], "the markup of a class is text"
        assert await page.run(TEXTS.format("'.answer h3'")) == ["colours", "<b>bold"] * 2
        assert await page.run("document.querySelectorAll('main b, .card h2 img').length") == 0
        assert await page.run("document.title") == "Temper"
        await page.run("document.querySelector('.look').click()")
        await page.until("document.querySelector('.looked:not([hidden])')")
        assert "at the top right" in await page.run("document.getElementById('said').textContent")
        painted = await page.run(
            "[...document.querySelector('.looked canvas').getContext('2d').getImageData(220, 60, 1, 1).data]"
        )
        assert painted[0] > 200 and painted[3] > 100, "red where the blue was"
        assert await page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off on a phone"
        await page.picture(tmp_path / "page.png")

    page = show(tmp_path, server.url, width, dark, story)
    # The status of the file that is no photo, and nothing that the page's own policy forbade.
    assert len(page.said) == 1 and "415" in page.said[0]


def test_the_keyboard_is_enough(server: Served, files: list[Path], tmp_path: Path) -> None:
    focused = "document.activeElement.id || document.activeElement.value || document.activeElement.textContent"

    async def story(page: Page) -> None:
        await page.until("!document.getElementById('models').hidden")
        seen = []
        for _ in range(6):
            await page.press("Tab", 9)
            seen.append(await page.run(focused))
        assert seen == ["files", "camera", "address", "Ask", "colours", "<b>bold"]
        await page.press(" ", 32)
        assert await page.run("document.activeElement.checked")
        await page.give("#files", files[0])
        await page.until("document.querySelectorAll('.answer').length == 2")
        await page.press("Tab", 9)
        assert await page.run("document.activeElement.getAttribute('aria-label')") == "Remove corner.png"
        await page.press("Tab", 9)
        assert "look" in await page.run("document.activeElement.className")
        await page.press("Enter", 13)
        await page.until("document.querySelector('.looked:not([hidden])')")
        await page.run("document.querySelector('.remove').focus()")
        await page.press("Enter", 13)
        assert await page.run("document.querySelectorAll('.card').length") == 0
        assert await page.run("document.activeElement.id") == "files", "focus does not get lost"

    show(tmp_path, server.url, 1280, False, story)


def test_everything_has_a_name_for_screen_readers(server: Served, files: list[Path], tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        await page.until("!document.getElementById('models').hidden")
        await page.give("#files", files[0])
        await page.until("document.querySelectorAll('.answer').length == 1")
        await page.tell("Accessibility.enable")
        nodes = (await page.tell("Accessibility.getFullAXTree"))["nodes"]
        wanted = {"button", "textbox", "checkbox", "image", "region", "group", "status"}
        found = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in wanted
        ]
        assert [one for one in found if one[0] != "status" and not one[1]] == []
        assert {("image", "corner.png"), ("checkbox", "colours"), ("button", "Use the camera")} <= set(found)
        said, share = (
            "document.querySelector('[role=status]').textContent",
            "document.querySelector('.share').textContent",
        )
        assert await page.run(said) == f"corner.png: {CLASSES[2]}, {await page.run(share)}"

    show(tmp_path, server.url, 390, False, story)


def test_a_photo_can_be_pasted_and_dropped(server: Served, tmp_path: Path) -> None:
    data = json.dumps([*photo(0, 0, ".png")])
    given = f"""(() => {{
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array({data})], "KIND.png", {{type: "image/png"}}));
        return files;
    }})()"""

    async def story(page: Page) -> None:
        await page.until("!document.getElementById('models').hidden")
        paste = given.replace("KIND", "pasted")
        await page.run(f"document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: {paste}}})), 0")
        drop = given.replace("KIND", "dropped")
        await page.run(f"document.dispatchEvent(new DragEvent('drop', {{dataTransfer: {drop}}})), 0")
        await page.until("document.querySelectorAll('.answer').length == 2")
        assert set(await page.run(TEXTS.format("'.card h2'"))) == {"pasted.png", "dropped.png"}
        await page.run("document.getElementById('address').value = 'http://127.0.0.1/photo.jpg', 0")
        await page.run("document.querySelector('#by-address button').click()")
        await page.until("document.querySelector('.error')")
        assert "public host" in await page.run("document.querySelector('.error').textContent")

    show(tmp_path, server.url, 390, False, story)


def test_the_camera_takes_a_photo(server: Served, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        await page.until("!document.getElementById('models').hidden")
        await page.run("document.getElementById('camera').click()")  # of a machine without one
        await page.until("document.getElementById('said').textContent == 'The browser gives no camera.'")
        await page.run(GREEN_CAMERA)
        await page.run("document.getElementById('camera').click()")
        await page.until("document.getElementById('video').readyState >= 2")  # there is a frame
        stream = "document.getElementById('video').srcObject.getTracks()[0].readyState"
        assert await page.run(stream) == "live"
        await page.run("document.getElementById('take').click()")
        await page.until("document.querySelectorAll('.answer').length == 1")
        assert await page.run(TEXTS.format("'.card h2'")) == ["Photo from the camera"]
        assert (await page.run(TEXTS.format("'.name'")))[0] == "green"
        assert not await page.run("document.getElementById('viewfinder').open")
        assert await page.run(stream) == "ended", "the camera is switched off"

    page = show(tmp_path, server.url, 390, False, story)
    assert page.said == []


def test_a_token_is_asked_for(models: list[Path], files: list[Path], tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        await page.until("!document.getElementById('with-token').hidden")
        assert await page.run("document.getElementById('by-address').hidden")
        await page.run("document.getElementById('token').value = 'not the secret', 0")
        await page.run("document.querySelector('#with-token button').click()")
        await page.until("document.getElementById('said').textContent.includes('token')")
        await page.run("document.getElementById('token').value = 'the secret', 0")
        await page.run("document.querySelector('#with-token button').click()")
        await page.until("document.getElementById('with-token').hidden")
        await page.give("#files", files[0])
        await page.until("document.querySelectorAll('.answer').length == 1")

    with served(models[:1], tmp_path / "log", token="the secret") as server:
        show(tmp_path, server.url, 390, False, story)


def test_the_page_loads_nothing_from_elsewhere(server: Served) -> None:
    answer = requests.get(server.url, timeout=60)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for name in ("", "script.js", "answers.js", "style.css", "theme.css"):
        answer = requests.get(f"{server.url}/{name}", timeout=60)
        assert answer.status_code == 200 and "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "innerHTML" not in answer.text and "https://" not in answer.text.replace('placeholder="https://"', "")
