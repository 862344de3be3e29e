"""A detector whose scores are probabilities: any detector behind a calibration that was fitted for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.operating_points import PAPER_OPERATING_SCORE
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.inference.base import Detector
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

# Whose point makes a box a finding, for a detector that brings none of its own: the first that the calibration has, as
# in a report.
OPERATING_RULES = ("specificity", "youden")
# The one from which a box is worth a look: of the fractured validation images, one in twenty has no such box.
POSSIBLE_RULE = "sensitivity"


class CalibratedDetector:
    """A detector with calibrated box scores: P(the box hits a marked fracture).

    info: that of the detector behind it, under a name that says so, with where the calibration was fitted. Its
    operating score is the raw operating point that a report of this calibration puts first, calibrated: the detector's
    own where one was chosen (it is not the paper's .5), else the file's for an image specificity of .95, else for
    Youden's index, else .5. The same boxes are findings as at the raw one; an isotonic map may add boxes that it makes
    equal to it. Its possible score is the file's point for an image sensitivity of .95, calibrated, where it has one
    that is not higher. A detector that tells types of fracture names them from the confidence that the file states.

    Raises CalibrationError when the calibration was fitted for another detector, or has no map for boxes.
    """

    def __init__(self, raw: Detector, calibration: Calibration) -> None:
        self._raw, self._calibration = raw, calibration
        calibration.check_detector(raw.info.name, raw.info.sha256)
        if "box" in calibration.not_fitted:
            raise CalibrationError(f"it has no map for box scores: {calibration.not_fitted['box']}")
        operating = _rounded_down(float(calibration.box(_raw_operating_score(raw, calibration))))
        raw_possible = calibration.operating_points.get(POSSIBLE_RULE)
        possible = None if raw_possible is None else _rounded_down(float(calibration.box(raw_possible)))
        self.info = replace(
            raw.info,
            name=calibration.name_for(raw.info.name),
            operating_score=operating,
            possible_score=possible if possible is not None and possible <= operating else None,
            calibration=calibration,
            **_type_statements(raw, calibration),
            about={**raw.info.about, "calibrated on": calibration.fitted_on.get("data", "validation data")},
        )

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB: the same boxes in the same order."""
        return [self._calibration.apply(detections) for detections in self._raw.predict(images)]


def _type_statements(raw: Detector, calibration: Calibration) -> dict[str, Any]:
    """Return from which confidence a type is named and how often it is right, where the calibration states it."""
    types = calibration.types
    if types is None or not raw.info.type_names:
        return {}
    # Where no confidence was enough, none is: only certainty would name a type.
    confidence = 1.0 if types.confidence is None else types.confidence
    return {"type_confidence": confidence, "type_accuracy": types.accuracy}


def _raw_operating_score(raw: Detector, calibration: Calibration) -> float:
    own = raw.info.operating_score
    if own is not None and own != PAPER_OPERATING_SCORE:
        return own
    points = calibration.operating_points
    return next((points[rule] for rule in OPERATING_RULES if rule in points), PAPER_OPERATING_SCORE)


def _rounded_down(score: float) -> float:
    """Return a score with six digits that is not higher: scores are shown with six, and float32 has little more."""
    return math.floor(score * 1e6) / 1e6
