"""Image-level and group-level figures: is this image, or this patient, fractured at all?

Functions take `weights` (U,): how often each unit counts; see metrics.py. NaN means "not defined".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.evaluation.lesion_level import Floats, ratio
from fracture_det.evaluation.matching import Matches


@dataclass(frozen=True, eq=False)
class Scored:
    """U units (images, or groups of images), each with one score.

    score: (U,) float32, the highest box score, 0 without a box. positive: (U,) bool, at least one truth box.
    has_box: (U,) bool; a unit without a box is never called fractured, whatever the threshold.
    image: (U,) index of the unit's first image, whose weight is the unit's.
    """

    score: NDArray[np.float32]
    positive: NDArray[np.bool_]
    has_box: NDArray[np.bool_]
    image: NDArray[np.int64]


def images_of(matches: Matches) -> Scored:
    """Return each image as a unit."""
    return Scored(matches.top_score, matches.fractured, matches.has_box, np.arange(matches.n_images))


def groups_of(matches: Matches) -> Scored:
    """Return each group as a unit: fractured when one of its images is, its score the highest of them."""
    names, first, member = np.unique(matches.group, return_index=True, return_inverse=True)
    score = np.zeros(len(names), np.float32)
    np.maximum.at(score, member, matches.top_score)
    positive = np.bincount(member, matches.fractured, len(names)) > 0
    return Scored(score, positive, np.bincount(member, matches.has_box, len(names)) > 0, first)


@dataclass(frozen=True)
class CallCounts:
    """Units at one operating point; a unit is called fractured when a box reaches the score."""

    true_positives: float
    false_negatives: float
    false_positives: float
    true_negatives: float

    @property
    def sensitivity(self) -> float:
        """Share of the fractured that are called; NaN without one."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the healthy that are not called; NaN without one."""
        return ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def accuracy(self) -> float:
        """Share that is called rightly; NaN without units."""
        right = self.true_positives + self.true_negatives
        return ratio(right, right + self.false_negatives + self.false_positives)

    @property
    def ppv(self) -> float:
        """Share of the called that are fractured, at the data's own prevalence; NaN when none is called."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def npv(self) -> float:
        """Share of the not called that are healthy, at the data's own prevalence; NaN when all are called."""
        return ratio(self.true_negatives, self.true_negatives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN when none is fractured and none is called."""
        return ratio(
            2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives
        )  # fmt: skip

    def predictive_values(self, prevalence: float) -> tuple[float, float]:
        """Return PPV and NPV where a share `prevalence` (0..1) is fractured, by Bayes' theorem; NaN if not defined."""
        sick, well = prevalence, 1 - prevalence
        hit, clear = sick * self.sensitivity, well * self.specificity
        missed, alarmed = sick * (1 - self.sensitivity), well * (1 - self.specificity)
        return ratio(hit, hit + alarmed), ratio(clear, clear + missed)


def call_counts(units: Scored, score: float, weights: Floats | None = None) -> CallCounts:
    """Count units by truth and by whether their highest box score is at least `score`."""
    each = np.ones(len(units.score)) if weights is None else weights
    called = (units.score >= np.float32(score)) & units.has_box
    sick = units.positive
    cells = (called & sick, ~called & sick, called & ~sick, ~called & ~sick)
    return CallCounts(*(float(each[cell].sum()) for cell in cells))


def auroc(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> float:
    """Return P(score of a positive > score of a negative) + P(equal) / 2 (Mann-Whitney); NaN with one class only."""
    positive = np.asarray(positive, dtype=bool)
    weights = np.ones(len(positive)) if weights is None else weights
    _, rank = np.unique(np.asarray(scores), return_inverse=True)
    above = np.bincount(rank, weights * positive)
    below = np.bincount(rank, weights * ~positive)
    pairs = above.sum() * below.sum()
    return ratio(float(above @ (np.cumsum(below) - below / 2)), pairs)


def auprc(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> float:
    """Return the area under precision over recall as a step function: sum of (R_k - R_k-1) P_k over distinct scores.

    This is average precision as scikit-learn defines it, without interpolation (Davis and Goadrich 2006 on why).
    NaN without a positive; the base rate is what a guess reaches.
    """
    positive = np.asarray(positive, dtype=bool)
    weights = np.ones(len(positive)) if weights is None else weights
    _, rank = np.unique(-np.asarray(scores, dtype=float), return_inverse=True)
    found = np.bincount(rank, weights * positive)
    shown = np.cumsum(np.bincount(rank, weights))
    precision = np.divide(np.cumsum(found), shown, out=np.zeros(len(shown)), where=shown > 0)
    return ratio(float(found @ precision), float(found.sum()))


def roc_curve(units: Scored) -> tuple[Floats, Floats]:
    """Return (1 - specificity, sensitivity) from (0, 0) to (1, 1); NaN with one class only."""
    values, rank = np.unique(-units.score, return_inverse=True)
    called = [np.bincount(rank, group, minlength=len(values)) for group in (~units.positive, units.positive)]
    false, true = (np.append(0.0, np.cumsum(counts)) for counts in called)
    with np.errstate(invalid="ignore", divide="ignore"):
        return false / false[-1], true / true[-1]


def precision_recall_curve(units: Scored) -> tuple[Floats, Floats]:
    """Return (recall, precision) at each distinct score, from strict to lenient; empty without a positive."""
    if not units.positive.any():
        return np.zeros(0), np.zeros(0)
    values, rank = np.unique(-units.score, return_inverse=True)
    found = np.cumsum(np.bincount(rank, units.positive, minlength=len(values)))
    return found / found[-1], found / np.cumsum(np.bincount(rank, minlength=len(values)))
