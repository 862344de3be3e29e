"""How readers agree: on whether an image shows a fracture, beyond chance, and on where.

Only readings that are finished and find the image readable are compared. Intervals are bootstrapped over images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.evaluation.bootstrap import BootstrapResult, bootstrap_intervals
from fracture_det.structures.boxes import match_boxes
from fracture_det.structures.readings import MATCH_IOU

N_BOOTSTRAP, SEED = 1000, 0
Floats = NDArray[np.float64]
# Which of two readers find an image fractured: both, the first, the second, neither.
BOTH, FIRST, SECOND, NEITHER = range(4)


@dataclass(frozen=True)
class PairAgreement:
    """Two readers on the images that both have read.

    counts: images by BOTH, FIRST, SECOND and NEITHER. n_boxes: of both readers together. kappa: Cohen's, fractured or
    not. boxes: see `box_agreement`.
    """

    readers: tuple[str, str]
    counts: tuple[int, int, int, int]
    n_boxes: int
    kappa: BootstrapResult
    boxes: BootstrapResult


@dataclass(frozen=True)
class ReaderAgreement:
    """All readers. n_images: those with two readings or more. fleiss: see `fleiss_kappa`; boxes: over all pairs."""

    n_images: int
    fleiss: BootstrapResult
    boxes: BootstrapResult
    pairs: tuple[PairAgreement, ...]


def cohen_kappa(counts: ArrayLike) -> float:
    """Return Cohen's kappa of two readers from their (weighted) counts BOTH, FIRST, SECOND, NEITHER.

    (po - pe) / (1 - pe), with po the share of images on which they agree and pe what their own shares of fractured
    images give by chance (Cohen 1960, Educational and Psychological Measurement 20, 37-46). NaN where both find the
    same in every image.
    """
    both, first, second, neither = np.asarray(counts, dtype=float)
    n = both + first + second + neither
    if n == 0:
        return math.nan
    observed = (both + neither) / n
    chance = ((both + first) * (both + second) + (neither + first) * (neither + second)) / n**2
    return math.nan if math.isclose(chance, 1) else float((observed - chance) / (1 - chance))


def fleiss_kappa(positive: Floats, readings: Floats, weights: Floats | None = None) -> float:
    """Return Fleiss' kappa for two categories, in its form for a number of readings that differs between images.

    positive, readings: (I,) how many of the readings of each image, two or more, find it fractured. weights: (I,) how
    often each image counts. 1 - sum(x (m - x) / m) / (n (mean m - 1) p q), with p the share of positive readings and
    q = 1 - p (Fleiss, Levin and Paik 2003, Statistical Methods for Rates and Proportions, chapter 18); where every
    image has m readings this is Fleiss 1971, Psychological Bulletin 76, 378-382. NaN where all readings are the same.
    """
    weights = np.ones(len(readings)) if weights is None else weights
    n, total = float(weights.sum()), float(weights @ readings)
    if n == 0:
        return math.nan
    share = float(weights @ positive) / total
    scatter = n * (total / n - 1) * share * (1 - share)
    within = float(weights @ (positive * (readings - positive) / readings))
    return math.nan if math.isclose(scatter, 0, abs_tol=1e-12) else 1 - within / scatter


def box_agreement(matched: float, n_boxes: float) -> float:
    """Return the share of two readers' boxes that match: 2 x pairs / boxes of both; NaN without a box.

    This is the proportion of specific positive agreement, and the F1 of one reader against the other, whichever is
    taken for the truth (Hripcsak and Rothschild 2005, JAMIA 12, 296-298).
    """
    return 2 * matched / n_boxes if n_boxes else math.nan


def reader_agreement(
    images: Sequence[Mapping[str, ArrayLike]], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = SEED
) -> ReaderAgreement:
    """Return how readers agree.

    images: of each, reader -> the boxes (N, 4) that the reader marks, px, none in an image without a fracture. Images
    with fewer than two readers say nothing and are left out.
    """
    images = [image for image in images if len(image) > 1]
    readers = sorted({reader for image in images for reader in image})
    pairs = [pair for pair in combinations(readers, 2) if any(set(pair) <= image.keys() for image in images)]
    tables = np.zeros((len(pairs), 6, len(images)))  # the four counts, matched boxes, boxes of both
    for column, image in enumerate(images):
        for row, pair in enumerate(pairs):
            if set(pair) <= image.keys():
                tables[row, :, column] = _compared(*(np.asarray(image[reader]).reshape(-1, 4) for reader in pair))
    readings = np.array([len(image) for image in images], dtype=float)
    fractured = [[len(np.asarray(boxes)) > 0 for boxes in image.values()] for image in images]
    positive = np.array([sum(found) for found in fractured], dtype=float)

    def statistics(weights: Floats) -> dict[tuple[str, int], float]:
        sums = tables @ weights
        figures = {("fleiss", 0): fleiss_kappa(positive, readings, weights)}
        figures["boxes", 0] = box_agreement(*sums[:, 4:].sum(axis=0))
        for row, of_pair in enumerate(sums):
            figures["kappa of pair", row] = cohen_kappa(of_pair[:4])
            figures["boxes of pair", row] = box_agreement(*of_pair[4:])
        return figures

    found = bootstrap_intervals(statistics, np.arange(len(images)), n_bootstrap=n_bootstrap, seed=seed)
    return ReaderAgreement(
        len(images),
        found["fleiss", 0],
        found["boxes", 0],
        tuple(
            PairAgreement(
                pair, _counts(tables[row]), int(tables[row, 5].sum()), found["kappa of pair", row],
                found["boxes of pair", row],
            )
            for row, pair in enumerate(pairs)
        ),
    )  # fmt: skip


def _compared(first: Floats, second: Floats) -> list[float]:
    """Return the column of one image in the table of two readers."""
    where = {(True, True): BOTH, (True, False): FIRST, (False, True): SECOND, (False, False): NEITHER}
    column = [0.0] * 4
    column[where[len(first) > 0, len(second) > 0]] = 1.0
    return [*column, len(match_boxes(first, second, iou=MATCH_IOU)), len(first) + len(second)]


def _counts(table: Floats) -> tuple[int, int, int, int]:
    both, first, second, neither = (int(count) for count in table[:4].sum(axis=1))
    return both, first, second, neither
