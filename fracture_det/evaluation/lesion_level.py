"""Lesion-level metrics of matched results: precision, recall, F1, average precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fracture_det.evaluation.matching import Matches

Floats = NDArray[np.float64]
RECALL_GRID = np.linspace(0.0, 1.0, 101)


def ratio(numerator: float, denominator: float) -> float:
    """Return numerator / denominator, NaN when the denominator is 0."""
    return float(numerator / denominator) if denominator else float("nan")


@dataclass(frozen=True)
class LesionCounts:
    """Boxes at one operating point: true and false positives, all truth boxes, and the number of images."""

    true_positives: float
    false_positives: float
    truth: float
    images: float

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN when no box reaches the score."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / truth boxes; NaN without truth."""
        return ratio(self.true_positives, self.truth)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN with neither a truth box nor a predicted one."""
        return ratio(2 * self.true_positives, self.true_positives + self.false_positives + self.truth)

    @property
    def fp_per_image(self) -> float:
        """False positives over all images, healthy ones too; NaN without an image."""
        return ratio(self.false_positives, self.images)


def lesion_counts(matches: Matches, score: float, weights: Floats | None = None) -> LesionCounts:
    """Count boxes of at least `score`."""
    weights = equal_weights(matches) if weights is None else weights
    predicted = matches.score >= np.float32(score)
    box_weights, hit = weights[matches.image[predicted]], matches.hit[predicted]
    truth = float(weights @ matches.truth.sum(axis=1))
    return LesionCounts(float(box_weights[hit].sum()), float(box_weights[~hit].sum()), truth, float(weights.sum()))


def average_precision(matches: Matches, weights: Floats | None = None) -> float:
    """Return COCO's interpolated average precision (101 recall points, mean over classes); NaN without truth.

    An image of weight 2 gives the value of COCOeval on a set that contains the image twice: a hit counted twice makes
    two points, of which the second has the higher recall and precision, so that the first changes nothing. Only where
    an image has a true and a false positive of equal score, COCOeval lists copy after copy and this function box after
    box (`coco_eval.CocoMatches` follows COCOeval there).
    """
    weights = equal_weights(matches) if weights is None else weights
    n_truth = weights @ matches.truth
    values = [
        _class_average_precision(matches, index, weights, n_truth[index])
        for index in range(matches.truth.shape[1])
        if n_truth[index] > 0
    ]
    return float(np.mean(values)) if values else float("nan")


def _class_average_precision(matches: Matches, index: int, weights: Floats, n_truth: float) -> float:
    counted, hits_at = matches.of_class(index)
    box_weights = weights[counted]
    true_positives, predicted = np.cumsum(box_weights[hits_at]), np.cumsum(box_weights)[hits_at]
    return float(interpolated_precision(true_positives, predicted, n_truth).mean())


def interpolated_precision(true_positives: Floats, predicted: Floats, n_truth: float) -> Floats:
    """Return COCO's precision at recall 0, .01, ... 1 (101,): the highest at that recall or beyond.

    true_positives, predicted: (H,) truth boxes hit and boxes predicted, up to each hit in descending order of score.
    """
    precision = true_positives / (predicted + np.spacing(1.0))  # as COCOeval divides
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(true_positives / n_truth, RECALL_GRID, side="left")]


def equal_weights(matches: Matches) -> Floats:
    """Return a weight of 1 for each image (I,)."""
    return np.ones(matches.n_images)
