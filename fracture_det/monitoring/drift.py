"""The test of a window of radiographs against a reference: the largest distance of distribution functions, per feature.

The statistic of a feature is Kolmogorov's and Smirnov's for two samples, over bins: D sqrt(n m / (n + m)), with D the
largest distance of the two distribution functions of n and m radiographs. Its threshold is the quantile
1 - rate / (number of features) (Bonferroni) of the statistic in pairs of samples that are drawn from the reference
itself, so that a window of unchanged radiographs is an alarm with probability `rate` at most, however features depend
on each other. Radiographs of one visit are alike: both samples are drawn as visits of wholly alike radiographs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fracture_det.monitoring.counts import Bins, Counts
from fracture_det.monitoring.features import FEATURES

# A reference of fewer says too little.
MIN_IMAGES = 100
# Sizes of windows that thresholds are simulated for; the largest threshold counts for all.
WINDOW_SIZES = (50, 200, 1000)
MIX_STEPS = 200
# The threshold of a feature that the reference does not know: nothing is above it.
UNKNOWN = 1e9


@dataclass(frozen=True)
class Rule:
    """How thresholds are set.

    rate: 0..1, the probability of an alarm in a window without any change. images_per_visit: how many images a
    visit of a patient has, which count as wholly alike. window: the fewest radiographs in a window. draws, seed: how
    many pairs of samples are drawn for each threshold, and by which random numbers.
    """

    rate: float = 0.01
    images_per_visit: int = 2
    window: int = 100
    draws: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rule.rate: expected above 0 and below 1, got {self.rate!r}")
        for name, low in (("images_per_visit", 1), ("window", 20), ("draws", 100), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ValueError(f"rule.{name}: expected a whole number from {low}, got {value!r}")


def distance(first: NDArray[np.number], second: NDArray[np.number]) -> float:
    """Return the largest distance (0..1) of the distribution functions of two counts (n_bins,)."""
    if not first.sum() or not second.sum():
        return 0.0
    return float(np.abs(np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()).max())


def statistic(window: NDArray[np.number], reference: NDArray[np.number]) -> float:
    """Return D sqrt(n m / (n + m)) of two counts (n_bins,); 0 where one is empty."""
    n, m = float(window.sum()), float(reference.sum())
    return distance(window, reference) * math.sqrt(n * m / (n + m)) if n and m else 0.0


def statistics(window: Counts, reference: Counts, features: Sequence[str]) -> dict[str, float]:
    """Return the statistic of each feature."""
    return {name: statistic(window.bins[name], reference.bins[name]) for name in features}


def thresholds_of(reference: Counts, rule: Rule) -> dict[str, float]:
    """Return the threshold of each feature, UNKNOWN where the reference does not know it."""
    rng = np.random.default_rng(rule.seed)
    level = 1 - rule.rate / len(FEATURES)
    return {name: _threshold(reference.bins[name], rule, level, rng) for name in FEATURES}


def _threshold(bins: Bins, rule: Rule, level: float, rng: np.random.Generator) -> float:
    per_visit = rule.images_per_visit
    m = int(bins.sum()) // per_visit
    if not m:
        return UNKNOWN
    shares = bins / bins.sum()
    largest = 0.0
    for size in WINDOW_SIZES:
        n = size // per_visit
        windows = np.cumsum(rng.multinomial(n, shares, size=rule.draws), axis=1) / n
        references = np.cumsum(rng.multinomial(m, shares, size=rule.draws), axis=1) / m
        # Radiographs are counted, visits are drawn: the scale has the numbers of radiographs.
        scale = math.sqrt(per_visit * n * m / (n + m))
        largest = max(largest, float(np.quantile(np.abs(windows - references).max(axis=1) * scale, level)))
    # Of a constant, whose statistic is 0 without a change, any radiograph elsewhere must not be an alarm.
    return max(largest, 0.5)


def fitted_mix(window: Counts, strata: Mapping[str, Counts], features: Sequence[str]) -> dict[str, float]:
    """Return the shares of the strata whose mixture is most likely to give the window's bins, features as independent.

    By expectation maximisation, from equal shares.
    """
    names = [name for name, counts in strata.items() if counts.images]
    tables = [
        (
            window.bins[feature],
            np.stack([(strata[name].bins[feature] + 0.1) / (strata[name].bins[feature] + 0.1).sum() for name in names]),
        )
        for feature in features
    ]
    shares = np.full(len(names), 1 / len(names))
    for _ in range(MIX_STEPS):
        expected = np.zeros(len(names))
        for counts, given in tables:
            expected += (shares[:, None] * given / (shares @ given)) @ counts
        shares = expected / expected.sum()
    return dict(zip(names, shares.tolist(), strict=True))


def mixture(strata: Mapping[str, Counts], shares: Mapping[str, float], name: str) -> NDArray[np.float64]:
    """Return the shares (n_bins,) of a feature's bins in a mixture of strata."""
    parts = [share * strata[stratum].bins[name] / strata[stratum].n(name) for stratum, share in shares.items()]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)
