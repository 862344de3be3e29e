"""Types of fracture on the page in a real Chromium: what the detector tells, and what a reader chooses.

    FRACTURE_SHOTS=docs .venv/bin/python -m pytest tests/webapp/test_types_browser.py

also makes the picture of them that the documents show.
"""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.webapp.bright import dark_plate
from tests.webapp.browser import barriers
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, encoded
from tests.webapp.test_browser import draw, kept_by, opened, upload, wait_until

pytestmark = pytest.mark.browser
TITLE = "Type of fracture: transverse 54 %, longitudinal 36 %"


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("instance"), detector="typed:0")


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


@pytest.fixture
def files(tmp_path):
    plates = {"wrist.png": (LIKELY, POSSIBLE), "healthy.png": (WEAK,), "square.png": ((20, 30, 60, 70, 230),)}
    for name, rectangles in plates.items():
        (tmp_path / name).write_bytes(encoded(dark_plate(*rectangles)))
    return {name: str(tmp_path / name) for name in plates}


def shoot(page, panel) -> None:
    """Keep a picture of the upper part of `panel` where FRACTURE_SHOTS says, if it says so."""
    if folder := os.environ.get("FRACTURE_SHOTS"):
        page.evaluate("document.activeElement.blur()")
        clip = panel.evaluate(
            "place => { const { x, y, width } = place.getBoundingClientRect(); return { x, y, width }; }"
        )
        clip["y"] += page.evaluate("scrollY")
        page.screenshot(path=Path(folder) / "types.png", full_page=True, clip=clip | {"height": 490})


def test_the_types_are_folded_and_unfold_by_keyboard_with_their_definitions(page, files):
    wrist = upload(page, files["wrist.png"])
    definition = wrist.get_by_text("at about a right angle to its long axis")
    expect(wrist.get_by_text(TITLE)).to_be_visible()
    expect(definition).to_be_hidden()
    wrist.get_by_text(TITLE).focus()
    page.keyboard.press("Enter")
    expect(definition).to_be_visible()
    terms = wrist.locator("[data-part=type-list] dt").all_inner_texts()
    assert terms == ["Transverse 54 %", "Longitudinal 36 %", "Spiral 10 %"]
    expect(wrist.get_by_text("was right for 71 % of validation radiographs")).to_be_visible()
    boxes = wrist.locator("[data-part=type-boxes] li").all_inner_texts()
    assert boxes == ["Box 1: transverse 60 %", "Box 2: longitudinal 51 %"]
    assert barriers(page) == []
    shoot(page, wrist.locator(".panel"))


def test_below_its_confidence_the_detector_names_no_type(page, files):
    square = upload(page, files["square.png"])
    square.get_by_text("Type uncertain").click()
    expect(square.get_by_text("No type reaches 50 %")).to_be_visible()
    expect(square.locator("[data-part=type-list] dt").first).to_contain_text("45 %")


def test_a_radiograph_without_a_finding_has_no_type(page, files):
    expect(upload(page, files["healthy.png"]).locator("[data-part=types]")).to_be_hidden()


def test_a_reader_chooses_types_by_keyboard_and_finds_them_again(page, server, files):
    kept = kept_by(page)
    wrist = upload(page, files["wrist.png"])
    expect(wrist.locator("select.type")).to_have_count(0)  # nothing to choose before a box is right
    for key in ("1", "r", "y"):
        page.keyboard.press(key)
    choice = wrist.get_by_label("Type of the fracture in box 1")
    expect(choice).to_be_focused()
    assert choice.input_value() == ""  # unknown, whatever the detector says
    page.keyboard.type("sp")
    wait_until(page, lambda: kept and kept[-1]["boxes"] == [{"number": 1, "verdict": "right", "type": "spiral"}])
    expect(choice).to_be_focused()

    draw(page, wrist, (10, 60), (60, 100))
    wrist.get_by_label("Type of missed fracture 1").select_option("Greenstick")
    wait_until(page, lambda: kept[-1].get("missed_types") == ["greenstick"])
    expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")
    assert barriers(page) == []
    wrist.get_by_role("link", name="Result page").click()
    expect(page.get_by_label("Type of the fracture in box 1")).to_have_value("spiral")
    expect(page.get_by_label("Type of missed fracture 1")).to_have_value("greenstick")


def test_a_verdict_that_is_taken_back_takes_the_type_with_it(page, files):
    kept = kept_by(page)
    wrist = upload(page, files["wrist.png"])
    wrist.get_by_role("button", name="Box 1 is right").click()
    wrist.get_by_label("Type of the fracture in box 1").select_option("Oblique")
    wait_until(page, lambda: kept and kept[-1]["boxes"] == [{"number": 1, "verdict": "right", "type": "oblique"}])
    wrist.get_by_role("button", name="Box 1 is wrong").click()
    wait_until(page, lambda: kept[-1]["boxes"] == [{"number": 1, "verdict": "wrong"}])
    expect(wrist.locator("select.type")).to_have_count(0)


def test_it_fits_a_phone(browser, server, files):
    with opened(browser, server, width=360, height=740, touch=True) as page:
        kept_by(page)
        wrist = upload(page, files["wrist.png"])
        wrist.get_by_text(TITLE).tap()
        expect(wrist.get_by_text("at about a right angle")).to_be_visible()
        wrist.get_by_role("button", name="Box 1 is right").tap()
        expect(wrist.get_by_label("Type of the fracture in box 1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert barriers(page) == []


def test_it_works_without_a_script(browser, server, files):
    with opened(browser, server, scripted=False) as page:
        page.set_input_files("#files", files["wrist.png"])
        page.get_by_role("button", name="Analyse").click()
        expect(page.get_by_text("at about a right angle")).to_be_hidden()
        page.get_by_text(TITLE).click()
        expect(page.get_by_text("at about a right angle")).to_be_visible()
