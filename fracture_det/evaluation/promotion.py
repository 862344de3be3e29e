"""Whether a verdict of the gate allows one exact detector to replace another."""

from __future__ import annotations

from dataclasses import dataclass

from fracture_det.evaluation.verdict import CANDIDATE, SKIPPED, DetectorIdentity, Verdict, calibration_role


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

    Its calibration, too, must be the one that was judged, unless the gate was told to skip that.
    """
    if served is None:
        raise NotPromoted("nothing is served yet, so that the gate had nothing to compare with")
    if not verdict.promote:
        raise NotPromoted(f"the gate did not let it pass: {'; '.join(verdict.reasons) or 'no reason is given'}")
    for role, judged, files in (("candidate", verdict.candidate, candidate), ("served", verdict.served, served)):
        _check_same(role, judged, files)
    calibrations = {test.name: test.files.get(calibration_role(CANDIDATE)) for test in verdict.tests}
    skipped = any(check.name == "calibration" and check.status == SKIPPED for check in verdict.checks)
    for test, digest in calibrations.items():
        if digest != candidate.calibration and not (skipped and digest is None):
            raise NotPromoted(
                f"on test {test} the gate judged the calibration {digest or 'none'}, and that of {candidate.name} is "
                f"{candidate.calibration or 'none'}"
            )


def _check_same(role: str, judged: DetectorIdentity, files: Files) -> None:
    if judged.sha256 != files.sha256:
        raise NotPromoted(
            f"the verdict is about another {role} detector, {judged.name} ({judged.sha256}); {files.name} has the "
            f"SHA-256 {files.sha256}"
        )
