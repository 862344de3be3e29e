"""Several results in a real Chromium: a list by suspicion beside one viewer, by mouse, by keyboard, after a reload."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.webapp.bright import dark_plate
from tests.webapp.browser import barriers
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, encoded
from tests.webapp.test_browser import MORE, UPLOADS, boxes, choose, job, opened, upload

pytestmark = pytest.mark.browser
LESS_LIKELY = (20, 30, 60, 50, 150)  # score .59
ORDER = ["c likely.png", "a likely.png", "d possible.png", "b broken.png", "f weak.png", "e none.png"]


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("worklist"), detector="bright:0.05", FRACTURE_MAX_UPLOAD_MB="1")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    plates = {
        "a likely.png": encoded(dark_plate(LESS_LIKELY)),
        "b broken.png": encoded(dark_plate(LIKELY))[:-50],
        "c likely.png": encoded(dark_plate(LIKELY)),
        "d possible.png": encoded(dark_plate(POSSIBLE)),
        "e none.png": encoded(dark_plate()),
        "f weak.png": encoded(dark_plate(WEAK)),
    }
    for name, data in plates.items():
        (tmp_path / name).write_bytes(data)
    return [str(tmp_path / name) for name in plates]


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


def rows(page):
    return page.locator(".row-entry")


def row(page, name: str):
    return rows(page).filter(has=page.locator(".row-name", has_text=name))


def listed(page) -> list[str]:
    return page.locator(".row-name").all_text_contents()


@pytest.fixture
def several(page, files):
    """Return the page with the six files analysed."""
    page.set_input_files("#files", files)
    expect(page.locator("#summary")).to_contain_text("6 of 6 done")
    return page


def test_the_history_is_read_as_a_worklist(several, server):
    several.get_by_role("button", name="Clear the list").click()
    expect(rows(several)).to_have_count(0)
    several.goto(f"{server.address}/history?finding=likely")
    shown = several.locator("[data-self]").count()
    assert shown >= 2
    several.get_by_role("button", name="Read these as a worklist").click()
    expect(several.locator("#worklist-count")).to_contain_text(f"0 of {shown} read")
    expect(several.locator(".group-title")).to_have_text([f"Fracture likely ({shown})"])
    several.goto(f"{server.address}/history?finding=likely")
    several.get_by_role("button", name="Read these as a worklist").click()
    expect(rows(several)).to_have_count(shown)  # none twice


def test_the_most_suspicious_stand_first_and_a_failure_apart_from_no_fracture(several):
    assert listed(several) == ORDER
    headings = several.locator(".group-title").all_text_contents()
    assert headings == ["Fracture likely (2)", "Fracture possible (1)", "Not analysed (1)", "No fracture seen (2)"]
    groups = several.get_by_role("group")
    failures = groups.filter(has=several.get_by_text("Not analysed (1)"))
    assert failures.get_by_role("option").count() == 1
    assert "seen" not in failures.text_content()
    healthy, failed = row(several, "e none"), row(several, "b broken")
    expect(healthy).to_contain_text("None seen")
    expect(failed).to_contain_text("Not analysed")
    colours = [
        place.locator(".row-state").evaluate("place => getComputedStyle(place).color") for place in (healthy, failed)
    ]
    assert colours[0] != colours[1]
    assert failed.locator("img").is_hidden()


def test_a_row_says_finding_score_and_time_and_shows_the_radiograph(several):
    likely = row(several, "c likely")
    expect(likely).to_contain_text("Likely 0.90")
    assert re.search(r"\d\d:\d\d", likely.locator("time").text_content())
    likely.locator("img").scroll_into_view_if_needed()
    several.wait_for_load_state("networkidle")
    assert likely.locator("img").evaluate("image => image.naturalWidth") > 0
    expect(row(several, "f weak")).to_contain_text("None seen 0.15")


def test_one_radiograph_is_shown_and_it_is_the_chosen_one(several):
    for name in ("a likely", "e none", "b broken"):
        choose(several, name)
        expect(several.locator(".job:visible")).to_have_count(1)
        expect(row(several, name)).to_have_attribute("aria-selected", "true")
        expect(several.locator("[role=option][aria-selected=true]")).to_have_count(1)
    choose(several, "c likely").locator("[data-ready]").wait_for()
    expect(boxes(job(several, "c likely"))).to_have_count(1)


def test_one_upload_alone_has_no_list(page, files):
    one = upload(page, files[2])
    assert page.get_by_role("listbox").is_hidden()
    assert one.get_by_role("button", name="Read: ").is_hidden()
    assert page.get_by_role("button", name="Try an example").is_visible()
    page.keyboard.press("j")
    page.set_input_files("#files", files[0])
    expect(page.get_by_role("listbox")).to_be_visible()
    expect(page.locator("#worklist-count")).to_have_text("0 of 2 read")
    page.locator(".done").nth(1).wait_for(state="attached")
    choose(page, "a likely").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("listbox")).to_be_hidden()
    assert one.is_visible()


def test_the_keyboard_moves_and_ticks(several):
    choose(several, "c likely")
    several.locator("#worklist-rows").focus()
    several.keyboard.press("ArrowDown")
    expect(row(several, "a likely")).to_have_attribute("aria-selected", "true")
    assert job(several, "a likely").is_visible()
    active = several.locator("#worklist-rows").get_attribute("aria-activedescendant")
    assert row(several, "a likely").get_attribute("id") == active
    several.keyboard.press("Enter")
    expect(row(several, "a likely")).to_have_attribute("aria-checked", "true")
    expect(several.locator("#worklist-count")).to_have_text("1 of 6 read")
    expect(several.locator("#announcer")).to_have_text("a likely.png: read. 1 of 6 read.")
    several.keyboard.press("ArrowDown")
    several.keyboard.press("Space")
    expect(several.locator("#worklist-count")).to_have_text("2 of 6 read")
    several.keyboard.press("Space")
    expect(several.locator("#worklist-count")).to_have_text("1 of 6 read")
    several.keyboard.press("End")
    expect(row(several, "e none")).to_have_attribute("aria-selected", "true")
    several.keyboard.press("ArrowDown")
    expect(row(several, "e none")).to_have_attribute("aria-selected", "true")
    several.keyboard.press("Home")
    expect(row(several, "c likely")).to_have_attribute("aria-selected", "true")


def test_the_focus_is_seen(several):
    several.locator("#worklist-unread").focus()
    several.keyboard.press("Tab")
    several.keyboard.press("Tab")
    assert several.evaluate("document.activeElement.id") == "worklist-rows"
    chosen = several.locator("[role=option][aria-selected=true]")
    assert chosen.evaluate("row => getComputedStyle(row).outlineStyle") == "solid"


def test_j_and_k_move_and_t_ticks_from_anywhere_but_a_field_and_a_dialog(several):
    choose(several, "c likely").locator("[data-ready]").wait_for()
    job(several, "c likely").locator(".stage").focus()
    several.keyboard.press("j")
    expect(row(several, "a likely")).to_have_attribute("aria-selected", "true")
    several.keyboard.press("t")
    expect(row(several, "a likely")).to_have_attribute("aria-checked", "true")
    several.keyboard.press("k")
    expect(row(several, "c likely")).to_have_attribute("aria-selected", "true")
    several.get_by_label("Comment").locator("visible=true").focus()
    several.keyboard.type("jt")
    expect(row(several, "c likely")).to_have_attribute("aria-selected", "true")
    expect(row(several, "c likely")).to_have_attribute("aria-checked", "false")
    # The keys of the image go to the one that is shown.
    choose(several, "a likely").locator("[data-ready]").wait_for()
    several.keyboard.press("b")
    assert not boxes(job(several, "a likely")).first.is_visible()
    choose(several, "c likely").locator("[data-ready]").wait_for()
    assert boxes(job(several, "c likely")).first.is_visible()


def test_the_mouse_ticks_without_choosing_and_what_is_read_can_be_hidden(several):
    choose(several, "c likely")
    row(several, "a likely").locator(".tick").click()
    expect(row(several, "a likely")).to_have_attribute("aria-checked", "true")
    expect(row(several, "c likely")).to_have_attribute("aria-selected", "true")
    several.get_by_label("Unread only").check()
    assert listed(several) == [name for name in ORDER if name != "a likely.png"]
    # The chosen one stays until another is chosen.
    job(several, "c likely").get_by_role("button", name="Read: c likely.png").click()
    assert "c likely.png" in listed(several)
    several.get_by_role("button", name="Next radiograph").click()
    assert listed(several) == ORDER[2:]
    expect(several.locator("#worklist-place")).to_have_text("1 / 4")
    assert job(several, "d possible").is_visible()


def test_the_list_is_there_after_a_reload_with_what_was_chosen_and_read(several):
    choose(several, "d possible").get_by_role("button", name="Read: d possible.png").click()
    several.reload()
    expect(several.locator("#summary")).to_contain_text("6 of 6 done")
    assert listed(several) == ORDER
    expect(row(several, "d possible")).to_have_attribute("aria-selected", "true")
    expect(row(several, "d possible")).to_have_attribute("aria-checked", "true")
    expect(several.locator("#worklist-count")).to_have_text("1 of 6 read")
    broken = choose(several, "b broken")
    broken.get_by_text("It is damaged or incomplete").wait_for()  # a failure is still one
    assert broken.get_by_role("button", name="Try again").is_hidden()  # the file is gone
    several.get_by_role("button", name="Clear the list").click()
    expect(rows(several)).to_have_count(0)
    several.reload()
    expect(several.locator(".job")).to_have_count(0)


def test_what_was_not_analysed_before_a_reload_is_no_result_after_it(page, files):
    page.route(UPLOADS, lambda route: None)  # never answered
    page.set_input_files("#files", files[:2])
    expect(rows(page)).to_have_count(2)
    page.unroute(UPLOADS)
    page.reload()
    expect(page.locator("#summary")).to_have_text("2 of 2 done: 2 not analysed")
    choose(page, "a likely").get_by_text("the page was loaded anew before it was").wait_for()


def test_a_result_that_cannot_be_loaded_again_is_said_to_be_missing(page, server, files):
    upload(page, files[2])
    address = page.get_by_role("link", name="JSON").get_attribute("href")
    page.request.delete(server.address + address, headers={"Origin": server.address})
    page.reload()
    job(page, "c likely").get_by_text("There is no such result").wait_for()
    expect(page.locator("#shown .state")).to_have_text("Not loaded")
    page.get_by_role("button", name="Remove").click()
    page.route(re.compile(r"/api/v1/predictions/\w+\?"), lambda route: route.abort())
    upload(page, files[0])
    page.reload()
    job(page, "a likely").get_by_text("The connection to the server was lost").wait_for()
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    job(page, "a likely").locator(".finding").get_by_text("Fracture likely").wait_for()


def test_what_has_no_result_yet_gives_way_to_a_result_and_a_choice_stays(page, files):
    held = []
    page.route(UPLOADS, lambda route: held.append(route))
    page.set_input_files("#files", files[2:5])
    expect(rows(page)).to_have_count(3)
    for route in held:
        route.continue_()
    page.locator(".job:visible .viewer").wait_for()
    choose(page, "e none")
    page.unroute_all()
    page.set_input_files("#files", files[0])
    expect(page.locator("#summary")).to_contain_text("4 of 4 done")
    expect(row(page, "e none")).to_have_attribute("aria-selected", "true")


def test_the_words_and_the_window_of_a_radiograph_stay_while_others_are_read(several):
    first = choose(several, "c likely")
    first.locator("[data-ready]").wait_for()
    first.get_by_label("Comment").fill("look again")
    first.get_by_label("Window preset").select_option("bone")
    choose(several, "a likely").locator("[data-ready]").wait_for()
    choose(several, "c likely").locator("[data-ready]").wait_for()
    expect(first.get_by_label("Comment")).to_have_value("look again")
    expect(first.get_by_label("Window preset")).to_have_value("bone")
    expect(first.locator("[data-part=saved]")).to_contain_text("Saved")


def test_a_source_and_a_study_stand_in_the_row_where_a_result_has_them(page, server, files):
    page.add_init_script(f"{MORE} window.more = {{source: 'PACS', study_label: 'Wrist left, 2 views'}};")
    page.goto(server.address)
    page.set_input_files("#files", files[2:4])
    expect(row(page, "c likely").locator(".row-study")).to_have_text("PACS · Wrist left, 2 views")


def test_it_has_no_barriers(several):
    assert barriers(several) == []
    row(several, "a likely").locator(".tick").click()
    choose(several, "b broken")
    several.get_by_label("Unread only").check()
    assert barriers(several) == []


def test_on_a_phone_the_list_is_a_drawer(browser, server, files):
    with opened(browser, server, width=390, height=844, touch=True) as page:
        page.set_input_files("#files", files)
        expect(page.locator("#summary")).to_contain_text("6 of 6 done")
        assert barriers(page) == []
        row(page, "a likely").tap()
        expect(page.get_by_role("listbox")).to_be_hidden()
        job(page, "a likely").locator("[data-ready]").wait_for()
        page.get_by_role("button", name="Next radiograph").tap()
        assert job(page, "d possible").is_visible()
        job(page, "d possible").get_by_role("button", name="Read: d possible.png").tap()
        expect(page.locator("#worklist-count")).to_have_text("1 of 6 read")
        page.get_by_role("button", name="List").tap()
        expect(page.get_by_role("listbox")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
