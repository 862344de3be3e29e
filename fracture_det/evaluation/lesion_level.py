"""Lesion-level metrics of matched results: precision, recall, F1, average precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fracture_det.evaluation.matching import Matches

Floats = NDArray[np.float64]
RECALL_GRID = np.linspace(0.0, 1.0, 101)


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN when the whole is 0."""
    return float(part / whole) if whole else float("nan")


@dataclass(frozen=True)
class LesionCounts:
    """Boxes at one operating point: found, falsely found, and all truth boxes; and the images that they lie in."""

    true_positives: float
    false_positives: float
    truth: float
    images: float

    @property
    def precision(self) -> float:
        """Share of the shown boxes that hit; NaN when none is shown."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the truth boxes that are hit; NaN without truth."""
        return ratio(self.true_positives, self.truth)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN when neither truth nor a shown box exists."""
        return ratio(2 * self.true_positives, self.true_positives + self.false_positives + self.truth)

    @property
    def fp_per_image(self) -> float:
        """False positives over all images, healthy ones too; NaN without an image."""
        return ratio(self.false_positives, self.images)


def lesion_counts(matches: Matches, score: float, weights: Floats | None = None) -> LesionCounts:
    """Count boxes of at least `score`."""
    weights = _ones(matches) if weights is None else weights
    shown = matches.score >= np.float32(score)
    each, hit = weights[matches.image[shown]], matches.hit[shown]
    truth = float(weights @ matches.truth.sum(axis=1))
    return LesionCounts(float(each[hit].sum()), float(each[~hit].sum()), truth, float(weights.sum()))


def average_precision(matches: Matches, weights: Floats | None = None) -> float:
    """Return COCO's interpolated average precision (101 recall points, mean over classes); NaN without truth.

    An image of weight 2 gives the value of COCOeval on a set that holds the image twice: a hit counted twice makes
    two points, of which the second has the higher recall and precision, so that the first changes nothing. Only where
    an image has a hit and a false box of equal score, COCOeval lists copy after copy and this box after box
    (`coco.CocoMatches` does as COCOeval there).
    """
    weights = _ones(matches) if weights is None else weights
    n_truth = weights @ matches.truth
    values = [
        _class_average_precision(matches, index, weights, n_truth[index])
        for index in range(matches.truth.shape[1])
        if n_truth[index] > 0
    ]
    return float(np.mean(values)) if values else float("nan")


def _class_average_precision(matches: Matches, index: int, weights: Floats, n_truth: float) -> float:
    counted, hits_at = matches.of_class(index)
    each = weights[counted]
    return float(interpolated_precision(np.cumsum(each[hits_at]), np.cumsum(each)[hits_at], n_truth).mean())


def interpolated_precision(found: Floats, shown: Floats, n_truth: float) -> Floats:
    """Return COCO's precision at recall 0, .01, ... 1 (101,): the highest that is reached at that recall or more.

    found, shown: (H,) truth boxes found and boxes shown, up to each hit in descending order of score.
    """
    precision = found / (shown + np.spacing(1.0))  # as COCOeval divides
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(found / n_truth, RECALL_GRID, side="left")]


def _ones(matches: Matches) -> Floats:
    return np.ones(matches.n_images)
