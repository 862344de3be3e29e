"""What the gate found: a Verdict, saved as verdict.json and read back; `fracture_det.reporting` presents it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fracture_det.evaluation.report import Estimate, from_json, to_json

FORMAT = "fracture_det verdict"
VERSION = 1
VERDICT_FILE = "verdict.json"
SERVED, CANDIDATE = "served", "candidate"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# Nothing was given to judge by; it stops a promotion unless it is skipped by name.
NOT_JUDGED = "not judged"
# Of one figure: its test has too few fractured images; or it is not defined there.
TOO_SMALL, NOT_DEFINED = "too small", "not defined"


def calibration_role(role: str) -> str:
    """Return as what a calibration stands among the files of a test."""
    return f"{role} calibration"


@dataclass(frozen=True)
class DetectorIdentity:
    """Which detector: its name, and the SHA-256 of its weights."""

    name: str
    sha256: str


@dataclass(frozen=True)
class FigureResult:
    """One figure of both detectors on the same images, and what follows from it.

    difference: candidate minus served; None where it is not defined. lower, upper: its one-sided 95 % bounds by paired
    bootstrap over groups. margin: what the bound is held against: below zero for a figure that should be high, above it
    for an error. p_above: one-sided p of "the candidate is better"; p_holm: the same after Holm's correction over all
    figures of all tests; None where the figure cannot show it. status: PASSED, FAILED, TOO_SMALL or NOT_DEFINED.
    """

    figure: str
    served: Estimate
    candidate: Estimate
    difference: float | None
    lower: float | None
    upper: float | None
    margin: float
    status: str
    reason: str = ""
    p_above: float | None = None
    p_holm: float | None = None
    better: bool = False


@dataclass(frozen=True)
class StratumResult:
    """One subgroup: the images where `column` has `value`."""

    column: str
    value: str
    n_images: int
    n_fractured: int
    figures: list[FigureResult]


@dataclass(frozen=True)
class TestResult:
    """One test. counts: images_asked, images, images_fractured, images_healthy, groups, boxes_truth.

    files: by role (truth, served, candidate) the SHA-256 of truth and predictions, and of the calibrations that there
    were (`calibration_role`). small: too few fractured images to
    decide. strata: of enough images; smaller_strata: how many have fewer. calibration: the ECE of "image" and "box"
    probabilities; no_calibration: why there is none. failed: images of the candidate alone, which count against it;
    left_out: images that the served detector failed on, in no figure.
    """

    __test__ = False  # not pytest's

    name: str
    files: dict[str, str]
    counts: dict[str, int]
    small: bool
    figures: list[FigureResult]
    strata: list[StratumResult] = field(default_factory=list)
    smaller_strata: int = 0
    calibration: list[FigureResult] = field(default_factory=list)
    no_calibration: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RobustnessResult:
    """One figure on the perturbed images of a test: candidate minus served, over all perturbations and for the worst.

    margin_mean, margin_worst: below zero. worst_perturbation: its name.
    """

    test: str
    figure: str
    mean: float
    worst: float
    worst_perturbation: str
    margin_mean: float
    margin_worst: float
    status: str


@dataclass(frozen=True)
class RatioResult:
    """Speed or size: what was measured of both (ms per image, or bytes), candidate / served, and the limit."""

    name: str
    served: float
    candidate: float
    ratio: float
    limit: float
    status: str


@dataclass(frozen=True)
class Leak:
    """A test image that is in the training data. how: "same file", "near copy" or "same group"."""

    test: str
    image: str
    training: str
    training_image: str
    how: str


@dataclass(frozen=True)
class Check:
    """One rule of the gate. status: PASSED, FAILED, NOT_JUDGED or SKIPPED. detail: a sentence."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may replace the served detector, and all that it rests on; equal inputs, equal Verdict.

    reasons: what stands against it, in sentences; empty where it may. files: SHA-256 of other input files by role.
    rules: all margins in effect, with n_bootstrap and seed. about: SHA-256 of the rules, versions, commit.
    """

    promote: bool
    served: DetectorIdentity
    candidate: DetectorIdentity
    reasons: list[str]
    checks: list[Check]
    tests: list[TestResult]
    robustness: list[RobustnessResult]
    ratios: list[RatioResult]
    leaks: list[Leak]
    notes: list[str]
    rules: dict[str, Any]
    about: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the verdict as JSON text; see `report.to_json`."""
        return to_json(FORMAT, VERSION, self)

    @classmethod
    def load(cls, path: str | Path) -> Verdict:
        """Read a verdict.json, or the one in a folder. Raises ReportError naming file, field and value."""
        path = Path(path)
        return from_json(path / VERDICT_FILE if path.is_dir() else path, cls, FORMAT, VERSION)
