"""The cells of a report: measured values with their interval and with what each rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fracture_det.evaluation.bootstrap import Floats, Measured
from fracture_det.evaluation.froc import FROC_TARGETS, froc_curve
from fracture_det.evaluation.image_level import CallCounts, Scored, call_counts
from fracture_det.evaluation.intervals import wilson
from fracture_det.evaluation.lesion_level import lesion_counts
from fracture_det.evaluation.matching import Matches
from fracture_det.evaluation.report import Estimate, Froc, OperatingPoint, PredictiveValues

NO_TRUTH = "no truth box"
LESION = ("precision", "recall", "f1", "fp_per_image")
CALLS = ("sensitivity", "specificity", "accuracy", "ppv", "npv", "f1")
PREVALENCES = (0.05, 0.2, 0.5)
Values = dict[str, float]


def estimate(
    measured: Measured, reason: str, *, count: float | None = None, n: float | None = None, bounded: bool = True
) -> Estimate:
    """Return a cell: rounded to ten digits, so that no machine's last bit shows; a proportion gets Wilson's interval.

    count, n: numerator and denominator of a proportion; `n` alone is what the figure rests on. reason: why it may be
    undefined. bounded: False where `count` may exceed `n` (a rate, no proportion).
    """
    whole = None if n is None else round(n)
    if math.isnan(measured.value):
        return Estimate(None, n=whole, undefined=measured.undefined, reason=reason)
    part = None if count is None else round(count)
    lower, upper = (None, None) if part is None or not whole or not bounded else wilson(part, whole)
    return Estimate(
        value=_kept(measured.value),
        low=_kept(measured.low),
        high=_kept(measured.high),
        wilson_low=_kept(lower),
        wilson_high=_kept(upper),
        count=part,
        n=whole,
        undefined=measured.undefined,
    )


def _kept(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 10)


def point_statistics(
    rule: str,
    score: float,
    matches: Matches,
    units: tuple[Scored, Scored],
    prevalences: Sequence[float],
    weights: Floats,
) -> Values:
    """Return every figure at one operating point, its name led by the rule. units: images, and groups."""
    lesions = lesion_counts(matches, score, weights)
    values: Values = {f"{rule}: lesion {name}": getattr(lesions, name) for name in LESION}
    for level, scored in zip(("image", "group"), units, strict=True):
        calls = call_counts(scored, score, weights[scored.image])
        values |= {f"{rule}: {level} {name}": getattr(calls, name) for name in CALLS}
        for prevalence in prevalences if level == "image" else ():
            ppv, npv = calls.predictive_values(prevalence)
            values |= {f"{rule}: ppv {prevalence:g}": ppv, f"{rule}: npv {prevalence:g}": npv}
    return values


def operating_point(
    rule: str,
    score: float,
    origin: str,
    matches: Matches,
    units: tuple[Scored, Scored],
    prevalences: Sequence[float],
    measured: Mapping[str, Measured],
) -> OperatingPoint:
    """Return the figures at one score, with what each rests on."""
    lesions = lesion_counts(matches, score)
    tp, fp, fn = lesions.true_positives, lesions.false_positives, lesions.truth - lesions.true_positives
    none_shown = f"no box reaches the score {score:g}"
    # figure -> (numerator, denominator, why it may be undefined)
    parts: dict[str, tuple[float | None, float, str]] = {
        "precision": (tp, tp + fp, none_shown),
        "recall": (tp, lesions.truth, NO_TRUTH),
        "f1": (None, tp + fp + fn, f"no truth box, and {none_shown}"),
        "fp_per_image": (fp, matches.n_images, "no image"),
    }
    lesion = {
        name: estimate(measured[f"{rule}: lesion {name}"], reason, count=count, n=n, bounded=name != "fp_per_image")
        for name, (count, n, reason) in parts.items()
    }
    counts = {"boxes_tp": tp, "boxes_fp": fp, "boxes_fn": fn}
    levels = {}
    for level, scored in zip(("image", "group"), units, strict=True):
        calls = call_counts(scored, score)
        levels[level] = _calls(calls, f"{rule}: {level}", level, measured)
        counts |= {f"{level}s_tp": calls.true_positives, f"{level}s_fn": calls.false_negatives}
        counts |= {f"{level}s_fp": calls.false_positives, f"{level}s_tn": calls.true_negatives}
    predictive = [
        PredictiveValues(
            prevalence,
            estimate(
                measured[f"{rule}: ppv {prevalence:g}"], "sensitivity or specificity is not defined, or none is called"
            ),
            estimate(
                measured[f"{rule}: npv {prevalence:g}"], "sensitivity or specificity is not defined, or all are called"
            ),
        )
        for prevalence in prevalences
    ]
    whole = {name: round(value) for name, value in counts.items()}
    return OperatingPoint(rule, score, origin, lesion, levels["image"], levels["group"], predictive, whole)


def _calls(calls: CallCounts, key: str, level: str, measured: Mapping[str, Measured]) -> dict[str, Estimate]:
    tp, fn, fp, tn = calls.true_positives, calls.false_negatives, calls.false_positives, calls.true_negatives
    parts: dict[str, tuple[float | None, float, str]] = {
        "sensitivity": (tp, tp + fn, f"no fractured {level}"),
        "specificity": (tn, tn + fp, f"no healthy {level}"),
        "accuracy": (tp + tn, tp + fn + fp + tn, f"no {level}"),
        "ppv": (tp, tp + fp, f"no {level} is called"),
        "npv": (tn, tn + fn, f"every {level} is called"),
        "f1": (None, tp + fn + fp, f"no fractured {level}, and none is called"),
    }
    return {
        name: estimate(measured[f"{key} {name}"], reason, count=count, n=n)
        for name, (count, n, reason) in parts.items()
    }


def area_statistics(level: str, units: Scored, weights: Floats, functions: Mapping[str, object]) -> Values:
    """Return the areas under the curves of images or groups; `functions` maps AUROC, AUPRC to what computes them."""
    each = weights[units.image]
    return {f"{level} {name}": function(units.score, units.positive, each) for name, function in functions.items()}  # type: ignore[operator]


def areas(level: str, units: Scored, measured: Mapping[str, Measured]) -> dict[str, Estimate]:
    """Return AUROC and AUPRC of images or groups; AUROC rests on the smaller of the two classes."""
    positive = int(units.positive.sum())
    negative = len(units.positive) - positive
    missing = f"no fractured {level}" if not positive else f"no healthy {level}"
    return {
        "AUROC": estimate(measured[f"{level} AUROC"], missing, n=min(positive, negative)),
        "AUPRC": estimate(measured[f"{level} AUPRC"], f"no fractured {level}", n=positive),
    }


def froc_statistics(rule: str, matches: Matches, weights: Floats) -> Values:
    """Return the sensitivity at each target and their mean, names led by the match rule."""
    values = froc_curve(matches, weights).at()
    names = [f"{rule}@{target:g}" for target in FROC_TARGETS]
    return {**dict(zip(names, values.tolist(), strict=True)), f"{rule} mean": float(values.mean())}


def froc(rule: str, matches: Matches, measured: Mapping[str, Measured]) -> Froc:
    """Return sensitivity at the fixed false positives per image."""
    n = matches.n_truth
    cells = [measured[f"{rule}@{target:g}"] for target in FROC_TARGETS]
    return Froc(
        list(FROC_TARGETS),
        [estimate(cell, NO_TRUTH, count=cell.value * n if n else None, n=n) for cell in cells],
        estimate(measured[f"{rule} mean"], NO_TRUTH, n=n),
    )


def coco_figures(measured: Mapping[str, Measured], names: Sequence[str], n_truth: int) -> dict[str, Estimate]:
    """Return COCOeval's figures."""
    cells = {}
    for name in names:
        size = name.split()[-1]
        sized = size in ("small", "medium", "large")
        cells[name] = estimate(
            measured[name], f"no {size} truth box" if sized else NO_TRUTH, n=None if sized else n_truth
        )
    return cells


def curve(**points: Sequence[float] | np.ndarray) -> dict[str, list[float]]:
    """Return the points of a curve as lists, rounded like every other figure."""
    return {name: np.asarray(values, dtype=float).round(10).tolist() for name, values in points.items()}
