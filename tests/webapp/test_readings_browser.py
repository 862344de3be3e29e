"""Several readers of one radiograph in a real Chromium; also makes the picture of docs/learning.md.

FRACTURE_SHOTS=docs .venv/bin/python -m pytest tests/webapp/test_readings_browser.py
"""

import os

import pytest
from playwright.sync_api import expect

from tests.webapp.bright import ROOT, dark_plate
from tests.webapp.browser import barriers, open_page
from tests.webapp.conftest import LIKELY, POSSIBLE, encoded
from tests.webapp.test_browser import FEEDBACK, job
from tests.webapp.test_login_browser import PASSWORD, log_in
from webapp.store import Store
from webapp.store.accounts import ADJUDICATOR, READER

pytestmark = pytest.mark.browser
FOUND = [20, 30, 60, 50]  # the predicted box, LIKELY


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers") / "instance"
    store = Store(folder)
    for name, role in (("anna", READER), ("ben", READER), ("carla", ADJUDICATOR)):
        store.accounts.add_user(name, role, PASSWORD, by="test")
    store.close()
    login = {"FRACTURE_LOGIN": "on", "FRACTURE_SECRET_KEY": "k" * 32}
    return start_server(folder, FRACTURE_SHARED_READING="on", **login)


def enter(page, server, name):
    page.context.clear_cookies()
    page.goto(f"{server.address}/login")
    log_in(page, name, PASSWORD)
    page.get_by_role("button", name=f"Log out {name}").wait_for()


def saved_by(page, act):
    """Do what makes the page save a reading; return what it sent."""
    with page.expect_response(lambda answer: bool(FEEDBACK.search(answer.url)) and answer.ok) as answer:
        act()
    return answer.value.request.post_data_json


def drag(page, place, start_px, end_px):
    sheet = place.locator("[data-part=boxes]").bounding_box()
    scale = sheet["width"] / 160
    points = [(sheet["x"] + x * scale, sheet["y"] + y * scale) for x, y in (start_px, end_px)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


def read_by_anna(page, server, file):
    """Upload the film as anna, who moves its box with the pointer, then with the keyboard; return its page."""
    enter(page, server, "anna")
    page.set_input_files("#files", str(file))
    film = job(page, file.name)
    film.locator("[data-ready]").wait_for()
    film.get_by_role("button", name="Move or resize box 1").click()
    drag(page, film, (40, 40), (70, 40))  # its middle: moves it
    drag(page, film, (90, 40), (100, 40))  # its right edge: makes it wider
    said = saved_by(page, lambda: film.get_by_role("button", name="Done").click())
    (box,) = said["boxes"]
    assert (box["number"], box["verdict"]) == (1, "right")
    assert box["moved_to"] == pytest.approx([50, 30, 100, 50], abs=1)
    assert 0 < said["seconds"] < 600
    expect(film.locator("[data-part=boxes] .left-behind")).to_have_count(1)

    right = film.get_by_role("button", name="Box 1 is right")
    assert saved_by(page, right.click)["boxes"] == [{"number": 1, "verdict": "right"}]  # back to where it was
    expect(film.locator("[data-part=boxes] .left-behind")).to_have_count(0)
    film.locator(".stage").focus()
    for key in ("e", "ArrowLeft", "Escape", "e", "ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    (box,) = saved_by(page, lambda: page.keyboard.press("Enter"))["boxes"]
    step = 0.02 * 120
    assert box["moved_to"] == pytest.approx([20 + step, 30, 60 + step, 50 + step], abs=0.5)
    return film.locator("[data-part=page]").get_attribute("href")


def read_by_ben(page, server, address):
    """Read as ben, who sees nothing of anna's reading before the end of his own."""
    enter(page, server, "ben")
    page.goto(server.address + address)
    page.locator("[data-ready]").wait_for()
    others = page.locator("[data-part=others]")
    expect(others).to_contain_text("1 other reader has read this; shown after your own reading.")
    assert "anna" not in others.inner_text()
    assert page.get_by_role("button", name="Delete this result").count() == 0
    unreadable = page.get_by_role("button", name="Not readable")
    assert saved_by(page, unreadable.click)["unreadable"] is True
    said = saved_by(page, lambda: page.get_by_label("Why it is not readable").fill("motion"))
    assert (said["unreadable"], said["reason"], said["boxes"]) == (True, "motion", [])
    expect(others).to_contain_text("1 box right (1 moved)")  # at once: his reading is finished
    assert saved_by(page, unreadable.click)["boxes"] == []
    assert saved_by(page, page.get_by_role("button", name="No fracture").click)["no_fracture"] is True
    page.goto(f"{server.address}/readings")
    expect(page.locator("main")).to_contain_text("Only adjudicators and administrators may see this.")


def test_two_readers_disagree_and_an_adjudicator_settles_it(browser, server, tmp_path):
    file = tmp_path / "film.png"
    file.write_bytes(encoded(dark_plate(LIKELY, POSSIBLE)))
    with open_page(browser) as (page, witness):
        address = read_by_anna(page, server, file)
        read_by_ben(page, server, address)
        enter(page, server, "carla")
        page.get_by_role("link", name="Readings").click()
        expect(page.locator(".entry")).to_contain_text("Fractured or not")
        assert page.locator(".entry rect").count() == 1  # anna's box; ben has none
        assert barriers(page) == []
        page.locator(".entry .button").click()
        page.locator("[data-ready]").wait_for()
        assert page.locator("[data-part=boxes] .reader-1").count() == 1
        assert barriers(page) == []
        if folder := os.environ.get("FRACTURE_SHOTS"):
            page.screenshot(path=ROOT / folder / "settling.png")

        settled = []
        page.on("request", lambda sent: settled.append(sent.post_data_json) if sent.method == "PUT" else None)
        page.get_by_role("button", name="Take over the reading of anna").click()
        expect(page.locator("[data-part=saved]")).to_have_text("Not settled yet")
        page.get_by_role("button", name="Box 1 is right").click()  # without moving it
        assert settled == []  # nothing is settled on the way
        page.get_by_role("button", name="Settle", exact=True).click()
        expect(page.locator("[data-part=saved]")).to_contain_text("by carla")
        assert [said["boxes"] for said in settled] == [[{"number": 1, "verdict": "right"}]]
        page.get_by_role("link", name="Back to the readings").click()
        expect(page.locator("main")).to_contain_text("0 agreed, 1 settled, 0 to settle")
        expect(page.locator("table").first).to_contain_text("anna, ben")
        # The line that Chromium writes for the page that ben may not see is no fault of it.
        assert [text for text in witness.complaints if "403" not in text] == []


def test_the_queue_fits_a_phone(browser, server):
    with open_page(browser, width=390, touch=True) as (page, _):
        enter(page, server, "carla")
        page.goto(f"{server.address}/readings")
        page.get_by_role("heading", name="Readings").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert barriers(page) == []
