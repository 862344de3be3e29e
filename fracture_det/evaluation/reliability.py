"""How far scores may be read as probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.calibration.calibration import Calibration
from fracture_det.evaluation.bootstrap import Measured, measure
from fracture_det.evaluation.estimates import NO_TRUTH, Values, estimate
from fracture_det.evaluation.image_level import images_of
from fracture_det.evaluation.lesion_level import Floats, ratio
from fracture_det.evaluation.matching import Matches
from fracture_det.evaluation.report import Reliability, ReliabilityBin

BINS = 10
IMAGE, BOX = "image", "box"
RAW = "raw"
# How many were shown, the sums of their probabilities p and of what came true, of p (1 - p), and of (p - true)^2.
COLUMNS = ("n", "shown", "true", "spread", "error")


def reliability(
    matches: Matches, *, calibration: Calibration | None = None, n_bootstrap: int, seed: int, bins: int = BINS
) -> list[Reliability]:
    """Return how reliable the raw scores of images and of boxes are, then the calibrated ones.

    An image's score is its highest box score, 0 without a box, and it comes true when the image is fractured; a box
    comes true when it hits. What the calibration could not fit has no second row. The bins are of equal width and so
    mean the same for every detector, before and after calibration and in every resample; bins of equal mass would
    move with the detector, and a detector's many low scores would leave one bin for all that is shown. The price is
    a few small bins, each of which states its n. A score at an edge belongs to the bin below.

    Raises ValueError when there is less than one bin.
    """
    if bins < 1:
        raise ValueError(f"reliability.bins: expected at least 1, got {bins}")
    return [
        _measure(shown, matches, n_bootstrap=n_bootstrap, seed=seed, bins=bins)
        for shown in _all_shown(matches, calibration)
    ]


# --- what was shown, and what came true ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Shown:
    """S probabilities of images or boxes. probability: (S,) 0..1. true: (S,) bool. image: (S,) index."""

    of: str
    scores: str
    probability: Floats
    true: NDArray[np.bool_]
    image: NDArray[np.int64]


def _all_shown(matches: Matches, calibration: Calibration | None) -> Iterator[_Shown]:
    units = images_of(matches)
    of_images = (units.positive, units.image)
    of_boxes = (matches.hit, matches.image)
    yield _Shown(IMAGE, RAW, units.score.astype(np.float64), *of_images)
    yield _Shown(BOX, RAW, matches.score.astype(np.float64), *of_boxes)
    if calibration is not None:
        if IMAGE not in calibration.not_fitted:
            yield _Shown(IMAGE, calibration.method, calibration.image(units.score), *of_images)
        if BOX not in calibration.not_fitted:
            yield _Shown(BOX, calibration.method, calibration.box(matches.score), *of_boxes)


def bin_of(probability: ArrayLike, bins: int) -> NDArray[np.int64]:
    """Return the bin (S,) of each probability: (0, 1/bins], (1/bins, 2/bins], ...; 0 is in the first."""
    rounded = np.asarray(probability, dtype=np.float64).round(6)  # undoes float32: .7 is not to fall below .7
    return np.searchsorted(_edges(bins)[1:-1], rounded, side="left").astype(np.int64)


def _edges(bins: int) -> Floats:
    return np.linspace(0, 1, bins + 1).round(6)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The shown probabilities of each image summed by bin, so that a resample only weighs and adds.

    image: (E,) of each cell, cells in order of their bin. starts: (bins + 1,) where the cells of each bin begin.
    sums: (E, 5) one column for each of COLUMNS.
    """

    image: NDArray[np.int64]
    starts: NDArray[np.int64]
    sums: Floats

    @classmethod
    def of(cls, shown: _Shown, n_images: int, bins: int) -> _Cells:
        keys, cell = np.unique(bin_of(shown.probability, bins) * n_images + shown.image, return_inverse=True)
        p, true = shown.probability, shown.true.astype(np.float64)
        columns = (np.ones(len(p)), p, true, p * (1 - p), (p - true) ** 2)
        sums = np.stack([np.bincount(cell, column, len(keys)) for column in columns], axis=1)
        starts = np.searchsorted(keys, np.arange(bins + 1) * n_images)
        return cls(keys % max(n_images, 1), starts, sums.astype(np.float64, copy=False))

    def by_bin(self, weights: Floats) -> dict[str, Floats]:
        """Return each column summed by bin (bins,) for image weights (I,)."""
        each = weights[self.image]
        slices = [slice(start, end) for start, end in pairwise(self.starts.tolist())]
        table = np.array([each[part] @ self.sums[part] for part in slices])
        return dict(zip(COLUMNS, table.T, strict=True))


