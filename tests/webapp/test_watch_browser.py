"""The page "Model over time" in Chromium: a year of a drawn site, on a screen and on a phone."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from playwright.sync_api import expect

from fracture_det.monitoring.drift import Rule
from tests.monitoring.cases import drawn_counts, drawn_reference
from tests.webapp.browser import barriers, open_page
from tests.webapp.test_journey import shoot
from webapp.settings import Settings
from webapp.store import Store
from webapp.store.models import WatchDayRow

pytestmark = pytest.mark.browser
SHA = "0" * 64  # of the bright rectangles
NEXT_MODEL, NEW_SCANNER, LAST = date(2026, 6, 29), date(2026, 10, 12), date(2026, 11, 1)


def a_year() -> list[WatchDayRow]:
    """Return the days of a year: another detector in July, and a noisier, darker scanner from October on."""
    rng, rows = np.random.default_rng(7), []
    day = date(2025, 11, 3)
    while day < LAST:
        is_weekend = day.weekday() >= 5
        n = int(rng.poisson(2 if is_weekend else 8))
        shifts = {"noise": 2.5, "grey": -0.7} if day >= NEW_SCANNER else {}
        counts = drawn_counts(rng, n, judged=n // 3, corrected=int(rng.binomial(n // 3, 0.2)), **shifts)
        sha256, model = (SHA, "bright rectangles 2") if day >= NEXT_MODEL else ("1" * 64, "bright rectangles 1")
        rows.append(WatchDayRow(day=str(day), model_sha256=sha256, model=model, counts=counts.to_json()))
        day += timedelta(days=1)
    return rows


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch")
    reference = folder / "watch.json"
    about = "this site, 2025-10-01 to 2025-10-31, bright rectangles 1"
    replace(drawn_reference(Rule(draws=2000)), detector_sha256=SHA, about=about).save(reference)
    store = Store(Settings(data_dir=folder / "instance").data_dir)
    with store._database.writing() as session:
        session.add_all(a_year())
    store.close()
    return start_server(folder / "instance", FRACTURE_WATCH_REFERENCE=str(reference))


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_year_with_another_detector_and_another_scanner(browser, server, width):
    with open_page(browser, width=width, height=900) as (page, witness):
        page.goto(f"{server.address}/watch")
        expect(page.get_by_text("The newest window is an alarm")).to_be_visible()
        expect(page.locator(".chart svg")).not_to_have_count(0)
        assert page.locator(".chart svg .alarm").count() >= 2
        assert page.locator(".chart").first.locator("svg line.version").count() == 1
        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.locator(".chart text").evaluate_all(
            "texts => Math.min(...texts.map(t => t.getBoundingClientRect().height))"
        )
        assert small >= 9
        assert barriers(page) == []
        if width == 1280:
            shoot(page, "watch")
        page.locator(".chart summary").first.click()
        expect(page.locator(".chart details li").first).to_contain_text("radiographs")
        assert witness.complaints == []
