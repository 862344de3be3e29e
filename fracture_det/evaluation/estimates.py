"""From resampled statistics to the Estimates of a report: each with its interval and its sample, or a reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fracture_det.evaluation.bootstrap import BootstrapResult, Floats
from fracture_det.evaluation.coco_eval import SIZE_OF_STAT, STATS
from fracture_det.evaluation.froc import FROC_TARGETS, froc_curve
from fracture_det.evaluation.image_level import ConfusionCounts, UnitScores, auprc, auroc, confusion_counts
from fracture_det.evaluation.lesion_level import LesionCounts, lesion_counts
from fracture_det.evaluation.matching import Matches
from fracture_det.evaluation.report import (
    DECIMALS,
    Estimate,
    Froc,
    OperatingPoint,
    PointCounts,
    PredictiveValues,
    rounded,
)
from fracture_det.structures.intervals import wilson

NO_TRUTH = "no annotated fracture"
PREVALENCES = (0.05, 0.2, 0.5)
# The figures of an operating point: of boxes, and of images or groups.
LESION_FIGURES = ("precision", "recall", "f1", "fp_per_image")
UNIT_FIGURES = ("sensitivity", "specificity", "accuracy", "ppv", "npv", "f1")
Level = Literal["image", "group"]


class Statistic(NamedTuple):
    """Names one resampled statistic of an evaluation.

    name: the figure. level: "lesion", "image" or "group". rule: the operating or match rule that it depends on.
    at: the prevalence of a predictive value, or the false positives per image of a sensitivity.
    """

    name: str
    level: str = "lesion"
    rule: str = ""
    at: float | None = None

    def __str__(self) -> str:
        """Return the statistic in words, for a note."""
        details = [self.level, self.rule, "" if self.at is None else f"at {self.at:g}"]
        return f"{self.name} ({', '.join(detail for detail in details if detail)})"


Values = dict[Statistic, float]
Results = Mapping[Statistic, BootstrapResult]


@dataclass(frozen=True)
class Basis:
    """What a figure rests on: its sample size, and why it may be undefined.

    count: the numerator, if the figure is a proportion of n. bounded: False where `count` may exceed `n` (a rate).
    """

    n: float | None
    reason: str
    count: float | None = None
    bounded: bool = True


def estimate(result: BootstrapResult, basis: Basis) -> Estimate:
    """Return a statistic with its bootstrap interval, its sample and, for a proportion, Wilson's interval."""
    n = None if basis.n is None else round(basis.n)
    if math.isnan(result.value):
        return Estimate(None, n=n, undefined=result.undefined, reason=basis.reason)
    count = None if basis.count is None else round(basis.count)
    lower, upper = (None, None) if count is None or not n or not basis.bounded else wilson(count, n)
    return Estimate(
        value=rounded(result.value),
        low=rounded(result.low),
        high=rounded(result.high),
        wilson_low=rounded(lower),
        wilson_high=rounded(upper),
        count=count,
        n=n,
        undefined=result.undefined,
    )


# --- what each figure rests on ---------------------------------------------------------------------------------------


def lesion_bases(counts: LesionCounts, score: float) -> dict[str, Basis]:
    """Return what the figures of boxes at one operating point rest on, by name."""
    tp, fp, truth = counts.true_positives, counts.false_positives, counts.truth
    no_box = f"no box reaches the score {score:.3g}"
    return {
        "precision": Basis(tp + fp, no_box, tp),
        "recall": Basis(truth, NO_TRUTH, tp),
        "f1": Basis(fp + truth, f"no annotated fracture, and {no_box}"),
        "fp_per_image": Basis(counts.images, "no image", fp, bounded=False),
    }


def unit_bases(counts: ConfusionCounts, level: Level) -> dict[str, Basis]:
    """Return what the figures of images or groups at one operating point rest on, by name."""
    tp, fn, fp, tn = counts.true_positives, counts.false_negatives, counts.false_positives, counts.true_negatives
    return {
        "sensitivity": Basis(tp + fn, f"no fractured {level}", tp),
        "specificity": Basis(tn + fp, f"no healthy {level}", tn),
        "accuracy": Basis(tp + fn + fp + tn, f"no {level}", tp + tn),
        "ppv": Basis(tp + fp, f"no {level} is predicted fractured", tp),
        "npv": Basis(tn + fn, f"every {level} is predicted fractured", tn),
        "f1": Basis(tp + fn + fp, f"no fractured {level}, and none is predicted fractured"),
    }


def auroc_basis(units: UnitScores, level: Level) -> Basis:
    """Return what AUROC rests on: the smaller of the two classes."""
    positive = int(units.positive.sum())
    negative = len(units.positive) - positive
    return Basis(min(positive, negative), f"no healthy {level}" if positive else f"no fractured {level}")


# --- operating points ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """A score threshold, the rule that gave it, and where it comes from; see OperatingPoint."""

    rule: str
    score: float
    origin: str
    chosen_on: str | None = None


