"""The clinician's journey in a real Chromium."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.webapp.bright import dark_plate
from tests.webapp.browser import barriers, open_page, seen
from tests.webapp.conftest import LIKELY, POSSIBLE, WEAK, encoded

pytestmark = pytest.mark.browser
UPLOADS = re.compile(r"/api/v1/predictions\?")
FEEDBACK = re.compile(r"/api/v1/predictions/\w+/feedback")
# Puts `window.more` and `window.moreOfFinding` into the answer to an upload.
MORE = """
const own = Object.getOwnPropertyDescriptor(XMLHttpRequest.prototype, "response");
Object.defineProperty(XMLHttpRequest.prototype, "response", { get() {
  const result = own.get.call(this);
  if (result && result.ok) {
    Object.assign(result, window.more);
    Object.assign(result.finding, window.moreOfFinding);
  }
  return result;
} });
"""


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("instance"), detector="bright:0.05", FRACTURE_MAX_UPLOAD_MB="1")


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


@contextmanager
def opened(browser, server, **options):
    """Open the upload page; nothing in it may complain, and nothing may leave the machine."""
    with open_page(browser, **options) as (page, witness):
        page.goto(server.address)
        yield page
        assert witness.complaints == []
        assert all(url.startswith((server.address, "data:")) for url in witness.requests)


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


def results(page):
    """Return the part of the page that shows the chosen radiograph."""
    return page.locator("#shown")


def job(page, name: str | re.Pattern[str]):
    return page.locator(".job").filter(has=page.locator(".name", has_text=name))


def choose(page, name: str | re.Pattern[str]):
    """Choose a radiograph of the worklist and return its job; on a phone the list is opened first."""
    page.locator(".row-entry").first.wait_for(state="attached")
    if not page.locator("#worklist-rows").is_visible():
        page.get_by_role("button", name="List").click()
    page.locator(".row-entry").filter(has=page.locator(".row-name", has_text=name)).click()
    chosen = job(page, name)
    chosen.wait_for()
    return chosen


def boxes(place):
    return place.locator("[data-part=boxes] g")


def upload(page, *paths: str):
    """Upload files, wait for the first one's picture and return its job."""
    page.set_input_files("#files", list(paths))
    first = job(page, Path(paths[0]).name)
    if len(paths) > 1:
        choose(page, Path(paths[0]).name)
    first.locator("[data-ready]").wait_for()
    return first


def set_slider(result, value: float) -> None:
    result.get_by_role("slider").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def picture(place):
    """Return the grey picture in `place` (H, W), two pixels per CSS pixel, without its lower edge, where words are."""
    shown = seen(place.locator(".stage")).astype(int)[4:-60, 4:-4]
    return np.where(np.ptp(shown, axis=2) < 8, shown.mean(axis=2), 0)


def kept_by(page) -> list[dict]:
    """Return the list of all feedback that the server keeps from now on."""
    kept: list[dict] = []

    def hear(response) -> None:
        if FEEDBACK.search(response.url) and response.ok:
            kept.append({name: value for name, value in response.request.post_data_json.items() if name != "seconds"})

    page.on("response", hear)
    return kept


def test_a_clinician_uploads_reads_and_moves_the_slider(page, files, tmp_path):
    assert page.get_by_text("Research use only. Not a medical device.").is_visible()
    page.set_input_files("#files", [files["wrist.png"], files["broken.png"], files["healthy.png"]])
    expect(page.locator("#summary")).to_have_text("3 of 3 done: 1 likely, 1 none seen, 1 not analysed")
    broken = choose(page, "broken")
    assert broken.get_by_text("It is damaged or incomplete").is_visible()
    assert broken.locator(".viewer").count() == 0
    expect(results(page).get_by_text("No fracture seen").locator("visible=true")).to_have_count(0)
    choose(page, "healthy").locator(".finding").get_by_text("No fracture seen").wait_for()
    assert not broken.is_visible()
    wrist = choose(page, "wrist")
    wrist.locator(".finding").get_by_text("Fracture likely").wait_for()

    wrist.locator("[data-ready]").wait_for()
    expect(boxes(wrist)).to_have_count(1)
    assert wrist.get_by_role("button", name="Box 1: fracture, likely, 0.90 score").is_visible()
    wrist.get_by_role("button", name="Show 1 possible box").click()
    expect(boxes(wrist)).to_have_count(2)
    set_slider(wrist, 0.1)
    expect(boxes(wrist)).to_have_count(3)
    assert wrist.get_by_text("3 boxes shown, 0 below the slider.").is_visible()
    assert "score=0.1" in wrist.get_by_role("link", name="Image with boxes (PNG)").get_attribute("href")
    page.screenshot(path=tmp_path / "desktop.png", full_page=True)
    set_slider(wrist, 0.99)
    expect(boxes(wrist)).to_have_count(0)
    assert wrist.locator(".finding").get_by_text("Fracture likely").is_visible()
    wrist.get_by_role("button", name="Reset to 0.50").click()
    expect(boxes(wrist)).to_have_count(1)

    wrist.get_by_role("button", name="Boxes", exact=True).click()
    assert not boxes(wrist).first.is_visible()
    choose(page, "broken").get_by_role("button", name="Remove").click()
    assert broken.count() == 0


