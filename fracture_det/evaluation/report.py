"""The results of one evaluation: a Report, saved as JSON and read back; `fracture_det.reporting` presents it.

Mappings keep their order; every figure is an Estimate with its sample size. An undefined value is None with a reason in
words, never NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from fracture_det.structures.timing import Timing

FORMAT = "fracture_det report"
VERSION = 4
# Figures with a smaller sample than this are marked: they are examples rather than rates.
SMALL_N = 30
# Figures are written with so many decimals, so that the last bits of one machine do not show.
DECIMALS = 10
# GalleryItem.kind
FALSE_POSITIVE, MISS, HIT = "false positive", "miss", "hit"
# Reliability.of and Reliability.scores; other scores are named by the method of their calibration.
IMAGE, BOX, ANSWER, RAW = "image", "box", "answer", "raw"
# Stratum.column and HealthyRow.anatomy: the row of all images, and the column of the body part.
ALL, ANATOMY = "all", "anatomy"
# Where an old report's OperatingPoint.origin holds what is `chosen_on` now.
_CHOSEN_ON = "chosen on "
Curve = dict[str, list[float]]
Content = TypeVar("Content")


class ReportError(ValueError):
    """A report file cannot be read; the message says file, field and value."""


@dataclass(frozen=True)
class Estimate:
    """One figure with its interval and its sample size.

    value: None where it is not defined; `reason` then says why.
    low, high: 95 % confidence interval by bootstrap over groups, or None.
    wilson_low, wilson_high: Wilson's 95 % interval of a proportion, which assumes n independent cases, or None.
    count, n: numerator and denominator of a proportion; of any other figure n alone, its sample size.
    undefined: resamples in which the figure was not defined; they are left out of the interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    wilson_low: float | None = None
    wilson_high: float | None = None
    count: int | None = None
    n: int | None = None
    undefined: int = 0
    reason: str | None = None

    @property
    def small(self) -> bool:
        """True when its sample is smaller than SMALL_N."""
        return self.n is not None and self.n < SMALL_N


@dataclass(frozen=True)
class Froc:
    """Sensitivity (recall of truth boxes) at fixed false positives per image, and the mean of these."""

    fp_per_image: list[float]
    sensitivity: list[Estimate]
    mean: Estimate


@dataclass(frozen=True)
class PredictiveValues:
    """PPV and NPV of images at a stated `prevalence` (0..1) of fracture, by Bayes' theorem."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True)
class PointCounts:
    """True and false positives, false and true negatives of boxes, images and groups at one operating point."""

    boxes_tp: int
    boxes_fp: int
    boxes_fn: int
    images_tp: int
    images_fn: int
    images_fp: int
    images_tn: int
    groups_tp: int
    groups_fn: int
    groups_fp: int
    groups_tn: int


@dataclass(frozen=True)
class OperatingPoint:
    """All figures at one score threshold, fixed before this data set was evaluated.

    rule: its name, see `calibration.operating_points.RULES`. origin: where the score comes from, in words.
    lesion: precision, recall, f1, fp_per_image; boxes matched by the report's main match rule.
    image, group: sensitivity, specificity, accuracy, ppv, npv (at the prevalence of this data), f1.
    predictive: image level, at stated prevalences.
    chosen_on: the validation data that gave the score; None where it was fixed otherwise.
    """

    rule: str
    score: float
    origin: str
    lesion: dict[str, Estimate]
    image: dict[str, Estimate]
    group: dict[str, Estimate]
    predictive: list[PredictiveValues]
    counts: PointCounts
    chosen_on: str | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: n scores in low..high, their mean, and the observed frequency (`rate`)."""

    low: float
    high: float
    n: int
    mean_score: float | None
    rate: Estimate


@dataclass(frozen=True)
class Reliability:
    """Whether scores can be read as probabilities.

    of: IMAGE (highest box score; the event: the image is fractured), BOX (... it hits), ANSWER (a type; it is right).
    scores: RAW, or the method of the calibration that was applied.
    figures: ECE, Brier score (and that of always predicting the base rate), recall of boxes.
    """

    of: str
    scores: str
    figures: dict[str, Estimate]
    bins: list[ReliabilityBin]


