"""Whether scores can be read as probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.calibration.calibration import Calibration
from fracture_det.evaluation.bootstrap import BootstrapResult, bootstrap_intervals
from fracture_det.evaluation.estimates import NO_TRUTH, Basis, estimate
from fracture_det.evaluation.image_level import images_of
from fracture_det.evaluation.lesion_level import Floats, ratio
from fracture_det.evaluation.matching import Matches
from fracture_det.evaluation.report import BOX, IMAGE, RAW, Reliability, ReliabilityBin, rounded

BINS = 10
# The number of cases, and the sums of their probabilities p, of their events, of p (1 - p), and of (p - event)^2.
COLUMNS = ("n", "probability", "events", "variance", "squared_error")


class BinRate(NamedTuple):
    """Names the observed frequency in one bin among the resampled statistics."""

    number: int


Values = dict["str | BinRate", float]


def reliability(
    matches: Matches, *, calibration: Calibration | None = None, n_bootstrap: int, seed: int, bins: int = BINS
) -> list[Reliability]:
    """Return how reliable the raw scores of images and of boxes are, then the calibrated ones.

    An image's score is its highest box score, 0 without a box, and its event is that the image is fractured; the event
    of a box is that it hits. What the calibration could not fit has no second row. Bins of equal width mean the same
    for every detector, before and after calibration and in every resample; bins of equal mass would move with the
    detector, and its many low scores would leave a single bin for all that a reader sees. The price is a few small
    bins, each of which states its n. A score at an edge belongs to the bin below.

    Raises ValueError when there is less than one bin.
    """
    if bins < 1:
        raise ValueError(f"reliability.bins: expected at least 1, got {bins}")
    truth = matches.truth.sum(axis=1)
    return [
        reliability_of(forecasts, matches.group, truth, n_bootstrap=n_bootstrap, seed=seed, bins=bins)
        for forecasts in _all_forecasts(matches, calibration)
    ]


def calibration_errors(matches: Matches, calibration: Calibration) -> Callable[[Floats], dict[str, float]]:
    """Return a function of image weights (I,) that gives the ECE of calibrated probabilities, by IMAGE and BOX.

    It is the ECE of `reliability`; what the calibration could not fit is left out. NaN without a case.
    """
    cells = {
        forecasts.of: _Cells.of(forecasts, matches.n_images, BINS)
        for forecasts in _all_forecasts(matches, calibration)
        if forecasts.scores != RAW
    }

    def errors(weights: Floats) -> dict[str, float]:
        by_bin = {of: one.by_bin(weights) for of, one in cells.items()}
        return {of: _ece(sums) for of, sums in by_bin.items()}

    return errors


def _ece(sums: Mapping[str, Floats]) -> float:
    return ratio(float(abs(sums["events"] - sums["probability"]).sum()), float(sums["n"].sum()))


# --- probabilities and events ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Forecasts:
    """S probabilities of images, boxes or answers. probability: (S,) 0..1. event: (S,) bool. image: (S,) index."""

    of: str
    scores: str
    probability: Floats
    event: NDArray[np.bool_]
    image: NDArray[np.int64]


def _all_forecasts(matches: Matches, calibration: Calibration | None) -> Iterator[Forecasts]:
    units = images_of(matches)
    of_images = (units.positive, units.image)
    of_boxes = (matches.hit, matches.image)
    yield Forecasts(IMAGE, RAW, units.score.astype(np.float64), *of_images)
    yield Forecasts(BOX, RAW, matches.score.astype(np.float64), *of_boxes)
    if calibration is not None:
        if IMAGE not in calibration.not_fitted:
            yield Forecasts(IMAGE, calibration.method, calibration.image(units.score), *of_images)
        if BOX not in calibration.not_fitted:
            yield Forecasts(BOX, calibration.method, calibration.box(matches.score), *of_boxes)


def bin_of(probability: ArrayLike, bins: int) -> NDArray[np.int64]:
    """Return the bin (S,) of each probability: (0, 1/bins], (1/bins, 2/bins], ...; 0 is in the first."""
    exact = np.asarray(probability, dtype=np.float64).round(6)  # undoes float32: .7 must not fall below .7
    return np.asarray(np.searchsorted(_edges(bins)[1:-1], exact, side="left"), dtype=np.int64)


def _edges(bins: int) -> Floats:
    return np.asarray(np.linspace(0, 1, bins + 1).round(6))


@dataclass(frozen=True, eq=False)
class _Cells:
    """The probabilities and events of each image summed by bin, so that a resample only weighs and adds.

    image: (E,) of each cell, cells in order of their bin. starts: (bins + 1,) where the cells of each bin begin.
    sums: (E, 5) one column for each of COLUMNS.
    """

    image: NDArray[np.int64]
    starts: NDArray[np.int64]
    sums: Floats

    @classmethod
    def of(cls, forecasts: Forecasts, n_images: int, bins: int) -> _Cells:
        keys, cell = np.unique(bin_of(forecasts.probability, bins) * n_images + forecasts.image, return_inverse=True)
        p, event = forecasts.probability, forecasts.event.astype(np.float64)
        columns = (np.ones(len(p)), p, event, p * (1 - p), (p - event) ** 2)
        sums = np.stack([np.bincount(cell, column, len(keys)) for column in columns], axis=1)
        starts = np.searchsorted(keys, np.arange(bins + 1) * n_images)
        return cls(keys % max(n_images, 1), starts, sums.astype(np.float64, copy=False))

    def by_bin(self, weights: Floats) -> dict[str, Floats]:
        """Return each column summed by bin (bins,) for image weights (I,)."""
        cell_weights = weights[self.image]
        slices = [slice(start, end) for start, end in pairwise(self.starts.tolist())]
        table = np.array([cell_weights[cells] @ self.sums[cells] for cells in slices])
        return dict(zip(COLUMNS, table.T, strict=True))


# --- figures ---------------------------------------------------------------------------------------------------------


def _statistics(forecasts: Forecasts, cells: _Cells, truth: NDArray[np.int64], weights: Floats) -> Values:
    """Return every figure for image weights (I,); NaN means "not defined".

    ECE: sum over bins of n_bin / n * |observed frequency - mean probability| (Naeini et al. 2015, Guo et al. 2017); of
    boxes it is the detection ECE of Kueppers et al. (2020), by confidence alone. It ignores fractures without a box,
    hence the recall beside it.
    ECE by chance: the expected ECE of perfectly calibrated scores in a sample of this size: in each bin the mean
    absolute deviation of a normal variable, sqrt(2 / pi * sum of p (1 - p)) / n. It assumes independent scores.
    Brier: mean of (p - event)^2 (Brier 1950); always predicting the base rate r scores r (1 - r).
    """
    sums = cells.by_bin(weights)
    n, events = float(sums["n"].sum()), float(sums["events"].sum())
    values: Values = {
        "ECE": _ece(sums),
        "ECE by chance": ratio(float(np.sqrt(2 / np.pi * sums["variance"]).sum()), n),
    }
    if forecasts.of != BOX:
        base_rate = ratio(events, n)
        values["Brier"] = ratio(float(sums["squared_error"].sum()), n)
        values["Brier of the base rate"] = base_rate * (1 - base_rate)
    else:
        values["recall"] = ratio(events, float(weights @ truth))
    rates = np.divide(sums["events"], sums["n"], out=np.full(len(cells.starts) - 1, np.nan), where=sums["n"] > 0)
    return values | {BinRate(index): rate for index, rate in enumerate(rates.tolist())}


def reliability_of(
    forecasts: Forecasts,
    group: NDArray[np.int64],
    truth: NDArray[np.int64],
    *,
    n_bootstrap: int,
    seed: int,
    bins: int = BINS,
) -> Reliability:
    """Return how reliable the probabilities on I images are. group, truth: (I,) group and number of truth boxes."""
    cells = _Cells.of(forecasts, len(group), bins)
    results = bootstrap_intervals(
        lambda weights: _statistics(forecasts, cells, truth, weights), group, n_bootstrap=n_bootstrap, seed=seed
    )
    all_cases = Basis(len(forecasts.probability), f"no {forecasts.of}")
    hits = Basis(int(truth.sum()), NO_TRUTH, count=int(forecasts.event.sum()))
    figures = {
        name: estimate(result, hits if name == "recall" else all_cases)
        for name, result in results.items()
        if isinstance(name, str)
    }
    sums = cells.by_bin(np.ones(len(group)))
    return Reliability(forecasts.of, forecasts.scores, figures, _bins(forecasts.of, sums, results))


def _bins(
    of: str, sums: Mapping[str, Floats], results: Mapping[str | BinRate, BootstrapResult]
) -> list[ReliabilityBin]:
    edges, rows = _edges(len(sums["n"])).tolist(), []
    for index, (low, high) in enumerate(pairwise(edges)):
        n = round(sums["n"][index])
        basis = Basis(n, f"no {of} has a score in this bin", count=sums["events"][index])
        mean_score = rounded(float(sums["probability"][index]) / n) if n else None
        rows.append(ReliabilityBin(low, high, n, mean_score, estimate(results[BinRate(index)], basis)))
    return rows
