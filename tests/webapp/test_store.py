"""Results are kept under random names for a while, and then they are gone."""

import os
import sqlite3
import time
from dataclasses import replace

import numpy as np
import pytest

from fracture_det.inference.service import PredictionService
from tests.webapp.bright import BrightRectangles, dark_plate
from tests.webapp.conftest import LIKELY, POSSIBLE, encoded
from webapp.store import Store


@pytest.fixture
def prediction():
    with PredictionService(BrightRectangles()) as service:
        return service.predict(encoded(dark_plate(LIKELY, POSSIBLE)))


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "instance", retention_hours=1)
    yield opened
    opened.close()


def add(store: Store, prediction):
    return store.add(prediction, operating_score=0.5, possible_score=0.25)


def test_what_goes_in_comes_out(store, prediction):
    stored = add(store, prediction)
    again = store.get(stored.id)
    assert again is not None
    assert again.detections.boxes.tolist() == prediction.detections.boxes.tolist()
    assert again.detections.scores.tolist() == prediction.detections.scores.tolist()
    assert again.labels == ("fracture", "fracture")
    assert (again.height, again.width, again.model) == (120, 160, "bright rectangles")
    assert again.latency_ms == prediction.latency_ms
    assert again.image_path.is_file()


def test_a_result_without_boxes_is_a_result(store, prediction):
    empty = replace(prediction, detections=prediction.detections.above(1.0))
    stored = store.get(add(store, empty).id)
    assert stored is not None
    assert len(stored.detections) == 0
    assert stored.detections.boxes.shape == (0, 4)


def test_another_opening_finds_the_same_results(store, prediction, tmp_path):
    stored = add(store, prediction)
    again = Store(tmp_path / "instance", retention_hours=1)
    assert again.get(stored.id) is not None
    again.close()


def test_old_results_are_not_shown_and_then_deleted(store, prediction, tmp_path):
    old, young = add(store, prediction), add(store, prediction)
    database = tmp_path / "instance" / "results.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE predictions SET created_at = created_at - 3601 WHERE id = ?", (old.id,))
    connection.close()
    assert store.get(old.id) is None
    assert old.image_path.exists()
    assert store.sweep() == 1
    assert not old.image_path.exists()
    assert young.image_path.exists()
    assert store.get(young.id) is not None
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT DISTINCT prediction_id FROM detections").fetchall() == [(young.id,)]
    connection.close()


def test_a_picture_without_a_row_is_swept_when_it_is_old(store, tmp_path):
    left_over = tmp_path / "instance" / "images" / "left-over.png"
    left_over.write_bytes(b"x")
    assert store.sweep() == 0
    assert left_over.exists()
    os.utime(left_over, (time.time() - 3700,) * 2)
    store.sweep()
    assert not left_over.exists()


def test_a_sweep_that_fails_is_logged_and_the_request_goes_on(app, client, caplog):
    store = app.extensions["fracture"].store
    store._next_sweep = 0.0
    store._images.rename(store._images.with_name("gone"))
    assert client.get("/healthz").status_code == 200
    assert "Old results could not be deleted" in caplog.text


def test_a_picture_that_cannot_be_recorded_is_not_left_behind(store, prediction, tmp_path):
    wrong = replace(prediction, latency_ms={"total": object()})
    with pytest.raises(Exception, match="JSON serializable"):
        add(store, wrong)
    assert list((tmp_path / "instance" / "images").iterdir()) == []


def test_names_are_long_random_and_never_the_clients(app, post):
    folder = app.extensions["fracture"].settings.data_dir
    ids = {post(name="doe^john.png").json["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(len(identifier) == 32 for identifier in ids)
    assert {path.stem for path in (folder / "images").iterdir()} == ids
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"doe" not in everything
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_weak_noise_is_not_kept(app, post):
    document = post(encoded(dark_plate((5, 5, 15, 15, 250), (50, 50, 60, 60, 12), (80, 80, 90, 90, 30)))).json
    assert np.isclose(document["floor_score"], 0.05)
    stored = app.extensions["fracture"].store.get(document["id"])
    assert [round(score, 2) for score in stored.detections.scores.tolist()] == [0.98, 0.12]
