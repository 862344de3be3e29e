"""What a detector states about itself: typed, checked, and the same in every file that is written."""

import dataclasses
import json

import pytest

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.calibration.score_maps import ScoreMap
from fracture_det.data.predictions import read_predictions
from fracture_det.inference.base import Detector, DetectorInfo, ModelInput
from fracture_det.inference.batch import writer_for
from fracture_det.structures.letterbox import Letterbox
from tests.inference.toys import BrightDetector

FULL = DetectorInfo(
    "toy 1234",
    ("fracture", "implant"),
    sha256="a" * 64,
    operating_score=0.3,
    device="cpu",
    input=ModelInput(Letterbox(800, 32), "BGR"),
    about={"config": "config.yaml"},
)


def test_a_detector_needs_info_and_predict():
    assert isinstance(BrightDetector(), Detector)
    assert not isinstance(FULL, Detector)


def test_the_least_is_a_name_and_the_classes():
    info = DetectorInfo("toy", ["fracture"])
    assert info.class_names == ("fracture",)
    assert (info.operating_score, info.score_threshold) == (None, PAPER_OPERATING_SCORE)
    assert info.provenance == {}
    assert not info.calibrated


def test_its_own_operating_score_comes_before_the_papers():
    assert FULL.score_threshold == 0.3
    assert dataclasses.replace(FULL, operating_score=0.0).score_threshold == 0.0


def test_with_a_calibration_its_scores_are_probabilities():
    calibration = Calibration("platt", ScoreMap("platt"), ScoreMap("platt"), fitted_on={"detector": "toy"})
    assert dataclasses.replace(FULL, calibration=calibration).calibrated


def test_nobody_changes_it():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.name = "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name: expected a text"),
        ({"class_names": ()}, "class_names of toy 1234: expected at least one"),
        ({"operating_score": 1.2}, r"operating_score of toy 1234: expected 0\.\.1, got 1\.2"),
        ({"possible_score": float("nan")}, r"possible_score of toy 1234: expected 0\.\.1, got nan"),
    ],
)
def test_what_cannot_be_true_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FULL, **change)


def test_a_predictions_file_states_it_under_the_keys_of_before(tmp_path):
    with writer_for(FULL, tmp_path / "p.jsonl"):
        pass
    assert json.loads((tmp_path / "p.jsonl").read_text()) == {
        "format": "fracture_det predictions",
        "version": 1,
        "class_names": ["fracture", "implant"],
        "detector": "toy 1234",
        "operating_score": 0.3,
        "about": {"weights SHA-256": "a" * 64, "config": "config.yaml"},
    }
    read = read_predictions(tmp_path / "p.jsonl")
    assert (read.weights_sha256, read.about) == (FULL.sha256, FULL.provenance)
