"""The figures of a report, as PNG and SVG, drawn from what report.json keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fracture_det.evaluation.report import Estimate, Reliability, Report
from fracture_det.reporting.analyses import FORESTS, forest_name
from fracture_det.reporting.formatting import titled, written
from fracture_det.visualization.charts import draw_errors, draw_forest, draw_reliability, draw_robustness
from fracture_det.visualization.curves import draw_froc, draw_overview, draw_pr_curve, draw_roc

FOLDER = "figures"
SUFFIXES = (".png", ".svg")
# Match rules as a curve's label.
SHORT_RULES = {"iou50": "IoU ≥ .5", "iou30": "IoU ≥ .3", "centre": "centre"}
Drawn = Callable[[Path], None]
Place = tuple[float, float]


def figure_path(name: str, suffix: str) -> str:
    """Return where a figure lies, relative to the report's folder."""
    return f"{FOLDER}/{name}{suffix}"


def draw_figures(report: Report, folder: Path) -> list[Path]:
    """Draw every figure of a report, new or loaded, into `folder`/figures; figures of an earlier run are removed."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    kept = []
    for name, draw in _figures(report).items():
        for suffix in SUFFIXES:
            path = folder / figure_path(name, suffix)
            draw(path)
            kept.append(path)
    for old in target.iterdir():
        if old.suffix in SUFFIXES and old.stem in ALL_NAMES and old not in kept:
            old.unlink()
    return kept


def _figures(report: Report) -> dict[str, Drawn]:
    """Return what draws each figure that the report has something for."""
    made: dict[str, Drawn] = {
        "overview": _overview(report),
        "froc": _froc(report),
        "roc": _roc(report),
        "pr": _pr(report),
    }
    if report.calibration:
        made["reliability"] = _reliability(report)
    for figure in FORESTS:
        if any(figure in row.figures for row in report.strata):
            made[forest_name(figure)] = _forest(report, figure)
    if report.errors.types:
        types = {name: (one.count, one.delta_ap50) for name, one in report.errors.types.items()}
        made["errors"] = _late(draw_errors, types, base_ap50=report.errors.base_ap50)
    if report.robustness:
        made["robustness"] = _robustness(report)
    return made


ALL_NAMES = ("overview", "froc", "roc", "pr", "reliability", *map(forest_name, FORESTS), "errors", "robustness")


def _late(function: Callable[..., None], *values: Any, **options: Any) -> Drawn:
    """Return what draws with `function` once it is told where to."""

    def draw(path: Path) -> None:
        function(*values, path, **options)

    return draw


def _overview(report: Report) -> Drawn:
    rule = _main_rule(report)
    return _late(
        draw_overview,
        _curve(report, f"froc {rule}", "fp_per_image", "sensitivity"),
        _curve(report, "roc", "fpr", "tpr"),
        froc_points=_froc_points(report, rule),
        froc_marks=_froc_marks(report),
        roc_marks=_roc_marks(report),
        auroc=_auroc(report),
    )


def _froc(report: Report) -> Drawn:
    curves = {
        SHORT_RULES.get(rule, rule): _curve(report, f"froc {rule}", "fp_per_image", "sensitivity")
        for rule in report.froc
    }
    return _late(draw_froc, curves, points=_froc_points(report, _main_rule(report)), marks=_froc_marks(report))


def _roc(report: Report) -> Drawn:
    return _late(draw_roc, _curve(report, "roc", "fpr", "tpr"), marks=_roc_marks(report), auroc=_auroc(report))


def _pr(report: Report) -> Drawn:
    recall, precision = _curve(report, "pr", "recall", "precision")
    marks = _marks(report, lambda point: (point.lesion["recall"].value, point.lesion["precision"].value))
    return _late(draw_pr_curve, recall, precision, ap50=report.coco["AP50"].value, points=marks)


def _main_rule(report: Report) -> str:
    return str(report.settings.get("match_rule", next(iter(report.froc), "")))


def _curve(report: Report, name: str, x: str, y: str) -> tuple[list[float], list[float]]:
    found = report.curves.get(name, {})
    return found.get(x, []), found.get(y, [])


def _froc_points(report: Report, rule: str) -> list[tuple[float, float, float | None, float | None]]:
    froc = report.froc[rule]
    pairs = zip(froc.fp_per_image, froc.sensitivity, strict=True)
    return [(target, one.value, one.low, one.high) for target, one in pairs if one.value is not None]


def _froc_marks(report: Report) -> dict[str, Place]:
    return _marks(report, lambda point: (point.lesion["fp_per_image"].value, point.lesion["recall"].value))


def _roc_marks(report: Report) -> dict[str, Place]:
    return _marks(report, lambda point: (_rest(point.image["specificity"].value), point.image["sensitivity"].value))


def _marks(report: Report, place: Callable[[Any], tuple[float | None, float | None]]) -> dict[str, Place]:
    found = {point.rule: place(point) for point in report.operating_points}
    return {rule: (x, y) for rule, (x, y) in found.items() if x is not None and y is not None}


def _rest(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _auroc(report: Report) -> str | None:
    figure = report.image["AUROC"]
    if figure.value is None:
        return None
    text = written(figure)
    return f"{text.value} {text.interval}".strip()


def _reliability(report: Report) -> Drawn:
    panels = {
        _panel_title(one): [
            (each.low, each.high, each.n, each.mean_score, each.rate.value, each.rate.low, each.rate.high)
            for each in one.bins
        ]
        for one in report.calibration
    }
    return _late(draw_reliability, panels)


def _panel_title(one: Reliability) -> str:
    kind = {"image": "Images", "box": "Boxes"}.get(one.of, one.of)
    scores = "raw scores" if one.scores == "raw" else f"calibrated ({one.scores})"
    ece = one.figures.get("ECE")
    return f"{kind}, {scores}" + ("" if ece is None or ece.value is None else f": ECE {written(ece).value}")


def _forest(report: Report, figure: str) -> Drawn:
    rows: list[tuple[str, float | None, float | None, float | None, int | None, bool]] = []
    before = "all"
    for row in report.strata:
        one = row.figures.get(figure)
        if one is None:
            continue
        if row.column != before:
            rows.append((titled(row.column), None, None, None, None, False))
            before = row.column
        label = "all images" if row.column == "all" else row.value
        rows.append((label, one.value, one.low, one.high, _n(one), one.small))
    title = titled(figure)
    return _late(draw_forest, rows, title=f"{title} by stratum", xlabel=title)


def _n(figure: Estimate) -> int:
    # A row without n would be taken for a heading.
    return 0 if figure.n is None else figure.n


def _robustness(report: Report) -> Drawn:
    panels: dict[str, dict[str, list[tuple[float, float | None, float | None, float | None]]]] = {}
    for row in report.robustness:
        for name, one in row.figures.items():
            steps = panels.setdefault(name, {}).setdefault(row.perturbation, [])
            steps.append((float(row.strength), one.value, one.low, one.high))
    return _late(draw_robustness, panels)
