"""The viewer in a real Chromium: every bit of a deep radiograph; lengths in mm where a file has the size of a pixel."""

import json
import re
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.webapp.bright import dark_plate
from tests.webapp.browser import barriers, open_page
from tests.webapp.conftest import LIKELY, encoded
from tests.webapp.test_browser import choose, grey_shares, picture, upload, wait_until

pytestmark = pytest.mark.browser
ROW_MM, COLUMN_MM = 0.2, 0.1
TIMES = "\N{MULTIPLICATION SIGN}"
# Two rectangles of which 8 bits show the same grey, on a plate of 12 bits.
DIM, DARK, TWINS = (90, 60, 120, 100), 40, (2000, 2004)


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("viewer"))


@pytest.fixture
def page(browser, server):
    with open_page(browser) as (page, witness):
        page.goto(server.address)
        yield page
        assert witness.complaints == []


@pytest.fixture
def deep(tmp_path) -> str:
    plate = np.full((120, 160), DARK, np.uint16)
    plate[20:60, 20:70], plate[20:60, 90:140] = TWINS
    plate[90:110, 20:60] = 4000
    (tmp_path / "deep.png").write_bytes(encoded(plate))
    return str(tmp_path / "deep.png")


@pytest.fixture
def shallow(tmp_path) -> str:
    (tmp_path / "shallow.png").write_bytes(encoded(dark_plate(LIKELY)))
    return str(tmp_path / "shallow.png")


def open_deep(page, path: str):
    """Upload a deep radiograph and wait until its own samples are shown, without boxes."""
    place = upload(page, path)
    place.locator(".stage[data-depth]").wait_for()
    place.get_by_role("button", name="Boxes", exact=True).click()
    return place


def set_window(place, width: int, level: int) -> None:
    place.get_by_text("Window values").click()
    for name, value in (("Width", width), ("Level", level)):
        place.get_by_label(name).fill(str(value))
        place.get_by_label(name).press("Enter")


def greys(page, place, *expected: int) -> None:
    """Wait until the picture has no other greys than these, but for the edges between them."""
    wait_until(page, lambda: {grey for grey, share in grey_shares(place).items() if share > 0.02} == set(expected))


