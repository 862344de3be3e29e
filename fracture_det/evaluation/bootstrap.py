"""Confidence intervals by bootstrap over groups: images of one patient are not independent, so groups are resampled.

The interval of a figure is BCa (bias-corrected and accelerated; Efron 1987; Efron and Tibshirani 1993, ch. 14): two
quantiles of the resampled figures, at levels moved by how far the resamples lean to one side of the figure itself, and
by how skewed the influence of single groups is. That of a difference, which leans and is skewed little, is the plain
percentile interval (ch. 13). Both are widened for few groups, as Student's t widens a mean's (Hesterberg 2015, The
American Statistician 69, 371-386). In simulated studies (tests/evaluation/test_coverage.py) these come closest to their
nominal coverage; plain percentile intervals of figures, and BCa intervals of differences, cover too seldom.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fracture_det.structures.intervals import LEVEL as LEVEL
from fracture_det.structures.intervals import quantile, t_quantile
from fracture_det.structures.processors import available_cpus

Floats = NDArray[np.float64]
# Names a statistic.
Key = TypeVar("Key", bound=Hashable)
Statistics = Callable[[Floats], Mapping[Key, float]]

# The acceleration is estimated by leaving out each group in turn, or, of more groups than this, each of so many blocks.
MAX_BLOCKS = 100
# From so many images on, resamples are evaluated in threads: numpy releases the interpreter lock only while it works on
# long arrays. Measured on two cores, 500 images gain nothing, 4,000 a tenth, 20,000 eight tenths; threads cost memory.
THREADS_FROM, MAX_THREADS = 5_000, 4
# The two-sided level whose ends are one-sided 95 % bounds.
ONE_SIDED = 0.9
# Figures that differ by less are equal but for rounding.
_EQUAL = 1e-12
_NORMAL = NormalDist()


@dataclass(frozen=True)
class BootstrapResult:
    """One statistic of the data itself, with its interval.

    value: NaN where not defined. low, high: NaN without an interval.
    undefined: number of resamples in which it was not defined; they are not in the interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    undefined: int = 0


@dataclass(frozen=True)
class BootstrapDifference(BootstrapResult):
    """The difference of one statistic of two detectors on the same images, with its interval.

    p: two-sided, the largest alpha at which the interval of level 1 - alpha still includes 0: p < .05 and a 95 %
    interval that excludes 0 agree, except that on each side one resample is added to those beyond 0 (Davison and
    Hinkley 1997, section 4.2), so that p is never below 2 / (resamples + 1). NaN without an interval.
    lower, upper: one-sided 95 % bounds, the ends of the two-sided 90 % interval. p_above: one-sided, of the alternative
    that the first is above the other; it is below .05 where `lower` is above 0, but for the resample added likewise.
    """

    p: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    p_above: float = math.nan


@dataclass(frozen=True)
class PairedBootstrap(Generic[Key]):
    """Statistics of several detectors on the same resamples.

    results: detector -> its statistics. differences: each other detector -> statistics of the first minus its own.
    """

    results: dict[str, dict[Key, BootstrapResult]]
    differences: dict[str, dict[Key, BootstrapDifference]]


def bootstrap_intervals(
    statistics: Statistics[Key], group: NDArray[np.int64], *, n_bootstrap: int, seed: int, progress: str | None = None
) -> dict[Key, BootstrapResult]:
    """Return statistics with 95 % intervals over resampled groups.

    statistics: maps image weights (I,) to named values, always the same names, NaN where not defined. After a first
    call it may be called in several threads at once. The result is the same for any number of threads.
    group: (I,) group index of each image, from 0. progress: title of a progress bar, or None.
    Each resample draws as many groups as there are, with replacement. One group has no interval.
    """
    names, samples = _resample(statistics, group, n_bootstrap, seed, progress)
    return {name: samples.column(index).result() for index, name in enumerate(names)}


def paired_bootstrap(
    detectors: Mapping[str, Statistics[Key]],
    group: NDArray[np.int64],
    *,
    n_bootstrap: int,
    seed: int,
    progress: str | None = None,
) -> PairedBootstrap[Key]:
    """Return the statistics of each detector, and those of the first minus each other's, all on the same drawn groups.

    detectors: name -> statistics as in `bootstrap_intervals`, the same names for each. A resample in which one of the
    two is not defined is not in the interval of their difference.
    """

    def joined(weights: Floats) -> dict[tuple[str, Key], float]:
        return {
            (detector, name): value
            for detector, statistics in detectors.items()
            for name, value in statistics(weights).items()
        }

    names, samples = _resample(joined, group, n_bootstrap, seed, progress)
    columns: dict[str, dict[Key, _Samples]] = {detector: {} for detector in detectors}
    for index, (detector, name) in enumerate(names):
        columns[detector][name] = samples.column(index)
    first, *others = detectors
    return PairedBootstrap(
        {
            detector: {name: column.result() for name, column in by_name.items()}
            for detector, by_name in columns.items()
        },
        {
            other: {name: columns[first][name].minus(column) for name, column in columns[other].items()}
            for other in others
        },
    )


# --- resamples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _SampleTable:
    """F statistics. value: (F,) of the data. resampled: (B, F). left_out: (J, F), each without one block of groups."""

    value: Floats
    resampled: Floats
    left_out: Floats
    n_groups: int

    def column(self, index: int) -> _Samples:
        return _Samples(float(self.value[index]), self.resampled[:, index], self.left_out[:, index], self.n_groups)