def test_the_name_of_a_file_stays_on_the_users_machine(page, server, files):
    page.add_init_script(
        "window.sent = []; const append = FormData.prototype.append; FormData.prototype.append ="
        " function (key, file, name) { sent.push(name ?? file.name); return append.apply(this, arguments); };"
    )
    page.goto(server.address)
    upload(page, files["wrist.png"])
    assert page.evaluate("sent") == ["radiograph"]


def test_the_boxes_lie_where_the_detector_found_them_at_any_zoom(page, tmp_path):
    (tmp_path / "wrist.png").write_bytes(encoded(dark_plate((70, 45, 100, 65, 230))))
    wrist = upload(page, str(tmp_path / "wrist.png"))
    stage = wrist.locator(".stage")
    stage.focus()
    wait_until(page, lambda: distance_of_box(page, wrist) < 2)
    assert stage.bounding_box()["width"] > 600  # a plate of 160 px fills its place
    for key in ("+", "ArrowLeft", "0", "+", "+", "ArrowUp"):
        page.keyboard.press(key)
        wait_until(page, lambda: distance_of_box(page, wrist) < 2)


def test_single_pixels_are_squares_at_high_zoom(page, tmp_path):
    chequers = np.kron(np.indices((60, 80)).sum(axis=0) % 2, np.ones((2, 2))) * 180
    (tmp_path / "chequers.png").write_bytes(encoded(chequers.astype(np.uint8)))
    chequered = upload(page, str(tmp_path / "chequers.png"))
    chequered.locator(".stage").focus()
    for _ in range(4):
        page.keyboard.press("+")
    page.keyboard.press("b")

    def are_squares() -> bool:
        shown = picture(chequered)[200:-200, 200:-200]
        return bool(((shown > 4) & (shown < 176)).mean() < 0.02)

    wait_until(page, are_squares)


def wait_until(page, is_so) -> None:
    for _ in range(60):
        if is_so():
            return
        page.evaluate("() => new Promise(requestAnimationFrame)")
    raise AssertionError("it never came to be")


def distance_of_box(page, place) -> float:
    """Return how far (CSS pixels) a side of box 1 is from the bright rectangle that is seen."""
    line = place.locator("[data-part=boxes] g .line").bounding_box()
    stage = place.locator(".stage").bounding_box()
    page.keyboard.press("o")
    rows, columns = np.nonzero(picture(place) > 200)
    page.keyboard.press("o")
    if not len(rows):
        return np.inf
    left, top = line["x"] - stage["x"] - 2, line["y"] - stage["y"] - 2
    box = np.array([left, top, left + line["width"], top + line["height"]])
    rectangle = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2
    return float(np.abs(box - rectangle).max())


