"""How many radiographs fell into each bin of each feature, got each finding, were corrected: all that is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.monitoring.features import FEATURES, Values, bins_of

Bins = NDArray[np.int64]


class WatchError(ValueError):
    """Counts, a reference or a table cannot be used; the message names the field, and the file where there is one."""


def _no_bins() -> dict[str, Bins]:
    return {name: np.zeros(feature.n_bins, dtype=np.int64) for name, feature in FEATURES.items()}


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts over some radiographs, without a trace of any single one but in the smallest numbers.

    images: how many. bins: feature -> (n_bins,) int64, of those radiographs whose value is known. findings: level of
    the finding -> how many. judged: how many had feedback of a reader; corrected: how many of those were corrected.
    """

    images: int = 0
    bins: Mapping[str, Bins] = field(default_factory=_no_bins)
    findings: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0
    corrected: int = 0

    def __add__(self, other: Counts) -> Counts:
        levels = [*self.findings, *(level for level in other.findings if level not in self.findings)]
        return Counts(
            self.images + other.images,
            {name: self.bins[name] + other.bins[name] for name in FEATURES},
            {level: self.findings.get(level, 0) + other.findings.get(level, 0) for level in levels},
            self.judged + other.judged,
            self.corrected + other.corrected,
        )

    def n(self, name: str) -> int:
        """Return of how many radiographs the feature is known."""
        return int(self.bins[name].sum())

    def quantile(self, name: str, share: float) -> float | None:
        """Return the quantile (share 0..1) of a feature, within its bin by a straight line; None without a value.

        The open bins count as their one edge.
        """
        counts, edges = self.bins[name], np.array(FEATURES[name].edges)
        total = counts.sum()
        if not total:
            return None
        lows, highs = np.concatenate([edges[:1], edges]), np.concatenate([edges, edges[-1:]])
        reached = np.cumsum(counts)
        index = int(np.searchsorted(reached, share * total, side="left"))
        index = min(max(index, int(np.flatnonzero(counts)[0])), len(counts) - 1)
        within = (share * total - (reached[index] - counts[index])) / max(counts[index], 1)
        return float(lows[index] + np.clip(within, 0, 1) * (highs[index] - lows[index]))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "images": self.images,
            "bins": {name: counts.tolist() for name, counts in self.bins.items()},
            "findings": dict(self.findings),
            "judged": self.judged,
            "corrected": self.corrected,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Counts:
        """Return the counts in `content`. Raises WatchError."""
        try:
            bins = {name: np.array(content["bins"][name], dtype=np.int64) for name in FEATURES}
            numbers = [int(content[name]) for name in ("images", "judged", "corrected")]
            findings = {str(level): int(count) for level, count in content["findings"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WatchError(f"counts: expected images, bins, findings, judged and corrected, got {error}") from error
        for name, counts in bins.items():
            if counts.shape != (FEATURES[name].n_bins,) or (counts < 0).any():
                raise WatchError(f"bins.{name}: expected {FEATURES[name].n_bins} counts, got {counts.tolist()}")
        if min(*numbers, *findings.values(), 0) < 0 or numbers[2] > numbers[1]:
            raise WatchError(f"counts: expected numbers from 0, no more corrected than judged, got {numbers}")
        return cls(numbers[0], bins, findings, numbers[1], numbers[2])


def count(
    values: Iterable[Values],
    findings: Iterable[str] = (),
    *,
    judged: int = 0,
    corrected: int = 0,
) -> Counts:
    """Count radiographs by their values, of which any may be missing, and by their findings."""
    rows = list(values)
    bins = _no_bins()
    for name, counts in bins.items():
        known = [row[name] for row in rows if row.get(name) is not None]
        np.add.at(counts, bins_of(name, known), 1)
    levels: dict[str, int] = {}
    for level in findings:
        levels[level] = levels.get(level, 0) + 1
    return Counts(len(rows), bins, levels, judged, corrected)


def total(parts: Iterable[Counts]) -> Counts:
    """Return the sum of counts."""
    return sum(parts, Counts())
