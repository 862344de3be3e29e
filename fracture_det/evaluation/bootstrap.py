"""Intervals by bootstrap over groups: images of one patient are not independent, so whole groups are drawn.

The intervals are BCa (bias-corrected and accelerated; Efron 1987; Efron and Tibshirani 1993, ch. 14): two quantiles of
the resampled figures, at levels moved by how far the resamples lean to one side of the figure itself, and by how skewed
the influence of single groups is. Where neither is so, they are the 2.5 and 97.5 % quantiles of the plain percentile
interval, which holds the true value too seldom: of AUROC with few groups, and of every figure near 0 or 1 (see
tests/evaluation/test_coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fracture_det.evaluation.intervals import LEVEL as LEVEL

Floats = NDArray[np.float64]
Statistics = Callable[[Floats], Mapping[str, float]]

# The acceleration is estimated by leaving out each group in turn, or, of more groups than this, each of so many blocks.
MAX_BLOCKS = 100
# Figures that differ by less are equal but for rounding.
_EQUAL = 1e-12
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Measured:
    """One statistic of the data itself, with its interval.

    value: NaN where not defined. low, high: NaN without an interval.
    undefined: number of resamples in which it was not defined; they are not in the interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    undefined: int = 0


@dataclass(frozen=True)
class MeasuredDifference(Measured):
    """The difference of one statistic of two detectors on the same images, with its interval.

    p: two-sided, the largest alpha at which the interval of level 1 - alpha still holds 0, so that p < .05 says the
    same as a 95 % interval without 0. On each side one resample more than were seen counts as beyond 0 (Davison and
    Hinkley 1997, section 4.2), so that p is never below 2 / (resamples + 1). NaN without an interval.
    """

    p: float = math.nan


@dataclass(frozen=True)
class PairedMeasures:
    """Several detectors, measured on the same resamples.

    each: detector -> its statistics. differences: each other detector -> statistics of the first minus its own.
    """

    each: dict[str, dict[str, Measured]]
    differences: dict[str, dict[str, MeasuredDifference]]


def measure(
    statistics: Statistics, group: NDArray[np.int64], *, n_bootstrap: int, seed: int, progress: str | None = None
) -> dict[str, Measured]:
    """Return statistics with 95 % BCa intervals over resampled groups.

    statistics: maps image weights (I,) to named values, always the same names, NaN where not defined.
    group: (I,) group index of each image, from 0. progress: title of a progress bar, or None.
    Each resample draws as many groups as there are, with replacement. One group has no interval.
    """
    names, figures = _collect(statistics, group, n_bootstrap, seed, progress)
    return {name: figures.column(index).measured() for index, name in enumerate(names)}


def measure_paired(
    detectors: Mapping[str, Statistics],
    group: NDArray[np.int64],
    *,
    n_bootstrap: int,
    seed: int,
    progress: str | None = None,
) -> PairedMeasures:
    """Return the statistics of each detector, and those of the first minus each other's, all on the same drawn groups.

    detectors: name -> statistics as in `measure`, the same names for each. A resample in which one of the two is not
    defined is not in the interval of their difference.
    """

    def joined(weights: Floats) -> dict[str, float]:
        found = [statistics(weights) for statistics in detectors.values()]
        return {f"{number} {name}": value for number, values in enumerate(found) for name, value in values.items()}

    names, figures = _collect(joined, group, n_bootstrap, seed, progress)
    one = [name.partition(" ")[2] for name in names if name.startswith("0 ")]
    columns = [
        {name: figures.column(number * len(one) + index) for index, name in enumerate(one)}
        for number in range(len(detectors))
    ]
    return PairedMeasures(
        {key: {name: c.measured() for name, c in own.items()} for key, own in zip(detectors, columns, strict=True)},
        {
            key: {name: columns[0][name].minus(column).difference() for name, column in own.items()}
            for key, own in list(zip(detectors, columns, strict=True))[1:]
        },
    )


# --- resamples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Figures:
    """F figures. value: (F,) of the data. resampled: (B, F). left_out: (J, F), each without one block of groups."""

    value: Floats
    resampled: Floats
    left_out: Floats

    def column(self, index: int) -> _Figure:
        return _Figure(float(self.value[index]), self.resampled[:, index], self.left_out[:, index])


