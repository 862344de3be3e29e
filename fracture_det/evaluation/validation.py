"""What may be chosen on data: calibration and operating points, on validation data only, frozen in one file."""

from __future__ import annotations

from collections.abc import Mapping

from fracture_det.calibration import Calibration
from fracture_det.data.records import Dataset
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.operating import check_apart, choose, fitted_images
from fracture_det.evaluation.reliability import fit_calibration
from fracture_det.predictions import Predictions, align


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
