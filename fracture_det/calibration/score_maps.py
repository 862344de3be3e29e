"""Maps from a raw score to a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# How a map may be fitted, the recommended one first; see `fit_map`.
METHODS = ("platt", "temperature", "isotonic")
DEFAULT_METHOD = METHODS[0]
# The map of scores that nothing could be fitted to.
IDENTITY = "identity"
# Softmax in float32 reaches 1, of which the logit is infinite: scores count as at most 1 - this, and at least this.
EPSILON = 1e-6


class CalibrationError(ValueError):
    """A calibration cannot be fitted, read or used; the message names the file, the field and the value."""


@dataclass(frozen=True)
class ScoreMap:
    """A map from raw score to probability, both 0..1, that never falls; calling it applies it.

    method: one of METHODS, or IDENTITY for scores left as they are.
    slope, offset: of "platt" and "temperature" (slope 1 / T, offset 0): sigmoid(slope * logit(score) + offset).
    knots: of "isotonic", (score, probability), both rising. Between two the map is linear; below the first and above
        the last it is flat, because the data say no more there, so that scores beyond them become ties.
    zero: the probability of a score of exactly 0, which images without a box have; no other score gets less. None
        where the fitted data held none: 0 then counts as EPSILON.
    """

    method: str
    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    zero: float | None = None

    def __post_init__(self) -> None:
        require(self.method in (*METHODS, IDENTITY), "method", f"one of {', '.join(METHODS)}", self.method)
        require(0 < self.slope < np.inf, "slope", "a number above 0", self.slope)
        moved = abs(self.offset) < np.inf if self.method == "platt" else self.offset == 0
        require(moved, "offset", "a number" if self.method == "platt" else f"0 with {self.method}", self.offset)
        require(self.zero is None or 0 <= self.zero <= 1, "zero", "0..1", self.zero)
        n_knots = len(self.knots)
        require(n_knots > 1 if self.method == "isotonic" else n_knots == 0, "knots", "two or more, or none", n_knots)
        if n_knots:
            knots = np.array(self.knots)
            rising = bool((np.diff(knots, axis=0) > 0).all() and knots.min() >= 0 and knots.max() <= 1)
            require(rising, "knots", "scores and probabilities that rise within 0..1", self.knots)

    def __call__(self, scores: ArrayLike) -> Floats:
        """Return the probability of each raw score (...), in the same shape."""
        raw: Floats = np.asarray(scores, dtype=np.float64)
        if self.method == IDENTITY:
            return np.array(raw, dtype=np.float64)
        if self.method == "isotonic":
            knots = np.array(self.knots)
            mapped: Floats = np.asarray(np.interp(raw, knots[:, 0], knots[:, 1]))
        else:
            mapped = sigmoid(self.slope * logit(raw) + self.offset)
        if self.zero is not None:
            mapped = np.where(raw == 0, self.zero, np.maximum(mapped, self.zero))
        return mapped


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Raise CalibrationError naming field, expectation and value unless `holds`."""
    if not holds:
        raise CalibrationError(f"{name}: expected {expected}, got {value!r}")


def logit(scores: Floats) -> Floats:
    """Return the log odds of scores (...) 0..1, which count as at least EPSILON and at most 1 - EPSILON."""
    inside = np.clip(scores, EPSILON, 1 - EPSILON)
    return np.log(inside) - np.log1p(-inside)


def sigmoid(logits: Floats) -> Floats:
    """Return the probabilities (...) of log odds."""
    return 0.5 * (1 + np.tanh(0.5 * logits))  # without overflow on either side
