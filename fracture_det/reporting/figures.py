"""The figures of a report, as PNG and SVG, drawn from the content of report.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fracture_det.evaluation.report import ALL, Estimate, OperatingPoint, Reliability, Report, Types, froc_curve_name
from fracture_det.reporting import types
from fracture_det.reporting.analyses import FORESTS, forest_name
from fracture_det.reporting.formatting import (
    column_title,
    format_estimate,
    format_number,
    rule_title,
    scores_title,
    titled,
)
from fracture_det.visualization.charts import Bin, draw_errors, draw_forest, draw_reliability, draw_robustness
from fracture_det.visualization.curves import Mark, draw_froc, draw_overview, draw_pr_curve, draw_roc
from fracture_det.visualization.types import draw_confusion, draw_risk_coverage

FOLDER = "figures"
SUFFIXES = (".png", ".svg")
# Match rules as labels of curves.
SHORT_RULES = {"iou50": "IoU ≥ .5", "iou30": "IoU ≥ .3", "centre": "centre"}
DrawFunction = Callable[[Path], None]


def figure_path(name: str, suffix: str) -> str:
    """Return the path of a figure relative to the report's folder."""
    return f"{FOLDER}/{name}{suffix}"


def draw_figures(report: Report, folder: Path) -> list[Path]:
    """Draw every figure of a report into `folder`/figures, remove those of an earlier run, and return the paths."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in _figures(report).items():
        for suffix in SUFFIXES:
            path = folder / figure_path(name, suffix)
            draw(path)
            drawn.append(path)
    for old in target.iterdir():
        if old.suffix in SUFFIXES and old.stem in ALL_NAMES and old not in drawn:
            old.unlink()
    return drawn


def _figures(report: Report) -> dict[str, DrawFunction]:
    """Return the function that draws each figure for which the report has data."""
    figures: dict[str, DrawFunction] = {
        "overview": _overview(report),
        "froc": _froc(report),
        "roc": _roc(report),
        "pr": _pr(report),
    }
    if report.calibration:
        figures["reliability"] = _reliability(report)
    for figure in FORESTS:
        if any(figure in row.figures for row in report.strata):
            figures[forest_name(figure)] = _forest(report, figure)
    if report.errors.types:
        kinds = {name: (error.count, error.delta_ap50) for name, error in report.errors.types.items()}
        figures["errors"] = _late(draw_errors, kinds, base_ap50=report.errors.base_ap50)
    if report.robustness:
        figures["robustness"] = _robustness(report)
    if report.types is not None:
        figures |= type_figures(report.types)
    return figures


ALL_NAMES = (
    "overview", "froc", "roc", "pr", "reliability", *map(forest_name, FORESTS), "errors", "robustness", *types.FIGURES,
)  # fmt: skip


def _late(function: Callable[..., None], *values: Any, **options: Any) -> DrawFunction:
    """Return `function` with all but its path bound."""

    def draw(path: Path) -> None:
        function(*values, path, **options)

    return draw


def _overview(report: Report) -> DrawFunction:
    rule = _main_rule(report)
    return _late(
        draw_overview,
        _curve(report, froc_curve_name(rule), "fp_per_image", "sensitivity"),
        _curve(report, "roc", "fpr", "tpr"),
        froc_points=_froc_points(report, rule),
        froc_marks=_froc_marks(report),
        roc_marks=_roc_marks(report),
        auroc=_auroc(report),
    )


def _froc(report: Report) -> DrawFunction:
    curves = {
        SHORT_RULES.get(rule, rule): _curve(report, froc_curve_name(rule), "fp_per_image", "sensitivity")
        for rule in report.froc
    }
    return _late(draw_froc, curves, points=_froc_points(report, _main_rule(report)), marks=_froc_marks(report))


def _roc(report: Report) -> DrawFunction:
    return _late(draw_roc, _curve(report, "roc", "fpr", "tpr"), marks=_roc_marks(report), auroc=_auroc(report))


def _pr(report: Report) -> DrawFunction:
    recall, precision = _curve(report, "pr", "recall", "precision")
    marks = _marks(report, lambda point: (point.lesion["recall"].value, point.lesion["precision"].value))
    return _late(draw_pr_curve, recall, precision, ap50=report.coco["AP50"].value, points=marks)


def _main_rule(report: Report) -> str:
    return str(report.settings.get("match_rule", next(iter(report.froc), "")))


def _curve(report: Report, name: str, x: str, y: str) -> tuple[list[float], list[float]]:
    curve = report.curves.get(name, {})
    return curve.get(x, []), curve.get(y, [])


def _froc_points(report: Report, rule: str) -> list[tuple[float, float, float | None, float | None]]:
    froc = report.froc[rule]
    pairs = zip(froc.fp_per_image, froc.sensitivity, strict=True)
    return [(target, figure.value, figure.low, figure.high) for target, figure in pairs if figure.value is not None]


def _froc_marks(report: Report) -> dict[str, Mark]:
    return _marks(report, lambda point: (point.lesion["fp_per_image"].value, point.lesion["recall"].value))


def _roc_marks(report: Report) -> dict[str, Mark]:
    return _marks(
        report, lambda point: (_complement(point.image["specificity"].value), point.image["sensitivity"].value)
    )


def _marks(
    report: Report, coordinates: Callable[[OperatingPoint], tuple[float | None, float | None]]
) -> dict[str, Mark]:
    marks = {point.rule: coordinates(point) for point in report.operating_points}
    return {rule: Mark(x, y, rule_title(rule)) for rule, (x, y) in marks.items() if x is not None and y is not None}


def _complement(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _auroc(report: Report) -> str | None:
    figure = report.image["AUROC"]
    if figure.value is None:
        return None
    text = format_estimate(figure)
    return f"{text.value} {text.interval}".strip()


def _reliability(report: Report) -> DrawFunction:
    return _late(
        draw_reliability, {_panel_title(reliability): _bins(reliability) for reliability in report.calibration}
    )


def type_figures(found: Types) -> dict[str, DrawFunction]:
    """Return what draws the confusion table, accuracy against coverage, and reliability, each to a path, by name."""
    rows, columns = types.present(found)
    counts = [
        [cells[index].count or 0 for index in columns]
        for name, cells in zip(found.names, found.confusion, strict=True)
        if name in rows
    ]
    places = [
        (row, (row.coverage.value or 0.0, row.accuracy.value, row.accuracy.low, row.accuracy.high))
        for row in found.above
    ]
    ece = found.reliability.figures["ECE"]
    title = "Answers" if ece.value is None else f"Answers: ECE {format_estimate(ece).value}"
    return {
        types.CONFUSION: _late(draw_confusion, counts, rows, types.column_names(found, columns)),
        types.COVERAGE: _late(
            draw_risk_coverage,
            (found.curve["coverage"], found.curve["accuracy"]),
            points=[(row.confidence, place) for row, place in places if not row.origin],
            frozen=next(
                ((f"{row.origin}: {format_number(row.confidence)}", at) for row, at in places if row.origin), None
            ),
            chance=found.answered["accuracy"].chance.value,
        ),
        types.RELIABILITY: _late(draw_reliability, {title: _bins(found.reliability)}),
    }


def _bins(reliability: Reliability) -> list[Bin]:
    return [
        (bin_.low, bin_.high, bin_.n, bin_.mean_score, bin_.rate.value, bin_.rate.low, bin_.rate.high)
        for bin_ in reliability.bins
    ]


def _panel_title(reliability: Reliability) -> str:
    title, ece = scores_title(reliability), reliability.figures.get("ECE")
    return title if ece is None or ece.value is None else f"{title}: ECE {format_estimate(ece).value}"


def _forest(report: Report, name: str) -> DrawFunction:
    rows: list[tuple[str, float | None, float | None, float | None, int | None, bool]] = []
    column = ALL
    for row in report.strata:
        figure = row.figures.get(name)
        if figure is None:
            continue
        if row.column != column:
            rows.append((column_title(row.column), None, None, None, None, False))
            column = row.column
        label = "all images" if row.column == ALL else row.value
        rows.append((label, figure.value, figure.low, figure.high, _n(figure), figure.small))
    title = titled(name)
    return _late(draw_forest, rows, title=f"{title} by subgroup", xlabel=title)


def _n(figure: Estimate) -> int:
    # A row without n would be a heading.
    return 0 if figure.n is None else figure.n


def _robustness(report: Report) -> DrawFunction:
    panels: dict[str, dict[str, list[tuple[float, float | None, float | None, float | None]]]] = {}
    for row in report.robustness:
        for name, figure in row.figures.items():
            steps = panels.setdefault(name, {}).setdefault(row.perturbation, [])
            steps.append((float(row.strength), figure.value, figure.low, figure.high))
    return _late(draw_robustness, panels)
