"""How a report writes its figures, and how its readers are told to read them."""

from __future__ import annotations

from dataclasses import dataclass

from fracture_det.calibration.operating_points import RULES
from fracture_det.evaluation.report import SMALL_N, Estimate, OperatingPoint, Report
from fracture_det.reporting.blocks import Delta, Remark

SMALL, UNDEFINED = "†", "‡"
DASH = "\N{EN DASH}"
RESEARCH_ONLY = "Research use only; not a medical device."
# figure of a report -> its heading in a table
TITLES = {
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "fp_per_image": "False boxes per image",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "ppv": "PPV",
    "npv": "NPV",
}


@dataclass(frozen=True)
class Figure:
    """The parts of one figure as they are written; a part that there is not is empty.

    value: ".744", or why there is none. interval: "(.643 to .829)". basis: "61/82" or "n = 82".
    wilson: "W .640 to .826". mark: † for few. lost: ‡12 for 12 resamples in which it was not defined.
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
        """The figure with its interval, and what it rests on."""
        first = " ".join(part for part in (self.value, self.interval, self.mark) if part)
        return first, self.basis_line()

    def basis_line(self, *, wilson: bool = True) -> str:
        """Return what it rests on."""
        return ", ".join(part for part in (self.basis, self.wilson if wilson else "", self.lost) if part)

    def __str__(self) -> str:
        """Return all of it in one line."""
        return ", ".join(line for line in self.lines if line)


def written(estimate: Estimate, *, signed: bool = False) -> Figure:
    """Return the parts of a figure as they are written; signed: with its sign, as a difference."""
    if estimate.value is None:
        return Figure(f"not defined: {estimate.reason}", defined=False)
    return Figure(
        number(estimate.value, signed=signed),
        between(estimate.low, estimate.high, "({})"),
        _basis(estimate),
        between(estimate.wilson_low, estimate.wilson_high, "W {}"),
        SMALL if estimate.small else "",
        f"{UNDEFINED}{estimate.undefined:,}" if estimate.undefined else "",
    )


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Return a figure as this house writes it: .744, 1.000, 2.250, -.030."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # no sign before a zero
    sign, text = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    return sign + (text[1:] if text.startswith("0.") else text)


def percent(value: float) -> str:
    """Return a share in whole percent without its sign; what is not quite none, or not quite all, keeps a digit."""
    whole = f"{100 * value:.0f}"
    return f"{100 * value:.1f}" if whole in ("0", "100") and value not in (0, 1) else whole


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return "1 box", "2 boxes", "12,345 boxes"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def titled(name: str) -> str:
    """Return a name as a heading: its first letter large, blanks for underscores; JPEG is one."""
    name = name.replace("_", " ")
    return "JPEG" if name == "jpeg" else name[:1].upper() + name[1:]


def point_title(point: OperatingPoint) -> str:
    """Return the name of an operating point with its score: "Youden's index, score .431"."""
    return f"{rule_title(point.rule)}, score\N{NO-BREAK SPACE}{number(point.score)}"


def rule_title(rule: str) -> str:
    """Return the name of an operating rule in words."""
    return RULES.get(rule, rule)


def _basis(estimate: Estimate) -> str:
    if estimate.n is None:
        return ""
    return f"n = {estimate.n:,}" if estimate.count is None else f"{estimate.count:,}/{estimate.n:,}"


def between(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else form.format(f"{number(low)} to {number(high)}")


def shown(cell: Estimate | Delta | Remark, brief: bool) -> tuple[Figure, str]:
    """Return the parts of a cell of a table, and its last line."""
    if isinstance(cell, Estimate):
        parts, words = written(cell), ""
    else:
        parts = written(cell.figure, signed=isinstance(cell, Delta))
        words = cell.words if isinstance(cell, Remark) else ""
    return parts, ", ".join(part for part in (words, parts.basis_line(wilson=not brief)) if part)


def reading(report: Report) -> str:
    """Return how the cells of all tables are to be read."""
    level, n = percent(float(report.settings.get("level", 0.95))), int(report.settings.get("n_bootstrap", 0))
    interval = f"in brackets the {level} % interval by bootstrap over groups" if n else "no interval was computed"
    return (
        f"How to read a cell: the figure, {interval}, the count it is a share of, or what it rests on, and W, Wilson's "
        f"interval of a share, which takes its cases as independent. {SMALL} rests on fewer than {SMALL_N}: read it as "
        f"an example, not as a rate. {UNDEFINED}k was not defined in k of the {n:,} resamples, which are not in its "
        "interval."
    )
