"""Detectors compared on the same images: the figures of each, and the first against every other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fracture_det.data.records import Dataset
from fracture_det.evaluation.bootstrap import LEVEL, BootstrapDifference, BootstrapResult, Floats, paired_bootstrap
from fracture_det.evaluation.coco_eval import CocoMatches, coco_matches
from fracture_det.evaluation.estimates import (
    NO_TRUTH,
    Basis,
    Statistic,
    auroc_basis,
    estimate,
    froc_statistics,
    lesion_bases,
    unit_bases,
)
from fracture_det.evaluation.image_level import UnitScores, auroc, confusion_counts, images_of
from fracture_det.evaluation.lesion_level import lesion_counts
from fracture_det.evaluation.matching import Matches, match_dataset, shared_records
from fracture_det.evaluation.report import Estimate, from_json, rounded, to_json
from fracture_det.evaluation.significance import DeLong as DeLong
from fracture_det.evaluation.significance import McNemar as McNemar
from fracture_det.evaluation.significance import delong as delong
from fracture_det.evaluation.significance import mcnemar as mcnemar
from fracture_det.evaluation.types import (
    FRACTURED,
    NO_IMAGE,
    TypeAnswers,
    TypeStatistic,
    answers_of,
    population_statistics,
)
from fracture_det.structures.detections import Detections

Test = TypeVar("Test", DeLong, McNemar)

FORMAT = "fracture_det comparison"
VERSION = 1
MATCH_RULE = "iou50"
# figure -> the statistic that it is
FROC_FIGURES = {
    **{f"FROC@{target:g}": Statistic("sensitivity", rule=MATCH_RULE, at=target) for target in (0.5, 1.0, 2.0)},
    "FROC mean": Statistic("mean sensitivity", rule=MATCH_RULE),
}
# Likewise of types of fracture, where every detector tells them: of all images of known type, so that they are the same
# ones for each; an image without an answer counts as wrong.
TYPE_FIGURES = {
    "type accuracy": TypeStatistic("accuracy", FRACTURED),
    "type macro F1": TypeStatistic("macro_f1", FRACTURED),
}
NO_FRACTURED, NO_HEALTHY = "no fractured image", "no healthy image"


class ComparisonError(ValueError):
    """Detectors cannot be compared; the message names the detector and the image or the value."""


@dataclass(frozen=True)
class Difference:
    """One figure of the first detector minus that of the other, on the same images.

    low, high: 95 % confidence interval by paired bootstrap over groups. p: two-sided, see
    `bootstrap.BootstrapDifference`. undefined: resamples in which it was not defined. value None: not defined;
    `reason` then says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    undefined: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class ComparedDetector:
    """One detector. score: its operating score, 0..1. failed: number of images without a prediction."""

    name: str
    score: float
    failed: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class PairwiseComparison:
    """The first detector against another one.

    differences: by figure, first minus other. sensitivity, specificity: McNemar's tests of which fractured and which
    healthy images are classified correctly. auroc: DeLong's test. The three tests assume independent images.
    """

    first: str
    other: str
    differences: dict[str, Difference]
    sensitivity: McNemar
    specificity: McNemar
    auroc: DeLong


@dataclass(frozen=True)
class Comparison:
    """Detectors on the same images; equal inputs give an equal Comparison.

    about: the data with its SHA-256 and versions, see `provenance`. settings: match_rule, level, n_bootstrap, seed.
    counts: images_asked, images_compared, images_left_out, images_left_out_fractured, images_fractured,
        images_healthy, groups, boxes_truth.
    detectors: in the order given. pairs: the first against each other.
    left_out: image -> the detectors that failed on it; it is in no figure. notes: limitations that a reader must know.
    """

    about: dict[str, str]
    settings: dict[str, Any]
    counts: dict[str, int]
    detectors: list[ComparedDetector]
    pairs: list[PairwiseComparison]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the comparison as JSON text; see `report.to_json`."""
        return to_json(FORMAT, VERSION, self)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a comparison.json, or the one in a folder. Raises ReportError naming file, field and value."""
        path = Path(path)
        return from_json(path / "comparison.json" if path.is_dir() else path, cls, FORMAT, VERSION)


