"""Tests of one detector against another on the same images: DeLong's and McNemar's.

They assume independent images: groups are ignored. Where a patient has several images, their intervals are too narrow
and their p values too small; rely on the paired bootstrap over groups (bootstrap.paired_bootstrap) there.
An undefined value is None, and `reason` says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.evaluation.image_level import auroc
from fracture_det.structures.intervals import LEVEL, paired_difference, quantile

Floats = NDArray[np.float64]

# Variances below are those of equal numbers but for rounding.
_NOTHING = 1e-20


@dataclass(frozen=True)
class DeLong:
    """Two areas under the ROC curve of the same images, compared.

    difference: the area of A minus that of B; low, high: its 95 % interval. z: the difference over its standard error;
    p: two-sided.
    """

    n_positive: int
    n_negative: int
    auc_a: float | None
    auc_b: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    z: float | None = None
    p: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class McNemar:
    """Two detectors' predictions on the same images, compared.

    both, only_a, only_b, neither: how many images which detector classifies correctly. difference: the share that A
    classifies correctly minus that of B; low, high: its 95 % interval by Newcombe 1998, method 10
    (intervals.paired_difference). p: exact, two-sided: the probability of a split of the discordant images at least as
    uneven, if each falls to either side with probability 1/2.
    """

    n: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    reason: str | None = None


def delong(scores_a: ArrayLike, scores_b: ArrayLike, positive: ArrayLike) -> DeLong:
    """Compare the areas under the ROC curve of two scores (N,) of the same images; positive: (N,) bool.

    DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44, 837-845), with placements from midranks (Sun and Xu 2014,
    IEEE Signal Processing Letters 21) in O(N log N); ties count half. Groups are ignored. The interval is the
    difference +- 1.96 standard errors.
    """
    truth = np.asarray(positive, dtype=bool)
    n = int(truth.sum()), int((~truth).sum())
    missing = _missing(truth)
    if missing:
        return DeLong(*n, None, None, None, reason=missing)
    (cases_a, controls_a), (cases_b, controls_b) = _placements(scores_a, truth), _placements(scores_b, truth)
    auc_a, auc_b = auroc(scores_a, truth), auroc(scores_b, truth)
    difference = auc_a - auc_b
    if np.array_equal(cases_a, cases_b) and np.array_equal(controls_a, controls_b):
        same = "both rank the fractured and healthy images in the same order"
        return DeLong(*n, auc_a, auc_b, 0.0, 0.0, 0.0, 0.0, 1.0, same)
    few = _too_few(truth)
    if few:
        return DeLong(*n, auc_a, auc_b, difference, reason=few)
    variance = _variance(cases_a - cases_b, controls_a - controls_b)
    if variance < _NOTHING:
        flat = "the scores leave DeLong's variance of the difference at 0, so that it gives no interval and no test"
        return DeLong(*n, auc_a, auc_b, difference, reason=flat)
    error = math.sqrt(variance)
    half, z = quantile(LEVEL) * error, difference / error
    # erfc keeps its digits where 1 - cdf would be 0
    p = math.erfc(abs(z) / math.sqrt(2))
    return DeLong(*n, auc_a, auc_b, difference, difference - half, difference + half, z, p)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Compare on which images (N,) two detectors are correct (McNemar 1947, Psychometrika 12; exact binomial form)."""
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    both, only_a, only_b, neither = (int(cell.sum()) for cell in (a & b, a & ~b, ~a & b, ~a & ~b))
    if not len(a):
        return McNemar(0, 0, 0, 0, 0, None, None, None, None, "no image to compare on")
    low, high = paired_difference(both, only_a, only_b, neither)
    reason = None if only_a + only_b else "both are correct on the same images"
    p = _two_sided(min(only_a, only_b), only_a + only_b)
    return McNemar(len(a), both, only_a, only_b, neither, (only_a - only_b) / len(a), low, high, p, reason)


def _two_sided(rarer: int, n: int) -> float:
    """Return 2 P(X <= rarer), at most 1, for X binomial (n, 1/2), in logarithms: 2^n soon overflows."""
    k = np.arange(1, rarer + 1)
    log_counts = np.append(0.0, np.cumsum(np.log(n - k + 1) - np.log(k)))
    return min(1.0, float(2 * np.exp(log_counts - n * math.log(2)).sum()))


def _missing(truth: NDArray[np.bool_]) -> str | None:
    if truth.all():
        return "no healthy image" if len(truth) else "no image"
    return None if truth.any() else "no fractured image"


def _too_few(truth: NDArray[np.bool_]) -> str | None:
    if truth.sum() < 2:
        return "only one fractured image, so that the variance is not defined"
    return None if (~truth).sum() > 1 else "only one healthy image, so that the variance is not defined"


def _placements(scores: ArrayLike, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return for each positive the share of negatives below it, for each negative that of positives above it.

    They serve the variance alone; their means are `auroc`.
    """
    values = np.asarray(scores)
    ranks, positives, negatives = (_midranks(part) for part in (values, values[truth], values[~truth]))
    below = (ranks[truth] - positives) / len(negatives)
    return below, 1 - (ranks[~truth] - negatives) / len(positives)


def _midranks(values: NDArray[np.generic]) -> Floats:
    """Return ranks from 1; equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _variance(cases: Floats, controls: Floats) -> float:
    return float(cases.var(ddof=1) / len(cases) + controls.var(ddof=1) / len(controls))
