"""Image-level and group-level figures: is this image, or this patient, fractured at all?

An image whose only marks are crowd regions counts as fractured: a region holds fractures that nobody told apart, and to
count them as healthy would reward the detector that misses them. A detection in the region makes it predicted so.

Functions take `weights` (U,): how often each unit counts in a bootstrap resample. NaN means "not defined".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.evaluation.lesion_level import Floats, ratio
from fracture_det.evaluation.matching import Matches


@dataclass(frozen=True, eq=False)
class UnitScores:
    """U units (images, or groups of images), each with one score.

    score: (U,) float32, the highest box score, 0 without a box.
    positive: (U,) bool, at least one truth box or crowd region.
    has_box: (U,) bool; a unit without a box is never predicted fractured, whatever the threshold.
    image: (U,) index of the unit's first image, whose weight is the unit's.
    """

    score: NDArray[np.float32]
    positive: NDArray[np.bool_]
    has_box: NDArray[np.bool_]
    image: NDArray[np.int64]

    def predicted(self, score: float) -> NDArray[np.bool_]:
        """Return which units (U,) are predicted fractured: a box reaches `score`."""
        return np.asarray(self.score >= np.float32(score)) & self.has_box


def images_of(matches: Matches) -> UnitScores:
    """Return each image as a unit."""
    return UnitScores(matches.top_score, matches.fractured, matches.has_box, np.arange(matches.n_images))


def groups_of(matches: Matches) -> UnitScores:
    """Return each group as a unit: fractured when one of its images is, its score the highest of them."""
    names, first, member = np.unique(matches.group, return_index=True, return_inverse=True)
    score = np.zeros(len(names), np.float32)
    np.maximum.at(score, member, matches.top_score)
    positive = np.bincount(member, matches.fractured, len(names)) > 0
    return UnitScores(score, positive, np.bincount(member, matches.has_box, len(names)) > 0, first)


@dataclass(frozen=True)
class ConfusionCounts:
    """The confusion matrix of units at one operating point; one is predicted fractured when a box reaches the score."""

    true_positives: float
    false_negatives: float
    false_positives: float
    true_negatives: float

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); NaN without a fractured unit."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); NaN without a healthy unit."""
        return ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all; NaN without units."""
        correct = self.true_positives + self.true_negatives
        return ratio(correct, correct + self.false_negatives + self.false_positives)

    @property
    def ppv(self) -> float:
        """TP / (TP + FP), at the prevalence of the data; NaN when no unit is predicted fractured."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def npv(self) -> float:
        """TN / (TN + FN), at the prevalence of the data; NaN when every unit is predicted fractured."""
        return ratio(self.true_negatives, self.true_negatives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN when no unit is fractured and none is predicted fractured."""
        return ratio(
            2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives
        )  # fmt: skip

    def predictive_values(self, prevalence: float) -> tuple[float, float]:
        """Return PPV and NPV where a share `prevalence` (0..1) is fractured, by Bayes' theorem; NaN if not defined."""
        true_positives, false_negatives = prevalence * self.sensitivity, prevalence * (1 - self.sensitivity)
        true_negatives, false_positives = (1 - prevalence) * self.specificity, (1 - prevalence) * (1 - self.specificity)
        ppv = ratio(true_positives, true_positives + false_positives)
        return ppv, ratio(true_negatives, true_negatives + false_negatives)


def confusion_counts(units: UnitScores, score: float, weights: Floats | None = None) -> ConfusionCounts:
    """Count units by truth and by whether their highest box score is at least `score`."""
    weights = np.ones(len(units.score)) if weights is None else weights
    predicted, actual = units.predicted(score), units.positive
    return ConfusionCounts(
        true_positives=float(weights[predicted & actual].sum()),
        false_negatives=float(weights[~predicted & actual].sum()),
        false_positives=float(weights[predicted & ~actual].sum()),
        true_negatives=float(weights[~predicted & ~actual].sum()),
    )


def auroc(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> float:
    """Return P(score of a positive > score of a negative) + P(equal) / 2 (Mann-Whitney); NaN with one class only.

    The one area under the ROC curve of an evaluation. scikit-learn's roc_auc_score takes weights too, but sorts the
    scores and checks its input again for each of thousands of resamples.
    """
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
    NaN without a positive; chance level is the share of positives.
    """
    positive = np.asarray(positive, dtype=bool)
    weights = np.ones(len(positive)) if weights is None else weights
    _, rank = np.unique(-np.asarray(scores, dtype=float), return_inverse=True)
    true_positives = np.bincount(rank, weights * positive)
    predicted = np.cumsum(np.bincount(rank, weights))
    precision = np.divide(np.cumsum(true_positives), predicted, out=np.zeros(len(predicted)), where=predicted > 0)
    return ratio(float(true_positives @ precision), float(true_positives.sum()))


def roc_curve(units: UnitScores) -> tuple[Floats, Floats]:
    """Return (1 - specificity, sensitivity) from (0, 0) to (1, 1); NaN with one class only."""
    values, rank = np.unique(-units.score, return_inverse=True)
    by_class = [np.bincount(rank, members, minlength=len(values)) for members in (~units.positive, units.positive)]
    false, true = (np.append(0.0, np.cumsum(counts)) for counts in by_class)
    with np.errstate(invalid="ignore", divide="ignore"):
        return false / false[-1], true / true[-1]


def precision_recall_curve(units: UnitScores) -> tuple[Floats, Floats]:
    """Return (recall, precision) at each distinct score, from strict to lenient; empty without a positive."""
    if not units.positive.any():
        return np.zeros(0), np.zeros(0)
    values, rank = np.unique(-units.score, return_inverse=True)
    true_positives = np.cumsum(np.bincount(rank, units.positive, minlength=len(values)))
    predicted = np.cumsum(np.bincount(rank, minlength=len(values)))
    return true_positives / true_positives[-1], true_positives / predicted
