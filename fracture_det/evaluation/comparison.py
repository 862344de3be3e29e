"""Detectors side by side on the same images: the figures of each, and the first against every other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fracture_det.data.records import Dataset
from fracture_det.evaluation.bootstrap import LEVEL, Floats, Measured, MeasuredDifference, measure_paired
from fracture_det.evaluation.coco_eval import CocoMatches, coco_matches
from fracture_det.evaluation.estimates import NO_TRUTH, estimate, froc_statistics
from fracture_det.evaluation.image_level import Scored, auroc, call_counts, images_of
from fracture_det.evaluation.lesion_level import lesion_counts
from fracture_det.evaluation.matching import Matches, match_dataset
from fracture_det.evaluation.report import Estimate, from_json, to_json
from fracture_det.evaluation.significance import DeLong as DeLong
from fracture_det.evaluation.significance import McNemar as McNemar
from fracture_det.evaluation.significance import delong as delong
from fracture_det.evaluation.significance import mcnemar as mcnemar
from fracture_det.structures.detections import Detections

Record = TypeVar("Record", DeLong, McNemar)

FORMAT = "fracture_det comparison"
VERSION = 1
MATCH_RULE = "iou50"
FROC_FIGURES = {"FROC@0.5": f"{MATCH_RULE}@0.5", "FROC@1": f"{MATCH_RULE}@1", "FROC@2": f"{MATCH_RULE}@2",
                "FROC mean": f"{MATCH_RULE} mean"}  # fmt: skip
NO_FRACTURED, NO_HEALTHY = "no fractured image", "no healthy image"


class ComparisonError(ValueError):
    """Detectors cannot be compared; the message names the detector and the image or the value."""


@dataclass(frozen=True)
class Difference:
    """One figure of the first detector minus that of the other, on the same images.

    low, high: 95 % interval by paired bootstrap over groups. p: two-sided, see `bootstrap.MeasuredDifference`.
    undefined: resamples in which it was not defined. value None: not defined; `reason` then says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    undefined: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Compared:
    """One detector. score: its operating score, 0..1. failed: images that it gave no prediction for."""

    name: str
    score: float
    failed: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class Pair:
    """The first detector against another one.

    differences: by figure, first minus other. sensitivity: who calls the fractured images; specificity: who does not
    call the healthy ones. auroc: DeLong. The last three take images as independent.
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

    about: stated by the caller. settings: match_rule, level, n_bootstrap, seed.
    counts: images_asked, images_compared, images_left_out, images_left_out_fractured, images_fractured,
        images_healthy, groups, boxes_truth.
    detectors: in the order given. pairs: the first against each other.
    left_out: image -> the detectors that failed on it; it is in no figure. notes: what a reader must know first.
    """

    about: dict[str, str]
    settings: dict[str, Any]
    counts: dict[str, int]
    detectors: list[Compared]
    pairs: list[Pair]
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
class _Entry:
    """One detector's results, matched once."""

    score: float
    matches: Matches
    coco: CocoMatches
    images: Scored

    def statistics(self, weights: Floats) -> dict[str, float]:
        coco = self.coco.figures(weights)
        froc = froc_statistics(MATCH_RULE, self.matches, weights)
        lesions = lesion_counts(self.matches, self.score, weights)
        calls = call_counts(self.images, self.score, weights)
        return {
            "AP": coco["AP"],
            "AP50": coco["AP50"],
            "AUROC": auroc(self.images.score, self.images.positive, weights),
            **{name: froc[key] for name, key in FROC_FIGURES.items()},
            "precision": lesions.precision,
            "recall": lesions.recall,
            "sensitivity": calls.sensitivity,
            "specificity": calls.specificity,
        }

    @property
    def called(self) -> NDArray[np.bool_]:
        """(I,) True where the image is called fractured."""
        return (self.images.score >= np.float32(self.score)) & self.images.has_box


