"""The figures of the gate on one test: both detectors on the same images, differences with one-sided bounds.

An image that only the candidate failed on counts against it at its worst: a fractured one as missed, with the score 0,
a healthy one as a false alarm, with the score 1. One that the served detector failed on says nothing about a
difference; it is in no figure, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fracture_det.calibration.calibration import CALIBRATED, Calibration
from fracture_det.calibration.operating_points import check_fitted_apart
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.data.coco import read_coco
from fracture_det.data.predictions import Predictions, PredictionsError, align, read_predictions
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import BootstrapDifference, Floats, PairedBootstrap, paired_bootstrap
from fracture_det.evaluation.estimates import NO_TRUTH, Basis, auroc_basis, estimate
from fracture_det.evaluation.froc import froc_curve
from fracture_det.evaluation.gate_rules import FIGURES, GateRules
from fracture_det.evaluation.image_level import auroc, images_of
from fracture_det.evaluation.lesion_level import average_precision
from fracture_det.evaluation.matching import Matches, match_dataset, shared_records
from fracture_det.evaluation.reliability import calibration_errors
from fracture_det.evaluation.report import BOX, IMAGE, Report, rounded
from fracture_det.evaluation.strata import subgroups
from fracture_det.evaluation.usable import check_predicted, check_truth
from fracture_det.evaluation.verdict import (
    CANDIDATE,
    FAILED,
    NOT_DEFINED,
    PASSED,
    SERVED,
    TOO_SMALL,
    DetectorIdentity,
    FigureResult,
    StratumResult,
    TestResult,
    calibration_role,
)
from fracture_det.structures.detections import Detections
from fracture_det.structures.hashes import sha256_of

PREDICTIONS_FILE, CALIBRATION_FILE, REPORT_FILE = "predictions.jsonl", "calibration.json", "report.json"
Statistics = Callable[[Floats], dict[str, float]]


class GateError(ValueError):
    """The gate cannot decide on what it was given; the message names the test, the detector and what is wrong."""


@dataclass(frozen=True, eq=False)
class GateRun:
    """One detector's predictions of one test. sha256: of the file.

    calibration: what makes its scores probabilities, or None; calibration_sha256: of its file. report: of the
    evaluation that made them, or None.
    """

    predictions: Predictions
    sha256: str
    calibration: Calibration | None = None
    report: Report | None = None
    calibration_sha256: str | None = None

    @property
    def identity(self) -> DetectorIdentity:
        """Which detector made the predictions. Raises GateError where they do not say it."""
        digest = self.predictions.weights_sha256
        if digest is None:
            raise GateError(
                f"predictions of {self.predictions.detector}: no SHA-256 of its weights in `about`; a verdict is about "
                "two exact detectors: predict with fracture-det eval or predict"
            )
        return DetectorIdentity(self.predictions.detector, digest)


@dataclass(frozen=True, eq=False)
class GateTest:
    """One frozen test: its name, its truth, and both detectors' predictions of it. sha256: of the truth's file."""

    name: str
    dataset: Dataset
    sha256: str
    served: GateRun
    candidate: GateRun


def read_gate_run(path: Path, calibration: Path | None = None) -> GateRun:
    """Read an output folder of `fracture-det eval`, or a predictions.jsonl.

    calibration: its calibration.json; without one, that of the folder, if it has one. Raises ValueErrors that name the
    file: one of them is broken, or the calibration is of another detector.
    """
    folder = path if path.is_dir() else None
    file = path / PREDICTIONS_FILE if folder else path
    predictions = read_predictions(file)
    if calibration is None and folder and (folder / CALIBRATION_FILE).is_file():
        calibration = folder / CALIBRATION_FILE
    loaded = None if calibration is None else Calibration.load(calibration)
    if loaded is not None and CALIBRATED not in predictions.detector:
        try:
            loaded.check_detector(predictions.detector, predictions.weights_sha256)
        except CalibrationError as error:
            raise GateError(f"{calibration} does not fit {file}: {error}") from error
    report = Report.load(folder) if folder and (folder / REPORT_FILE).is_file() else None
    digest = None if calibration is None else sha256_of(calibration)
    return GateRun(predictions, sha256_of(file), loaded, report, digest)


def read_gate_test(name: str, truth: Path, served: GateRun, candidate: GateRun) -> GateTest:
    """Read the truth of a test. Raises ValueErrors that name the file for a test without any image or truth box."""
    dataset = read_coco(truth)
    check_truth(dataset, truth)
    return GateTest(name, dataset, sha256_of(truth), served, candidate)


def _files(test: GateTest) -> dict[str, str]:
    """Return the SHA-256 of truth, predictions and calibrations by role."""
    files = {"truth": test.sha256, SERVED: test.served.sha256, CANDIDATE: test.candidate.sha256}
    for role, run in ((SERVED, test.served), (CANDIDATE, test.candidate)):
        if run.calibration_sha256 is not None:
            files[calibration_role(role)] = run.calibration_sha256
    return files


# --- one test --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both detectors on the same images, matched once."""

    records: list[ImageRecord]
    served: Matches
    candidate: Matches

    def of(self, keep: NDArray[np.bool_]) -> _Pair:
        records = [record for record, kept in zip(self.records, keep, strict=True) if kept]
        return _Pair(records, self.served.of_images(keep), self.candidate.of_images(keep))

    def bootstrap(self, rules: GateRules, served: Statistics, candidate: Statistics) -> PairedBootstrap[str]:
        # The candidate first: differences are of the first minus the other.
        statistics = {CANDIDATE: candidate, SERVED: served}
        return paired_bootstrap(statistics, self.served.group, n_bootstrap=rules.bootstrap, seed=rules.seed)


