"""Intervals by bootstrap over groups: images of one patient are not independent, so whole groups are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float64]

LEVEL = 0.95


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


def measure(
    statistics: Callable[[Floats], Mapping[str, float]],
    group: NDArray[np.int64],
    *,
    n_bootstrap: int,
    seed: int,
    progress: str | None = None,
) -> dict[str, Measured]:
    """Return statistics with 95 % percentile intervals (Efron and Tibshirani 1993, ch. 13) over resampled groups.

    statistics: maps image weights (I,) to named values, always the same names, NaN where not defined.
    group: (I,) group index of each image, from 0. progress: title of a progress bar, or None.
    Each resample draws as many groups as there are, with replacement. One group has no interval.
    """
    values = statistics(np.ones(len(group)))
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups < 2 or n_bootstrap < 1:
        return {name: Measured(value) for name, value in values.items()}
    random = np.random.default_rng(seed)
    resampled = np.empty((n_bootstrap, len(values)))
    for row in tqdm(resampled, desc=progress, unit="resample", disable=progress is None):
        drawn = np.bincount(random.integers(n_groups, size=n_groups), minlength=n_groups)
        row[:] = list(statistics(drawn[group].astype(float)).values())
    return {name: _interval(value, resampled[:, index]) for index, (name, value) in enumerate(values.items())}


def _interval(value: float, resampled: Floats) -> Measured:
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(defined):
        return Measured(value)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, (tail, 100 - tail))
    return Measured(value, float(low), float(high), len(resampled) - len(defined))
