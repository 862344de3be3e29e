"""A calibrated detector: the same boxes, scores that are probabilities, and no file that was fitted for another."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import CalibrationError, ScoreMap
from fracture_det.calibration.type_threshold import TypeThreshold
from fracture_det.data.predictions import read_predictions
from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.calibrated import CalibratedDetector
from fracture_det.inference.registry import DETECTORS, SHIPPED, open_detector
from fracture_det.structures.detections import Detections
from tests.inference.test_batch import save
from tests.inference.toys import BrightDetector

ROOT = Path(__file__).parents[2]
# Odds are halved: .8, 4 to 1, becomes 2/3; .1, 1 to 9, becomes 1/19; .5 becomes 1/3.
HALVED = ScoreMap("platt", offset=-np.log(2))
CALIBRATION = Calibration("platt", HALVED, HALVED, fitted_on={"detector": "bright"})
BRIGHT = np.full((40, 60, 3), 250, np.uint8)


HASHED = {"sha256": "a" * 64, "card": Path("card.md")}


class RandomDetector(BrightDetector):
    """Gives 50 boxes of random scores for each image."""

    def predict(self, images):
        random = np.random.default_rng(3)
        return [Detections.from_unsorted(np.zeros((50, 4)), random.random(50), np.zeros(50)) for _ in images]


@pytest.fixture
def file(tmp_path):
    CALIBRATION.save(tmp_path / "calibration.json")
    return tmp_path / "calibration.json"


@pytest.fixture(autouse=True)
def _bright(monkeypatch):
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")


class TestDetector:
    def test_it_is_a_detector_of_the_same_model(self):
        one = CalibratedDetector(BrightDetector(**HASHED), CALIBRATION)
        assert isinstance(one, Detector)
        assert one.info.name == "bright, calibrated (platt)"
        assert (one.info.class_names, one.info.sha256, one.info.card) == (("fracture",), "a" * 64, Path("card.md"))
        assert one.info.provenance == {"weights SHA-256": "a" * 64, "calibrated on": "validation data"}
        assert (one.info.calibrated, one.info.calibration) == (True, CALIBRATION)

    def test_what_the_model_says_of_itself_is_kept(self):
        detector = BrightDetector(**HASHED, about={"NMS IoU": "0.6"}, device="cpu")
        one = CalibratedDetector(detector, replace(CALIBRATION, fitted_on={"detector": "bright", "data": "val.json"}))
        assert one.info.about == {"NMS IoU": "0.6", "calibrated on": "val.json"}
        assert one.info.device == "cpu"

    def test_a_model_without_hash_and_card(self):
        one = CalibratedDetector(BrightDetector(), CALIBRATION)
        assert (one.info.sha256, one.info.card, one.info.device) == (None, None, None)
        assert one.info.provenance == {"calibrated on": "validation data"}

    def test_boxes_stay_and_scores_become_probabilities(self):
        raw, calibrated = BrightDetector(), CalibratedDetector(BrightDetector(), CALIBRATION)
        (before,), (after,) = raw.predict([BRIGHT]), calibrated.predict([BRIGHT])
        np.testing.assert_array_equal(after.boxes, before.boxes)
        np.testing.assert_array_equal(after.classes, before.classes)
        assert after.scores.tolist() == pytest.approx([2 / 3, 1 / 19])
        assert calibrated.predict([]) == []

    # own operating score, frozen points, raw one that counts
    @pytest.mark.parametrize(
        ("own", "frozen", "raw"),
        [
            (None, {}, 0.5),
            (0.5, {}, 0.5),
            (0.3, {}, 0.3),
            (0.5, {"youden": 0.6, "sensitivity": 0.2}, 0.6),
            (0.5, {"specificity": 0.7, "youden": 0.6, "sensitivity": 0.2}, 0.7),
            (None, {"youden": 0.6}, 0.6),
            (0.3, {"youden": 0.6}, 0.3),
            (0.5, {"sensitivity": 0.2}, 0.5),
        ],
    )
    def test_its_operating_point_is_the_one_that_a_report_puts_first(self, own, frozen, raw):
        detector = BrightDetector(operating_score=own)
        one = CalibratedDetector(detector, replace(CALIBRATION, operating_points=frozen))
        odds = raw / (1 - raw) / 2
        assert one.info.operating_score == pytest.approx(odds / (1 + odds), abs=1e-6)

    # frozen points, raw score from which a box is worth a look; the operating point is that of Youden here, else .5
    @pytest.mark.parametrize(
        ("frozen", "raw"),
        [({"youden": 0.6, "sensitivity": 0.2}, 0.2), ({"sensitivity": 0.5}, 0.5), ({"youden": 0.6}, None)],
    )
    def test_what_is_worth_a_look_is_the_frozen_point_of_high_sensitivity(self, frozen, raw):
        one = CalibratedDetector(BrightDetector(), replace(CALIBRATION, operating_points=frozen))
        expected = None if raw is None else pytest.approx(raw / (2 - raw), abs=1e-6)  # halved odds: r / (2 - r)
        assert one.info.possible_score == expected

    def test_a_point_of_high_sensitivity_above_the_operating_point_is_not_used(self):
        frozen = {"youden": 0.2, "sensitivity": 0.6}
        one = CalibratedDetector(BrightDetector(), replace(CALIBRATION, operating_points=frozen))
        assert one.info.possible_score is None

    @pytest.mark.parametrize("slope", [0.4, 1.0, 2.5])
    def test_the_same_boxes_are_findings_as_before(self, slope):
        (before,) = RandomDetector().predict([BRIGHT])
        for score in before.scores[::7]:  # thresholds that lie on a box
            raw = RandomDetector(operating_score=float(score))
            score_map = ScoreMap("platt", slope, 0.3)
            calibrated = CalibratedDetector(raw, replace(CALIBRATION, box_map=score_map))
            (after,) = calibrated.predict([BRIGHT])
            threshold, n_findings = calibrated.info.operating_score, len(before.above(float(score)))
            assert len(after.above(threshold)) == n_findings
            # the page compares scores rounded to six digits
            assert sum(round(float(confidence), 6) >= threshold for confidence in after.scores) == n_findings

    def test_what_was_not_fitted_is_refused(self):
        unfit = Calibration(
            "platt", ScoreMap("identity"), HALVED, not_fitted={"box": "no box"}, fitted_on={"detector": "bright"}
        )
        with pytest.raises(CalibrationError, match="no map for box scores: no box"):
            CalibratedDetector(BrightDetector(), unfit)

    def test_scores_are_not_calibrated_twice(self):
        with pytest.raises(CalibrationError, match="raw scores"):
            CalibratedDetector(CalibratedDetector(BrightDetector(), CALIBRATION), CALIBRATION)


class TestOpening:
    def test_with_a_file(self, file):
        one = open_detector("bright:0.8", calibration=file)
        assert one.info.name == "bright, calibrated (platt)"
        assert one.info.operating_score == pytest.approx(2 / 3, abs=1e-6)
        assert open_detector("bright:0.8", calibration=str(file)).info == one.info

    def test_without_one_scores_are_raw(self, file, monkeypatch):
        monkeypatch.chdir(file.parent)  # a file that lies about is not taken
        assert open_detector("bright:").info.name == "bright"

    def test_options_reach_the_detector(self, file):
        with pytest.raises(
            DetectorError, match=r"^detector 'bright:': has no setting nms_iou, got 0\.5; detectors that"
        ):
            open_detector("bright:", calibration=file, nms_iou=0.5)
        with pytest.raises(DetectorError, match=r"^detector 'bright:': has no setting colour, got 'red'$"):
            open_detector("bright:", calibration=file, colour="red")

    def test_a_file_of_other_weights_is_refused(self, file):
        replace(CALIBRATION, fitted_on={"detector": "dark 1234"}).save(file)
        with pytest.raises(DetectorError) as caught:
            open_detector("bright:", calibration=file)
        assert str(caught.value) == (
            f"detector 'bright:': calibration {file} does not fit it: "
            "fitted_on.detector: expected 'bright', got 'dark 1234'"
        )

    def test_a_missing_or_broken_file_is_named(self, tmp_path):
        with pytest.raises(DetectorError, match=r"calibration .*nothing\.json: cannot be read"):
            open_detector("bright:", calibration=tmp_path / "nothing.json")
        (tmp_path / "broken.json").write_text("{}")
        with pytest.raises(DetectorError, match=r"calibration .*broken\.json: format: expected"):
            open_detector("bright:", calibration=tmp_path / "broken.json")


class TestTool:
    @pytest.fixture
    def predict(self):
        spec = importlib.util.spec_from_file_location("predict_tool", ROOT / "tools" / "predict.py")
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        return tool.main

    def test_calibrated_scores_are_written(self, predict, file, tmp_path, capsys):
        save(tmp_path / "in/x.png", (10, 10, 20, 30))
        arguments = ["--detector", "bright:0.8", "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
        assert predict([*arguments, "--calibration", str(file), "--force"]) == 0  # a black plate is no radiograph
        assert "1 radiograph predicted, 1 with a box from score 0.666666 on" in capsys.readouterr().out
        written = read_predictions(tmp_path / "out/predictions.jsonl")
        assert written.detector == "bright, calibrated (platt)"
        assert written.images[0].detections.scores.tolist() == pytest.approx([2 / 3, 1 / 19])
        assert "0.6667" in (tmp_path / "out/predictions.csv").read_text()

    def test_a_file_that_does_not_fit_is_said_in_one_line(self, predict, file, tmp_path, capsys):
        replace(CALIBRATION, fitted_on={"detector": "dark 1234"}).save(file)
        save(tmp_path / "in/x.png")
        arguments = ["--detector", "bright:", "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
        assert predict([*arguments, "--calibration", str(file)]) == 2
        assert capsys.readouterr().err.startswith("predict: detector 'bright:': calibration")


def test_the_shipped_calibration_belongs_to_the_shipped_weights():
    raw = open_detector("shipped")
    calibrated = open_detector("shipped", calibration=SHIPPED / "calibration.json")
    assert calibrated.info.sha256 == raw.info.sha256
    assert calibrated.info.name == f"{raw.info.name}, calibrated (platt)"
    assert set(Calibration.load(SHIPPED / "calibration.json").operating_points) >= {
        "youden",
        "sensitivity",
        "specificity",
    }


class TypedDetector(BrightDetector):
    """Tells two types of a weak and a strong box."""

    def predict(self, images):
        one = Detections.from_unsorted(np.zeros((2, 4)), [0.8, 0.1], [0, 0], [[0.9, 0.1], [0.2, 0.8]])
        return [one for _ in images]


class TestTypes:
    TYPES = TypeThreshold("accuracy", 0.8, 40, 0.61, 0.83, 0.4)

    def test_types_are_named_from_the_confidence_of_the_file(self):
        detector = TypedDetector(**HASHED, type_names=("oblique", "spiral"))
        info = CalibratedDetector(detector, replace(CALIBRATION, types=self.TYPES)).info
        assert (info.type_names, info.type_confidence, info.type_accuracy) == (("oblique", "spiral"), 0.61, 0.83)

    def test_where_no_confidence_was_enough_nothing_but_certainty_is(self):
        types = TypeThreshold("accuracy", 0.8, 40, reason="at most .7")
        detector = TypedDetector(**HASHED, type_names=("oblique", "spiral"))
        info = CalibratedDetector(detector, replace(CALIBRATION, types=types)).info
        assert (info.type_confidence, info.type_accuracy) == (1.0, None)

    def test_nothing_is_stated_of_types_that_are_not_told(self):
        info = CalibratedDetector(BrightDetector(**HASHED), replace(CALIBRATION, types=self.TYPES)).info
        assert (info.type_confidence, info.type_accuracy) == (None, None)

    def test_types_of_a_radiograph_are_weighted_by_calibrated_scores(self):
        detector = TypedDetector(**HASHED, type_names=("oblique", "spiral"))
        (detections,) = CalibratedDetector(detector, CALIBRATION).predict([BRIGHT])
        # (.9 x 2/3 + .2 x 1/19) / (2/3 + 1/19)
        assert detections.image_types() == pytest.approx([0.8487805, 0.1512195], abs=1e-6)
