"""Logging in, working and logging out in a real Chromium."""

import pytest
from playwright.sync_api import expect

from tests.webapp.bright import dark_plate
from tests.webapp.browser import barriers, open_page
from tests.webapp.conftest import LIKELY, encoded
from tests.webapp.test_browser import job
from webapp.store import Store
from webapp.store.accounts import READER

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"


def log_in(page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def test_who_logs_in_works_and_logs_out(browser, start_server, tmp_path):
    folder = tmp_path / "instance"
    store = Store(folder)
    store.accounts.add_user("anna", READER, PASSWORD, by="test")
    store.close()
    server = start_server(folder, FRACTURE_LOGIN="on", FRACTURE_SECRET_KEY="k" * 32)
    (tmp_path / "wrist.png").write_bytes(encoded(dark_plate(LIKELY)))
    with open_page(browser) as (page, witness):
        page.goto(f"{server.address}/history")
        assert barriers(page) == []
        log_in(page, "anna", "not the password")
        expect(page.get_by_role("alert")).to_contain_text("The name or the password is wrong.")
        log_in(page, "anna", PASSWORD)
        page.wait_for_url(f"{server.address}/history")

        page.get_by_role("link", name="Analyse", exact=True).click()
        page.set_input_files("#files", str(tmp_path / "wrist.png"))
        wrist = job(page, "wrist")
        wrist.get_by_role("button", name="Box 1 is right").click()
        expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")
        page.get_by_role("link", name="History").click()
        expect(page.locator(".entry")).to_contain_text("Feedback by anna: 1 box judged")

        page.get_by_role("button", name="Log out anna").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.goto(f"{server.address}/history")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        # The line that Chromium writes for the refused password is no fault of the page.
        assert [text for text in witness.complaints if "401" not in text] == []
        assert all(url.startswith((server.address, "data:")) for url in witness.requests)
