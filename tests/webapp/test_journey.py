"""A clinician's whole way with real radiographs and the shipped detector, in a real Chromium.

    FRACTURE_SHOTS=docs .venv/bin/python -m pytest tests/webapp/test_journey.py

also makes the pictures of the page that the documents show.
"""

import os
import re
import shutil
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.paths import FRACATLAS, present
from tests.webapp.bright import ROOT
from tests.webapp.browser import barriers, open_page
from tests.webapp.test_browser import boxes, choose, set_slider

pytestmark = [pytest.mark.browser, pytest.mark.real]
FRACTURED, HEALTHY = "Fractured/IMG0003943.jpg", "Non_fractured/IMG0004383.jpg"
MISSED = "Drawn by the journey: proximal phalanx."


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    calibration = str(ROOT / "weights" / "shipped" / "calibration.json")
    folder = tmp_path_factory.mktemp("journey")
    return start_server(folder, detector="shipped", FRACTURE_CALIBRATION=calibration)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """A fractured radiograph, a healthy one, and one that a bad connection cut off."""
    named = {"wrist.jpg": FRACTURED, "foot.jpg": HEALTHY}
    for name, source in named.items():
        shutil.copyfile(present(FRACATLAS / "images" / source), tmp_path / name)
    (tmp_path / "cut off.jpg").write_bytes((tmp_path / "wrist.jpg").read_bytes()[:9000])
    return [str(tmp_path / name) for name in ("wrist.jpg", "cut off.jpg", "foot.jpg")]


def shoot(page, name: str) -> None:
    """Keep a picture of `page` where FRACTURE_SHOTS says, if it says so."""
    if folder := os.environ.get("FRACTURE_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_from_the_upload_to_the_deletion(browser, server, files, tmp_path, width):
    with open_page(browser, width=width, height=900) as (page, witness):
        page.set_default_timeout(60_000)
        page.goto(server.address)
        page.set_input_files("#files", files)

        # Each file has its own answer, and the broken one hides neither of the others.
        expect(page.locator("#summary")).to_contain_text("3 of 3 done", timeout=60_000)
        broken = choose(page, "cut off")
        broken.get_by_text("It is damaged or incomplete").wait_for()
        assert broken.locator(".finding").count() == 0
        foot = choose(page, "foot")
        foot.locator(".finding").get_by_text(re.compile("No fracture seen|Fracture possible")).wait_for()
        wrist = choose(page, "wrist")
        wrist.locator(".finding").get_by_text("Fracture likely").wait_for()
        wrist.locator("[data-ready]").wait_for()
        assert barriers(page) == []
        if width == 1280:
            page.locator(".row-entry.none-seen, .row-entry.possible").locator(".tick").click()
        page.locator("#results").evaluate("place => window.scrollTo(0, place.offsetTop - 100)")
        page.wait_for_load_state("networkidle")
        shoot(page, "page" if width == 1280 else "page_phone")

        # The slider, the window, the original.
        shown = boxes(wrist).count()
        assert shown >= 1
        set_slider(wrist, 0.0)
        assert boxes(wrist).count() >= shown
        set_slider(wrist, 1.0)
        expect(boxes(wrist)).to_have_count(0)
        assert wrist.locator(".finding").get_by_text("Fracture likely").is_visible()
        wrist.get_by_role("button", name=re.compile("^Reset to")).click()
        expect(boxes(wrist)).to_have_count(shown)
        wrist.get_by_label("Window preset").select_option("bone")
        expect(wrist.locator("[data-part=window-readout]")).not_to_have_text("W 256 L 128")
        wrist.get_by_role("button", name="Invert").click()
        wrist.locator(".stage").focus()
        page.keyboard.press("0")

        # What the model got right, and what it missed.
        wrist.get_by_role("button", name="Box 1 is right").click()
        wrist.locator(".stage").focus()
        page.keyboard.press("d")
        for key in ("ArrowLeft", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        wrist.get_by_label("Comment").fill(MISSED)
        expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")

        # On paper.
        address = wrist.get_by_role("link", name="Report", exact=True).get_attribute("href")
        portable = wrist.get_by_role("link", name="Report (PDF)").get_attribute("href")
        with urllib.request.urlopen(server.address + portable) as answer:
            assert answer.read(5) == b"%PDF-"
        page.goto(server.address + address)
        expect(page.locator(".report")).to_contain_text("Research use only")
        expect(page.locator(".report")).to_contain_text(MISSED)
        assert barriers(page) == []
        page.emulate_media(media="print")
        assert not page.locator("header.top").is_visible()
        assert page.pdf().startswith(b"%PDF-")
        page.emulate_media(media="screen")

        # Found again, and gone.
        page.goto(server.address)
        page.get_by_role("link", name="History").click()
        expect(page.locator(".entry")).to_have_count(2)
        page.get_by_role("searchbox").fill("phalanx")
        page.get_by_role("combobox").select_option("likely")
        page.get_by_role("button", name="Search").click()
        expect(page.locator(".entry")).to_have_count(1)
        page.goto(f"{server.address}/history")
        page.wait_for_load_state("networkidle")
        assert barriers(page) == []
        if width == 1280:
            shoot(page, "history")
        for _ in range(2):
            page.locator(".entry").first.get_by_role("button", name=re.compile("Delete")).click()
        expect(page.locator(".entry")).to_have_count(0)
        assert list((server.folder / "images").iterdir()) == []

        assert witness.complaints == []
        assert all(url.startswith((server.address, "data:", "blob:")) for url in witness.requests)
