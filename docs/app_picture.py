"""Photograph the page of ``python -m mmvitaccel.app`` while it plays a generated clip.

    python docs/app_picture.py

writes docs/app.jpg. It uses the detector of `make demo-video`, with random weights where that has
not been run, and needs the extras `app` and `video`, and playwright with Debian's chromium
(requirements/browser.txt).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import mmvitaccel  # noqa: F401  (compatibility patches before mmdet is imported)
from mmvitaccel.app.clips import draw_clips
from mmvitaccel.app.models import own_model
from mmvitaccel.app.page import Page
from mmvitaccel.app.player import Player
from mmvitaccel.app.server import application, listen, served
from mmvitaccel.app.session import Sessions
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.extras import require

CHROMIUM = Path("/usr/bin/chromium")
SIZE = dict(width=1280, height=960)
MINUTES = 5  # that are waited for at most
SLIDE = {0: 70, 20: 40, 40: 55}  # from which frame on which share in percent
LAST = 60
REACHED = """number => {
  const found = /frame (\\d+)/.exec(document.querySelector('#costs')?.innerText || '');
  return found && +found[1] >= number; }"""


def photograph(address: str, path: Path) -> None:
    """Play a clip, move the slider, and write what the browser shows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(60_000 * MINUTES)
        page.goto(address)
        page.wait_for_selector("#upload[data-token]:not([data-token=''])", state="attached")
        page.click("#play")
        for number, share in SLIDE.items():
            page.wait_for_function(REACHED, arg=number)
            field = page.locator("#budget input[type=number]")
            field.fill(str(share))
            field.blur()
        page.wait_for_function(REACHED, arg=LAST)
        page.click("#stop")
        page.wait_for_timeout(1000)
        page.screenshot(path=str(path), type="jpeg", quality=70)
        browser.close()


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page and photograph it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "app.jpg")
    args = parser.parse_args(argv)
    require("app", "gradio")
    require("video", "av", "supervision")
    require("browser", "playwright")
    if not CHROMIUM.is_file():
        raise UserError(f"{CHROMIUM} is not there; apt-get install chromium.")
    with listen("127.0.0.1", 0) as listening, TemporaryDirectory() as folder:
        models, said = own_model()
        clips, sessions = draw_clips(Path(folder)), Sessions(Path(folder, "sessions"))
        app = application(Page(Player(models), sessions, clips, said), Path(folder), 2**20)
        with served(app, listening) as address:
            photograph(address, args.out)
        sessions.close_all()
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
