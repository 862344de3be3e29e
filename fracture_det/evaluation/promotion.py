"""Whether a verdict of the gate allows one exact detector to replace another."""

from __future__ import annotations

from dataclasses import dataclass

from fracture_det.evaluation.verdict import (
    CANDIDATE,
    FAILED,
    NOT_JUDGED,
    SERVED,
    SKIPPED,
    DetectorIdentity,
    Verdict,
    calibration_role,
)


class NotPromoted(ValueError):
    """A verdict does not allow a promotion; the message says why."""


@dataclass(frozen=True)
class Files:
    """A detector as it would be served: the SHA-256 of its weights, and of its calibration.json, None without one."""

    name: str
    sha256: str
    calibration: str | None = None


def check_promotion(verdict: Verdict, *, served: Files | None, candidate: Files) -> None:
    """Raise NotPromoted unless the gate let exactly this candidate pass against exactly the detector that is served.

    The calibrations of both, too, must be those that were judged, unless the gate was told to skip that.
    """
    if served is None:
        raise NotPromoted("nothing is served yet, so that the gate had nothing to compare with")
    if not verdict.promote:
        raise NotPromoted(f"the gate did not let it pass: {'; '.join(verdict.reasons) or 'no reason is given'}")
    _check_consistent(verdict)
    for role, judged, files in ((CANDIDATE, verdict.candidate, candidate), (SERVED, verdict.served, served)):
        _check_same(role, judged, files)
        _check_calibration(verdict, role, files)


def _check_consistent(verdict: Verdict) -> None:
    """Raise NotPromoted where a verdict that lets a candidate pass says itself why it should not."""
    against = [*verdict.reasons, *(check.name for check in verdict.checks if check.status in (FAILED, NOT_JUDGED))]
    if against:
        raise NotPromoted(
            f"the verdict contradicts itself: it lets the candidate pass in spite of {'; '.join(against)}"
        )
    if not verdict.tests:
        raise NotPromoted("the verdict rests on no test")


def _check_same(role: str, judged: DetectorIdentity, files: Files) -> None:
    if judged.sha256 != files.sha256:
        raise NotPromoted(
            f"the verdict is about another {role} detector, {judged.name} ({judged.sha256}); {files.name} has the "
            f"SHA-256 {files.sha256}"
        )


def _check_calibration(verdict: Verdict, role: str, files: Files) -> None:
    skipped = any(check.name == "calibration" and check.status == SKIPPED for check in verdict.checks)
    for test in verdict.tests:
        digest = test.files.get(calibration_role(role))
        if digest != files.calibration and not (skipped and digest is None):
            raise NotPromoted(
                f"on test {test.name} the gate judged the {role} calibration {digest or 'none'}, and that of "
                f"{files.name} is {files.calibration or 'none'}"
            )
