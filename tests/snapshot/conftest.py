"""The page of a test, and where its snapshots go."""

import pytest

from fracture_det.inference.service import PredictionService
from tests.snapshot.pages import Page
from tests.webapp.bright import BrightRectangles
from webapp import create_app
from webapp.settings import Settings


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))
    with PredictionService(BrightRectangles()) as service:
        app = create_app(Settings.from_environ(), predictor=service)
        yield Page(app)
        app.extensions["fracture"].store.close()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "feedback"