@dataclass(frozen=True)
class Stratum:
    """One subgroup: the images (or, for box size, the boxes) where `column` has `value`; the paper's Table II.

    figures: AP50, precision, recall (boxes), sensitivity, specificity, AUROC (images).
    """

    column: str
    value: str
    n_images: int
    n_fractured: int
    n_boxes: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class ErrorType:
    """One of TIDE's error types: its number, and the AP50 gained if it alone were corrected.

    low, high: 95 % interval of the gain by bootstrap over groups, or None.
    """

    count: int
    delta_ap50: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class HealthyRow:
    """False positives on healthy images of one body part at the main operating point; anatomy ALL is all of them.

    false_positive_rate: share of the images that are predicted fractured.
    """

    anatomy: str
    n_images: int
    n_boxes: int
    false_positive_rate: Estimate
    fp_per_image: Estimate


@dataclass(frozen=True)
class GalleryItem:
    """One example box. kind: FALSE_POSITIVE, MISS (a false negative: the truth box, without a score) or HIT.

    rank: from 1; false positives and hits by descending score, misses by descending size. box: x0 y0 x1 y1 in pixels.
    """

    kind: str
    rank: int
    file_name: str
    box: list[float]
    score: float | None
    anatomy: str | None


@dataclass(frozen=True)
class Errors:
    """Error analysis at IoU .5. types: TIDE's six and its two special ones, by name. base_ap50: AP50 as measured."""

    base_ap50: float | None
    types: dict[str, ErrorType]
    healthy: list[HealthyRow]
    gallery: list[GalleryItem]


@dataclass(frozen=True)
class AboveChance:
    """A figure of the detector, that of always giving the most frequent type, and the first minus the second."""

    detector: Estimate
    chance: Estimate
    difference: Estimate


@dataclass(frozen=True)
class TypeRow:
    """One type. n: images of it. figures: of the answers. boxes: AP50 and so on, where truth boxes have types."""

    name: str
    n: int
    figures: dict[str, Estimate]
    boxes: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfidenceRow:
    """Answers of a confidence or more: their share of all images, how many are right; origin: "" or what froze it."""

    confidence: float
    origin: str
    coverage: Estimate
    accuracy: Estimate


@dataclass(frozen=True)
class Types:
    """Types of fracture, on fractured images whose true type is known: the most probable type is the answer.

    names: rows of `confusion`, whose columns are these and no answer; cells are shares of the row. answered, fractured:
    of images with an answer; of all. curve: from the surest answer on. not_reached: why no confidence is frozen.
    """

    names: list[str]
    confusion: list[list[Estimate]]
    answered: dict[str, AboveChance]
    fractured: dict[str, AboveChance]
    rows: list[TypeRow]
    reliability: Reliability
    above: list[ConfidenceRow]
    curve: Curve
    not_reached: str | None = None