class TestDepth:
    def test_at_first_it_is_the_picture_that_was_analysed(self, page, deep):
        place = upload(page, deep)
        place.get_by_role("button", name="Boxes", exact=True).click()
        place.locator(".stage[data-depth='12']").wait_for()
        # (2000 - 40) * 255 / 3960 + .5 = 126.7; 2004: 126.97
        greys(page, place, 0, 126, 255)
        expect(place.locator("[data-part=window-readout]")).to_have_text("W 3961  L 2021")
        assert place.get_by_text(f"160 {TIMES} 120 px · 12 bits").is_visible()

    def test_a_narrow_window_shows_what_8_bits_do_not_hold(self, page, deep):
        place = open_deep(page, deep)
        set_window(place, 9, 2002)
        # ((2000 - 2001.5) / 8 + .5) * 255 + .5 = 80.2, ((2004 - 2001.5) / 8 + .5) * 255 + .5 = 207.7
        greys(page, place, 0, 80, 207, 255)
        expect(place.locator("[data-part=window-readout]")).to_have_text("W 9  L 2002")
        place.get_by_role("button", name="Original").click()
        greys(page, place, 0, 126, 255)

    def test_presets_are_shares_of_the_depth_and_the_inverted_one_is_the_negative(self, page, deep):
        place = open_deep(page, deep)
        for label, readout in (
            ("Bone", "W 2174  L 2680"),
            ("Full depth", "W 4096  L 2048"),
            ("Inverted", "W 3961  L 2021  inverted"),
        ):
            place.get_by_label("Window preset").select_option(label)
            expect(place.locator("[data-part=window-readout]")).to_have_text(readout)
        greys(page, place, 255, 129, 0)  # 255 * (1 - 1960 / 3960) = 128.8
        place.get_by_label("Window preset").select_option("Default")
        greys(page, place, 0, 126, 255)

    def test_the_sample_under_the_pointer_is_told(self, page, deep):
        place = open_deep(page, deep)
        box = place.locator("[data-part=boxes]").bounding_box()
        scale = box["width"] / 160
        page.mouse.move(box["x"] + 100.5 * scale, box["y"] + 30.5 * scale)
        expect(place.locator("[data-part=value-readout]")).to_have_text("100, 30: 2004")

    def test_the_samples_stay_in_place_at_any_zoom(self, page, deep):
        place = open_deep(page, deep)
        stage = place.locator(".stage")
        stage.focus()

        def distance() -> float:
            """Return how far (CSS pixels) the brightest rectangle is from where it belongs."""
            sheet, frame = place.locator("[data-part=boxes]").bounding_box(), stage.bounding_box()
            scale = sheet["width"] / 160
            rows, columns = np.nonzero(picture(place) > 250)
            if not len(rows):
                return np.inf
            seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2 + 2
            x, y = sheet["x"] - frame["x"], sheet["y"] - frame["y"]
            true = np.array([x + 20 * scale, y + 90 * scale, x + 60 * scale, y + 110 * scale])
            return float(np.abs(seen - true).max())

        for key in ("0", "-", "-", "f"):
            page.keyboard.press(key)
            wait_until(page, lambda: distance() < 2)

    def test_what_cannot_be_loaded_is_shown_in_8_bits_and_said(self, page, deep):
        page.route("**/samples.png", lambda route: route.abort())
        place = upload(page, deep)
        place.get_by_text("it is shown in 8 bits").wait_for()
        place.get_by_role("button", name="Boxes", exact=True).click()
        set_window(place, 1981, 2021)
        wait_until(page, lambda: {0, 255} <= grey_shares(place).keys())
        # The grey 126 of 8 bits: (3960 / 1980 * 126 / 255 + .5 - 1980.5 / 1980) * 255 = 124.4
        greys(page, place, 0, 124, 255)

    def test_beside_one_of_8_bits_the_window_moves_in_shares(self, page, deep, shallow):
        page.set_input_files("#files", [deep, shallow])
        page.locator(".done").nth(1).wait_for(state="attached")
        for name in ("deep", "shallow"):
            choose(page, name).get_by_role("button", name="Compare").click()
        both = page.get_by_role("dialog", name="Side by side")
        both.locator("[data-ready]").nth(1).wait_for()
        sides = {name: both.get_by_role("region", name=name) for name in ("deep.png", "shallow.png")}
        sides["shallow.png"].get_by_label("Window preset").focus()  # it leads from now on
        sides["shallow.png"].get_by_label("Window preset").select_option("bone")
        expect(sides["shallow.png"].locator("[data-part=window-readout]")).to_have_text("W 140  L 170")
        expect(sides["deep.png"].locator("[data-part=window-readout]")).to_have_text("W 2174  L 2680")

    def test_of_8_bits_nothing_changes(self, page, shallow):
        place = upload(page, shallow)
        expect(place.locator("[data-part=window-readout]")).to_have_text("W 256  L 128")
        assert place.get_by_label("Window preset").locator("option", has_text="Full depth").count() == 0
        expect(place.locator("[data-part=facts]")).not_to_contain_text("bits")
        place.locator(".stage").hover()
        expect(place.locator("[data-part=value-readout]")).to_have_text("")
        assert place.locator("canvas.samples").count() == 0


def measure(page, place, start_px, end_px) -> None:
    """Drag a line from one pixel of the radiograph to another."""
    sheet = place.locator("[data-part=boxes]").bounding_box()
    scale = sheet["width"] / 160
    page.mouse.move(sheet["x"] + start_px[0] * scale, sheet["y"] + start_px[1] * scale)
    page.mouse.down()
    page.mouse.move(sheet["x"] + end_px[0] * scale, sheet["y"] + end_px[1] * scale, steps=4)
    page.mouse.up()


