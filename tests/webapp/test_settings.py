"""Settings come from FRACTURE_* variables, and a wrong one is named in a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import ScoreMap
from fracture_det.inference.base import DetectorError
from fracture_det.inference.registry import DETECTORS
from tests.webapp.bright import ROOT, BrightRectangles
from tests.webapp.conftest import LIKELY, dark_plate, encoded
from webapp import create_app, open_service
from webapp.settings import Settings, SettingsError

CALIBRATION_FILE = Path("eval/calibration.json")
OPEN = None  # set by the test that needs it


def test_without_variables_the_defaults_hold():
    settings = Settings.from_environ()
    assert (settings.host, settings.port, settings.detector) == ("127.0.0.1", 8000, "shipped")
    assert settings.max_upload_bytes == 16 * 1024 * 1024
    assert settings.max_pixels == 64_000_000


def set_variables(monkeypatch, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


def test_variables_are_read_and_arguments_win(monkeypatch):
    environ = {
        "FRACTURE_PORT": "8765",
        "FRACTURE_SCORE": "0.4",
        "FRACTURE_NMS_IOU": ".6",
        "FRACTURE_DATA_DIR": "/srv/x",
        "FRACTURE_CALIBRATION": "eval/calibration.json",
        "FRACTURE_HOST": "",
        "FRACTURE_KEEP_IMAGES": "Off",
        "FRACTURE_HOSTNAMES": "xray.example, pacs.example",
    }
    expected = Settings(
        port=9000,
        score=0.4,
        nms_iou=0.6,
        data_dir=Path("/srv/x"),
        calibration=CALIBRATION_FILE,
        keep_images=False,
        hostnames=("xray.example", "pacs.example"),
    )
    set_variables(monkeypatch, environ)
    assert Settings.from_environ(port=9000, detector=None) == expected
    assert Settings.from_environ(calibration=Path("mine.json")).calibration == Path("mine.json")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"FRACTURE_PORT": "http"}, "FRACTURE_PORT: expected a whole number, got 'http'"),
        ({"FRACTURE_PORT": "70000"}, "FRACTURE_PORT: expected 0 to 65535, got 70000"),
        ({"FRACTURE_PORT": "99999999"}, "FRACTURE_PORT: expected 0 to 65535, got 99999999"),
        ({"FRACTURE_SCORE": "50"}, "FRACTURE_SCORE: expected 0 to 1, got 50"),
        ({"FRACTURE_SCORE": "nan"}, "FRACTURE_SCORE: expected 0 to 1, got nan"),
        ({"FRACTURE_NMS_IOU": "-1"}, "FRACTURE_NMS_IOU: expected 0 to 1, got -1"),
        ({"FRACTURE_QUEUE_SIZE": "0"}, "FRACTURE_QUEUE_SIZE: expected 1 to 1000, got 0"),
        ({"FRACTURE_MAX_UPLOAD_MB": "many"}, "FRACTURE_MAX_UPLOAD_MB: expected a number, got 'many'"),
        ({"FRACTURE_RETENTION_DAYS": "0"}, "FRACTURE_RETENTION_DAYS: expected 0.0001 to 3650, got 0"),
        ({"FRACTURE_PORT": "8000.5"}, "FRACTURE_PORT: expected a whole number, got '8000.5'"),
        ({"FRACTURE_SCORE": "inf"}, "FRACTURE_SCORE: expected 0 to 1, got inf"),
        ({"FRACTURE_DETECTOR": " "}, "FRACTURE_DETECTOR: expected shipped or scheme:path, got nothing"),
        ({"FRACTURE_WORKER": "sync"}, "FRACTURE_WORKER: expected 'upload-limit' or 'gthread', got 'sync'"),
        ({"FRACTURE_LOGIN": "maybe"}, "FRACTURE_LOGIN: expected on or off, got 'maybe'"),
        (
            {"FRACTURE_LOGIN": "on"},
            "FRACTURE_LOGIN is on: expected FRACTURE_SECRET_KEY beside it, which has no default",
        ),
        (
            {"FRACTURE_SECRET_KEY": "short"},
            "FRACTURE_SECRET_KEY: expected at least 32 characters, got 5;"
            ' `python -c "import secrets; print(secrets.token_hex(32))"` makes one',
        ),
        (
            {"FRACTURE_SCORE": "0.3", "FRACTURE_POSSIBLE_SCORE": "0.4"},
            "FRACTURE_POSSIBLE_SCORE: expected at most FRACTURE_SCORE (0.3), got 0.4",
        ),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, environ, sentence):
    set_variables(monkeypatch, environ)
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ()
    assert str(caught.value) == sentence


class TestCalibration:
    @pytest.fixture
    def settings(self, monkeypatch, tmp_path):
        monkeypatch.setitem(DETECTORS, "bright", "tests.webapp.bright:BrightRectangles.open")
        return Settings(detector="bright:0", calibration=tmp_path / "calibration.json", suitability=False)

    def test_the_page_shows_calibrated_scores(self, settings):
        # Odds to the half: a score of .9, 9 to 1, becomes .75; .5 stays .5, and so does the operating point.
        rooted = ScoreMap("temperature", slope=0.5)
        fitted_on = {"detector": "bright rectangles", "weights SHA-256": "0" * 64}
        Calibration("temperature", rooted, rooted, fitted_on=fitted_on).save(settings.calibration)
        with open_service(settings) as service:
            assert service.info.name == "bright rectangles, calibrated (temperature)"
            assert service.info.operating_score == 0.5
            assert service.predict(encoded(dark_plate(LIKELY))).detections.scores[0] == pytest.approx(0.75, abs=0.005)

    def test_a_file_that_is_not_there_stops_it(self, settings):
        with pytest.raises(DetectorError, match=r"calibration .*calibration\.json: cannot be read"):
            open_service(settings)


def test_other_weights_than_expected_are_not_served(monkeypatch, tmp_path):
    monkeypatch.setitem(DETECTORS, "bright", "tests.webapp.bright:BrightRectangles.open")
    open_service(Settings(detector="bright:0", model_sha256="0" * 64)).close()
    with pytest.raises(DetectorError, match=f"FRACTURE_MODEL_SHA256 expects {'1' * 64}, got {'0' * 64}"):
        open_service(Settings(detector="bright:0", model_sha256="1" * 64))


@pytest.mark.parametrize("show", [repr, str])
def test_a_secret_is_not_shown(show):
    shown = show(Settings(secret_key="s" * 32, database_url="postgresql://u:secret@h/x"))
    assert "sss" not in shown
    assert "secret@" not in shown


def test_a_secret_is_not_in_an_error():
    for wrong in ({"secret_key": b"hush"}, {"secret_key": 1234}, {"database_url": ["hush"]}, {"secret_key": "hush"}):
        with pytest.raises(SettingsError) as caught:
            Settings(**wrong)
        assert "hush" not in f"{caught.value}{caught.value.__cause__}"
        assert "1234" not in str(caught.value)


def test_an_unknown_argument_is_an_error():
    with pytest.raises(SettingsError, match=r"^prot: there is no such setting$"):
        Settings(prot=1)


def test_empty_variables_count_as_unset(monkeypatch):
    set_variables(monkeypatch, {f"FRACTURE_{name.upper()}": "" for name in Settings.model_fields})
    empty = Settings.from_environ()
    monkeypatch.undo()
    assert empty == Settings()


@pytest.mark.parametrize(("text", "login"), [("On", True), ("yes", True), ("1", True), ("TRUE", True), ("off", False)])
def test_switches_are_read_in_any_case(monkeypatch, text, login):
    set_variables(monkeypatch, {"FRACTURE_LOGIN": text, "FRACTURE_SECRET_KEY": "k" * 32})
    assert Settings.from_environ().login is login


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_the_shipped_detector_has_a_fixed_nms_and_says_so(monkeypatch, tmp_path):
    set_variables(monkeypatch, {"FRACTURE_NMS_IOU": "0.4", "FRACTURE_DATA_DIR": str(tmp_path)})
    if not (ROOT / "weights" / "shipped").is_dir():
        pytest.skip("no shipped detector here")
    for start in (open_service, create_app):
        with pytest.raises(DetectorError) as caught:
            start(Settings.from_environ())
        assert "nms_iou" in str(caught.value) or "FRACTURE_NMS_IOU" in str(caught.value)
        assert "0.4" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_another_detector_is_opened_with_the_nms_of_the_settings(monkeypatch, tmp_path):
    opened = {}

    def open_with(target, *, nms_iou=None):
        opened["nms_iou"] = nms_iou
        return BrightRectangles()

    monkeypatch.setitem(DETECTORS, "bright", "tests.webapp.test_settings:OPEN")
    monkeypatch.setattr("tests.webapp.test_settings.OPEN", open_with)
    set_variables(monkeypatch, {"FRACTURE_NMS_IOU": "0.4", "FRACTURE_DETECTOR": "bright:0"})
    open_service(Settings.from_environ(data_dir=tmp_path)).close()
    assert opened == {"nms_iou": 0.4}


def test_the_page_needs_neither_torch_nor_matplotlib():
    code = "import sys, webapp.__main__; print(sorted({'torch', 'detectron2', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"`FRACTURE_{name.upper()}`" in text