# --- figures ---------------------------------------------------------------------------------------------------------


def _statistics(shown: _Shown, cells: _Cells, truth: NDArray[np.int64], weights: Floats) -> Values:
    """Return every figure for image weights (I,); NaN means "not defined".

    ECE: sum over bins of n_bin / n * |share that came true - mean probability| (Naeini et al. 2015, Guo et al. 2017);
    of boxes it is the detection ECE of Kueppers et al. (2020), by confidence alone. It knows nothing of fractures
    without a box, hence the recall beside it.
    ECE by chance: what perfectly calibrated scores like these would show on so few: in each bin the mean absolute
    deviation of a normal variable, sqrt(2 / pi * sum of p (1 - p)) / n. It takes scores as independent.
    Brier: mean of (p - true)^2 (Brier 1950); always saying the base rate r scores r (1 - r).
    """
    sums = cells.by_bin(weights)
    n, true = float(sums["n"].sum()), float(sums["true"].sum())
    values = {
        "ECE": ratio(float(abs(sums["true"] - sums["shown"]).sum()), n),
        "ECE by chance": ratio(float(np.sqrt(2 / np.pi * sums["spread"]).sum()), n),
    }
    if shown.of == IMAGE:
        base_rate = ratio(true, n)
        values |= {"Brier": ratio(float(sums["error"].sum()), n), "Brier of the base rate": base_rate * (1 - base_rate)}
    else:
        values["recall"] = ratio(true, float(weights @ truth))
    rates = np.divide(sums["true"], sums["n"], out=np.full(len(cells.starts) - 1, np.nan), where=sums["n"] > 0)
    return values | {f"bin {index}": rate for index, rate in enumerate(rates.tolist())}


def _measure(shown: _Shown, matches: Matches, *, n_bootstrap: int, seed: int, bins: int) -> Reliability:
    cells, truth = _Cells.of(shown, matches.n_images, bins), matches.truth.sum(axis=1)
    measured = measure(
        lambda weights: _statistics(shown, cells, truth, weights), matches.group, n_bootstrap=n_bootstrap, seed=seed
    )
    n, found = len(shown.probability), int(shown.true.sum())
    figures = {
        name: estimate(one, f"no {shown.of}", n=n)
        for name, one in measured.items()
        if not name.startswith("bin ") and name != "recall"
    }
    if shown.of == BOX:
        figures["recall"] = estimate(measured["recall"], NO_TRUTH, count=found, n=matches.n_truth)
    sums = cells.by_bin(np.ones(matches.n_images))
    return Reliability(shown.of, shown.scores, figures, _bins(shown.of, sums, measured))


def _bins(of: str, sums: Mapping[str, Floats], measured: Mapping[str, Measured]) -> list[ReliabilityBin]:
    edges, rows = _edges(len(sums["n"])).tolist(), []
    for index, (low, high) in enumerate(pairwise(edges)):
        n = round(sums["n"][index])
        rate = estimate(measured[f"bin {index}"], f"no {of} has such a score", count=sums["true"][index], n=n)
        mean_score = round(float(sums["shown"][index]) / n, 10) if n else None
        rows.append(ReliabilityBin(low, high, n, mean_score, rate))
    return rows