def _resample(
    statistics: Statistics[Key], group: NDArray[np.int64], n_bootstrap: int, seed: int, progress: str | None
) -> tuple[list[Key], _SampleTable]:
    values = statistics(np.ones(len(group)))
    n_groups = int(group.max(initial=-1)) + 1
    n_bootstrap = max(n_bootstrap, 0) if n_groups > 1 else 0
    n_blocks = min(n_groups, MAX_BLOCKS) if n_bootstrap else 0
    rows = np.empty((n_bootstrap + n_blocks, len(values)))
    weights = _weights(group, n_groups, n_bootstrap, n_blocks, seed)
    samples = _evaluated(statistics, weights, min(available_cpus(), MAX_THREADS) if len(group) >= THREADS_FROM else 1)
    bar = tqdm(rows, desc=progress, unit="resample", disable=progress is None)
    for row, sample in zip(bar, samples, strict=True):
        row[:] = list(sample.values())
    value = np.array(list(values.values()), dtype=float)
    return list(values), _SampleTable(value, rows[:n_bootstrap], rows[n_bootstrap:], n_groups)


def _evaluated(statistics: Statistics[Key], weights: Iterable[Floats], n_threads: int) -> Iterator[Mapping[Key, float]]:
    """Yield the statistics for each weights, in order whatever the number of threads; few weights wait at a time."""
    if n_threads < 2:
        yield from map(statistics, weights)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Mapping[Key, float]]] = deque()
        for sample_weights in weights:
            waiting.append(pool.submit(statistics, sample_weights))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
class _Samples:
    """One statistic. value: of the data. resampled: (B,). left_out: (J,), each without one block of groups."""

    value: float
    resampled: Floats
    left_out: Floats
    n_groups: int

    @property
    def defined(self) -> Floats:
        """The resamples in which the statistic is defined."""
        return self.resampled[~np.isnan(self.resampled)]

    def result(self) -> BootstrapResult:
        """Return the statistic with its BCa interval."""
        return BootstrapResult(*self._interval(self._bca_level))

    def minus(self, other: _Samples) -> BootstrapDifference:
        """Return the difference to another statistic with its percentile interval and p."""
        resampled, left_out = self.resampled - other.resampled, self.left_out - other.left_out
        difference = _Samples(self.value - other.value, resampled, left_out, self.n_groups)
        value, low, high, undefined = difference._interval(_NORMAL.cdf)
        if math.isnan(low):
            return BootstrapDifference(value, low, high, undefined)
        _, lower, upper, _ = difference._interval(_NORMAL.cdf, ONE_SIDED)
        return BootstrapDifference(
            value, low, high, undefined, difference._p(), lower, upper, difference._p_above()
        )  # fmt: skip

    def _interval(self, level: Callable[[float], float], width: float = LEVEL) -> tuple[float, float, float, int]:
        """Return value, low, high and undefined; level: of a limit z standard errors from the figure, its quantile."""
        defined = self.defined
        if math.isnan(self.value) or not len(defined):
            return self.value, math.nan, math.nan, 0
        z = self._widening(width) * quantile(width)
        low, high = np.quantile(defined, [level(-z), level(z)])
        return self.value, float(low), float(high), len(self.resampled) - len(defined)

    def _p(self) -> float:
        defined = self.defined
        rarer = min((defined <= _EQUAL).sum(), (defined >= -_EQUAL).sum())
        share = (int(rarer) + 1) / (len(defined) + 1)
        if share >= 0.5:
            return 1.0
        return 2 * max(_NORMAL.cdf(_NORMAL.inv_cdf(share) / self._widening()), 1 / (len(defined) + 1))

    def _p_above(self) -> float:
        defined = self.defined
        share = (int((defined <= _EQUAL).sum()) + 1) / (len(defined) + 1)
        if share == 1:
            return 1.0
        return max(_NORMAL.cdf(_NORMAL.inv_cdf(share) / self._widening(ONE_SIDED)), 1 / (len(defined) + 1))

    def _bca_level(self, z: float) -> float:
        """Return BCa's level: the share of resamples below the limit that lies z standard errors from the figure."""
        moved = self._bias + z
        scale = 1 - self._acceleration * moved
        if scale <= 0:  # so skewed that the limit lies beyond all resamples
            return float(moved > 0)
        return _NORMAL.cdf(self._bias + moved / scale)

    def _widening(self, width: float = LEVEL) -> float:
        """Hesterberg's factor, t / z sqrt(G / (G - 1)): resamples of G groups spread as if divided by G, not G - 1."""
        student = t_quantile(self.n_groups - 1, width) / quantile(width)
        return student * math.sqrt(self.n_groups / (self.n_groups - 1))

    @property
    def _bias(self) -> float:
        """z0: the normal quantile of the share of resamples below the value, ties counted half."""
        deviation = self.defined - self.value
        share = ((deviation < -_EQUAL).sum() + (np.abs(deviation) <= _EQUAL).sum() / 2) / len(deviation)
        least = 0.5 / len(deviation)  # B resamples cannot distinguish a share of 0 from one below 1 / (2 B)
        return _NORMAL.inv_cdf(min(max(share, least), 1 - least))

    @property
    def _acceleration(self) -> float:
        """a = sum d^3 / (6 (sum d^2)^1.5), d = mean - value without one block (Efron and Tibshirani, eq. 14.15)."""
        left_out = self.left_out[~np.isnan(self.left_out)]
        deviation = left_out.mean() - left_out if len(left_out) else np.zeros(1)
        squares = float((deviation**2).sum())
        return float((deviation**3).sum()) / (6 * squares**1.5) if squares > _EQUAL**2 else 0.0
