"""What the file held beyond 8 bits, and the size of its pixels: through the service into the store and the API."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fracture_det.inference.service import PredictionService
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, encoded
from webapp.presentation import SPACING_NOTES
from webapp.store import ResultMetadata
from webapp.store.audit import PACS

ROW_MM, COLUMN_MM = 0.2, 0.15


class Measured(PredictionService):
    """The real service on files that say how large their pixels are, as a DICOM file does."""

    def _read(self, source):
        return replace(super()._read(source), spacing_mm=(ROW_MM, COLUMN_MM))


@pytest.fixture
def deep() -> np.ndarray:
    """A plate of 12 bits (H, W): a dark surrounding, and a rectangle with a fine ramp."""
    plate = np.full((60, 80), 40, np.uint16)
    plate[20:40, 30:60] = 3000 + np.arange(30, dtype=np.uint16)
    return plate


@pytest.fixture
def names(settings):
    """Return the names of the files that are kept."""
    return lambda: sorted(path.name for path in (settings.data_dir / "images").iterdir())


def test_every_sample_of_a_deep_radiograph_is_kept_and_sent(client, post, deep):
    body = post(encoded(deep)).get_json()
    assert (body["image"]["height"], body["image"]["width"], body["image"]["bits"]) == (60, 80, 12)
    assert body["image"]["window"] == [40, pytest.approx(3029, abs=1)]
    assert client.get(body["links"]["self"]).get_json()["image"] == body["image"]
    sent = client.get(body["links"]["samples"])
    assert sent.mimetype == "image/png"
    assert np.array_equal(cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_UNCHANGED), deep)
    assert "80 x 60 px, 12 bits" in client.get(body["links"]["report"]).text
    shown = cv2.imdecode(np.frombuffer(client.get(body["links"]["image"]).data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.dtype == np.uint8


def test_of_8_bits_nothing_changes(client, post, names):
    body = post().get_json()
    assert body["image"] == {"height": 120, "width": 160, "bits": 8, "window": [0, 255]}
    assert body["links"]["samples"] is None
    assert names() == [f"{body['id']}.png"]
    answer = client.get(f"{body['links']['self']}/samples.png")
    assert answer.status_code == 404
    assert "8 bits, is in colour, or was not kept" in answer.get_json()["error"]


def test_the_samples_go_with_their_result(client, post, deep, names):
    bodies = [post(encoded(deep)).get_json() for _ in range(2)]
    assert names() == sorted(f"{body['id']}{end}" for body in bodies for end in (".png", ".samples.png"))
    assert client.delete(bodies[0]["links"]["self"]).status_code == 204
    assert names() == [f"{bodies[1]['id']}.png", f"{bodies[1]['id']}.samples.png"]


def test_samples_without_a_result_are_swept_and_a_deletion_cut_short_is_undone(
    app, post, deep, names, settings, monkeypatch
):
    monkeypatch.setattr("webapp.store.images.IN_PROGRESS_S", -1)
    store = app.extensions["fracture"].store
    kept = post(encoded(deep)).get_json()["id"]
    folder = settings.data_dir / "images"
    (folder / f"{'0' * 32}.samples.png").write_bytes(b"x")
    (folder / f"{kept}.samples.png").rename(folder / f"{kept}.samples.deleting")
    store.results.sweep()
    assert names() == [f"{kept}.png", f"{kept}.samples.png"]


def test_lost_samples_are_said_to_be_missing_and_the_image_stays(client, post, deep, settings):
    body = post(encoded(deep)).get_json()
    (settings.data_dir / "images" / f"{body['id']}.samples.png").unlink()
    assert client.get(body["links"]["self"]).get_json()["links"]["samples"] is None
    assert client.get(body["links"]["samples"]).status_code == 404
    assert client.get(body["links"]["image"]).status_code == 200


def test_somebody_elses_samples_are_not_sent(client):
    assert client.get(f"/api/v1/predictions/{'0' * 32}/samples.png").status_code == 404


def test_a_file_that_does_not_say_it_has_no_pixel_size(post):
    body = post().get_json()
    assert (body["spacing_mm"], body["spacing_kind"], body["spacing_note"]) == (None, None, None)


class TestSpacing:
    @pytest.fixture
    def service(self, settings):
        with Measured(BrightRectangles(), max_pixels=settings.max_pixels) as running:
            yield running

    def test_it_is_told_and_kept(self, client, post):
        body = post().get_json()
        assert body["spacing_mm"] == [ROW_MM, COLUMN_MM]
        assert client.get(body["links"]["self"]).get_json()["spacing_mm"] == [ROW_MM, COLUMN_MM]
        assert (body["spacing_kind"], body["spacing_note"]) == (None, SPACING_NOTES["unstated"])
        assert "160 x 120 px, 0.15 x 0.2 mm per pixel (where" in client.get(body["links"]["report"]).text

    def test_a_warmed_up_service_predicts_with_it(self, service):
        prediction = service.predict(io.BytesIO(encoded(np.zeros((30, 40), np.uint8))).getvalue())
        assert prediction.spacing_mm == (ROW_MM, COLUMN_MM)
        assert prediction.samples is None


def test_a_result_says_whether_it_came_through_the_pacs_node(app, service, client, post):
    prediction = service.predict(encoded(dark_plate(LIKELY)))
    results = app.extensions["fracture"].store.results
    through_node = results.add(prediction, ResultMetadata(PACS, "likely", "1" * 64, 0.5, 0.25))
    assert client.get(f"/api/v1/predictions/{through_node.id}").get_json()["source"] == "PACS"
    assert post(encoded(dark_plate(LIKELY))).get_json()["source"] is None
    assert client.get("/history").text.count("· PACS") == 1
