"""A detector whose scores are probabilities: any detector behind a calibration that was fitted for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fracture_det.calibration.calibration_file import WEIGHTS, Calibration
from fracture_det.calibration.operating_points import PAPER_SCORE
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

if TYPE_CHECKING:
    from fracture_det.inference.base import Detector

# The frozen operating point that a report puts first, for a detector that brings none of its own.
RULE = "youden"
# The one below which nothing was worth a look: of the fractured validation images, one in twenty lay lower.
POSSIBLE_RULE = "sensitivity"
# Raw scores by which the image map is read off the box map; even in log odds, where both maps are smooth.
GRID = 1 / (1 + np.exp(-np.linspace(-16, 16, 4001)))


class CalibratedDetector:
    """A detector with calibrated box scores: P(the box hits a marked fracture).

    raw: the detector behind it. name: its name and the method. class_names, sha256, card, device: its own.
    about: its own, and on which data the calibration was fitted.
    operating_score: the raw operating point that a report of this calibration puts first, on the calibrated scale:
    the detector's own where one was chosen (it is not the paper's .5), else the file's for Youden's index, else .5.
    The same boxes are findings as at the raw one; an isotonic map may add boxes that it makes equal to it.
    possible_score: the file's point for an image sensitivity of .95, calibrated, where it has one that is not higher.

    Raises CalibrationError when the calibration was fitted for another detector, or has no map for boxes.
    """

    def __init__(self, raw: Detector, calibration: Calibration) -> None:
        self.raw, self.calibration = raw, calibration
        self.sha256: str | None = getattr(raw, "sha256", None)
        self.card: Path | None = getattr(raw, "card", None)
        self.device: str | None = getattr(raw, "device", None)
        calibration.check_detector(raw.name, self.sha256)
        if "box" in calibration.not_fitted:
            raise CalibrationError(f"it has no map for box scores: {calibration.not_fitted['box']}")
        self.name = calibration.name_for(raw.name)
        own = getattr(raw, "about", {} if self.sha256 is None else {WEIGHTS: self.sha256})
        self.about = {**own, "calibrated on": calibration.fitted_on.get("data", "validation data")}
        self.class_names = tuple(raw.class_names)
        self.operating_score = _rounded_down(float(calibration.box(self._raw_operating_score())))
        possible = calibration.operating_points.get(POSSIBLE_RULE)
        possible = None if possible is None else _rounded_down(float(calibration.box(possible)))
        self.possible_score = possible if possible is not None and possible <= self.operating_score else None

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB: the same boxes in the same order."""
        return [self.calibration.apply(found) for found in self.raw.predict(images)]

    def image_confidence(self, detections: Detections) -> float:
        """Return the calibrated probability (0..1) that an image with these calibrated boxes shows a fracture.

        The image map is of the highest raw score, which is found again through the box map: both only rise.
        """
        if not len(detections):
            return float(self.calibration.image(0.0))
        boxes, images = self.calibration.box(GRID), self.calibration.image(GRID)
        return float(np.interp(float(detections.scores[0]), boxes, images))

    def _raw_operating_score(self) -> float:
        own = getattr(self.raw, "operating_score", None)
        if own is not None and own != PAPER_SCORE:
            return float(own)
        return self.calibration.operating_points.get(RULE, PAPER_SCORE)


def _rounded_down(score: float) -> float:
    """Return a score with six digits that is not higher: scores are shown with six, and float32 has little more."""
    return math.floor(score * 1e6) / 1e6