class TestLengths:
    @pytest.fixture
    def measured(self, page, server, shallow):
        """Return the page of a stored result whose file said how large its pixels are."""
        upload(page, shallow)
        address = page.get_by_role("link", name="Result page").get_attribute("href")
        [database] = server.folder.glob("*.sqlite3")
        with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            spacing = (json.dumps([ROW_MM, COLUMN_MM]), "detector", address.rpartition("/")[2])
            said = "UPDATE predictions SET spacing_mm = ?, spacing_kind = ? WHERE id = ?"
            assert connection.execute(said, spacing).rowcount == 1
        page.goto(server.address + address)
        page.locator("[data-ready]").wait_for()
        return page.locator(".job")

    def test_in_pixels_where_the_file_says_nothing(self, page, shallow):
        place = upload(page, shallow)
        assert place.locator("[data-part=scale]").is_hidden()
        place.get_by_role("button", name="Measure").click()
        measure(page, place, (20, 30), (50, 70))  # 30 across, 40 down
        expect(place.locator("[data-part=lengths] li")).to_have_text("50 px")
        assert place.get_by_text("In pixels: the file does not say how large a pixel is.").is_visible()
        expect(place.locator("[data-part=facts]")).not_to_contain_text("mm")
        expect(place.locator("[data-part=line-tags]")).to_have_text("50 px")

    def test_in_mm_where_it_says_how_large_a_pixel_is(self, page, measured):
        # 60 across are 6 mm, 40 down are 8 mm.
        measured.get_by_role("button", name="Measure").click()
        measure(page, measured, (20, 30), (80, 70))
        expect(measured.locator("[data-part=lengths] li")).to_have_text("10.0 mm")
        said = f"0.1 {TIMES} 0.2 mm per pixel, measured at the detector: magnified by geometry"
        assert measured.get_by_text(f"{said}. Not stored.").is_visible()
        assert measured.get_by_text(f"160 {TIMES} 120 px · {said}").is_visible()
        assert barriers(page) == []
        measure(page, measured, (20, 30), (20, 80))
        expect(measured.locator("[data-part=lengths] li")).to_have_text(["10.0 mm", "10.0 mm"])
        measured.get_by_role("button", name="Remove lengths").click()
        assert measured.locator("[data-part=measures]").is_hidden()
        expect(measured.locator("[data-part=lines] g")).to_have_count(0)

    def test_the_scale_bar_is_as_long_as_it_says(self, page, measured):
        measured.locator(".stage").focus()
        for key in ("f", "+", "+", "-", "-", "-"):
            page.keyboard.press(key)

            def is_true() -> bool:
                sheet = measured.locator("[data-part=boxes]").bounding_box()
                bar = measured.locator("[data-part=scale]")
                length_mm = float(re.fullmatch(r"(\d+) mm", bar.text_content())[1])
                wanted = length_mm / COLUMN_MM * sheet["width"] / 160
                return abs(bar.bounding_box()["width"] - wanted) < 1.5

            wait_until(page, is_true)
        assert (
            measured.locator("[data-part=scale]").get_attribute("title")
            == "Measured at the detector: magnified by geometry"
        )

    def test_with_the_keyboard(self, page, measured):
        stage = measured.locator(".stage")
        stage.focus()
        page.keyboard.press("m")
        expect(measured.get_by_role("button", name="Measure")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("ArrowRight")  # a fifth of the view, in its middle: 32 pixels of .1 mm
        expect(measured.locator("[data-part=line-tags]")).to_have_text("3.2 mm")
        for key in ("ArrowRight", "ArrowRight", "Shift+ArrowLeft"):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        text = measured.locator("[data-part=lengths] li").text_content()
        assert float(text.removesuffix(" mm")) == pytest.approx(3.2 + 3 * 0.12, abs=0.11)
        expect(page.locator("#announcer")).to_have_text(f"Length 1: {text}")
        page.keyboard.press("Escape")
        expect(measured.get_by_role("button", name="Measure")).to_have_attribute("aria-pressed", "false")
        expect(measured.locator("[data-part=lengths] li")).to_have_count(1)

    def test_a_click_is_no_length_and_a_line_ends_at_the_edge(self, page, shallow):
        place = upload(page, shallow)
        place.get_by_role("button", name="Measure").click()
        measure(page, place, (40, 40), (40, 40))
        expect(place.locator("[data-part=lengths] li")).to_have_count(0)
        measure(page, place, (60, 10), (60, -40))
        expect(place.locator("[data-part=lengths] li")).to_have_text("10 px")

    def test_lengths_are_hidden_with_the_boxes_of_the_original(self, page, shallow):
        place = upload(page, shallow)
        place.get_by_role("button", name="Measure").click()
        measure(page, place, (20, 30), (80, 70))
        place.get_by_role("button", name="Original").click()
        assert not place.locator("[data-part=lines] .line").first.is_visible()
