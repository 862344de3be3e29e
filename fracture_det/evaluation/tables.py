"""The tables of a report: measured values with their interval and with what each rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fracture_det.evaluation import metrics
from fracture_det.evaluation.bootstrap import Floats, Measured, measure
from fracture_det.evaluation.coco import CocoResult
from fracture_det.evaluation.matching import Matches
from fracture_det.evaluation.report import Estimate, Froc, OperatingPoint, SiteRow

UNKNOWN_SITE, ALL_SITES = "unknown", "all"
NO_TRUTH = "no truth box"


def _estimate(measured: Measured, reason: str, *, count: float | None = None, n: float | None = None) -> Estimate:
    def kept(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 10)

    whole = None if n is None else round(n)
    if math.isnan(measured.value):
        return Estimate(None, n=whole, reason=reason)
    part = None if count is None else round(count)
    return Estimate(kept(measured.value), kept(measured.low), kept(measured.high), part, whole)


def operating_point(name: str, score: float, matches: Matches, measured: Mapping[str, Measured]) -> OperatingPoint:
    """Return the figures at one score, with what each rests on."""
    lesions, images = metrics.lesion_counts(matches, score), metrics.image_counts(matches, score)
    tp, fp, fn = lesions.true_positives, lesions.false_positives, lesions.truth - lesions.true_positives
    called, clear = images.true_positives, images.true_negatives
    n_fractured, n_healthy = called + images.false_negatives, clear + images.false_positives
    # figure -> (numerator, denominator, why it may be undefined)
    parts: dict[str, tuple[float | None, float, str]] = {
        "precision": (tp, tp + fp, f"no box reaches the score {score:g}"),
        "recall": (tp, lesions.truth, NO_TRUTH),
        "f1": (None, tp + fp + fn, f"no truth box, and no box reaches the score {score:g}"),
        "sensitivity": (called, n_fractured, "no fractured image"),
        "specificity": (clear, n_healthy, "no healthy image"),
        "accuracy": (called + clear, n_fractured + n_healthy, "no image"),
    }
    figures = {
        figure: _estimate(measured[f"{name}: {figure}"], reason, count=count, n=n)
        for figure, (count, n, reason) in parts.items()
    }
    counts = {"boxes_tp": tp, "boxes_fp": fp, "boxes_fn": fn, "images_tp": called, "images_tn": clear}
    counts |= {"images_fn": images.false_negatives, "images_fp": images.false_positives}
    return OperatingPoint(name, score, figures, {key: round(value) for key, value in counts.items()})


def coco_figures(coco: CocoResult, ap50: Measured, n_truth: int) -> dict[str, Estimate]:
    """Return COCOeval's figures; AP50 with its interval."""
    figures = {}
    for name, value in coco.stats.items():
        size = name.split()[-1]
        reason = f"no {size} truth box" if size in ("small", "medium", "large") else NO_TRUTH
        known = Measured(math.nan if value is None else value)
        if name == "AP50":
            known = Measured(known.value, ap50.low, ap50.high, ap50.undefined)
        figures[name] = _estimate(known, reason, n=n_truth if reason == NO_TRUTH else None)
    return figures


def auroc(matches: Matches, measured: Measured) -> Estimate:
    """Return the image-level AUROC; it rests on the smaller of the two classes."""
    missing = "fractured" if not matches.fractured.any() else "healthy"
    smaller = min(matches.fractured.sum(), (~matches.fractured).sum())
    return _estimate(measured, f"no {missing} image", n=smaller)


def froc(matches: Matches, measured: Mapping[str, Measured]) -> Froc:
    """Return sensitivity at the fixed false positives per image."""
    n = matches.n_truth
    cells = []
    for target in metrics.FROC_TARGETS:
        cell = measured[f"FROC@{target:g}"]
        cells.append(_estimate(cell, NO_TRUTH, count=cell.value * n if n else None, n=n))
    return Froc(metrics.FROC_TARGETS, tuple(cells), _estimate(measured["FROC mean"], NO_TRUTH, n=n))


def sites(
    site_of: Sequence[str | None], both: tuple[Matches, Matches], score: float, resampling: tuple[int, int]
) -> tuple[SiteRow, ...]:
    """Return a row per site and one for all images, at one operating point.

    site_of: (I,) site of each image. both: matches at the report's IoU, and at IoU .5 for AP50.
    resampling: number of resamples, and seed.
    """
    names = np.array([site or UNKNOWN_SITE for site in site_of], dtype=object)
    rows = []
    for site in [*sorted(set(names)), ALL_SITES]:
        keep = np.ones(len(names), dtype=bool) if site == ALL_SITES else names == site
        rows.append(_site_row(site, both[0].of_images(keep), both[1].of_images(keep), score, resampling))
    return tuple(rows)


def _site_row(site: str, matches: Matches, at_half: Matches, score: float, resampling: tuple[int, int]) -> SiteRow:
    def statistics(weights: Floats) -> dict[str, float]:
        lesions = metrics.lesion_counts(matches, score, weights)
        ap50 = metrics.average_precision(at_half, weights)
        return {"AP50": ap50, "precision": lesions.precision, "recall": lesions.recall}

    measured = measure(statistics, matches.group, n_bootstrap=resampling[0], seed=resampling[1])
    counts = metrics.lesion_counts(matches, score)
    tp, shown, truth = counts.true_positives, counts.true_positives + counts.false_positives, counts.truth
    return SiteRow(
        site,
        matches.n_images,
        int(matches.fractured.sum()),
        matches.n_truth,
        _estimate(measured["AP50"], NO_TRUTH, n=truth),
        _estimate(measured["precision"], f"no box reaches the score {score:g}", count=tp, n=shown),
        _estimate(measured["recall"], NO_TRUTH, count=tp, n=truth),
    )
