"""Values and days of a drawn site: no radiographs are needed for them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from fracture_det.monitoring.counts import Counts, count
from fracture_det.monitoring.drift import Rule
from fracture_det.monitoring.features import result_values
from fracture_det.monitoring.reference import Reference, make_reference
from fracture_det.monitoring.windows import Day

SHA, OTHER_SHA = "a" * 64, "b" * 64
# Enough draws for a threshold that is nearly right, in a fraction of a second.
QUICK = Rule(draws=500)
LEVELS = ("likely", "possible", "none seen")
# Mean and deviation of each value of a picture.
PICTURES = {
    "grey": (60, 12),
    "dark": (20, 8),
    "bright": (150, 25),
    "contrast": (42, 8),
    "border": (55, 15),
    "saturated": (0.02, 0.01),
    "size": (0, 1),
    "noise": (-1, 0.6),
    "sharpness": (-0.6, 0.3),
    "limb": (7, 2),
}


def drawn_values(rng: np.random.Generator, n: int, **shifts: float) -> list[dict[str, float]]:
    """Return the values of n radiographs; shifts: feature -> what is added, in deviations."""
    rows = []
    for _ in range(n):
        row = {
            name: mean + deviation * (rng.standard_normal() + shifts.get(name, 0))
            for name, (mean, deviation) in PICTURES.items()
        }
        scores = rng.beta(1, 3, size=rng.integers(0, 4)) + 0.2 * shifts.get("score", 0)
        rows.append(row | result_values(np.clip(scores, 0, 1), 0.1))
    return rows


def drawn_counts(rng: np.random.Generator, n: int, *, judged: int = 0, corrected: int = 0, **shifts: float) -> Counts:
    """Return the counts of n radiographs."""
    rows = drawn_values(rng, n, **shifts)
    levels = [LEVELS[0 if row["score"] >= 0.5 else 1 if row["score"] >= 0.1 else 2] for row in rows]
    return count(rows, levels, judged=judged, corrected=corrected)


def drawn_reference(rule: Rule = QUICK, *, seed: int = 0, n: int = 400) -> Reference:
    """Return the reference of a drawn site, with a fifth of 100 judged results corrected."""
    counts = drawn_counts(np.random.default_rng(seed), n, judged=100, corrected=20)
    return make_reference(SHA, "a drawn site", counts, rule=rule)


def drawn_days(rng: np.random.Generator, per_day: list[int], *, sha256: str = SHA, start: str = "2026-01-05", **shifts):
    """Return days one after the other, with so many radiographs each."""
    first = date.fromisoformat(start)
    return [
        Day(f"{first + timedelta(days=index)}", f"drawn {sha256[:4]}", sha256, drawn_counts(rng, n, **shifts))
        for index, n in enumerate(per_day)
    ]
