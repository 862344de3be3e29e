"""Operating points: score thresholds chosen on validation data, frozen, then applied to test data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.wording import counted

Scores = NDArray[np.floating[Any]]
# rule -> its title; the first that there is is the main one. Specificity comes before Youden's index, which moves with
# the mixture of sources and bounds neither kind of error: one healthy image in twenty is what a reader can bear.
RULES = {
    "given": "User-defined",
    "detector": "Detector default",
    "specificity": "Specificity ≥ .95",
    "sensitivity": "Sensitivity ≥ .95",
    "youden": "Youden's index",
    "fp target": "False-positive target",
    "paper": "Paper's threshold",
}
# The confidence from which a box counts as a fracture in the paper; used for a detector without a point of its own.
PAPER_OPERATING_SCORE = 0.5
# The image sensitivity, or specificity, that the rules of these names ask for.
TARGET_RATE = 0.95


class OperatingPointError(ValueError):
    """Thresholds cannot be chosen on this data; the message names the image, the group or the value."""


@dataclass(frozen=True)
class OperatingPoints:
    """Thresholds by rule, each on the raw score scale (0..1), and by rule why there is none."""

    scores: dict[str, float] = field(default_factory=dict)
    not_reached: dict[str, str] = field(default_factory=dict)


def choose_operating_points(
    image_scores: Scores,
    fractured: NDArray[np.bool_],
    has_box: NDArray[np.bool_],
    *,
    froc_scores: Scores,
    froc_fp_per_image: Scores,
    fp_target: float = 1.0,
) -> OperatingPoints:
    """Return the thresholds that validation data give for Youden, sensitivity, specificity and false positives.

    Between two neighbouring scores that do the same, the threshold is their mean, so that it does not depend on one
    validation image.
    image_scores: (I,) the highest box score of each image. fractured, has_box: (I,) bool; an image without a box is
    never predicted fractured. froc_scores, froc_fp_per_image: (K,) the points of the FROC curve (IoU .5) from strict to
    lenient, the first with no box shown. fp_target: false positives per image that may be shown.
    """
    points = _image_rules(image_scores, fractured, has_box)
    score, reason = _fp_rule(froc_scores, froc_fp_per_image, fp_target)
    if score is None:
        points.not_reached["fp target"] = reason
    else:
        points.scores["fp target"] = score
    return points


def _image_rules(image_scores: Scores, fractured: NDArray[np.bool_], has_box: NDArray[np.bool_]) -> OperatingPoints:
    points = OperatingPoints()
    scores = np.unique(image_scores[has_box])
    missing = "fractured" if not fractured.any() else "healthy" if fractured.all() else None
    if missing or not len(scores):
        reason = f"validation has no {missing} image" if missing else "no validation image has a box"
        return OperatingPoints({}, dict.fromkeys(("youden", "sensitivity", "specificity"), reason))
    sensitivity = _share_at_least(image_scores[fractured & has_box], scores, fractured.sum())
    false_positive_rate = _share_at_least(image_scores[~fractured & has_box], scores, (~fractured).sum())
    youden = sensitivity - false_positive_rate
    # Of equal values the strictest threshold: fewer healthy images are false positives.
    points.scores["youden"] = _threshold(scores, int(np.flatnonzero(youden == youden.max())[-1]))
    if sensitivity[0] >= TARGET_RATE:
        points.scores["sensitivity"] = _threshold(scores, int(np.flatnonzero(sensitivity >= TARGET_RATE)[-1]))
    else:
        points.not_reached["sensitivity"] = (
            f"only {sensitivity[0]:.3f} of the fractured validation images have a box at all"
        )
    if 1 - false_positive_rate[-1] >= TARGET_RATE:
        strict_enough = np.flatnonzero(1 - false_positive_rate >= TARGET_RATE)
        points.scores["specificity"] = _threshold(scores, int(strict_enough[0]))
    else:
        points.not_reached["specificity"] = "on validation it is reached only by predicting no image fractured"
    return points


def _share_at_least(scores: Scores, thresholds: Scores, n: int) -> NDArray[np.float64]:
    return (len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")) / n


def _threshold(scores: Scores, index: int) -> float:
    """Return a threshold that scores[index] reaches and nothing below (ascending scores)."""
    return _between(scores[index], scores[index - 1]) if index else float(scores[0])


def _between(called: float, not_called: float) -> float:
    middle = (float(called) + float(not_called)) / 2
    return middle if np.float32(middle) > np.float32(not_called) else float(called)  # neighbours in float32


def _fp_rule(scores: Scores, fp_per_image: Scores, target: float) -> tuple[float | None, str]:
    if len(scores) < 2:
        return None, "no validation image has a box"
    index = int(np.searchsorted(fp_per_image, target + 1e-12, side="right")) - 1
    if index == 0:
        return None, f"on validation the highest scores alone are more than {target:g} false positives per image"
    last = index + 1 == len(scores)
    return float(scores[index]) if last else _between(scores[index], scores[index + 1]), ""


def check_apart(validation: Dataset, test: Dataset) -> None:
    """Raise OperatingPointError when validation and test share an image (name and size) or a group."""
    images = {(record.file_name, record.size) for record in test}
    shared = sorted(record.file_name for record in validation if (record.file_name, record.size) in images)
    if shared:
        raise OperatingPointError(
            f"validation and test share {counted(len(shared), 'image')}, the first is {shared[0]}: "
            "thresholds and calibration must not be chosen on the data that they are evaluated on"
        )
    groups = sorted({record.group_id for record in validation} & {record.group_id for record in test})
    if groups:
        raise OperatingPointError(
            f"validation and test share {counted(len(groups), 'group')}, the first is {groups[0]!r}: images of "
            "one patient, or copies, on both sides make the test too easy. If these are different patients, give them "
            "different names"
        )


def fitted_images(dataset: Dataset) -> str:
    """Return a short digest of each image's name and size: what a calibration file keeps of its images."""
    return " ".join(sorted(_digest(record) for record in dataset))


def check_fitted_apart(fitted_on: Mapping[str, str], test: Dataset) -> None:
    """Raise OperatingPointError unless thresholds and calibration were fitted on other images than those of `test`.

    fitted_on: what the calibration file says of its data; its `images` is that of `fitted_images`.
    """
    if "images" not in fitted_on:
        raise OperatingPointError(
            "the calibration does not say on which images it was fitted (fitted_on: images), so it may have been on "
            "these; fit it again with --val"
        )
    known = set(fitted_on["images"].split())
    shared = [record.file_name for record in test if _digest(record) in known]
    if shared:
        raise OperatingPointError(
            f"{counted(len(shared), 'image')} of this data set, the first is {shared[0]}, "
            f"{'is' if len(shared) == 1 else 'are'} among those that the calibration "
            "and its thresholds were fitted on: they must not be evaluated on that data"
        )


def _digest(record: ImageRecord) -> str:
    return hashlib.sha256(f"{record.file_name} {record.size}".encode()).hexdigest()[:12]
