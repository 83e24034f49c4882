"""The page of the queue in a real browser: the form, the table, curves, logs that are text, the keyboard."""

import asyncio
from pathlib import Path

import pytest

from tests.toys.browser import PROGRAM, Page, browser
from tests.toys.queued import kill_workers, make_repository, served

pytest.importorskip("uvicorn", reason="the packages of the queue's server are not here: make queue")
pytest.importorskip("fastapi", reason="the packages of the queue's server are not here: make queue")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")]
ROWS = "[...document.querySelectorAll('tbody tr')].map(row => [...row.cells].slice(0, 3).map(cell => cell.textContent))"
FITS = "document.documentElement.scrollWidth <= innerWidth"
SET = """(key, value, number) => {
    const [name, content] = document.querySelectorAll('.setting')[number].querySelectorAll('input');
    [name.value, content.value] = [key, value];
}"""


async def fill(page: Page, key: str, value: str, number: int = 0) -> None:
    """Writes a setting into the form."""
    await page.run(f"({SET})({key!r}, {value!r}, {number})")


async def story(page: Page, url: str, width: int, picture: Path) -> None:
    """A run that is refused, one that runs, its curve and its log, and its end."""
    await page.open(url, width, dark=width < 600)
    await page.until("document.querySelectorAll('#keys option').length > 20")
    await fill(page, "lrr", "1")
    await page.run("document.getElementById('send').click()")
    await page.until("document.getElementById('said').textContent.includes('did you mean lr?')")
    await fill(page, "lr", "3e-6")
    await page.run("document.getElementById('more').click()")
    await fill(page, "seed", "2001", 1)
    await page.run(f"document.getElementById('name').value = 'page-{width}'")
    await page.run("document.getElementById('name').focus()")
    await page.press("Enter", 13)
    await page.until(f"{ROWS}[0]?.[0] === 'page-{width}'", 60)
    assert (await page.run(ROWS))[0][2] == "lr = 0.000003, seed = 2001"
    await page.until("document.querySelector('#pictures svg')", 90)
    label = await page.run("document.querySelector('#pictures svg').getAttribute('aria-label')")
    assert label == f"page-{width}, fine_tune validation/loss: 0.4 at 2, from 0.4 to 0.9"
    assert await page.run(FITS)
    await page.picture(picture)
    await page.run(f"document.querySelector('[aria-label=\"Log of page-{width}\"]').focus()")
    await page.press("Enter", 13)
    await page.until("document.getElementById('text').textContent.includes('<b>epoch 1</b>')")
    assert not await page.run("document.querySelector('#text b')"), "a log is text"
    await page.press("Escape", 27)
    await page.until("!document.getElementById('reader').open")
    await page.run(f"document.querySelector('[aria-label=\"Cancel page-{width}\"]').click()")
    await page.until(f"{ROWS}[0][1] === 'cancelled'", 60)
    errors = [line for line in page.said if "422" not in line]
    assert errors == []


def test_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    repository = make_repository(folder)

    async def look(url: str, width: int) -> None:
        async with browser(tmp_path / f"browser-{width}") as page:
            await story(page, url, width, tmp_path / f"{width}.png")

    try:
        with served(repository) as server:
            for width in (1280, 390):
                asyncio.run(look(server.url, width))
    finally:
        kill_workers(folder)
