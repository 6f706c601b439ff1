"""The page in a headless browser."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.app.conftest import write_clip

pytestmark = [pytest.mark.extras("app", "gradio"), pytest.mark.extras("browser", "playwright")]
CHROMIUM = Path("/usr/bin/chromium")
READY = "#upload[data-token]:not([data-token=''])"
SECONDS = 25_000  # milliseconds that are waited for at most


@pytest.fixture(scope="module")
def chromium():
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install --no-install-recommends chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Open the page in a browser of its own; what it asks for is in ``page.asked``."""
    contexts = []

    def open_page():
        context = chromium.new_context()
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(server.address)
        page.wait_for_selector(READY, state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()


def says(page, pattern):
    """Wait until the notice says so."""
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.querySelector('#notice')?.innerText || '')",
        arg=pattern,
    )


def share(page):
    """The shown share of the dense model's multiply-adds, in percent; None before there is one."""
    found = re.search(r"(\d+)%\s*$", page.inner_text("#costs table"))
    return int(found[1]) if found else None


def choose(page, clip):
    page.click("#clip input")
    page.click(f"ul[role=listbox] >> text={clip}")


def slide(page, percent):
    """Type a value beside the slider, which moves it."""
    field = page.locator("#budget input[type=number]")
    field.fill(str(percent))
    field.press("Enter")
    field.blur()


def wait_for_share(page, low, high):
    page.wait_for_function(
        """([low, high]) => {
            const found = /(\\d+)%\\s*$/.exec(
                document.querySelector('#costs table')?.innerText || '');
            return found && low <= +found[1] && +found[1] <= high; }""",
        arg=[low, high],
    )


def test_it_opens_plays_and_the_slider_changes_the_cost(visit, server):
    page = visit()
    says(page, "hello")
    slide(page, 90)
    says(page, "budget: 90 %")
    page.click("#play")
    wait_for_share(page, 75, 90)
    source = page.get_attribute("#frame", "src")
    assert source.startswith("data:image/jpeg;base64,")
    slide(page, 60)
    wait_for_share(page, 30, 60)
    page.wait_for_selector("#macs polyline[points*=' ']", state="attached")
    assert [page.locator(f"#{name} polyline").count() for name in ("macs", "milliseconds")] == [
        2,
        2,
    ]
    with page.expect_download() as download:
        page.click("#table")
    rows = Path(download.value.path()).read_text().splitlines()
    assert rows[0].startswith("frame,seconds,budget,k,whole,milliseconds,macs")
    assert len(rows) > 2
    page.click("#stop")
    says(page, "stopped")
    outside = [u for u in page.asked if not u.startswith((server.address, "data:", "blob:"))]
    assert outside == []


def test_a_broken_clip_gives_a_sentence_and_a_whole_one_is_played(visit, tmp_path):
    page = visit()
    clip = write_clip(tmp_path / "mine.mp4", 6, 3)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:500])
    page.set_input_files("#upload", broken)
    says(page, r"broken\.mp4 cannot be opened as a video")
    assert page.locator("#notice.mistake").count() == 1
    assert str(tmp_path) not in page.inner_text("#notice")
    page.set_input_files("#upload", clip)
    says(page, r"mine\.mp4 \(yours\) is ready")
    assert page.input_value("#clip input") == "mine.mp4 (yours)"
    page.click("#play")
    says(page, "^6 frames, ")


def test_two_sessions_at_once_stay_apart(visit, server, tmp_path):
    one, other = visit(), visit()
    one.set_input_files("#upload", write_clip(tmp_path / "secret.mp4", 150, 4))
    says(one, "secret.mp4")
    slide(one, 90)
    slide(other, 60)
    for page in (one, other):
        page.click("#play")
    wait_for_share(one, 75, 90)
    wait_for_share(other, 30, 60)
    assert share(one) > share(other)
    other.click("#clip input")
    assert "secret" not in other.inner_text("ul[role=listbox]")
    assert "secret" not in other.content()
    tokens = [page.get_attribute("#upload", "data-token") for page in (one, other)]
    assert tokens[0] != tokens[1]
    stolen = other.evaluate("async token => (await fetch('./table/' + token)).status", tokens[0])
    assert stolen == 404
    folder = server.folder / "sessions" / tokens[0]
    assert len([*folder.iterdir()]) == 1
    one.close()
    end = time.monotonic() + SECONDS / 1000
    while folder.exists() and time.monotonic() < end:
        other.wait_for_timeout(100)
    assert not folder.exists()
    wait_for_share(other, 30, 60)
    other.click("#stop")
    says(other, "stopped")
