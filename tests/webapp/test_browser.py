"""The clinician's journey in a real Chromium."""

import json
from pathlib import Path

import pytest

from tests.webapp.bright import dark_plate
from tests.webapp.browser import chromium, open_browser, open_page
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, encoded

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("instance"), detector="bright:0.05", FRACTURE_MAX_UPLOAD_MB="1")


@pytest.fixture(scope="module")
def browser():
    with open_browser() as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    plates = {
        "wrist.png": encoded(dark_plate(LIKELY, POSSIBLE, WEAK)),
        "healthy.png": encoded(dark_plate()),
        "broken.png": encoded(dark_plate(LIKELY))[:-50],
        "huge.png": bytes(1024 * 1024 + 1),
    }
    for name, data in plates.items():
        (tmp_path / name).write_bytes(data)
    return {name: str(tmp_path / name) for name in plates}


def results(page):
    return page.locator("#results")


def job(page, name: str):
    return page.locator(".job").filter(has=page.locator(".name", has_text=name))


def set_slider(page, result, value: float) -> None:
    result.get_by_role("slider").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def test_a_clinician_uploads_reads_and_moves_the_slider(browser, server, files, tmp_path):
    with open_page(browser) as (page, witness):
        page.goto(server.address)
        assert page.get_by_text("Research use only. Not a medical device.").is_visible()
        page.set_input_files("#files", [files["wrist.png"], files["broken.png"], files["healthy.png"]])
        wrist, broken, healthy = (job(page, name) for name in ("wrist", "broken", "healthy"))
        wrist.locator(".finding").get_by_text("Fracture likely").wait_for()
        broken.get_by_text("It is damaged or incomplete").wait_for()
        healthy.locator(".finding").get_by_text("No fracture seen").wait_for()
        assert broken.locator(".viewer").count() == 0
        assert not broken.get_by_text("No fracture seen").is_visible()

        assert wrist.locator("svg g").count() == 1
        assert wrist.get_by_role("button", name="Box 1: fracture, score 0.90, likely").is_visible()
        set_slider(page, wrist, 0.1)
        assert wrist.locator("svg g").count() == 3
        assert wrist.get_by_text("3 boxes shown, 0 below the slider.").is_visible()
        assert "score=0.1" in wrist.get_by_role("link", name="Overlay PNG").get_attribute("href")
        page.screenshot(path=tmp_path / "desktop.png", full_page=True)
        set_slider(page, wrist, 0.99)
        assert wrist.locator("svg g").count() == 0
        assert wrist.locator(".finding").get_by_text("Fracture likely").is_visible()
        wrist.get_by_role("button", name="Reset to 0.50").click()
        assert wrist.locator("svg g").count() == 1

        wrist.get_by_role("checkbox", name="Draw boxes").uncheck()
        assert not wrist.locator("svg g").first.is_visible()
        broken.get_by_role("button", name="Remove").click()
        assert broken.count() == 0
    assert witness.complaints == []
    assert all(url.startswith(server.address) for url in witness.requests)


def test_the_name_of_a_file_stays_on_the_users_machine(browser, server, files):
    with open_page(browser) as (page, _):
        page.add_init_script(
            "window.sent = []; const append = FormData.prototype.append; FormData.prototype.append ="
            " function (key, file, name) { sent.push(name ?? file.name); return append.apply(this, arguments); };"
        )
        page.goto(server.address)
        page.set_input_files("#files", files["wrist.png"])
        results(page).locator(".finding").wait_for()
        assert page.evaluate("sent") == ["radiograph"]


def test_the_boxes_lie_where_the_detector_found_them(browser, server, files):
    with open_page(browser) as (page, _):
        page.goto(server.address)
        page.set_input_files("#files", files["wrist.png"])
        picture, line = page.locator("[data-part=image]"), page.locator("svg g .line")
        line.wait_for()
        page.wait_for_load_state("networkidle")
        assert picture.evaluate("picture => picture.naturalWidth") == 160
        image, box = picture.bounding_box(), line.bounding_box()
        scale = image["width"] / 160
        assert image["height"] / 120 == pytest.approx(scale, rel=0.01)
        found = [(box["x"] - image["x"]) / scale, (box["y"] - image["y"]) / scale]
        found += [found[0] + box["width"] / scale, found[1] + box["height"] / scale]
        assert found == pytest.approx(LIKELY[:4], abs=1.5)


