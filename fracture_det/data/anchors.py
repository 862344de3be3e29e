"""How well anchors fit the boxes (best IoU of each truth box with the anchors at its position), and fitted sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATIOS = (0.5, 1.0, 2.0)
# The paper's anchors on its one feature map, and Detectron2's default for feature pyramids.
PAPER_SIZES, PAPER_STRIDES = (128.0, 256.0, 512.0), (16, 16, 16)
FPN_SIZES, FPN_STRIDES = (32.0, 64.0, 128.0, 256.0, 512.0), (4, 8, 16, 32, 64)
# The recommended configuration: two sizes on each of p3 to p6; no box is small enough to need the stride of p2.
FITTED_STRIDES = (8, 8, 16, 16, 32, 32, 64, 64)
# More boxes than this are subsampled before fitting, which hardly changes the fit.
MOST_BOXES = 8_000


@dataclass(frozen=True)
class AnchorFit:
    """How well a set of anchors fits the boxes; shares are 0..1, NaN without boxes.

    mean_best_iou: mean over the boxes of the best IoU with any anchor. above_70, above_50: share of boxes with a best
    IoU of at least .7 (a positive for the RPN) and .5; under_30: share under .3 (only ever a negative).
    """

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    mean_best_iou: float
    above_70: float
    above_50: float
    under_30: float
    n_boxes: int


def anchor_fit(
    boxes: ArrayLike, sizes: Sequence[float], ratios: Sequence[float] = RATIOS, *, strides: Sequence[int] | None = None
) -> AnchorFit:
    """Return how well anchors of `sizes` (side of the square of equal area, px) and `ratios` (h / w) fit boxes (M, 4).

    Boxes are in pixels of the letterboxed image. strides: feature stride in px of each size; the anchor is then
    centred on the grid point nearest to the box, as in Detectron2 with offset 0; None centres it on the box.
    """
    best = best_ious(boxes, sizes, ratios, strides=strides)
    mean, above_70, above_50, under_30 = _shares(best)
    return AnchorFit(
        tuple(map(float, sizes)), tuple(map(float, ratios)), mean, above_70, above_50, under_30, n_boxes=len(best)
    )


def best_ious(
    boxes: ArrayLike, sizes: Sequence[float], ratios: Sequence[float] = RATIOS, *, strides: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Return the best IoU (M,) of each box (M, 4) with any anchor; arguments as for `anchor_fit`."""
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if strides is not None and len(strides) != len(sizes):
        raise ValueError(f"strides: expected one per size, got {len(strides)} for {len(sizes)} sizes")
    extent, centre = array[:, 2:] - array[:, :2], (array[:, 2:] + array[:, :2]) / 2
    best = np.zeros(len(array))
    for index, size in enumerate(sizes):
        offset = np.zeros_like(centre)
        if strides is not None:
            # Overlap falls with the distance in x and in y alike, so the nearest grid point is the best.
            offset = np.abs(centre - np.round(centre / strides[index]) * strides[index])
        for ratio in ratios:
            anchor = np.array([size / np.sqrt(ratio), size * np.sqrt(ratio)])
            overlap = np.minimum(np.minimum(extent, anchor), (extent + anchor) / 2 - offset)
            intersection = np.clip(overlap, 0, None).prod(1)
            union = extent.prod(1) + anchor.prod() - intersection
            best = np.maximum(best, intersection / union)
    return best


def fit_anchors(
    boxes: ArrayLike,
    n: int = 5,
    ratios: Sequence[float] = RATIOS,
    *,
    strides: Sequence[int] | None = None,
    iterations: int = 100,
) -> list[float]:
    """Return `n` ascending anchor sizes (px) fitted to boxes (M, 4), given the ratios (h / w).

    k-means in the logarithm of the box size (the square root of its area), so that a relative error counts the same
    for small and large boxes; then each size is moved, one after the other, to where the mean best IoU of all boxes
    is highest, on the grid of `strides` (one per size, ascending) where given. Deterministic: it starts at evenly
    spaced quantiles; of more than 8,000 boxes it takes every k-th in order of size. Raises ValueError when there are
    fewer distinct box sizes than `n`.
    """
    array = _subsampled(np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    sides = np.sqrt((array[:, 2:] - array[:, :2]).prod(1))
    if n < 1 or len(np.unique(sides.round(3))) < n:
        raise ValueError(f"fit_anchors: expected at least {n} boxes of different size, got {len(array)} boxes")
    logs = np.log(sides)
    centres = np.quantile(np.unique(logs), (np.arange(n) + 0.5) / n)
    for _ in range(iterations):
        nearest = np.abs(logs[:, None] - centres[None]).argmin(1)
        moved = np.array([logs[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(n)])
        if np.allclose(moved, centres, rtol=0, atol=1e-6):
            break
        centres = moved
    return _polish(array, sorted(np.exp(centres).tolist()), ratios, strides)


def detectron2_yaml(
    sizes: Sequence[float], ratios: Sequence[float] = RATIOS, *, strides: Sequence[int] = FITTED_STRIDES
) -> str:
    """Return the lines that give a Detectron2 config these anchors; sizes of one stride share a feature map."""
    maps = [
        [size for size, own in zip(sizes, strides, strict=True) if own == stride] for stride in sorted(set(strides))
    ]
    per_map = ", ".join(f"[{', '.join(f'{size:g}' for size in of_map)}]" for of_map in maps)
    return (
        "MODEL:\n  ANCHOR_GENERATOR:\n"
        f"    SIZES: [{per_map}]\n    ASPECT_RATIOS: [[{', '.join(f'{r:g}' for r in ratios)}]]\n"
    )


def _subsampled(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort((boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    return boxes[order[:: math.ceil(len(boxes) / MOST_BOXES) or 1]]


def _shares(best: NDArray[np.float64]) -> tuple[float, float, float, float]:
    if not len(best):
        return math.nan, math.nan, math.nan, math.nan
    return float(best.mean()), float((best >= 0.7).mean()), float((best >= 0.5).mean()), float((best < 0.3).mean())


def _polish(
    boxes: NDArray[np.float64], sizes: list[float], ratios: Sequence[float], strides: Sequence[int] | None
) -> list[float]:
    """Move one size after the other by whole pixels, ascending order kept, while that raises the mean best IoU."""

    def score(trial: Sequence[float]) -> float:
        return float(best_ious(boxes, trial, ratios, strides=strides).mean())

    sizes = [float(max(1, round(size))) for size in sizes]
    best, improved = score(sizes), True
    while improved:
        improved = False
        for index in range(len(sizes)):
            for step in (-1.0, 1.0, -4.0, 4.0, -16.0, 16.0):
                trial = [*sizes[:index], sizes[index] + step, *sizes[index + 1 :]]
                if trial[0] >= 1 and trial == sorted(trial) and (value := score(trial)) > best + 1e-9:
                    sizes, best, improved = trial, value, True
    return sizes
