"""How often the watch alarms without a change, and how soon with one: by drawing from measured radiographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fracture_det.monitoring.counts import Counts
from fracture_det.monitoring.drift import Rule
from fracture_det.monitoring.features import FEATURES, Values, bins_of
from fracture_det.monitoring.reference import Reference, make_reference
from fracture_det.monitoring.windows import MIX, Day, Window, tested

# A change that is not found within so many windows is not found.
MOST_WINDOWS = 20
DETECTOR = "simulated"


class Pool:
    """Measured radiographs to draw from. rows: their values by feature, in an order in which neighbours are alike.

    None: refused as no radiograph of a limb, so that the page has no values. body_parts: of each, where known.
    """

    def __init__(self, rows: Sequence[Values | None], body_parts: Sequence[str | None] | None = None) -> None:
        self.body_parts = list(body_parts or [None] * len(rows))
        self._seen = np.array([row is not None for row in rows])
        self._bins: dict[str, NDArray[np.int64]] = {}
        for name in FEATURES:
            known = np.array([np.nan if row is None or name not in row else row[name] for row in rows])
            self._bins[name] = np.where(np.isnan(known), -1, bins_of(name, np.nan_to_num(known)))

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def refused(self) -> float:
        """The share (0..1) that was refused."""
        return float(1 - self._seen.mean())

    @property
    def everything(self) -> NDArray[np.int64]:
        """The indices of all (N,)."""
        return np.arange(len(self))

    def counts(self, chosen: NDArray[np.int64]) -> Counts:
        """Return the counts of the radiographs with these indices (N,); refused ones are in none."""
        chosen = chosen[self._seen[chosen]]
        bins = {}
        for name, feature in FEATURES.items():
            found = self._bins[name][chosen]
            bins[name] = np.bincount(found[found >= 0], minlength=feature.n_bins).astype(np.int64)
        return Counts(len(chosen), bins)

    def strata(self) -> dict[str, Counts]:
        """Return the counts of each body part."""
        parts = sorted({part for part in self.body_parts if part is not None})
        return {part: self.counts(self.of(part)) for part in parts}

    def of(self, part: str) -> NDArray[np.int64]:
        """Return the indices of a body part."""
        return np.flatnonzero([one == part for one in self.body_parts])

    def visits(self, n: int, per_visit: int, rng: np.random.Generator, *, alike: bool) -> NDArray[np.int64]:
        """Return the indices of n radiographs in visits of `per_visit`: the same one again (alike), or neighbours."""
        first = rng.integers(0, len(self), size=-(-n // per_visit))
        step = 0 if alike else 1
        return ((first[:, None] + step * np.arange(per_visit)) % len(self)).ravel()[:n]


@dataclass(frozen=True)
class FalseAlarms:
    """Windows without a change. rate: share (0..1) with an alarm, over all references; worst: that of the worst 5 %."""

    visits: str
    n: int
    windows: int
    rate: float
    worst: float


@dataclass(frozen=True)
class Delay:
    """From a change to its alarm, in radiographs that were sent since, those of the window's end included.

    median, late: of half and of 95 % of the runs; None: beyond MOST_WINDOWS windows. found: share (0..1) of runs with
    an alarm by then. explained: share of the alarms that are called another mix of body parts. refused: share of the
    radiographs that are refused as none of a limb since the change. leading: the feature that was most often furthest.
    """

    change: str
    median: float | None
    late: float | None
    found: float
    explained: float
    refused: float
    leading: str


def false_alarms(
    pool: Pool,
    rule: Rule,
    n: int,
    per_visit: int,
    *,
    alike: bool,
    size: int,
    references: int,
    windows: int,
    seed: int = 0,
) -> FalseAlarms:
    """Draw references of `size` radiographs from `pool`, and for each of them `windows` windows of n.

    The thresholds are those of the first reference; they depend on it but little, and take seconds.
    """
    rng = np.random.default_rng(seed)
    drawn = [pool.counts(rng.integers(0, len(pool), size=size)) for _ in range(references)]
    first = make_reference(DETECTOR, "drawn", drawn[0], rule=rule)
    rates = []
    for counts in drawn:
        reference = replace(first, counts=counts)
        chosen = (pool.visits(n, per_visit, rng, alike=alike) for _ in range(windows))
        rates.append(np.mean([bool(_test(pool.counts(indices), reference).alarms) for indices in chosen]))
    how = "1 image" if per_visit == 1 else f"{per_visit} images, {'wholly alike' if alike else 'neighbours'}"
    return FalseAlarms(how, n, references * windows, float(np.mean(rates)), float(np.quantile(rates, 0.95)))


def delay(
    change: str, reference: Reference, before: Pool, after: Pool, *, per_visit: int, runs: int, seed: int = 0
) -> Delay:
    """Let radiographs of `after` follow those of `before`, from anywhere in a window on, and wait for the alarm."""
    rng = np.random.default_rng(seed)
    size = reference.rule.window
    delays, explained, leading = [], 0, Counter[str]()
    for _ in range(runs):
        kept = int(rng.integers(0, size))
        counts = before.counts(before.visits(kept, per_visit, rng, alike=False))
        sent = 0
        for _ in range(MOST_WINDOWS):
            drawn, new = _accepted(after, size - counts.images, per_visit, rng)
            sent += drawn
            window = _test(counts + new, reference)
            if window.alarms:
                delays.append(sent)
                explained += MIX in window.kinds
                leading[max(window.alarms, key=lambda name: window.statistics[name] / reference.thresholds[name])] += 1
                break
            counts = Counts()
    waits = np.array([*delays, *[np.inf] * (runs - len(delays))])
    median, late = (float(np.quantile(waits, share, method="higher")) for share in (0.5, 0.95))
    return Delay(
        change,
        median if np.isfinite(median) else None,
        late if np.isfinite(late) else None,
        len(delays) / runs,
        explained / len(delays) if delays else 0.0,
        after.refused,
        FEATURES[leading.most_common(1)[0][0]].title if leading else "",
    )


def _accepted(pool: Pool, n: int, per_visit: int, rng: np.random.Generator) -> tuple[int, Counts]:
    """Return how many radiographs must be sent for n to be analysed, and the counts of those that were."""
    if pool.refused > 0.99:
        return n, Counts()
    sent, counts = 0, Counts()
    while counts.images < n:
        chosen = pool.visits(n - counts.images, per_visit, rng, alike=False)
        sent, counts = sent + len(chosen), counts + pool.counts(chosen)
    return sent, counts


def _test(counts: Counts, reference: Reference) -> Window:
    return tested((Day("", DETECTOR, DETECTOR, counts),), counts, reference)
