"""How a report formats its figures, and how it explains them to its readers."""

from __future__ import annotations

from dataclasses import dataclass

from fracture_det.calibration.operating_points import RULES
from fracture_det.data.records import TYPE_ATTRIBUTE
from fracture_det.evaluation.report import (
    ANATOMY,
    BOX,
    IMAGE,
    RAW,
    SMALL_N,
    Estimate,
    OperatingPoint,
    Reliability,
    Report,
)
from fracture_det.reporting.blocks import AnnotatedEstimate, SignedDifference

SMALL, UNDEFINED = "†", "‡"
DASH = "\N{EN DASH}"
RESEARCH_ONLY = "Research use only; not a medical device."
# Figure of a report -> its heading in a table.
TITLES = {
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "fp_per_image": "False positives per image",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "ppv": "PPV",
    "npv": "NPV",
    "ECE by chance": "ECE expected by chance",
    "Brier": "Brier score",
    "Brier of the base rate": "Brier score of the base rate",
}
METHOD_TITLES = {"platt": "Platt scaling", "temperature": "temperature scaling", "isotonic": "isotonic regression"}


@dataclass(frozen=True)
class FormattedEstimate:
    """The parts of one formatted figure; a missing part is empty.

    value: ".744", or why there is none. interval: "(.643 to .829)". basis: "61/82" or "n = 82".
    wilson: "W .640 to .826". mark: † for a small sample. lost: ‡12 for 12 resamples in which it was not defined.
    """

    value: str
    interval: str = ""
    basis: str = ""
    wilson: str = ""
    mark: str = ""
    lost: str = ""
    defined: bool = True

    @property
    def lines(self) -> tuple[str, str]:
        """The figure with its interval, and its sample."""
        first = " ".join(part for part in (self.value, self.interval, self.mark) if part)
        return first, self.basis_line()

    def basis_line(self, *, wilson: bool = True) -> str:
        """Return the sample, with Wilson's interval and the resamples in which the figure was not defined."""
        return ", ".join(part for part in (self.basis, self.wilson if wilson else "", self.lost) if part)

    def __str__(self) -> str:
        """Return the figure in one line."""
        return ", ".join(line for line in self.lines if line)


def format_estimate(estimate: Estimate, *, signed: bool = False) -> FormattedEstimate:
    """Return the formatted parts of a figure; signed: with its sign, as a difference."""
    if estimate.value is None:
        return FormattedEstimate(f"not defined: {estimate.reason}", defined=False)
    return FormattedEstimate(
        format_number(estimate.value, signed=signed),
        format_interval(estimate.low, estimate.high, "({})"),
        _basis(estimate),
        format_interval(estimate.wilson_low, estimate.wilson_high, "W {}"),
        SMALL if estimate.small else "",
        f"{UNDEFINED}{estimate.undefined:,}" if estimate.undefined else "",
    )


def format_number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Return a number without the zero before its point: .744, 1.000, 2.250, -.030."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # no sign before a zero
    sign, text = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    return sign + (text[1:] if text.startswith("0.") else text)


def format_percent(value: float) -> str:
    """Return a share in whole percent without its sign, with a decimal where it would round to 0 or 100."""
    whole = f"{100 * value:.0f}"
    return f"{100 * value:.1f}" if whole in ("0", "100") and value not in (0, 1) else whole


def titled(name: str) -> str:
    """Return a name as a heading: capitalised, spaces for underscores, JPEG in capitals."""
    name = name.replace("_", " ")
    return "JPEG" if name == "jpeg" else name[:1].upper() + name[1:]


def point_title(point: OperatingPoint) -> str:
    """Return the name of an operating point with its score: "Youden's index, score .431"."""
    return f"{rule_title(point.rule)}, score\N{NO-BREAK SPACE}{format_number(point.score)}"


def rule_title(rule: str) -> str:
    """Return the name of an operating rule in words."""
    return RULES.get(rule, rule)


def column_name(column: str) -> str:
    """Return the name of a column of subgroups in a sentence."""
    names = {ANATOMY: "body part", TYPE_ATTRIBUTE: "type of fracture"}
    return names.get(column, column.replace("_", " "))


def column_title(column: str) -> str:
    """Return the name of a column of subgroups as a heading."""
    return titled(column_name(column))


def method_title(method: str) -> str:
    """Return the name of a calibration method in words."""
    return METHOD_TITLES.get(method, method)


def scores_title(reliability: Reliability) -> str:
    """Return whose scores a reliability is about: "Images, raw scores", "Boxes, calibrated (Platt scaling)"."""
    unit = {IMAGE: "Images", BOX: "Boxes"}.get(reliability.of, reliability.of)
    scores = "raw scores" if reliability.scores == RAW else f"calibrated ({method_title(reliability.scores)})"
    return f"{unit}, {scores}"


def _basis(estimate: Estimate) -> str:
    if estimate.n is None:
        return ""
    return f"n = {estimate.n:,}" if estimate.count is None else f"{estimate.count:,}/{estimate.n:,}"


def format_interval(low: float | None, high: float | None, form: str) -> str:
    """Return "low to high" in a form with `{}`, or nothing without an interval."""
    return "" if low is None or high is None else form.format(f"{format_number(low)} to {format_number(high)}")


def format_cell(cell: Estimate | SignedDifference | AnnotatedEstimate, brief: bool) -> tuple[FormattedEstimate, str]:
    """Return the formatted parts of a table's cell, and its last line; brief: without Wilson's interval."""
    if isinstance(cell, Estimate):
        parts, words = format_estimate(cell), ""
    else:
        parts = format_estimate(cell.figure, signed=isinstance(cell, SignedDifference))
        words = cell.remark if isinstance(cell, AnnotatedEstimate) else ""
    return parts, ", ".join(part for part in (words, parts.basis_line(wilson=not brief)) if part)


def reading(report: Report) -> str:
    """Return how to read the cells of all tables."""
    level = format_percent(float(report.settings.get("level", 0.95)))
    resamples = int(report.settings.get("n_bootstrap", 0))
    interval = f"its {level} % confidence interval by bootstrap over groups in brackets" if resamples else "no interval"
    return (
        f"How to read a cell: the figure with {interval}, then its numerator and denominator or its sample size n, "
        f"then W, Wilson's interval of a proportion, which assumes independent cases. {SMALL}: sample smaller than "
        f"{SMALL_N}; read it as an example rather than a rate. {UNDEFINED}k: not defined in k of the {resamples:,} "
        "resamples, which are left out of its interval."
    )
