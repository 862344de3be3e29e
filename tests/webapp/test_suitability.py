"""A picture that is no radiograph of a limb: refused by page and API, or analysed anyway and marked everywhere."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from fracture_det.inference.service import PredictionService, UnsuitableImage, assess
from tests.builders import draw_radiograph
from tests.suitability.test_assess import page, scene
from tests.webapp.bright import BrightRectangles
from tests.webapp.browser import barriers, open_page
from tests.webapp.conftest import encoded, form_token
from tests.webapp.test_journey import shoot

HEADLINE = "this does not look like a limb radiograph"
ANYWAY = f"Analysed anyway: {HEADLINE}. It looks like a colour photograph."


@pytest.fixture
def service(settings) -> Iterator[PredictionService]:
    with PredictionService(BrightRectangles(), max_pixels=settings.max_pixels, assess=assess) as running:
        yield running


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("suitability"), FRACTURE_SUITABILITY="on")


@pytest.fixture
def photograph() -> bytes:
    return encoded(scene())


@pytest.fixture
def film() -> bytes:
    return encoded(draw_radiograph(np.random.default_rng(3), fractured=True)[0])


def text_of(pdf: bytes) -> str:
    """Return what a PDF's compressed streams hold; its built-in fonts write Latin letters as they are."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    contents = []
    for stream in streams:
        with suppress(zlib.error):
            contents.append(zlib.decompress(stream).decode("latin-1"))
    return " ".join(contents)


def counted(client, **labels: str) -> float:
    line = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    found = re.search(rf"fracture_unsuitable_total{{{re.escape(line)}}} (\S+)", client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def test_the_detector_never_sees_it(photograph):
    detector = BrightRectangles()
    with PredictionService(detector, assess=assess) as running, pytest.raises(UnsuitableImage, match=HEADLINE):
        running.predict(photograph)
    assert detector.batches == []


def test_the_api_refuses_it_with_a_reason_and_stores_nothing(client, post, photograph):
    response = post(photograph)
    assert response.status_code == 422
    body = response.get_json()
    assert body["error"] == f"Not analysed: {HEADLINE}. It looks like a colour photograph."
    assert (body["ok"], body["reason"]) == (False, "colour_photograph")
    assert 0 <= body["probability"] < 0.5
    assert "finding" not in body
    assert client.get("/api/v1/predictions").get_json()["total"] == 0
    assert counted(client, reason="colour_photograph", analysed="no") == 1


@pytest.mark.parametrize(("picture", "reason"), [(np.zeros((200, 200), np.uint8), "blank"), (page(), "document")])
def test_other_reasons(post, picture, reason):
    assert post(encoded(picture)).get_json()["reason"] == reason


def test_a_film_is_analysed_and_its_suitability_is_told(post, film):
    body = post(film).get_json()
    assert body["ok"]
    assert (body["suitability"]["ok"], body["suitability"]["reasons"], body["suitability"]["notice"]) == (
        True,
        [],
        None,
    )


def test_what_was_analysed_anyway_is_marked_wherever_it_is_shown(client, post, photograph):
    response = post(photograph, query="?force=1")
    assert response.status_code == 201
    body = response.get_json()
    assert body["suitability"]["ok"] is False
    assert body["suitability"]["reasons"] == ["colour_photograph"]
    assert body["suitability"]["notice"].startswith(ANYWAY)
    assert client.get(body["links"]["self"]).get_json()["suitability"] == body["suitability"]
    assert client.get("/api/v1/predictions").get_json()["results"][0]["suitability"] == body["suitability"]
    for address in (body["links"]["page"], body["links"]["report"], "/history"):
        assert ANYWAY in client.get(address).text, address
    picture, overlay = (
        np.asarray(Image.open(io.BytesIO(client.get(body["links"][name]).data)).convert("RGB"))
        for name in ("image", "overlay")
    )
    assert not overlay[2, 2].any()  # the band with the caption, where the sky is
    assert picture[2, 2].all()
    assert "Analysed anyway" in text_of(client.get(body["links"]["report_pdf"]).data)
    assert counted(client, reason="colour_photograph", analysed="yes") == 1


def test_force_is_no_licence_to_guess(post, film):
    assert post(film, query="?force=1").get_json()["suitability"]["ok"] is True
    assert post(film, query="?force=maybe").status_code == 400


def test_the_page_without_javascript(client, photograph, film):
    def send(**more: str):
        files = [(io.BytesIO(photograph), "bus.png"), (io.BytesIO(film), "limb.png")]
        return client.post("/", data={"csrf_token": form_token(client), "file": files, **more})

    refused = send().text
    assert f"Not analysed: {HEADLINE}" in refused
    assert "tick “Analyse anyway”" in refused
    assert refused.count('class="viewer"') == 1
    forced = send(force="1").text
    assert ANYWAY in forced
    assert forced.count('class="viewer"') == 2


@pytest.mark.browser
class TestInChromium:
    def test_refused_then_analysed_anyway(self, browser, server, tmp_path, photograph):
        (tmp_path / "bus.png").write_bytes(photograph)
        with open_page(browser) as (shown, witness):
            shown.goto(server.address)
            shown.set_input_files("#files", str(tmp_path / "bus.png"))
            job = shown.locator(".job")
            expect(job.locator(".failure").first).to_contain_text(f"Not analysed: {HEADLINE}")
            expect(job.locator(".finding")).to_have_count(0)
            assert barriers(shown) == []
            shoot(shown, "suitability")
            job.get_by_role("button", name=re.compile("Analyse anyway")).click()
            expect(job.locator(".unsuitable")).to_contain_text(ANYWAY)
            expect(job.locator(".state")).to_contain_text("Analysed anyway")
            assert barriers(shown) == []
            assert witness.complaints == []

    def test_the_example_is_one_click(self, browser, server):
        with open_page(browser) as (shown, witness):
            shown.goto(server.address)
            expect(shown.locator(".example")).to_contain_text("CC BY 4.0")
            shown.get_by_role("button", name="Try an example").click()
            job = shown.locator(".job")
            expect(job.locator(".name")).to_have_text("Example: FracAtlas IMG0003943")
            expect(job.locator(".finding")).to_be_visible()
            expect(job.locator(".unsuitable")).to_be_hidden()
            assert witness.complaints == []
            assert all(url.startswith((server.address, "data:", "blob:")) for url in witness.requests)
