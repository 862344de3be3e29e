"""A real, headless Chromium on the page; also makes the pictures of it.

    .venv/bin/python -m tests.webapp.browser --address http://127.0.0.1:8000 --out docs/page.png IMAGE ...

uploads the images to a running server and saves the page, `--width 390` as on a phone.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

AXE = Path(__file__).with_name("vendor") / "axe-core" / "axe.min.js"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def chromium() -> str | None:
    """Return the path of Debian's Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Witness:
    """What went wrong in a page, and what it fetched."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Listen to the console, to errors and to every request of `page`."""
        page.on("console", lambda message: self._hear(message.type, message.text, message.location.get("url", "")))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, kind: str, text: str, url: str) -> None:
        # Chromium itself writes a line for each error of the API and each lost connection; neither is the page's fault.
        is_error_response = text.startswith("Failed to load resource") and "/api/" in url
        if kind in ("error", "warning") and not is_error_response:
            self.complaints.append(f"{kind}: {text} ({url})")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: Browser, *, width: int = 1280, height: int = 900, scripted: bool = True, touch: bool = False
) -> Iterator[tuple[Page, Witness]]:
    """Open a page of `width` x `height` CSS pixels in `browser`, with a witness of what happens in it."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        java_script_enabled=scripted,
        device_scale_factor=2,
        has_touch=touch,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    witness = Witness()
    witness.watch(page)
    yield page, witness
    context.close()


def seen(place: Locator) -> NDArray[np.uint8]:
    """Return what `place` looks like: (H, W, 3) RGB, two pixels per CSS pixel."""
    return np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB"))


def barriers(page: Page) -> list[str]:
    """Return what axe-core calls a serious or critical barrier on `page`, rule and place."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    audit: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in audit["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def main(argv: list[str] | None = None) -> int:
    """Save a picture of the page with results."""
    parser = argparse.ArgumentParser(description="Upload images to a running page and save a picture of it.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--scroll", action="store_true", help="show the results and not the top of the page")
    arguments = parser.parse_args(argv)
    with open_browser() as browser, open_page(browser, width=arguments.width) as (page, witness):
        page.goto(arguments.address)
        page.set_input_files("#files", [str(path) for path in arguments.images])
        last = page.locator(".done, .failed-job").nth(len(arguments.images) - 1)
        last.wait_for(state="attached", timeout=120_000)
        page.wait_for_load_state("networkidle")
        if arguments.scroll:
            page.locator("#results").evaluate("place => window.scrollTo(0, place.offsetTop - 90)")
        page.screenshot(path=arguments.out)
    for complaint in witness.complaints:
        print(complaint, file=sys.stderr)
    return 1 if witness.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
