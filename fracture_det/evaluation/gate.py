"""Whether a candidate may replace the served detector: every rule of configs/gate.yaml, and a Verdict.

That nothing was lost must be shown by every figure on every test. Each of these tests has the level .05, and so has the
whole, without a correction: the candidate passes only where all of them reject (intersection-union test; Berger 1982,
Technometrics 24, 295-300). That something was won may be shown by any of them, a union, whose level Holm's correction
keeps (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fracture_det.data.leaks import Overlap
from fracture_det.evaluation.gate_figures import GateTest, compare_on_test, identities
from fracture_det.evaluation.gate_rules import GateRules
from fracture_det.evaluation.provenance import software
from fracture_det.evaluation.report import ANATOMY, Report, RobustnessRow, rounded
from fracture_det.evaluation.verdict import (
    FAILED,
    NOT_DEFINED,
    NOT_JUDGED,
    PASSED,
    SKIPPED,
    TOO_SMALL,
    Check,
    DetectorIdentity,
    FigureResult,
    Leak,
    RatioResult,
    RobustnessResult,
    StratumResult,
    TestResult,
    Verdict,
)
from fracture_det.structures.wording import counted

ALPHA = 0.05
# Checks that may stay not judged where the caller says so.
SKIPPABLE = ("calibration", "robustness", "speed", "size", "leaks")
RULES_SHA256 = "rules SHA-256"
# How many names a sentence lists.
SHOWN = 5


@dataclass(frozen=True)
class Turns:
    """Speed and size of both detectors, measured beforehand, in turns on the same images.

    served_ms, candidate_ms: median per image. served_bytes, candidate_bytes: of all files of weights and graphs.
    sha256: of the file that holds them.
    """

    served: str
    candidate: str
    served_ms: float
    candidate_ms: float
    served_bytes: int
    candidate_bytes: int
    sha256: str


@dataclass(frozen=True)
class Evidence:
    """What is known beside the tests. overlaps: by test, None where no training data were given; turns: likewise."""

    overlaps: Mapping[str, Sequence[Overlap]] | None = None
    turns: Turns | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def decide(
    tests: Mapping[str, GateTest], rules: GateRules, evidence: Evidence, *, skip: Collection[str] = ()
) -> Verdict:
    """Return the verdict on a candidate.

    tests: by name, at least one. skip: which of SKIPPABLE need not be judged; what was judged counts all the same.
    Raises GateError and other ValueErrors where the tests cannot be compared; see `compare_on_test`.
    """
    served, candidate = identities(tests)
    results = _corrected([compare_on_test(test, rules) for test in tests.values()])
    robustness, why_not = _robustness(tests, rules)
    ratios = _ratios(evidence.turns, rules, served, candidate)
    leaks = [
        Leak(test, one.image, one.training, one.training_image, one.how)
        for test, overlaps in (evidence.overlaps or {}).items()
        for one in overlaps
    ]
    checks = [
        _check_leaks(leaks, judged=evidence.overlaps is not None),
        _check_tests(results),
        _check_better(results),
        _check_strata(results),
        _check_failures(results, rules),
        _check_calibration(results),
        _check_robustness(robustness, why_not),
        *_check_ratios(ratios),
    ]
    checks = [_skipped(check) if check.name in skip and check.status == NOT_JUDGED else check for check in checks]
    reasons = [check.detail for status in (FAILED, NOT_JUDGED) for check in checks if check.status == status]
    return Verdict(
        promote=not reasons,
        served=served,
        candidate=candidate,
        reasons=reasons,
        checks=checks,
        tests=results,
        robustness=robustness,
        ratios=ratios,
        leaks=leaks,
        notes=[*_notes(results), *evidence.notes],
        rules=rules.as_dict(),
        about={RULES_SHA256: rules.sha256, **software()},
        files=dict(evidence.files),
    )


def _skipped(check: Check) -> Check:
    return replace(check, status=SKIPPED, detail=f"{check.detail} It was skipped on demand.")


# --- what was won ----------------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values (N,), in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _corrected(results: Sequence[TestResult]) -> list[TestResult]:
    """Return the results with p values by Holm over all figures that can show that the candidate is better."""
    p_values = [one.p_above for result in results for one in result.figures if one.p_above is not None]
    adjusted = iter(holm(p_values))

    def corrected(one: FigureResult) -> FigureResult:
        if one.p_above is None:
            return one
        p = next(adjusted)
        better = p < ALPHA and one.lower is not None and one.lower > 0
        return replace(one, p_holm=rounded(p, significant=True), better=better)

    return [replace(result, figures=[corrected(one) for one in result.figures]) for result in results]


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_tests(results: Sequence[TestResult]) -> Check:
    failed = [
        f"{one.figure} on {result.name}" for result in results for one in result.figures if one.status == FAILED
    ]  # fmt: skip
    if failed:
        return Check("tests", FAILED, f"It is not shown that nothing is lost: {_listed(failed)}.")
    passed = {one.figure for result in results for one in result.figures if one.status == PASSED}
    undecided = [name for name in dict.fromkeys(one.figure for r in results for one in r.figures) if name not in passed]
    if undecided:
        return Check("tests", FAILED, f"No test can decide on {_listed(undecided)}: too small, or not defined there.")
    n = sum(one.status == PASSED for result in results for one in result.figures)
    return Check("tests", PASSED, f"All of {counted(n, 'figure')} hold on {counted(len(results), 'test')}.")


def _check_better(results: Sequence[TestResult]) -> Check:
    better = [f"{one.figure} on {result.name}" for result in results for one in result.figures if one.better]
    if better:
        return Check("better", PASSED, f"Better: {_listed(better)}.")
    return Check("better", FAILED, "Nothing is shown to be better than the served detector.")


def _check_strata(results: Sequence[TestResult]) -> Check:
    fallen = [
        f"{_subgroup(stratum)} on {result.name} ({', '.join(names)})"
        for result in results
        for stratum in result.strata
        if (names := [one.figure for one in stratum.figures if one.status == FAILED])
    ]
    if fallen:
        return Check("strata", FAILED, f"Subgroups fall: {_listed(fallen)}.")
    n = sum(len(result.strata) for result in results)
    return Check("strata", PASSED, f"None of {counted(n, 'subgroup')} falls beyond its margin.")


def _subgroup(stratum: StratumResult) -> str:
    column = "body part" if stratum.column == ANATOMY else stratum.column.replace("_", " ")
    return f"{column} {stratum.value}"


def _check_failures(results: Sequence[TestResult], rules: GateRules) -> Check:
    failed = [f"{name} on {result.name}" for result in results for name in result.failed]
    if len(failed) > rules.max_new_failures:
        return Check(
            "failures",
            FAILED,
            f"The candidate failed on {counted(len(failed), 'image')} that the served detector predicted: "
            f"{_listed(failed)}.",
        )
    detail = "It failed on {}." if failed else "It predicted every image that the served detector predicted."
    return Check("failures", PASSED, detail.format(_listed(failed)))


def _check_calibration(results: Sequence[TestResult]) -> Check:
    missing = [f"{result.name} ({result.no_calibration})" for result in results if result.no_calibration]
    worse = [
        f"{one.figure} probabilities on {result.name}"
        for result in results
        for one in result.calibration
        if one.status in (FAILED, NOT_DEFINED)
    ]
    if worse:
        return Check("calibration", FAILED, f"It is not shown that calibration holds: {_listed(worse)}.")
    if missing:
        return Check("calibration", NOT_JUDGED, f"Calibration was not judged: {_listed(missing)}.")
    if all(one.status == TOO_SMALL for result in results for one in result.calibration):
        return Check("calibration", NOT_JUDGED, "Calibration was not judged: no test is large enough.")
    return Check("calibration", PASSED, "Image and box probabilities are as well calibrated.")


def _check_robustness(robustness: Sequence[RobustnessResult], why_not: str) -> Check:
    fallen = [f"{one.figure} on {one.test}" for one in robustness if one.status == FAILED]
    if fallen:
        return Check("robustness", FAILED, f"Perturbed images are read worse: {_listed(fallen)}.")
    if not robustness or why_not:
        return Check("robustness", NOT_JUDGED, f"Robustness was not judged: {why_not}.")
    return Check("robustness", PASSED, "Noise, blur, compression and the like do no more harm than before.")


def _check_ratios(ratios: Sequence[RatioResult]) -> Iterator[Check]:
    words = {"speed": ("takes", "the time per image"), "size": ("has", "the bytes")}
    by_name = {one.name: one for one in ratios}
    for name, (verb, unit) in words.items():
        if name not in by_name:
            yield Check(name, NOT_JUDGED, f"{name.capitalize()} was not judged: it was not measured.")
            continue
        one = by_name[name]
        detail = f"It {verb} {one.ratio:.2f} times {unit} of the served detector; the limit is {one.limit:g}."
        yield Check(name, one.status, detail)


def _check_leaks(leaks: Sequence[Leak], *, judged: bool) -> Check:
    if not judged:
        detail = "Leaks were not judged: the training data of the candidate were not given."
        return Check("leaks", NOT_JUDGED, detail)
    if leaks:
        images = list(dict.fromkeys(f"{leak.image} of {leak.test}" for leak in leaks))
        verb = "is" if len(images) == 1 else "are"
        detail = f"Leaking: {counted(len(images), 'test image')} {verb} in the training data: {_listed(images)}."
        return Check("leaks", FAILED, detail)
    return Check("leaks", PASSED, "No test image, copy of one, or other image of its group is in the training data.")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else shown


# --- what was measured elsewhere -------------------------------------------------------------------------------------


def _ratios(
    turns: Turns | None, rules: GateRules, served: DetectorIdentity, candidate: DetectorIdentity
) -> list[RatioResult]:
    if turns is None:
        return []
    for role, timed, identity in (("served", turns.served, served), ("candidate", turns.candidate, candidate)):
        if timed != identity.sha256:
            raise ValueError(
                f"{role}: the detector that was timed has the SHA-256 {timed}, that of the predictions, "
                f"{identity.name}, {identity.sha256}"
            )
    return [
        _ratio("speed", turns.served_ms, turns.candidate_ms, rules.speed_ratio),
        _ratio("size", turns.served_bytes, turns.candidate_bytes, rules.size_ratio),
    ]


def _ratio(name: str, served: float, candidate: float, limit: float) -> RatioResult:
    ratio = candidate / served
    return RatioResult(name, served, candidate, round(ratio, 4), limit, PASSED if ratio <= limit else FAILED)


def _robustness(tests: Mapping[str, GateTest], rules: GateRules) -> tuple[list[RobustnessResult], str]:
    """Return the results of the tests that have robustness of both, and why there is none or not of all that could."""
    results: list[RobustnessResult] = []
    why_not = []
    for name, test in tests.items():
        served, candidate = _perturbed(test.served.report), _perturbed(test.candidate.report)
        if not served and not candidate:
            continue
        if fault := _unlike(test, served, candidate):
            why_not.append(f"{name}: {fault}")
            continue
        results += [_robust(name, figure, served, candidate, rules) for figure in ("AP50", "AUROC")]
    if not results and not why_not:
        why_not.append("no evaluation was given that measured it (fracture-det eval --robustness)")
    return results, "; ".join(why_not)


Rows = dict["tuple[str, int]", RobustnessRow]


def _perturbed(report: Report | None) -> Rows:
    rows = [] if report is None else report.robustness
    return {(row.perturbation, row.strength): row for row in rows if row.strength > 0}


def _unlike(test: GateTest, served: Rows, candidate: Rows) -> str:
    """Return why the robustness of both cannot be compared, or an empty text."""
    if not served or not candidate:
        return f"it was measured of the {'served detector' if served else 'candidate'} alone"
    if served.keys() != candidate.keys():
        return "the two were perturbed differently"
    for role, report in (("served detector", test.served.report), ("candidate", test.candidate.report)):
        if report is not None and report.about.get("data SHA-256") != test.sha256:
            return f"the evaluation of the {role} is of another version of this test"
    for key, row in served.items():
        for figure, value in row.figures.items():
            other = candidate[key].figures.get(figure)
            if other is None or other.n != value.n or (other.value is None) != (value.value is None):
                return f"{key[0]} at strength {key[1]} was measured on other images"
    return ""


def _robust(test: str, figure: str, served: Rows, candidate: Rows, rules: GateRules) -> RobustnessResult:
    by_kind: dict[str, list[float]] = {}
    for key, row in served.items():
        one, other = row.figures[figure].value, candidate[key].figures[figure].value
        if one is not None and other is not None:
            by_kind.setdefault(key[0], []).append(other - one)
    means = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    mean = float(np.mean([value for values in by_kind.values() for value in values])) if by_kind else 0.0
    kind = min(means, key=lambda name: means[name]) if means else ""
    worst = means.get(kind, 0.0)
    limits = -rules.robustness.mean, -rules.robustness.worst
    holds = mean > limits[0] and worst > limits[1]
    return RobustnessResult(
        test, figure, round(mean, 10), round(worst, 10), kind, *limits, PASSED if holds else FAILED
    )  # fmt: skip


def _notes(results: Sequence[TestResult]) -> Iterator[str]:
    for result in results:
        if result.small:
            yield (
                f"{result.name} has {counted(result.counts['images_fractured'], 'fractured image')}: too few to decide."
                " It can neither show that nothing is lost nor that anything is better, only a clear fall."
            )
        undefined = [one for one in result.figures if one.status == NOT_DEFINED]
        for one in undefined:
            yield f"{one.figure} is not defined on {result.name}: {one.reason}."
        if result.failed:
            yield (
                f"{result.name}: the candidate failed on {_listed(list(result.failed))}. Fractured ones count as "
                "missed, healthy ones as false alarms."
            )
        if result.left_out:
            yield (
                f"{result.name}: the served detector failed on {_listed(list(result.left_out))}. "
                f"{'It is' if len(result.left_out) == 1 else 'They are'} in no figure."
            )
        if result.smaller_strata:
            yield f"{result.name}: {counted(result.smaller_strata, 'subgroup')} with too few images were not judged."