@dataclass(frozen=True, eq=False)
class _MatchedDetector:
    """One detector's predictions, matched once to the truth."""

    score: float
    matches: Matches
    coco: CocoMatches
    images: UnitScores
    answers: TypeAnswers | None

    def statistics(self, weights: Floats) -> dict[str, float]:
        coco = self.coco.figures(weights)
        froc = froc_statistics(MATCH_RULE, self.matches, weights)
        lesions = lesion_counts(self.matches, self.score, weights)
        images = confusion_counts(self.images, self.score, weights)
        return {
            "AP": coco["AP"],
            "AP50": coco["AP50"],
            "AUROC": auroc(self.images.score, self.images.positive, weights),
            **{name: froc[statistic] for name, statistic in FROC_FIGURES.items()},
            "precision": lesions.precision,
            "recall": lesions.recall,
            "sensitivity": images.sensitivity,
            "specificity": images.specificity,
            **self._types(weights),
        }

    def _types(self, weights: Floats) -> dict[str, float]:
        if self.answers is None:
            return {}
        values = population_statistics(self.answers, weights[self.answers.image])
        return {name: values[statistic] for name, statistic in TYPE_FIGURES.items()}

    def bases(self) -> dict[str, Basis]:
        """Return what each figure rests on; the others rest on the truth boxes."""
        bases = {
            **lesion_bases(lesion_counts(self.matches, self.score), self.score),
            **unit_bases(confusion_counts(self.images, self.score), "image"),
            "AUROC": auroc_basis(self.images, "image"),
        }
        if self.answers is None:
            return bases
        n, right = len(self.answers.truth), int(self.answers.right.sum())
        return {**bases, "type accuracy": Basis(n, NO_IMAGE, right), "type macro F1": Basis(n, NO_IMAGE)}

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(I,) True where the image is predicted fractured."""
        return self.images.predicted(self.score)


def compare(
    dataset: Dataset,
    detections: Mapping[str, Mapping[int, Detections]],
    scores: Mapping[str, float],
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
    about: Mapping[str, str] | None = None,
    progress: bool = False,
    type_names: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Compare detectors on the images that all of them predicted.

    detections: name -> image id -> Detections, two detectors or more, the first of which is set against each other.
    An image of `dataset` that one of them lacks failed: it is left out for all of them, and counted.
    scores: name -> operating score, 0..1, chosen beforehand, never on this data. about: kept in the comparison.
    type_names: name -> what the columns of `Detections.types` are; types are compared where every detector tells them.

    Raises ComparisonError for fewer than two detectors, a missing or impossible score, and images that are not in
    `dataset`.
    """
    _check(dataset, detections, scores)
    silent = [name for name in detections if not (type_names or {}).get(name)]
    told: Mapping[str, Sequence[str]] = {} if silent else type_names or {}
    shared = set.intersection(*(set(by_image) for by_image in detections.values()))
    matched = {
        name: _match(
            dataset, {image_id: by_image[image_id] for image_id in shared}, float(scores[name]), told.get(name)
        )
        for name, by_image in detections.items()
    }
    first = next(iter(matched))
    resampled = paired_bootstrap(
        {name: detector.statistics for name, detector in matched.items()},
        matched[first].matches.group,
        n_bootstrap=n_bootstrap,
        seed=seed,
        progress="bootstrap" if progress else None,
    )
    compared = {
        name: ComparedDetector(
            name, detector.score, len(dataset) - len(detections[name]), _figures(detector, resampled.results[name])
        )
        for name, detector in matched.items()
    }
    comparison = Comparison(
        about=dict(about or {}),
        settings={"match_rule": MATCH_RULE, "level": LEVEL, "n_bootstrap": n_bootstrap, "seed": seed},
        counts=_counts(dataset, shared, matched[first].matches),
        detectors=list(compared.values()),
        pairs=[
            PairwiseComparison(
                first,
                other,
                {
                    name: _difference(difference, compared[first], compared[other], name)
                    for name, difference in differences.items()
                },
                *_tests(matched[first], matched[other]),
            )
            for other, differences in resampled.differences.items()
        ],
        left_out={
            record.file_name: [name for name, by_image in detections.items() if record.image_id not in by_image]
            for record in dataset
            if record.image_id not in shared
        },
    )
    notes = list(_notes(comparison))
    if silent and len(silent) < len(detections):
        notes.append(f"Types of fracture are not compared: {', '.join(silent)} tells none.")
    elif told and matched[first].answers is None:
        notes.append("Types of fracture are not compared: no image has one known type.")
    return dataclasses.replace(comparison, notes=notes)


def _check(dataset: Dataset, detections: Mapping[str, Mapping[int, Detections]], scores: Mapping[str, float]) -> None:
    if len(detections) < 2:
        raise ComparisonError(f"expected two detectors or more, got {len(detections)}: {', '.join(detections)}")
    known = {record.image_id for record in dataset}
    for name, by_image in detections.items():
        if name not in scores:
            raise ComparisonError(f"{name}: no operating score")
        if not 0 <= scores[name] <= 1:
            raise ComparisonError(f"{name}: operating score: expected 0..1, got {scores[name]}")
        unknown = set(by_image) - known
        if unknown:
            raise ComparisonError(f"{name}: image id {min(unknown)} is predicted, but not in the data set")


def _match(
    dataset: Dataset, detections: Mapping[int, Detections], score: float, type_names: Sequence[str] | None
) -> _MatchedDetector:
    matches = match_dataset(dataset, detections, rule=MATCH_RULE)
    answers = None
    if type_names is not None:
        answers = answers_of(shared_records(dataset, detections), detections, type_names)
        answers = answers if len(answers.truth) else None
    return _MatchedDetector(score, matches, coco_matches(dataset, detections), images_of(matches), answers)


