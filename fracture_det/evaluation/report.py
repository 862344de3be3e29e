"""What one evaluation found, as a Report that is saved as JSON and read back; how it is shown is decided elsewhere.

Mappings keep their order; every figure is an Estimate with what it rests on. A value that is not defined is None with
a reason in words, never NaN.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from fracture_det.structures.timing import Timing

FORMAT = "fracture_det report"
VERSION = 3
# Version 2 named the body part `site`.
EARLIER = 2
# Cells that rest on fewer than this are marked: their value says little.
SMALL_N = 30
Curve = dict[str, list[float]]


class ReportError(ValueError):
    """A report file cannot be read; the message says file, field and value."""


@dataclass(frozen=True)
class Estimate:
    """One figure with what it rests on.

    value: None where it is not defined; `reason` then says why.
    low, high: 95 % interval by bootstrap over groups, or None.
    wilson_low, wilson_high: Wilson's 95 % interval of a proportion, which takes its n as independent, or None.
    count, n: numerator and denominator, where the figure is a proportion; n alone is what it rests on.
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
        """True when it rests on fewer than 30."""
        return self.n is not None and self.n < SMALL_N


@dataclass(frozen=True)
class Froc:
    """Sensitivity (share of the truth boxes that are hit) at fixed false positives per image, and the mean of these."""

    fp_per_image: list[float]
    sensitivity: list[Estimate]
    mean: Estimate


@dataclass(frozen=True)
class PredictiveValues:
    """What a call is worth where a share `prevalence` (0..1) of the images is fractured, by Bayes' theorem."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True)
class OperatingPoint:
    """All figures at one score threshold, chosen before this data was looked at.

    rule: its name (see `operating.RULES`); origin: where the score comes from, in words.
    lesion: precision, recall, f1, fp_per_image; boxes hit by the report's first match rule.
    image, group: sensitivity, specificity, accuracy, ppv, npv (at the data's own prevalence), f1.
    predictive: at stated prevalences, image level.
    counts: boxes_tp, boxes_fp, boxes_fn, images_tp, images_fn, images_fp, images_tn, groups_tp, ....
    """

    rule: str
    score: float
    origin: str
    lesion: dict[str, Estimate]
    image: dict[str, Estimate]
    group: dict[str, Estimate]
    predictive: list[PredictiveValues]
    counts: dict[str, int]


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram: scores in low..high, n of them, their mean, and the share that came true."""

    low: float
    high: float
    n: int
    mean_score: float | None
    rate: Estimate


@dataclass(frozen=True)
class Reliability:
    """How far scores may be read as probabilities.

    of: "image" (highest box score; true: the image is fractured) or "box" (box score; true: the box hits).
    scores: "raw", or the method of the calibration that was applied.
    figures: ECE, Brier (and Brier of always saying the base rate), recall for boxes.
    """

    of: str
    scores: str
    figures: dict[str, Estimate]
    bins: list[ReliabilityBin]


@dataclass(frozen=True)
class Stratum:
    """One row of Table II's form: the images (or, for box size, the boxes) where `column` has `value`.

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
    """One of TIDE's error types: how often, and how much AP50 would rise if it alone were mended.

    low, high: the rise's 95 % interval by bootstrap over groups, or None.
    """

    count: int
    delta_ap50: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class HealthyRow:
    """False positives on healthy images of one anatomy at the first operating point; anatomy "all" is every one."""

    anatomy: str
    n_images: int
    n_boxes: int
    images_called: Estimate
    fp_per_image: Estimate


@dataclass(frozen=True)
class GalleryItem:
    """One box worth looking at. kind: "false positive", "miss" or "hit"; a miss has the truth box and no score.

    rank: from 1, the worst false positive, the largest miss or the best hit first. box: x0 y0 x1 y1 in pixels.
    """

    kind: str
    rank: int
    file_name: str
    box: list[float]
    score: float | None
    anatomy: str | None


@dataclass(frozen=True)
class Errors:
    """What goes wrong, at IoU .5. types: TIDE's six and its two special ones, by name. base_ap50: before mending."""

    base_ap50: float | None
    types: dict[str, ErrorType]
    healthy: list[HealthyRow]
    gallery: list[GalleryItem]


@dataclass(frozen=True)
class RobustnessRow:
    """AP50 and AUROC under one perturbation. strength: 1 to 5, 0 is the untouched data; setting: e.g. "quality 30"."""

    perturbation: str
    strength: int
    setting: str
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class Report:
    """Everything one evaluation found; equal inputs give an equal Report, `timing` aside.

    about: who was evaluated, on what, by which command's inputs: detector, data and SHA-256s, versions, commit.
    settings: rule (first match rule), seed, n_bootstrap, level.
    counts: images_asked, images_predicted, images_failed, images_failed_fractured, images_fractured, images_healthy;
        groups, groups_fractured; boxes_truth, boxes_predicted.
    coco: the twelve figures of COCOeval. froc: by match rule. image, group: AUROC, AUPRC.
    operating_points: the main one first. not_reached: rule -> why validation gave no score for it.
    calibration: reliability of raw and, where one was applied, calibrated scores.
    strata: every column, "anatomy" first; the row of all images has column "all".
    curves: pr (recall, precision), froc RULE (fp_per_image, sensitivity), roc (fpr, tpr), image_pr (recall, precision).
    failures: image -> error; these images are in no figure. notes: what a reader must know first, in sentences.
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

    def to_json(self) -> str:
        """Return the report as JSON text: fields in order, no NaN, the same bytes for the same content."""
        return to_json(FORMAT, VERSION, self)

    def save(self, folder: str | Path) -> Path:
        """Write report.json into `folder`, made when missing, and return its path; `publish` writes the rest too."""
        path = Path(folder) / "report.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report.json, or the one in a folder. Raises ReportError naming file, field and value."""
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        return from_json(path, cls, FORMAT, VERSION, earlier={EARLIER: _from_version_2})


def _from_version_2(content: dict[str, Any]) -> None:
    """Bring the content of a version 2 report to version 3, in place."""
    for row in (*content["errors"]["healthy"], *content["errors"]["gallery"]):
        row["anatomy"] = row.pop("site")
    for row in content["strata"]:
        row["column"] = "anatomy" if row["column"] == "site" else row["column"]


def to_json(name: str, version: int, content: Any) -> str:
    """Return a dataclass as JSON text that says its format and version first. Raises ValueError for NaN."""
    return json.dumps({"format": name, "version": version, **asdict(content)}, indent=1, allow_nan=False) + "\n"


def from_json(
    path: Path,
    kind: type,
    name: str,
    version: int,
    *,
    earlier: Mapping[int, Callable[[dict[str, Any]], None]] = MappingProxyType({}),
) -> Any:
    """Read a dataclass of `kind` from a file of `to_json`. Raises ReportError naming file, field and value.

    earlier: version -> what brings the content of such a file, in place, to `version`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
    found = (content.pop("format", None), content.pop("version", None)) if isinstance(content, dict) else (None, None)
    if found[0] != name or found[1] not in (version, *earlier):
        raise ReportError(f"{path}: expected format {name!r}, version {version}, got {found[0]!r}, {found[1]!r}")
    try:
        if found[1] in earlier:
            earlier[found[1]](content)
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ReportError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise ReportError(f"{path}: not a {name} of version {found[1]}: {error!r}") from error