def test_the_keyboard_alone_is_enough(page, files):
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "files":
            break
    assert page.evaluate("document.activeElement.id") == "files"
    wrist = upload(page, files["wrist.png"])
    page.get_by_role("slider").focus()
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
    expect(boxes(wrist)).to_have_count(2)
    page.get_by_role("button", name="Box 2:").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Box 2:")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("n")
    expect(page.get_by_role("button", name="Box 1:")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#announcer")).to_have_text("Box 1: fracture, likely, 0.90 score")
    page.keyboard.press("2")
    expect(page.get_by_role("button", name="Box 2:")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("b")
    assert not boxes(wrist).first.is_visible()
    page.keyboard.press("b")
    assert boxes(wrist).first.is_visible()
    page.keyboard.press("?")
    help_dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    assert help_dialog.is_visible()
    page.keyboard.press("Escape")
    assert not help_dialog.is_visible()


def test_keys_belong_to_the_field_that_has_the_focus_and_can_be_kept_to_the_picture(page, files):
    wrist = upload(page, files["wrist.png"])
    kept_by(page)
    wrist.get_by_label("Comment").focus()
    page.keyboard.type("bio 1?")
    expect(wrist.get_by_label("Comment")).to_have_value("bio 1?")
    assert boxes(wrist).first.is_visible()
    assert page.locator("dialog[open]").count() == 0

    wrist.get_by_role("button", name="Shortcuts").click()
    page.get_by_role("checkbox", name="Shortcuts work anywhere").uncheck()
    page.keyboard.press("Escape")
    wrist.get_by_role("button", name="Fit").focus()
    page.keyboard.press("b")
    assert boxes(wrist).first.is_visible()
    wrist.locator(".stage").focus()
    page.keyboard.press("b")
    assert not boxes(wrist).first.is_visible()


def test_the_original_is_one_key_away(page, files):
    wrist = upload(page, files["wrist.png"])
    wrist.locator(".stage").focus()
    before = seen(wrist.locator(".stage"))
    page.keyboard.press("i")
    wrist.get_by_label("Window preset").select_option("High contrast")
    wrist.locator(".stage").focus()
    page.keyboard.press("b")
    page.keyboard.press("b")
    page.keyboard.press("o")
    assert not boxes(wrist).first.is_visible()
    wait_until(page, lambda: sorted(grey_shares(wrist)) == [0, 38, 80, 230])
    page.keyboard.press("o")
    assert boxes(wrist).first.is_visible()
    assert grey_shares(wrist).keys() != {0, 38, 80, 230}
    page.keyboard.press("0")
    wait_until(page, lambda: np.array_equal(seen(wrist.locator(".stage")), before))


def grey_shares(place) -> dict[int, float]:
    """Return the greys that fill more than .2 % of the picture in `place`, each with its share."""
    greys, counts = np.unique(picture(place).round().astype(int), return_counts=True)
    shares = counts / counts.sum()
    return {int(grey): float(share) for grey, share in zip(greys, shares, strict=True) if share > 0.002}


def test_window_and_level_change_the_greys_as_dicom_says(page, files):
    wrist = upload(page, files["wrist.png"])
    wrist.get_by_role("button", name="Boxes", exact=True).click()
    wrist.get_by_role("button", name="Invert").click()
    wait_until(page, lambda: {255 - 230, 255 - 80, 255} <= grey_shares(wrist).keys())
    wrist.get_by_role("button", name="Invert").click()
    wrist.get_by_text("Window values").click()
    wrist.get_by_label("Width").fill("100")
    wrist.get_by_label("Level").fill("90")
    wrist.get_by_label("Level").press("Enter")
    # (80 - 89.5) / 99 + .5 = .404, and .404 * 255 = 103
    wait_until(page, lambda: {0, 103, 255} <= grey_shares(wrist).keys())
    assert wrist.get_by_text("W 100 L 90").is_visible()
    expect(wrist.get_by_label("Window preset")).to_have_value("custom")
    wrist.get_by_role("button", name="Reset window").click()
    wait_until(page, lambda: {0, 80, 230} <= grey_shares(wrist).keys())


@pytest.mark.parametrize("button", ["left", "right"])
def test_a_drag_changes_window_and_level(page, files, button):
    wrist = upload(page, files["wrist.png"])
    if button == "left":
        wrist.get_by_role("button", name="Window", exact=True).click()
    stage = wrist.locator(".stage").bounding_box()
    x, y = stage["x"] + 200, stage["y"] + 200
    page.mouse.move(x, y)
    page.mouse.down(button=button)
    page.mouse.move(x - 50, y - 30, steps=5)
    page.mouse.up(button=button)
    expect(wrist.locator("[data-part=window-readout]")).to_have_text("W 206  L 98")
    page.mouse.move(x + 50, y + 30)
    expect(wrist.locator("[data-part=window-readout]")).to_have_text("W 206  L 98")


def test_the_wheel_scrolls_the_page_until_the_picture_is_chosen(page, files):
    wrist = upload(page, files["wrist.png"])
    zoom = wrist.locator("[data-part=zoom-readout]")
    expect(zoom).not_to_have_text("")
    before = zoom.text_content()
    wrist.locator(".stage").hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function("scrollY > 0")
    assert zoom.text_content() == before
    wrist.locator(".stage").click()
    page.mouse.wheel(0, -100)
    expect(zoom).not_to_have_text(before)


def test_dropped_and_pasted_files_are_analysed_and_a_large_one_is_not_even_sent(page, files):
    data = list(Path(files["wrist.png"]).read_bytes())
    carried = page.evaluate_handle(
        "data => { const all = new DataTransfer();"
        " all.items.add(new File([new Uint8Array(data)], 'dropped.png', {type: 'image/png'})); return all; }",
        data,
    )
    page.dispatch_event("#upload", "drop", {"dataTransfer": carried})
    job(page, "dropped.png").locator(".finding").get_by_text("Fracture likely").wait_for()
    page.evaluate("all => dispatchEvent(Object.assign(new ClipboardEvent('paste', {clipboardData: all})))", carried)
    page.locator(".done").nth(1).wait_for(state="attached")
    sent = []
    page.on("request", lambda request: sent.append(request.url) if UPLOADS.search(request.url) else None)
    page.set_input_files("#files", files["huge.png"])
    choose(page, "huge.png").get_by_text("It is larger than 1 MB").wait_for()
    assert sent == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a radiograph, one more in a folder within, and a text."""
    inner = tmp_path / "study" / "left"
    inner.mkdir(parents=True)
    (tmp_path / "study" / "wrist.png").write_bytes(encoded(dark_plate(LIKELY)))
    (inner / "hand.jpg").write_bytes(encoded(dark_plate(), "JPEG"))
    (inner / "notes.txt").write_text("no radiograph", encoding="utf-8")
    return tmp_path / "study"


def test_a_folder_is_chosen_with_what_is_in_its_folders(page, folder):
    page.set_input_files("#folder", str(folder))
    choose(page, "study/wrist.png").locator(".finding").get_by_text("Fracture likely").wait_for()
    choose(page, "study/left/hand.jpg").locator(".finding").get_by_text("No fracture seen").wait_for()
    assert page.locator(".job").count() == 2
    assert page.locator("#skipped").get_by_text("1 file in the folder is not JPEG, PNG or DICOM").is_visible()


def test_a_dicom_file_without_a_suffix_is_taken_from_a_folder(page, folder):
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM" + b"not a data set")
    page.set_input_files("#folder", str(folder))
    choose(page, "study/IM0001").get_by_text("Not analysed").first.wait_for()
    assert page.locator(".job").count() == 3
    assert page.locator("#skipped").get_by_text("1 file in the folder is not JPEG, PNG or DICOM").is_visible()


def drop(page, *paths):
    """Drop files and folders as a person does."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})


def test_a_folder_is_dropped_with_what_is_in_its_folders(page, folder):
    namesake = folder.parent / "file" / folder.name
    namesake.parent.mkdir()
    namesake.write_bytes(encoded(dark_plate(POSSIBLE)))
    drop(page, namesake, folder)  # the browser tells two of one name apart
    for name, finding in (
        ("study (1)/wrist.png", "Fracture likely"),
        ("study (1)/left/hand.jpg", "No fracture seen"),
        (re.compile("^study$"), "Fracture possible"),
    ):
        choose(page, name).locator(".finding").get_by_text(finding).wait_for()
    assert page.locator(".job").count() == 3
    assert page.locator("#skipped").get_by_text("1 file in the folder is not JPEG, PNG or DICOM").is_visible()


def test_of_many_files_one_picture_is_open_at_a_time(page, tmp_path):
    paths = [tmp_path / f"{index:02}.png" for index in range(12)]
    for path in paths:
        path.write_bytes(encoded(dark_plate(LIKELY)))
    page.set_input_files("#files", [str(path) for path in paths])
    expect(page.locator("#summary")).to_have_text("12 of 12 done: 12 likely")
    assert page.locator(".viewer").count() <= 1
    for index in range(12):
        choose(page, f"{index:02}.png").locator("[data-ready]").wait_for()
        expect(page.locator(".job:visible")).to_have_count(1)
    expect(page.locator(".viewer")).to_have_count(12)
    expect(page.locator(".job").first.locator("canvas")).to_have_count(0)
    expect(page.locator(".job:not([hidden]) canvas")).to_have_count(page.locator("canvas").count())


def test_a_lost_connection_is_not_a_result(page, files):
    page.route(UPLOADS, lambda route: route.abort())
    page.set_input_files("#files", files["wrist.png"])
    results(page).get_by_text("The connection to the server was lost. This file was not analysed").wait_for()
    page.unroute(UPLOADS)
    page.route(UPLOADS, lambda route: route.fulfill(status=502, body="<html>proxy</html>"))
    page.set_input_files("#files", files["healthy.png"])
    choose(page, "healthy.png").get_by_text("The server sent a response that cannot be read").wait_for()
    assert results(page).get_by_text("No fracture seen").count() == 0


def test_a_second_try_of_a_file_carries_the_same_key(page, files):
    keys = []

    def lose(route):
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) < 3:
            route.abort()
        else:
            route.continue_()

    page.route(UPLOADS, lose)
    page.set_input_files("#files", files["wrist.png"])
    wrist = job(page, "wrist.png")
    wrist.get_by_role("button", name="Try again").click()
    wrist.locator(".finding").get_by_text("Fracture likely").wait_for()
    assert not wrist.get_by_text("The connection to the server was lost").is_visible()
    assert len(keys) == 3
    assert len(set(keys)) == 1
    page.set_input_files("#files", files["wrist.png"])
    page.locator(".done").nth(1).wait_for(state="attached")
    assert len(set(keys)) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(page, files, status):
    answers = iter([{"status": status, "headers": {"Retry-After": "1"}, "body": json.dumps({"ok": False})}])

    def once_busy(route):
        answer = next(answers, None)
        route.continue_() if answer is None else route.fulfill(content_type="application/json", **answer)

    page.route(UPLOADS, once_busy)
    page.set_input_files("#files", files["wrist.png"])
    results(page).get_by_text("Server busy, waiting").wait_for()
    results(page).locator(".finding").get_by_text("Fracture likely").wait_for()


def test_who_is_logged_out_is_shown_the_way_in(page, files):
    rejection = {"ok": False, "error": "Log in first.", "status": 401}
    page.route(UPLOADS, lambda route: route.fulfill(status=401, json=rejection))
    page.set_input_files("#files", files["wrist.png"])
    wrist = job(page, "wrist.png")
    expect(wrist.locator("[data-part=failure-text]")).to_contain_text("You are logged out. This file was not analysed.")
    assert wrist.get_by_role("link", name="Log in").get_attribute("href") == "/login"
    page.unroute(UPLOADS)
    wrist.get_by_role("button", name="Try again").click()
    wrist.locator(".finding").get_by_text("Fracture likely").wait_for()


def test_a_reader_says_what_is_right_wrong_and_missed(page, files):
    kept = kept_by(page)
    wrist = upload(page, files["wrist.png"])
    assert wrist.get_by_text("Feedback is kept with the image for").is_visible()
    wrist.get_by_role("button", name="Box 1 is right").click()
    wait_until(page, lambda: len(kept) == 1)
    assert kept[-1] == {"boxes": [{"number": 1, "verdict": "right"}], "missed": [], "no_fracture": False, "comment": ""}
    expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")

    draw(page, wrist, (90, 60), (120, 100))
    wait_until(page, lambda: len(kept) == 2)
    assert kept[-1]["missed"][0] == pytest.approx([90, 60, 120, 100], abs=0.5)
    expect(wrist.locator("[data-part=boxes] .missed")).to_have_count(1)

    wrist.get_by_label("Comment").fill("step of the cortex")
    wait_until(page, lambda: kept[-1]["comment"] == "step of the cortex")

    wrist.get_by_role("button", name="No fracture").click()
    wait_until(page, lambda: kept[-1]["no_fracture"])
    assert kept[-1]["boxes"] == kept[-1]["missed"] == []
    assert kept[-1]["comment"] == "step of the cortex"
    wrist.get_by_role("button", name="No fracture").click()  # takes it back
    wait_until(page, lambda: not kept[-1]["no_fracture"])
    assert kept[-1]["boxes"] == [{"number": 1, "verdict": "right"}]
    assert len(kept[-1]["missed"]) == 1

    wrist.get_by_role("button", name="Remove missed fracture 1").click()
    wrist.get_by_role("button", name="Box 1 is wrong").click()
    wait_until(page, lambda: kept[-1]["boxes"] == [{"number": 1, "verdict": "wrong"}])
    assert kept[-1]["missed"] == []


def draw(page, place, start_px, end_px) -> None:
    """Draw a missed fracture from one pixel of the radiograph to another."""
    place.get_by_role("button", name="Draw a missed fracture").click()
    sheet = place.locator("[data-part=boxes]").bounding_box()
    scale = sheet["width"] / 160
    page.mouse.move(sheet["x"] + start_px[0] * scale, sheet["y"] + start_px[1] * scale)
    page.mouse.down()
    page.mouse.move(sheet["x"] + end_px[0] * scale, sheet["y"] + end_px[1] * scale, steps=4)
    page.mouse.up()


def test_a_missed_fracture_is_drawn_with_the_keyboard(page, files):
    kept = kept_by(page)
    healthy = upload(page, files["healthy.png"])
    healthy.locator(".stage").focus()
    page.keyboard.press("d")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    wait_until(page, lambda: len(kept) == 1)
    x0, y0, x1, y1 = kept[0]["missed"][0]
    assert x0 > 0.4 * 160  # moved to the right
    assert x1 - x0 > 0.2 * 160  # and made wider
    assert 0 < y0 < y1 < 120
    page.keyboard.press("d")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    expect(healthy.locator("[data-part=draft] g")).to_have_count(0)
    assert len(kept) == 1


def test_what_could_not_be_saved_stays_and_is_saved_again(page, files):
    rejection = {"ok": False, "error": "The results cannot be kept just now.", "status": 503}
    page.route(FEEDBACK, lambda route: route.fulfill(status=503, json=rejection))
    wrist = upload(page, files["wrist.png"])
    wrist.get_by_role("button", name="Box 1 is wrong").click()
    wrist.get_by_label("Comment").fill("a long thought")
    wrist.get_by_text("Not saved. The results cannot be kept just now.").wait_for()
    expect(wrist.get_by_label("Comment")).to_have_value("a long thought")
    wrist.get_by_role("button", name="Remove: wrist.png").click()
    expect(page.locator("[role=status]").get_by_text("your feedback is not saved yet")).to_have_count(1)
    wrist.get_by_text("Not saved. The results cannot be kept just now.").wait_for()
    page.unroute(FEEDBACK)
    kept = kept_by(page)
    wrist.get_by_role("button", name="Save again").click()
    wait_until(page, lambda: bool(kept))
    assert kept[-1]["comment"] == "a long thought"
    assert kept[-1]["boxes"] == [{"number": 1, "verdict": "wrong"}]
    expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")
    wrist.get_by_label("Comment").fill("a last word")
    wrist.get_by_role("button", name="Remove: wrist.png").click()
    expect(page.locator(".job")).to_have_count(0)
    assert kept[-1]["comment"] == "a last word"


def test_nobody_leaves_with_words_unsaved_by_accident(page, files):
    page.route(FEEDBACK, lambda route: route.abort())
    wrist = upload(page, files["wrist.png"])
    wrist.get_by_label("Comment").click()
    page.keyboard.type("not yet kept")
    wrist.get_by_text("Not saved. The connection to the server was lost.").wait_for()
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.accept()


def test_what_was_said_before_is_there_again(page, files):
    kept = kept_by(page)
    wrist = upload(page, files["wrist.png"])
    wrist.get_by_role("button", name="Box 1 is wrong").click()
    draw(page, wrist, (90, 60), (120, 100))
    wrist.get_by_label("Comment").fill("soft tissue")
    wait_until(page, lambda: kept and kept[-1]["comment"] == "soft tissue")
    page.get_by_role("link", name="Result page").click()
    expect(page.get_by_role("button", name="Box 1 is wrong")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Comment")).to_have_value("soft tissue")
    assert page.get_by_text("Missed fracture 1").is_visible()


def test_calibrated_scores_read_as_percent_and_never_as_certain(page, server, files):
    page.add_init_script(f"{MORE} window.more = {{calibrated: true}}; window.moreOfFinding = {{confidence: 0.996}};")
    page.goto(server.address)
    wrist = upload(page, files["wrist.png"])
    assert wrist.get_by_role("button", name="Box 1: fracture, likely, 90 % confidence").is_visible()
    assert wrist.get_by_text("Calibrated probability of a fracture: > 99 %").is_visible()
    assert wrist.get_by_text("Minimum confidence 50 %").is_visible()
    assert wrist.get_by_role("button", name="Reset to 50 %").is_visible()


def test_a_result_whose_picture_is_lost_still_tells_its_boxes(page, files):
    page.route("**/image.png", lambda route: route.abort())
    page.set_input_files("#files", files["wrist.png"])
    results(page).get_by_text("The image could not be loaded; the boxes in the list are still valid.").wait_for()
    assert page.get_by_role("button", name="Box 1: fracture").is_visible()


def test_two_results_are_read_side_by_side_and_move_together(page, files):
    page.set_input_files("#files", [files["wrist.png"], files["healthy.png"]])
    page.locator(".done").nth(1).wait_for(state="attached")
    choose(page, "wrist").get_by_role("button", name="Compare").click()
    expect(page.locator("#compare-text")).to_contain_text("wrist.png is selected.")
    choose(page, "healthy").get_by_role("button", name="Compare").click()
    both = page.get_by_role("dialog", name="Side by side")
    both.locator("[data-ready]").nth(1).wait_for()
    left, right = both.get_by_role("region").all()
    readouts = [side.locator("[data-part=zoom-readout]") for side in (left, right)]
    before = [readout.text_content() for readout in readouts]
    left.get_by_role("button", name="Zoom in").click()
    for readout, text in zip(readouts, before, strict=True):
        expect(readout).not_to_have_text(text)
    right.get_by_role("button", name="Invert").click()
    expect(left.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    both.get_by_role("checkbox", name="Move both together").uncheck()
    right.get_by_role("button", name="Boxes").click()
    expect(left.get_by_role("button", name="Boxes")).to_have_attribute("aria-pressed", "true")
    assert barriers(page) == []
    page.keyboard.press("Escape")
    assert not both.is_visible()
    expect(page.locator("#compare canvas")).to_have_count(0)


def test_results_of_the_history_are_read_side_by_side(page, server, files):
    page.set_input_files("#files", [files["wrist.png"], files["healthy.png"]])
    page.locator(".done").nth(1).wait_for(state="attached")
    page.goto(f"{server.address}/history")
    choices = page.get_by_role("button", name="Compare the result of")
    choices.nth(0).click()
    expect(choices.nth(0)).to_have_attribute("aria-pressed", "true")
    choices.nth(1).click()
    both = page.get_by_role("dialog", name="Side by side")
    both.locator("[data-ready]").nth(1).wait_for()
    assert barriers(page) == []
    page.keyboard.press("Escape")
    expect(choices.nth(1)).to_be_focused()


def test_a_result_is_deleted_after_a_question(page, server, files):
    wrist = upload(page, files["wrist.png"])
    address = wrist.get_by_role("link", name="Result page").get_attribute("href")
    wrist.get_by_role("button", name="Delete").click()
    question = page.get_by_role("dialog", name="Delete this result?")
    question.get_by_role("button", name="Cancel").click()
    wrist.get_by_role("button", name="Delete").click()
    deletion = re.compile(r"/api/v1/predictions/\w+$")
    page.route(deletion, lambda route: route.fulfill(status=503, json={"ok": False, "error": "Not now."}))
    question.get_by_role("button", name="Delete").click()
    question.get_by_text("Not deleted. Not now.").wait_for()
    assert wrist.count() == 1
    page.unroute(deletion)
    question.get_by_role("button", name="Delete").click()
    expect(wrist).to_have_count(0)
    assert page.request.get(server.address + address).status == 404


def test_the_page_of_a_result_deletes_it_too(page, files):
    upload(page, files["wrist.png"])
    page.get_by_role("link", name="Result page").click()
    address = page.url
    page.get_by_role("button", name="Delete this result").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.locator("#upload").wait_for()
    expect(page.locator(".job")).to_have_count(0)
    assert page.request.get(address).status == 404


def test_every_change_carries_the_token_of_the_page_and_a_stale_one_is_renewed(page, files):
    page.evaluate("document.querySelector('meta[name=csrf-token]').content = 'stale'")
    page.set_input_files("#files", files["wrist.png"])
    wrist = job(page, "wrist")
    wrist.locator(".finding").get_by_text("Fracture likely").wait_for()
    page.evaluate("document.querySelector('meta[name=csrf-token]').content = 'stale again'")
    wrist.get_by_role("button", name="Box 1 is right").click()
    expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")


def test_the_page_of_a_result_has_the_same_viewer(page, server, files):
    upload(page, files["wrist.png"])
    page.get_by_role("link", name="Result page").click()
    expect(boxes(page)).to_have_count(1)
    page.goto(page.url + "?score=0.1")
    expect(boxes(page)).to_have_count(3)
    assert barriers(page) == []
    page.get_by_role("link", name="bright rectangles").click()
    assert page.get_by_text("comes without a model card").is_visible()


def test_the_page_has_no_barriers(page, files):
    assert barriers(page) == []
    kept_by(page)
    wrist = upload(page, files["wrist.png"], files["broken.png"], files["healthy.png"])
    expect(page.locator("#summary")).to_contain_text("3 of 3 done")
    wrist.get_by_role("button", name="Read: wrist.png").click()
    page.locator("#worklist-rows").focus()
    assert barriers(page) == []
    choose(page, "broken").get_by_text("It is damaged").wait_for()
    assert barriers(page) == []
    choose(page, "wrist")
    wrist.get_by_role("button", name="Box 1 is right").click()
    draw(page, wrist, (10, 60), (60, 100))
    set_slider(wrist, 0.1)
    wrist.get_by_text("Window values").click()
    page.get_by_text("How to read a result").click()
    assert barriers(page) == []
    wrist.get_by_role("button", name="Shortcuts").click()
    assert barriers(page) == []
    page.keyboard.press("Escape")
    wrist.get_by_role("button", name="Delete").click()
    assert barriers(page) == []


def test_it_fits_a_phone(browser, server, files, tmp_path):
    with opened(browser, server, width=360, height=740, touch=True) as page:
        kept_by(page)
        wrist = upload(page, files["wrist.png"], files["broken.png"], files["healthy.png"])
        expect(page.locator("#summary")).to_contain_text("3 of 3 done")
        page.get_by_role("button", name="List").tap()  # choosing a row has closed it
        page.screenshot(path=tmp_path / "phone-list.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert barriers(page) == []
        choose(page, "wrist")
        expect(page.get_by_role("listbox")).to_be_hidden()
        wrist.get_by_role("button", name="Box 1 is wrong").tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.screenshot(path=tmp_path / "phone.png", full_page=True)
        assert barriers(page) == []
        wrist.get_by_role("button", name="Compare").tap()
        page.get_by_role("button", name="Next radiograph").tap()
        page.get_by_role("button", name="Next radiograph").tap()
        job(page, "healthy").get_by_role("button", name="Compare").tap()
        both = page.get_by_role("dialog", name="Side by side")
        both.locator("[data-ready]").nth(1).wait_for()
        assert both.evaluate("dialog => dialog.scrollWidth") <= 360
        page.screenshot(path=tmp_path / "phone-both.png")


def test_it_works_without_a_script(browser, server, files):
    with open_page(browser, scripted=False) as (page, witness):
        page.goto(server.address)
        page.set_input_files("#files", [files["wrist.png"], files["broken.png"]])
        page.get_by_role("button", name="Analyse").click()
        job(page, "wrist.png").get_by_text("Fracture likely").wait_for()
        assert job(page, "broken.png").get_by_text("It is damaged or incomplete").is_visible()
    assert all(url.startswith(server.address) for url in witness.requests)
