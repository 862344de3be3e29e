"""The confidence from which the type of a fracture is told: chosen on validation data, frozen, then applied to test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fracture_det.calibration.score_maps import require
from fracture_det.structures.wording import counted

ACCURACY, COVERAGE = "accuracy", "coverage"
DEFAULT_ACCURACY = 0.8


@dataclass(frozen=True)
class TypeThreshold:
    """The least confidence (the probability of the first type) of an answer, chosen on n images of known type.

    rule: `accuracy`: of the answers, a share of `target` is right; or `coverage`: a share of `target` of the images has
    an answer. confidence: 0..1, or None where that is not reached; `reason` then says why.
    accuracy, coverage: what validation data have at it. Raises CalibrationError for a value that cannot be.
    """

    rule: str
    target: float
    n: int
    confidence: float | None = None
    accuracy: float | None = None
    coverage: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        require(self.rule in (ACCURACY, COVERAGE), "types.rule", f"{ACCURACY} or {COVERAGE}", self.rule)
        require(0 < self.target <= 1, "types.target", "above 0, up to 1", self.target)
        require(
            (self.confidence is None) == (self.reason is not None), "types", "a confidence or a reason", self.reason
        )
        for name in ("confidence", "accuracy", "coverage"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, f"types.{name}", "0..1", value)


def choose_type_threshold(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], n: int, *, rule: str = ACCURACY, target: float
) -> TypeThreshold:
    """Return the most lenient threshold whose answers are right as often as asked, or the strictest that covers enough.

    confidence, right: (S,) of the answers on the n validation images of known type; S < n where some have no answer.
    As for operating points, it lies in the middle between two neighbouring confidences that do the same.
    """
    unreached = TypeThreshold(rule, target, n, reason="no validation image of a known type has an answer")
    if not len(confidence):
        return unreached
    levels, member = np.unique(-confidence, return_inverse=True)  # from strict to lenient
    answers = np.cumsum(np.bincount(member))
    accuracy, coverage = np.cumsum(np.bincount(member, right)) / answers, answers / n
    reached = np.flatnonzero((accuracy if rule == ACCURACY else coverage) >= target - 1e-12)
    if not len(reached):
        best = (
            f"the surest are right in {accuracy.max():.3f}"
            if rule == ACCURACY
            else f"{coverage[-1]:.3f} have an answer"
        )
        reason = f"of {counted(n, 'validation image')} of known type, at most {best}"
        return TypeThreshold(rule, target, n, reason=reason)
    index = int(reached[-1] if rule == ACCURACY else reached[0])
    last = index + 1 == len(levels)
    least = -levels[index] if last else -(levels[index] + levels[index + 1]) / 2
    return TypeThreshold(rule, target, n, float(least), float(accuracy[index]), float(coverage[index]))