def compare_on_test(test: GateTest, rules: GateRules) -> TestResult:
    """Return both detectors' figures on a test, of all images and of each subgroup, and what follows from each.

    Raises PredictionsError where the predictions are not of the test's images, and ValueErrors that name the test where
    nothing was predicted or a calibration was fitted on it.
    """
    aligned = {}
    for role, run in ((SERVED, test.served), (CANDIDATE, test.candidate)):
        try:
            aligned[role] = align(run.predictions, test.dataset)
        except PredictionsError as error:
            raise GateError(f"test {test.name}, {role}: {error}") from error
    left_out, lost = aligned[SERVED].failures, aligned[CANDIDATE].failures
    check_predicted(test.dataset, aligned[SERVED], Path(f"test {test.name}, {SERVED}"))
    compared = [record for record in test.dataset if record.image_id not in left_out]
    failed = {record.file_name: lost[record.image_id] for record in compared if record.image_id in lost}
    of_candidate = {
        record.image_id: aligned[CANDIDATE].detections.get(record.image_id, worst_case(record)) for record in compared
    }
    pair = _Pair(
        shared_records(test.dataset, of_candidate),
        match_dataset(test.dataset, aligned[SERVED].detections),
        match_dataset(test.dataset, of_candidate),
    )
    counts = _counts(test.dataset, pair)
    small = counts["images_fractured"] < rules.min_fractured
    strata, smaller = _strata(pair, rules)
    calibration, no_calibration = _calibration(test, pair, rules, small)
    return TestResult(
        name=test.name,
        files=_files(test),
        counts=counts,
        small=small,
        figures=_figures(pair, rules, small),
        strata=strata,
        smaller_strata=smaller,
        calibration=calibration,
        no_calibration=no_calibration,
        failed=failed,
        left_out={
            record.file_name: left_out[record.image_id] for record in test.dataset if record.image_id in left_out
        },
    )


def worst_case(record: ImageRecord) -> Detections:
    """Return what counts for an image that the candidate failed on: nothing found, or a false alarm where healthy."""
    if record.fractured:
        return Detections.empty()
    return Detections.from_unsorted([[0.0, 0.0, float(record.width), float(record.height)]], [1.0], [0])


def _counts(dataset: Dataset, pair: _Pair) -> dict[str, int]:
    fractured = int(pair.served.fractured.sum())
    return {
        "images_asked": len(dataset),
        "images": len(pair.records),
        "images_fractured": fractured,
        "images_healthy": len(pair.records) - fractured,
        "groups": pair.served.n_groups,
        "boxes_truth": pair.served.n_truth,
    }


def _statistics(matches: Matches) -> Statistics:
    def statistics(weights: Floats) -> dict[str, float]:
        return {
            "AP50": average_precision(matches, weights),
            "AUROC": auroc(matches.top_score, matches.fractured, weights),
            "FROC@1": float(froc_curve(matches, weights).at([1.0])[0]),
        }

    return statistics


def _figures(pair: _Pair, rules: GateRules, small: bool) -> list[FigureResult]:
    resampled = pair.bootstrap(rules, _statistics(pair.served), _statistics(pair.candidate))
    bases = _bases(pair)
    return [_figure(name, resampled, bases[name], -rules.margins.of(name), _decide(small)) for name in FIGURES]


def _bases(pair: _Pair) -> dict[str, Basis]:
    truth = Basis(pair.served.n_truth, NO_TRUTH)
    return {"AP50": truth, "FROC@1": truth, "AUROC": auroc_basis(images_of(pair.served), "image")}


def _strata(pair: _Pair, rules: GateRules) -> tuple[list[StratumResult], int]:
    """Return the subgroups of enough images, and how many have fewer."""
    strata, smaller = [], 0
    for column, value, members in subgroups(pair.records):
        if members.all():
            continue  # it is the test itself
        if members.sum() < rules.strata.min_images:
            smaller += 1
            continue
        part = pair.of(members)
        resampled, bases = part.bootstrap(rules, _statistics(part.served), _statistics(part.candidate)), _bases(part)
        figures = [
            _figure(name, resampled, bases[name], -rules.strata.margins.of(name), _has_fallen) for name in FIGURES
        ]
        strata.append(
            StratumResult(column, value, len(part.records), int(part.served.fractured.sum()), figures)
        )  # fmt: skip
    return strata, smaller


