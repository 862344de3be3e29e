"""Operating points: score thresholds that are chosen on validation data, frozen, and then applied to test data.

No function takes test data and gives a threshold: `choose` is reached through `validation.freeze`, which refuses
validation data that share an image or a group with the test data, and `evaluate` refuses a file that was fitted on the
test data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.image_level import Scored, images_of
from fracture_det.evaluation.matching import Matches
from fracture_det.evaluation.metrics import Floats, froc_curve

# rule -> its title
RULES = {
    "given": "Given by the caller",
    "detector": "The detector's own",
    "youden": "Youden's index",
    "sensitivity": "Image sensitivity of at least .95",
    "specificity": "Image specificity of at least .95",
    "fp target": "False positives per image",
    "paper": "The paper's",
}
# The paper calls a box a fracture from this confidence on.
PAPER_SCORE = 0.5
WANTED = 0.95


class OperatingPointError(ValueError):
    """Thresholds cannot be chosen on this data; the message names the image, the group or the value."""


@dataclass(frozen=True)
class Frozen:
    """Thresholds by rule, each on the raw score scale (0..1), and why a rule gave none."""

    scores: dict[str, float] = field(default_factory=dict)
    not_reached: dict[str, str] = field(default_factory=dict)


def check_apart(validation: Dataset, test: Dataset) -> None:
    """Raise OperatingPointError when validation and test share an image (name and size) or a group."""
    images = {(record.file_name, record.size) for record in test}
    shared = sorted(record.file_name for record in validation if (record.file_name, record.size) in images)
    if shared:
        raise OperatingPointError(
            f"validation and test share {len(shared)} images, the first is {shared[0]}: "
            "thresholds and calibration must not be chosen on the data that they are judged on"
        )
    groups = sorted({record.group_id for record in validation} & {record.group_id for record in test})
    if groups:
        raise OperatingPointError(
            f"validation and test share {len(groups)} groups, the first is {groups[0]!r}: images of one patient, or "
            "copies, on both sides make the test too easy. If these are different patients, give them different names"
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
            "these; fit it anew with --val"
        )
    known = set(fitted_on["images"].split())
    shared = [record.file_name for record in test if _digest(record) in known]
    if shared:
        raise OperatingPointError(
            f"{len(shared)} images of this data set, the first is {shared[0]}, are among those that the calibration "
            "and its thresholds were fitted on: they must not be judged on their own data"
        )


def _digest(record: ImageRecord) -> str:
    return hashlib.sha256(f"{record.file_name} {record.size}".encode()).hexdigest()[:12]


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


def _image_rules(units: Scored) -> tuple[dict[str, float], dict[str, str]]:
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