@dataclass(frozen=True)
class RobustnessRow:
    """AP50 and AUROC under one perturbation. strength: 1 to 5, 0 for the original; setting: e.g. "quality 30"."""

    perturbation: str
    strength: int
    setting: str
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class Report:
    """All results of one evaluation; equal inputs give an equal Report, `timing` aside.

    about: the detector, the data and other input files with their SHA-256 (see `provenance`), versions, commit.
    settings: match_rule (the main one), level, n_bootstrap, seed.
    counts: images_asked, images_predicted, images_failed, images_failed_fractured, images_fractured, images_healthy;
        groups, groups_fractured; boxes_truth, boxes_predicted.
    coco: the twelve figures of COCOeval. froc: by match rule. image, group: AUROC, AUPRC.
    operating_points: the main one first. not_reached: rule -> why validation gave no score for it.
    calibration: reliability of raw and, where one was applied, calibrated scores.
    strata: the row of all images (column ALL), then every column, ANATOMY first.
    curves: pr and image_pr (recall, precision), roc (fpr, tpr); of each match rule `froc_curve_name` (fp_per_image,
        sensitivity).
    failures: image -> error; no figure includes these images. notes: limitations that a reader must know, in sentences.
    types: None of a detector that tells none, or without an image whose type is known; the file then lacks it.
    """

    about: dict[str, str]
    settings: dict[str, Any]
    counts: dict[str, int]
    coco: dict[str, Estimate]
    froc: dict[str, Froc]
    image: dict[str, Estimate]
    group: dict[str, Estimate]
    operating_points: list[OperatingPoint]
    not_reached: dict[str, str]
    calibration: list[Reliability]
    strata: list[Stratum]
    errors: Errors
    curves: dict[str, Curve]
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    robustness: list[RobustnessRow] = field(default_factory=list)
    timing: Timing | None = None
    types: Types | None = None

    def to_json(self) -> str:
        """Return the report as JSON text: fields in order, no NaN, the same bytes for the same content."""
        return to_json(FORMAT, VERSION, self)

    def save(self, folder: str | Path) -> Path:
        """Write report.json into `folder`, made when missing, and return its path."""
        path = Path(folder) / "report.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report.json, or the one in a folder. Raises ReportError naming file, field and value."""
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        return from_json(path, cls, FORMAT, VERSION, earlier={2: _from_version_2, 3: _from_version_3})


def _from_version_2(content: dict[str, Any]) -> None:
    """Bring the content of a version 2 report, which calls the body part `site`, to the present version, in place."""
    for row in (*content["errors"]["healthy"], *content["errors"]["gallery"]):
        row["anatomy"] = row.pop("site")
    for row in content["strata"]:
        row["column"] = ANATOMY if row["column"] == "site" else row["column"]
    _from_version_3(content)


def _from_version_3(content: dict[str, Any]) -> None:
    """Bring the content of a version 3 report to the present version, in place."""
    for row in content["errors"]["healthy"]:
        row["false_positive_rate"] = row.pop("images_called")
    for point in content["operating_points"]:
        origin = point["origin"]
        point["chosen_on"] = origin.removeprefix(_CHOSEN_ON) if origin.startswith(_CHOSEN_ON) else None


def froc_curve_name(rule: str) -> str:
    """Return the name in Report.curves of the free-response curve by a match rule."""
    return f"froc {rule}"


def rounded(value: float | None, *, significant: bool = False) -> float | None:
    """Return a figure as files keep it: to DECIMALS, without a minus before zero; None for NaN.

    significant: to so many significant digits instead, for p values, however small.
    """
    if value is None or math.isnan(value):
        return None
    return float(f"{value:.{DECIMALS}g}") if significant else round(float(value), DECIMALS) + 0.0


def to_json(name: str, version: int, content: Any) -> str:
    """Return a dataclass as JSON text that says its format and version first. Raises ValueError for NaN."""
    values = {key: value for key, value in asdict(content).items() if key != "types" or value is not None}
    return json.dumps({"format": name, "version": version, **values}, indent=1, allow_nan=False) + "\n"


def from_json(
    path: Path,
    kind: type[Content],
    name: str,
    version: int,
    *,
    earlier: Mapping[int, Callable[[dict[str, Any]], None]] = MappingProxyType({}),
) -> Content:
    """Read a dataclass of `kind` from a file of `to_json`. Raises ReportError naming file, field and value.

    earlier: version -> function that brings the content of such a file, in place, to `version`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
    fields = content if isinstance(content, dict) else {}
    its_name, its_version = fields.pop("format", None), fields.pop("version", None)
    if its_name != name or its_version not in (version, *earlier):
        raise ReportError(f"{path}: expected format {name!r}, version {version}, got {its_name!r}, {its_version!r}")
    try:
        if its_version in earlier:
            earlier[its_version](fields)
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise ReportError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise ReportError(f"{path}: not a {name} of version {its_version}: {error!r}") from error