def _calibration(test: GateTest, pair: _Pair, rules: GateRules, small: bool) -> tuple[list[FigureResult], str]:
    """Return the calibration errors of probabilities, or why there are none."""
    functions: dict[str, Statistics] = {}
    for role, run, matches in ((SERVED, test.served, pair.served), (CANDIDATE, test.candidate, pair.candidate)):
        who = "served detector" if role == SERVED else CANDIDATE
        if CALIBRATED in run.predictions.detector:
            return [], f"the scores of the {who} are calibrated already; give predictions with raw scores"
        if run.calibration is None:
            return [], f"no calibration of the {who} was given"
        check_fitted_apart(run.calibration.fitted_on, test.dataset)
        if run.calibration.not_fitted:
            reasons = "; ".join(f"{of}: {why}" for of, why in run.calibration.not_fitted.items())
            return [], f"the calibration of the {who} was not fitted ({reasons})"
        functions[role] = calibration_errors(matches, run.calibration)
    resampled = pair.bootstrap(rules, functions[SERVED], functions[CANDIDATE])
    margins = {IMAGE: rules.calibration.image, BOX: rules.calibration.box}
    counts = {IMAGE: len(pair.records), BOX: min(len(pair.served.score), len(pair.candidate.score))}
    return [
        _figure(of, resampled, Basis(counts[of], f"no {of}"), margin, _decide(small)) for of, margin in margins.items()
    ], ""


# --- from a difference to what follows -------------------------------------------------------------------------------

# Of a defined difference and its margin: the status and its reason.
Rule = Callable[[BootstrapDifference, float], "tuple[str, str]"]


def _figure(name: str, resampled: PairedBootstrap[str], basis: Basis, margin: float, rule: Rule) -> FigureResult:
    """Return one figure of both, and what `rule` says of its difference."""
    served, candidate = (estimate(resampled.results[role][name], basis) for role in (SERVED, CANDIDATE))
    difference = resampled.differences[SERVED][name]
    value = rounded(difference.value)
    if value is None:
        reason = served.reason or candidate.reason or basis.reason
        return FigureResult(name, served, candidate, None, None, None, margin, NOT_DEFINED, reason)
    status, reason = rule(difference, margin)
    p_above = None if status == TOO_SMALL or margin > 0 else rounded(difference.p_above, significant=True)
    lower, upper = rounded(difference.lower), rounded(difference.upper)
    return FigureResult(name, served, candidate, value, lower, upper, margin, status, reason, p_above)


def _decide(small: bool) -> Rule:
    """Return the rule of a whole test: non-inferiority; a small one can only show that something fell."""
    return _shown_fall_only if small else _non_inferior


def _non_inferior(difference: BootstrapDifference, margin: float) -> tuple[str, str]:
    bound = difference.upper if margin > 0 else difference.lower
    if np.isnan(bound):
        return FAILED, "no interval: fewer than 2 groups"
    holds = bound < margin if margin > 0 else bound > margin
    return (PASSED, "") if holds else (FAILED, "the bound lies beyond the margin")


def _shown_fall_only(difference: BootstrapDifference, margin: float) -> tuple[str, str]:
    status, reason = _has_fallen(difference, margin)
    return (FAILED, reason) if status == FAILED else (TOO_SMALL, "too few fractured images to decide")


def _has_fallen(difference: BootstrapDifference, margin: float) -> tuple[str, str]:
    """Fail where the difference itself lies beyond the margin and its 90 % interval excludes 0, or there is none."""
    sign = 1 if margin < 0 else -1
    near = difference.upper if sign > 0 else difference.lower
    beyond = sign * difference.value < sign * margin
    if beyond and (np.isnan(near) or sign * near < 0):
        return FAILED, "the difference lies beyond the margin, and its interval excludes 0"
    return PASSED, ""


def identities(tests: Mapping[str, GateTest]) -> tuple[DetectorIdentity, DetectorIdentity]:
    """Return the served detector and the candidate.

    Raises GateError where a test has another one, where both are one detector (a verdict names them by weights), and
    where two tests have one truth, which would count twice.
    """
    truths: dict[str, str] = {}
    for name, test in tests.items():
        if (first_name := truths.setdefault(test.sha256, name)) != name:
            raise GateError(f"tests {first_name} and {name} have the same truth, SHA-256 {test.sha256}")
    found: dict[str, tuple[str, DetectorIdentity]] = {}
    for role in (SERVED, CANDIDATE):
        for name, test in tests.items():
            identity = (test.served if role == SERVED else test.candidate).identity
            first = found.setdefault(role, (name, identity))
            if first[1].sha256 != identity.sha256:
                raise GateError(
                    f"{role}: test {first[0]} was predicted by {first[1].name} ({first[1].sha256}), test {name} by "
                    f"{identity.name} ({identity.sha256})"
                )
    served, candidate = found[SERVED][1], found[CANDIDATE][1]
    if served.sha256 == candidate.sha256:
        raise GateError(f"both detectors have the same weights, {served.sha256}: {served.name}, {candidate.name}")
    return served, candidate
