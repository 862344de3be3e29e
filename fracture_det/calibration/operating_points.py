"""Operating points: score thresholds chosen on validation data, frozen, then applied to test data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from fracture_det.data.records import Dataset, ImageRecord

# rule -> its title
RULES = {
    "given": "User-defined",
    "detector": "Detector default",
    "youden": "Youden's index",
    "sensitivity": "Sensitivity ≥ .95",
    "specificity": "Specificity ≥ .95",
    "fp target": "False-positive target",
    "paper": "Paper's threshold",
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
