"""What is fixed on validation data before test data are seen: calibration and operating points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.fitting import fit_maps
from fracture_det.calibration.operating_points import (
    OperatingPoints,
    check_apart,
    choose_operating_points,
    fitted_images,
)
from fracture_det.calibration.score_maps import DEFAULT_METHOD
from fracture_det.calibration.type_threshold import ACCURACY, DEFAULT_ACCURACY
from fracture_det.data.predictions import Predictions, align
from fracture_det.data.records import Dataset
from fracture_det.evaluation.froc import froc_curve
from fracture_det.evaluation.image_level import images_of
from fracture_det.evaluation.matching import Matches, match_dataset, shared_records
from fracture_det.evaluation.types import answers_of, known_names, type_threshold


def choose(matches: Matches, *, fp_target: float = 1.0) -> OperatingPoints:
    """Return the operating points of validation images, matched by IoU .5; see `choose_operating_points`."""
    images, curve = images_of(matches), froc_curve(matches)
    return choose_operating_points(
        images.score,
        images.positive,
        images.has_box,
        froc_scores=curve.score,
        froc_fp_per_image=curve.fp_per_image,
        fp_target=fp_target,
    )


def fit_calibration(
    matches: Matches,
    method: str = DEFAULT_METHOD,
    *,
    fitted_on: Mapping[str, str],
    operating_points: Mapping[str, float],
    not_reached: Mapping[str, str],
) -> Calibration:
    """Return the calibration that the matches (IoU .5) of validation data give; see `fit_maps`.

    Where nothing can be fitted, scores stay as they are and `not_fitted` says why.
    Raises CalibrationError for an unknown method, or when `fitted_on` names no detector.
    """
    images = images_of(matches)
    box_map, image_map, not_fitted = fit_maps(method, (matches.score, matches.hit), (images.score, images.positive))
    return Calibration(
        method, box_map, image_map, dict(operating_points), dict(not_reached), not_fitted, dict(fitted_on)
    )


def freeze(
    validation: Dataset,
    predictions: Predictions,
    *,
    test: Dataset,
    method: str,
    fp_target: float = 1.0,
    about: Mapping[str, str] | None = None,
    type_target: tuple[str, float] = (ACCURACY, DEFAULT_ACCURACY),
) -> Calibration:
    """Return the calibration and the operating points that validation data give, to be applied to `test`.

    predictions: raw scores of the validation images; images that failed take no part.
    method: one of `calibration.METHODS`.
    fp_target: false positives per image that the rule "fp target" allows. about: kept in the file.
    type_target: rule and target of the confidence from which a type is told, see `TypeThreshold`; of a detector that
    tells types, on data that state them.

    Raises OperatingPointError when validation and test share an image or a group, PredictionsError when the
    predictions do not fit, and CalibrationError when nothing can be fitted.
    """
    check_apart(validation, test)
    aligned = align(predictions, validation)
    matches = match_dataset(validation, aligned.detections)
    points = choose(matches, fp_target=fp_target)
    fitted_on = {
        "detector": predictions.detector,
        **dict(about or {}),
        "n images": str(matches.n_images),
        "n fractured": str(int(matches.fractured.sum())),
        "images": fitted_images(validation),
    }
    calibration = fit_calibration(
        matches, method, fitted_on=fitted_on, operating_points=points.scores, not_reached=points.not_reached
    )
    if not predictions.type_names:
        return calibration
    # As served: a radiograph's types are the mean of its boxes, weighted by their calibrated scores.
    served = {key: calibration.apply(detections) for key, detections in aligned.detections.items()}
    answers = answers_of(shared_records(validation, served), served, known_names(predictions.type_names))
    rule, target = type_target
    return replace(calibration, types=type_threshold(answers, rule=rule, target=target))