def _collect(
    statistics: Statistics, group: NDArray[np.int64], n_bootstrap: int, seed: int, progress: str | None
) -> tuple[list[str], _Figures]:
    values = statistics(np.ones(len(group)))
    n_groups = int(group.max(initial=-1)) + 1
    n_bootstrap = n_bootstrap if n_groups > 1 else 0
    n_blocks = min(n_groups, MAX_BLOCKS) if n_bootstrap > 0 else 0
    rows = np.empty((max(n_bootstrap, 0) + n_blocks, len(values)))
    weights = _weights(group, n_groups, n_bootstrap, n_blocks, seed)
    for row, weight in zip(tqdm(rows, desc=progress, unit="resample", disable=progress is None), weights, strict=True):
        row[:] = list(statistics(weight).values())
    return list(values), _Figures(np.array(list(values.values()), float), rows[:n_bootstrap], rows[n_bootstrap:])


def _weights(group: NDArray[np.int64], n_groups: int, n_bootstrap: int, n_blocks: int, seed: int) -> Iterator[Floats]:
    """Yield how often each image counts: in each resample, and then without each block of groups."""
    random = np.random.default_rng(seed)
    for _ in range(n_bootstrap):
        drawn = np.bincount(random.integers(n_groups, size=n_groups), minlength=n_groups)
        yield drawn[group].astype(float)
    for block in range(n_blocks):
        yield (group % n_blocks != block).astype(float)


# --- from resamples to an interval -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Figure:
    """One figure. value: of the data. resampled: (B,). left_out: (J,), each without one block of groups."""

    value: float
    resampled: Floats
    left_out: Floats

    def minus(self, other: _Figure) -> _Figure:
        return _Figure(self.value - other.value, self.resampled - other.resampled, self.left_out - other.left_out)

    @property
    def defined(self) -> Floats:
        """The resamples in which it is defined."""
        return self.resampled[~np.isnan(self.resampled)]

    def measured(self) -> Measured:
        defined = self.defined
        if math.isnan(self.value) or not len(defined):
            return Measured(self.value)
        levels = [self._level(tail) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
        low, high = np.quantile(defined, levels)
        return Measured(self.value, float(low), float(high), len(self.resampled) - len(defined))

    def difference(self) -> MeasuredDifference:
        one = self.measured()
        if math.isnan(one.low):
            return MeasuredDifference(one.value)
        below, beyond = (self.defined <= _EQUAL).sum(), (self.defined >= -_EQUAL).sum()
        n = len(self.defined)
        tails = (self._tail((below + 1) / (n + 1)), 1 - self._tail(1 - (beyond + 1) / (n + 1)))
        return MeasuredDifference(
            one.value, one.low, one.high, one.undefined, min(1.0, 2 * max(min(tails), 1 / (n + 1)))
        )

    def _level(self, tail: float) -> float:
        """Return the share of resamples that lie below the limit with the probability `tail` below it."""
        moved = self._bias + _NORMAL.inv_cdf(tail)
        scale = 1 - self._acceleration * moved
        if scale <= 0:  # so skewed that the limit lies beyond all resamples
            return float(moved > 0)
        return _NORMAL.cdf(self._bias + moved / scale)

    def _tail(self, level: float) -> float:
        """Return the inverse of `_level`."""
        moved = _inverse(level, len(self.defined)) - self._bias
        scale = 1 + self._acceleration * moved
        if scale <= 0:
            return float(moved > 0)
        return _NORMAL.cdf(moved / scale - self._bias)

    @property
    def _bias(self) -> float:
        """z0: the normal quantile of the share of resamples below the value, ties counted half."""
        apart = self.defined - self.value
        share = ((apart < -_EQUAL).sum() + (np.abs(apart) <= _EQUAL).sum() / 2) / len(apart)
        return _inverse(share, len(apart))

    @property
    def _acceleration(self) -> float:
        """a = sum d^3 / (6 (sum d^2)^1.5), d = mean - value without one block (Efron and Tibshirani, eq. 14.15)."""
        left_out = self.left_out[~np.isnan(self.left_out)]
        apart = left_out.mean() - left_out if len(left_out) else np.zeros(1)
        spread = float((apart**2).sum())
        return float((apart**3).sum()) / (6 * spread**1.5) if spread > _EQUAL**2 else 0.0


def _inverse(share: float, n: int) -> float:
    """Return the normal quantile of a share that n resamples gave, which do not tell 0 from half of one."""
    return _NORMAL.inv_cdf(min(max(share, 0.5 / n), 1 - 0.5 / n))