def _counts(dataset: Dataset, shared: set[int], matches: Matches) -> dict[str, int]:
    left_out = [record for record in dataset if record.image_id not in shared]
    n_fractured = int(matches.fractured.sum())
    return {
        "images_asked": len(dataset),
        "images_compared": matches.n_images,
        "images_left_out": len(left_out),
        "images_left_out_fractured": sum(record.fractured for record in left_out),
        "images_fractured": n_fractured,
        "images_healthy": matches.n_images - n_fractured,
        "groups": matches.n_groups,
        "boxes_truth": matches.n_truth,
    }


def _figures(detector: _MatchedDetector, results: Mapping[str, BootstrapResult]) -> dict[str, Estimate]:
    bases, truth = detector.bases(), Basis(detector.matches.n_truth, NO_TRUTH)
    return {name: estimate(result, bases.get(name, truth)) for name, result in results.items()}


def _difference(
    difference: BootstrapDifference, first: ComparedDetector, other: ComparedDetector, name: str
) -> Difference:
    value = rounded(difference.value)
    if value is not None:
        low, high = rounded(difference.low), rounded(difference.high)
        p = rounded(difference.p, significant=True)
        return Difference(value, low, high, p, difference.undefined)
    reasons = {
        detector.name: reason for detector in (first, other) if (reason := detector.figures[name].reason) is not None
    }
    same = len(reasons) == 2 and len(set(reasons.values())) == 1
    reason = reasons[first.name] if same else "; ".join(f"{detector}: {text}" for detector, text in reasons.items())
    return Difference(None, undefined=difference.undefined, reason=reason)


def _tests(first: _MatchedDetector, other: _MatchedDetector) -> tuple[McNemar, McNemar, DeLong]:
    """Return McNemar's test of sensitivity and of specificity, and DeLong's of AUROC."""
    positive = first.images.positive
    sensitivity = mcnemar(first.predicted[positive], other.predicted[positive])
    specificity = mcnemar(~first.predicted[~positive], ~other.predicted[~positive])
    if not positive.any():
        sensitivity = dataclasses.replace(sensitivity, reason=NO_FRACTURED)
    if positive.all():
        specificity = dataclasses.replace(specificity, reason=NO_HEALTHY)
    auroc_test = delong(first.images.score, other.images.score, positive)
    return _rounded(sensitivity), _rounded(specificity), _rounded(auroc_test)


def _rounded(test: Test) -> Test:
    values = {name: value for name, value in dataclasses.asdict(test).items() if isinstance(value, float)}
    changes: dict[str, Any] = {name: rounded(value, significant=name == "p") for name, value in values.items()}
    return dataclasses.replace(test, **changes)


def _notes(comparison: Comparison) -> Iterator[str]:
    counts, resamples = comparison.counts, comparison.settings["n_bootstrap"]
    if counts["images_left_out"]:
        failures = {detector.name: detector.failed for detector in comparison.detectors if detector.failed}
        failed = ", ".join(f"{n} by {name}" for name, n in failures.items())
        yield (
            f"{counts['images_left_out']} of {counts['images_asked']} images are left out, "
            f"{counts['images_left_out_fractured']} of them fractured, because not every detector predicted them "
            f"(failed: {failed}). They are excluded from every figure and are not counted as healthy."
        )
    if counts["groups"] < 2 or resamples < 1:
        reason = f"it needs at least 2 groups, got {counts['groups']}" if resamples > 0 else "no resamples were drawn"
        yield f"No bootstrap confidence intervals: {reason}."
    if counts["groups"] < counts["images_compared"]:
        yield (
            f"The {counts['images_compared']} images come from {counts['groups']} groups. McNemar's and DeLong's tests "
            "assume independent images, so their p values may be too small; the bootstrap resamples whole groups."
        )
    elif counts["groups"] > 1:
        yield "Every image is its own group: all intervals and tests assume independent images."
    undefined, most = max(
        (difference.undefined, f"{name}, {pair.first} minus {pair.other}")
        for pair in comparison.pairs
        for name, difference in pair.differences.items()
    )
    if undefined:
        yield (
            f"Some differences were not defined in some resamples, which their intervals leave out; most often {most}, "
            f"in {undefined} of {resamples}."
        )
    n_tests = sum(p is not None for pair in comparison.pairs for p in _p_values(pair))
    if n_tests > 1:
        yield (
            f"{n_tests} p values are reported without adjustment for multiple testing: where nothing differs, one in "
            "twenty is below .05 by chance."
        )


def _p_values(pair: PairwiseComparison) -> list[float | None]:
    differences = [difference.p for difference in pair.differences.values()]
    return [*differences, pair.sensitivity.p, pair.specificity.p, pair.auroc.p]
