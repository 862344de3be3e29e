"""What is fixed on validation data before test data are seen: calibration and operating points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fracture_det.calibration.calibration_file import Calibration
from fracture_det.calibration.operating_points import WANTED, Frozen, check_apart, fitted_images
from fracture_det.data.predictions import Predictions, align
from fracture_det.data.records import Dataset
from fracture_det.evaluation.froc import froc_curve
from fracture_det.evaluation.image_level import UnitScores, images_of
from fracture_det.evaluation.lesion_level import Floats
from fracture_det.evaluation.matching import Matches, match_dataset
from fracture_det.evaluation.reliability import fit_calibration


def choose(matches: Matches, *, fp_target: float = 1.0) -> Frozen:
    """Return the thresholds that validation data give for Youden, sensitivity, specificity and false positives.

    Image-level rules look at each image's highest box score. Between two neighbouring scores that do the same, the
    threshold is their mean, so that it does not cling to one validation image.
    matches: of validation images, by IoU .5. fp_target: false positive boxes per image (IoU .5) that may be shown.
    """
    chosen, not_reached = _image_rules(images_of(matches))
    score, reason = _fp_rule(matches, fp_target)
    if score is None:
        not_reached["fp target"] = reason
    else:
        chosen["fp target"] = score
    return Frozen(chosen, not_reached)


def _image_rules(units: UnitScores) -> tuple[dict[str, float], dict[str, str]]:
    scores = np.unique(units.score[units.has_box])
    missing = "fractured" if not units.positive.any() else "healthy" if units.positive.all() else None
    if missing or not len(scores):
        reason = f"validation has no {missing} image" if missing else "no validation image has a box"
        return {}, dict.fromkeys(("youden", "sensitivity", "specificity"), reason)
    sensitivity = _share_at_least(units.score[units.positive & units.has_box], scores, units.positive.sum())
    called = _share_at_least(units.score[~units.positive & units.has_box], scores, (~units.positive).sum())
    chosen, not_reached = {}, {}
    youden = sensitivity - called
    # Of equal values the strictest threshold: it calls fewer healthy images.
    chosen["youden"] = _threshold(scores, int(np.flatnonzero(youden == youden.max())[-1]))
    if sensitivity[0] >= WANTED:
        chosen["sensitivity"] = _threshold(scores, int(np.flatnonzero(sensitivity >= WANTED)[-1]))
    else:
        not_reached["sensitivity"] = f"only {sensitivity[0]:.3f} of the fractured validation images have a box at all"
    if 1 - called[-1] >= WANTED:
        chosen["specificity"] = _threshold(scores, int(np.flatnonzero(1 - called >= WANTED)[0]))
    else:
        not_reached["specificity"] = "on validation it is reached only by calling no image"
    return chosen, not_reached


def _share_at_least(scores: np.ndarray, thresholds: np.ndarray, n: int) -> Floats:
    return (len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")) / n


def _threshold(scores: np.ndarray, index: int) -> float:
    """Return a threshold that calls scores[index] and nothing below (ascending scores)."""
    return _between(scores[index], scores[index - 1]) if index else float(scores[0])


def _between(called: float, not_called: float) -> float:
    middle = (float(called) + float(not_called)) / 2
    return middle if np.float32(middle) > np.float32(not_called) else float(called)  # neighbours in float32


def _fp_rule(matches: Matches, target: float) -> tuple[float | None, str]:
    if not len(matches.score):
        return None, "no validation image has a box"
    curve = froc_curve(matches)
    index = int(np.searchsorted(curve.fp_per_image, target + 1e-12, side="right")) - 1
    if index == 0:
        return None, f"on validation the surest boxes alone are more than {target:g} false positives per image"
    last = index + 1 == len(curve.score)
    return float(curve.score[index]) if last else _between(curve.score[index], curve.score[index + 1]), ""


def freeze(
    validation: Dataset,
    predictions: Predictions,
    *,
    test: Dataset,
    method: str,
    fp_target: float = 1.0,
    about: Mapping[str, str] | None = None,
) -> Calibration:
    """Return the calibration and the operating points that validation data give, to be applied to `test`.

    predictions: raw scores of the validation images; images that failed take no part.
    method: one of `calibration.METHODS`.
    fp_target: false positives per image that the rule "fp target" allows. about: kept in the file.

    Raises OperatingPointError when validation and test share an image or a group, PredictionsError when the
    predictions do not fit, and CalibrationError when nothing can be fitted.
    """
    check_apart(validation, test)
    aligned = align(predictions, validation)
    matches = match_dataset(validation, aligned.detections)
    frozen = choose(matches, fp_target=fp_target)
    fitted_on = {
        "detector": predictions.detector,
        **dict(about or {}),
        "n images": str(matches.n_images),
        "n fractured": str(int(matches.fractured.sum())),
        "images": fitted_images(validation),
    }
    return fit_calibration(
        matches, method, fitted_on=fitted_on, operating_points=frozen.scores, not_reached=frozen.not_reached
    )
