"""Settings come from FRACTURE_* variables, and a wrong one is named in a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.webapp.conftest import ROOT
from webapp.settings import Settings, SettingsError


def test_without_variables_the_defaults_hold():
    settings = Settings.from_environ({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.detector) == ("127.0.0.1", 8000, "shipped")
    assert settings.max_upload_bytes == 16 * 1024 * 1024
    assert settings.max_pixels == 64_000_000


def test_variables_are_read_and_arguments_win():
    environ = {
        "FRACTURE_PORT": "8765",
        "FRACTURE_SCORE": "0.4",
        "FRACTURE_NMS_IOU": ".6",
        "FRACTURE_DATA_DIR": "/srv/x",
        "FRACTURE_HOST": "",
    }
    settings = Settings.from_environ(environ, port=9000, detector=None)
    assert settings == Settings(port=9000, score=0.4, nms_iou=0.6, data_dir=Path("/srv/x"))


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"FRACTURE_PORT": "http"}, "FRACTURE_PORT: expected a whole number, got 'http'"),
        ({"FRACTURE_PORT": "70000"}, "FRACTURE_PORT: expected 0 to 65535, got 70000"),
        ({"FRACTURE_SCORE": "50"}, "FRACTURE_SCORE: expected 0 to 1, got 50"),
        ({"FRACTURE_SCORE": "nan"}, "FRACTURE_SCORE: expected 0 to 1, got nan"),
        ({"FRACTURE_NMS_IOU": "-1"}, "FRACTURE_NMS_IOU: expected 0 to 1, got -1"),
        ({"FRACTURE_QUEUE_SIZE": "0"}, "FRACTURE_QUEUE_SIZE: expected 1 to 1000, got 0"),
        ({"FRACTURE_MAX_UPLOAD_MB": "many"}, "FRACTURE_MAX_UPLOAD_MB: expected a number, got 'many'"),
        ({"FRACTURE_RETENTION_HOURS": "0"}, "FRACTURE_RETENTION_HOURS: expected 0.01 to 87600, got 0"),
        (
            {"FRACTURE_SCORE": "0.3", "FRACTURE_POSSIBLE_SCORE": "0.4"},
            "FRACTURE_POSSIBLE_SCORE: expected at most FRACTURE_SCORE (0.3), got 0.4",
        ),
    ],
)
def test_a_wrong_setting_is_named(environ, sentence):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)
    assert str(caught.value) == sentence


def test_the_page_needs_neither_torch_nor_matplotlib():
    code = "import sys, webapp.__main__; print(sorted({'torch', 'detectron2', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in Settings.__dataclass_fields__:
        assert f"`FRACTURE_{name.upper()}`" in text