def test_the_keyboard_alone_is_enough(browser, server, files):
    with open_page(browser) as (page, _):
        page.goto(server.address)
        for _ in range(4):  # skip link, brand, model, picker
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        page.set_input_files("#files", files["wrist.png"])
        results(page).locator(".finding").get_by_text("Fracture likely").wait_for()
        page.get_by_role("slider").focus()
        for _ in range(25):
            page.keyboard.press("ArrowLeft")
        assert page.locator("svg g").count() == 2
        page.get_by_role("button", name="Box 2").focus()
        page.keyboard.press("Enter")
        assert page.get_by_role("button", name="Box 2").get_attribute("aria-pressed") == "true"
        assert "likely" in page.get_by_role("status").text_content()


def test_dropped_and_pasted_files_are_analysed_and_a_large_one_is_not_even_sent(browser, server, files):
    with open_page(browser) as (page, witness):
        page.goto(server.address)
        data = list(Path(files["wrist.png"]).read_bytes())
        carried = page.evaluate_handle(
            "data => { const all = new DataTransfer();"
            " all.items.add(new File([new Uint8Array(data)], 'dropped.png', {type: 'image/png'})); return all; }",
            data,
        )
        page.dispatch_event("#upload", "drop", {"dataTransfer": carried})
        job(page, "dropped.png").locator(".finding").get_by_text("Fracture likely").wait_for()
        page.evaluate("all => dispatchEvent(Object.assign(new ClipboardEvent('paste', {clipboardData: all})))", carried)
        page.locator(".done").nth(1).wait_for()
        before = len(witness.requests)
        page.set_input_files("#files", files["huge.png"])
        job(page, "huge.png").get_by_text("It is larger than 1 MB").wait_for()
        assert len(witness.requests) == before
    assert witness.complaints == []


def test_a_lost_connection_is_not_a_result(browser, server, files):
    with open_page(browser) as (page, _):
        page.goto(server.address)
        page.route("**/api/v1/predictions*", lambda route: route.abort())
        page.set_input_files("#files", files["wrist.png"])
        results(page).get_by_text("The connection to the server was lost. This file was not analysed").wait_for()
        page.unroute("**/api/v1/predictions*")
        page.route("**/api/v1/predictions*", lambda route: route.fulfill(status=502, body="<html>proxy</html>"))
        page.set_input_files("#files", files["healthy.png"])
        results(page).get_by_text("The server gave an answer that cannot be read").wait_for()
        assert results(page).get_by_text("No fracture seen").count() == 0


def test_a_busy_server_is_asked_again(browser, server, files):
    with open_page(browser) as (page, _):
        page.goto(server.address)
        answers = iter([{"status": 503, "headers": {"Retry-After": "1"}, "body": json.dumps({"ok": False})}])

        def once_busy(route):
            answer = next(answers, None)
            route.continue_() if answer is None else route.fulfill(content_type="application/json", **answer)

        page.route("**/api/v1/predictions?*", once_busy)
        page.set_input_files("#files", files["wrist.png"])
        results(page).get_by_text("Server busy, waiting for a place").wait_for()
        results(page).locator(".finding").get_by_text("Fracture likely").wait_for()


def test_the_page_of_a_result_has_the_same_viewer(browser, server, files):
    with open_page(browser) as (page, witness):
        page.goto(server.address)
        page.set_input_files("#files", files["wrist.png"])
        page.get_by_role("link", name="Page of this result").click()
        page.locator("svg g").first.wait_for()
        page.goto(page.url + "?score=0.1")
        page.locator("svg g").first.wait_for()
        assert page.locator("svg g").count() == 3
        page.get_by_role("link", name="bright rectangles").click()
        assert page.get_by_text("came without a model card").is_visible()
    assert witness.complaints == []


def test_it_fits_a_phone(browser, server, files, tmp_path):
    with open_page(browser, width=360, height=740) as (page, _):
        page.goto(server.address)
        page.set_input_files("#files", [files["wrist.png"], files["broken.png"]])
        results(page).locator(".finding").get_by_text("Fracture likely").wait_for()
        results(page).get_by_text("It is damaged").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.screenshot(path=tmp_path / "phone.png", full_page=True)


def test_it_works_without_a_script(browser, server, files):
    with open_page(browser, scripted=False) as (page, witness):
        page.goto(server.address)
        page.set_input_files("#files", [files["wrist.png"], files["broken.png"]])
        page.get_by_role("button", name="Analyse").click()
        job(page, "wrist.png").get_by_text("Fracture likely").wait_for()
        assert job(page, "broken.png").get_by_text("It is damaged or incomplete").is_visible()
    assert all(url.startswith(server.address) for url in witness.requests)