def point_statistics(
    threshold: Threshold,
    matches: Matches,
    units: Mapping[Level, UnitScores],
    prevalences: Sequence[float],
    weights: Floats,
) -> Values:
    """Return every statistic at one operating point for image weights (I,)."""
    rule = threshold.rule
    lesions = lesion_counts(matches, threshold.score, weights)
    values: Values = {Statistic(name, "lesion", rule): getattr(lesions, name) for name in LESION_FIGURES}
    for level, scores in units.items():
        counts = confusion_counts(scores, threshold.score, weights[scores.image])
        values |= {Statistic(name, level, rule): getattr(counts, name) for name in UNIT_FIGURES}
        for prevalence in prevalences if level == "image" else ():
            ppv, npv = counts.predictive_values(prevalence)
            values[Statistic("ppv", level, rule, prevalence)] = ppv
            values[Statistic("npv", level, rule, prevalence)] = npv
    return values


def operating_point(
    threshold: Threshold,
    matches: Matches,
    units: Mapping[Level, UnitScores],
    prevalences: Sequence[float],
    results: Results,
) -> OperatingPoint:
    """Return the figures at one operating point."""
    rule, score = threshold.rule, threshold.score
    lesions = lesion_counts(matches, score)
    counts = {level: confusion_counts(scores, score) for level, scores in units.items()}
    figures = {
        level: {
            name: estimate(results[Statistic(name, level, rule)], basis)
            for name, basis in unit_bases(counts[level], level).items()
        }
        for level in units
    }
    return OperatingPoint(
        rule=rule,
        score=score,
        origin=threshold.origin,
        lesion={
            name: estimate(results[Statistic(name, "lesion", rule)], basis)
            for name, basis in lesion_bases(lesions, score).items()
        },
        image=figures["image"],
        group=figures["group"],
        predictive=[_predictive_values(rule, prevalence, results) for prevalence in prevalences],
        counts=_point_counts(lesions, counts["image"], counts["group"]),
        chosen_on=threshold.chosen_on,
    )


def _predictive_values(rule: str, prevalence: float, results: Results) -> PredictiveValues:
    undefined = "sensitivity or specificity is not defined, or {} image is predicted fractured"
    ppv, npv = (results[Statistic(name, "image", rule, prevalence)] for name in ("ppv", "npv"))
    return PredictiveValues(
        prevalence,
        estimate(ppv, Basis(None, undefined.format("no"))),
        estimate(npv, Basis(None, undefined.format("every"))),
    )


def _point_counts(lesions: LesionCounts, images: ConfusionCounts, groups: ConfusionCounts) -> PointCounts:
    return PointCounts(
        boxes_tp=round(lesions.true_positives),
        boxes_fp=round(lesions.false_positives),
        boxes_fn=round(lesions.truth - lesions.true_positives),
        images_tp=round(images.true_positives),
        images_fn=round(images.false_negatives),
        images_fp=round(images.false_positives),
        images_tn=round(images.true_negatives),
        groups_tp=round(groups.true_positives),
        groups_fn=round(groups.false_negatives),
        groups_fp=round(groups.false_positives),
        groups_tn=round(groups.true_negatives),
    )


# --- figures over all thresholds -------------------------------------------------------------------------------------


def area_statistics(level: Level, units: UnitScores, weights: Floats) -> Values:
    """Return the areas under the curves of images or groups for image weights (I,)."""
    unit_weights = weights[units.image]
    return {
        Statistic("AUROC", level): auroc(units.score, units.positive, unit_weights),
        Statistic("AUPRC", level): auprc(units.score, units.positive, unit_weights),
    }


def areas(level: Level, units: UnitScores, results: Results) -> dict[str, Estimate]:
    """Return AUROC and AUPRC of images or groups."""
    auprc_basis = Basis(int(units.positive.sum()), f"no fractured {level}")
    return {
        "AUROC": estimate(results[Statistic("AUROC", level)], auroc_basis(units, level)),
        "AUPRC": estimate(results[Statistic("AUPRC", level)], auprc_basis),
    }


def froc_statistics(rule: str, matches: Matches, weights: Floats) -> Values:
    """Return the sensitivity at each target, and their mean, by one match rule for image weights (I,)."""
    sensitivity = froc_curve(matches, weights).at()
    values = {
        Statistic("sensitivity", rule=rule, at=target): value
        for target, value in zip(FROC_TARGETS, sensitivity.tolist(), strict=True)
    }
    return {**values, Statistic("mean sensitivity", rule=rule): float(sensitivity.mean())}


def froc(rule: str, matches: Matches, results: Results) -> Froc:
    """Return the sensitivity at fixed false positives per image by one match rule."""
    n = matches.n_truth
    at_targets = [results[Statistic("sensitivity", rule=rule, at=target)] for target in FROC_TARGETS]
    return Froc(
        list(FROC_TARGETS),
        [estimate(result, Basis(n, NO_TRUTH, result.value * n if n else None)) for result in at_targets],
        estimate(results[Statistic("mean sensitivity", rule=rule)], Basis(n, NO_TRUTH)),
    )


def coco_figures(results: Results, n_truth: int) -> dict[str, Estimate]:
    """Return COCOeval's twelve figures."""
    figures = {}
    for name in STATS:
        size = SIZE_OF_STAT.get(name)
        basis = Basis(n_truth, NO_TRUTH) if size is None else Basis(None, f"no {size} fracture")
        figures[name] = estimate(results[Statistic(name)], basis)
    return figures


def curve(**columns: Sequence[float] | np.ndarray) -> dict[str, list[float]]:
    """Return the points of a curve as lists, rounded like every other figure."""
    return {name: (np.asarray(values, dtype=float).round(DECIMALS) + 0.0).tolist() for name, values in columns.items()}