def compare(
    dataset: Dataset,
    detections: Mapping[str, Mapping[int, Detections]],
    scores: Mapping[str, float],
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
    about: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Comparison:
    """Compare detectors on the images that all of them predicted.

    detections: name -> image id -> Detections, two detectors or more, the first of which is set against each other.
    An image of `dataset` that one of them lacks failed: it is left out for all, and counted.
    scores: name -> operating score, 0..1, chosen beforehand, never on this data. about: kept in the comparison.

    Raises ComparisonError for fewer than two detectors, a missing or impossible score, and images that are not in
    `dataset`.
    """
    _check(dataset, detections, scores)
    shared = set.intersection(*(set(one) for one in detections.values()))
    entries = {
        name: _entry(dataset, {image_id: found[image_id] for image_id in shared}, float(scores[name]))
        for name, found in detections.items()
    }
    first = next(iter(entries))
    measured = measure_paired(
        {name: entry.statistics for name, entry in entries.items()},
        entries[first].matches.group,
        n_bootstrap=n_bootstrap,
        seed=seed,
        progress="bootstrap" if progress else None,
    )
    compared = {
        name: Compared(name, entry.score, len(dataset) - len(detections[name]), _figures(entry, measured.each[name]))
        for name, entry in entries.items()
    }
    comparison = Comparison(
        about=dict(about or {}),
        settings={"match_rule": MATCH_RULE, "level": LEVEL, "n_bootstrap": n_bootstrap, "seed": seed},
        counts=_counts(dataset, shared, entries[first].matches),
        detectors=list(compared.values()),
        pairs=[
            Pair(
                first,
                other,
                {name: _difference(one, compared[first], compared[other], name) for name, one in differences.items()},
                *_tests(entries[first], entries[other]),
            )
            for other, differences in measured.differences.items()
        ],
        left_out={
            record.file_name: [name for name, one in detections.items() if record.image_id not in one]
            for record in dataset
            if record.image_id not in shared
        },
    )
    return dataclasses.replace(comparison, notes=list(_notes(comparison)))


def _check(dataset: Dataset, detections: Mapping[str, Mapping[int, Detections]], scores: Mapping[str, float]) -> None:
    if len(detections) < 2:
        raise ComparisonError(f"expected two detectors or more, got {len(detections)}: {', '.join(detections)}")
    known = {record.image_id for record in dataset}
    for name, found in detections.items():
        if name not in scores:
            raise ComparisonError(f"{name}: no operating score")
        if not 0 <= scores[name] <= 1:
            raise ComparisonError(f"{name}: operating score: expected 0..1, got {scores[name]}")
        if not known.issuperset(found):
            raise ComparisonError(f"{name}: image id {min(set(found) - known)} is predicted, but not in the data set")


def _entry(dataset: Dataset, found: Mapping[int, Detections], score: float) -> _Entry:
    matches = match_dataset(dataset, found, rule=MATCH_RULE)
    return _Entry(score, matches, coco_matches(dataset, found), images_of(matches))


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


def _figures(entry: _Entry, measured: Mapping[str, Measured]) -> dict[str, Estimate]:
    """Return each figure with what it rests on, and why it may not be defined."""
    lesions, calls = lesion_counts(entry.matches, entry.score), call_counts(entry.images, entry.score)
    truth, hit, shown = lesions.truth, lesions.true_positives, lesions.true_positives + lesions.false_positives
    fractured = calls.true_positives + calls.false_negatives
    healthy = calls.true_negatives + calls.false_positives
    # figure -> (numerator, denominator, why it may be undefined)
    parts: dict[str, tuple[float | None, float, str]] = {
        "AUROC": (None, min(fractured, healthy), NO_HEALTHY if fractured else NO_FRACTURED),
        "precision": (hit, shown, f"no box reaches the score {entry.score:g}"),
        "recall": (hit, truth, NO_TRUTH),
        "sensitivity": (calls.true_positives, fractured, NO_FRACTURED),
        "specificity": (calls.true_negatives, healthy, NO_HEALTHY),
    }
    cells = {}
    for name, one in measured.items():
        count, n, reason = parts.get(name, (None, truth, NO_TRUTH))
        cells[name] = estimate(one, reason, count=count, n=n)
    return cells


def _difference(measured: MeasuredDifference, first: Compared, other: Compared, name: str) -> Difference:
    value, low, high, p = (_kept(x) for x in (measured.value, measured.low, measured.high, measured.p))
    if value is not None:
        return Difference(value, low, high, p, measured.undefined)
    why = {one.name: one.figures[name].reason for one in (first, other) if one.figures[name].reason}
    same = len(why) == 2 and len(set(why.values())) == 1
    reason = why[first.name] if same else "; ".join(f"{detector}: {text}" for detector, text in why.items())
    return Difference(None, undefined=measured.undefined, reason=reason)


def _tests(first: _Entry, other: _Entry) -> tuple[McNemar, McNemar, DeLong]:
    """Return McNemar's test of sensitivity and of specificity, and DeLong's of AUROC."""
    positive = first.images.positive
    sensitivity = mcnemar(first.called[positive], other.called[positive])
    specificity = mcnemar(~first.called[~positive], ~other.called[~positive])
    if not positive.any():
        sensitivity = dataclasses.replace(sensitivity, reason=NO_FRACTURED)
    if positive.all():
        specificity = dataclasses.replace(specificity, reason=NO_HEALTHY)
    area = delong(first.images.score, other.images.score, positive)
    return _rounded(sensitivity), _rounded(specificity), _rounded(area)


def _rounded(test: Record) -> Record:
    """Return a test with ten digits of each figure, so that no machine's last bit shows."""
    figures = {key: value for key, value in dataclasses.asdict(test).items() if isinstance(value, float)}
    kept: dict[str, Any] = {key: _kept(value) for key, value in figures.items()}
    return dataclasses.replace(test, **kept)


def _kept(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.10g}")


def _notes(comparison: Comparison) -> Iterator[str]:
    counts, resamples = comparison.counts, comparison.settings["n_bootstrap"]
    if counts["images_left_out"]:
        failed = ", ".join(f"{one.failed} by {one.name}" for one in comparison.detectors if one.failed)
        yield (
            f"{counts['images_left_out']} of {counts['images_asked']} images are left out, "
            f"{counts['images_left_out_fractured']} of them fractured, because not every detector predicted them "
            f"(failed: {failed}). They are in no figure; they are not counted as without fracture."
        )
    if counts["groups"] < 2 or resamples < 1:
        why = f"{counts['groups']} group, and the bootstrap draws groups" if resamples > 0 else "no resamples"
        yield f"No intervals from the bootstrap: {why}."
    if counts["groups"] < counts["images_compared"]:
        yield (
            f"The {counts['images_compared']} images come from {counts['groups']} groups. McNemar's and DeLong's tests "
            "take the images as independent, so that their p values may be too small; the bootstrap draws whole groups."
        )
    elif counts["groups"] > 1:
        yield "Every image is a group of its own: all intervals and tests take the images as independent."
    undefined = max(
        (one.undefined, f"{name}, {pair.first} minus {pair.other}")
        for pair in comparison.pairs
        for name, one in pair.differences.items()
    )
    if undefined[0]:
        yield (
            f"Some differences were not defined in some resamples, which are not in their intervals; most often "
            f"{undefined[1]}, in {undefined[0]} of {resamples}."
        )
    p_values = [
        p
        for pair in comparison.pairs
        for p in (
            *(one.p for one in pair.differences.values()),
            pair.sensitivity.p,
            pair.specificity.p,
            pair.auroc.p,
        )
    ]
    n_tests = sum(p is not None for p in p_values)
    if n_tests > 1:
        yield (
            f"{n_tests} p values are given, none adjusted for their number: of figures that do not differ at all, "
            "one in twenty has p below .05."
        )
