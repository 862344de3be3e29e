"""The curves of an evaluation: FROC, ROC and precision-recall, with the same marks of operating points in all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from fracture_det.visualization.style import (
    DASHES,
    FULL_IN,
    GREY,
    HALF_IN,
    INK,
    LETTER_WIDTH,
    TEXT_PT,
    TRAINING,
    VALIDATION,
    annotate_empty,
    draw_intervals,
    figure_style,
    format_share,
    new_figure,
    save,
    set_unit_range,
    spread_apart,
    wrapped,
)


class Mark(NamedTuple):
    """An operating point on a curve, with its title in the legend."""

    x: float
    y: float
    title: str


# By operating rule, which gives the symbol.
Marks = Mapping[str, Mark]
Styles = dict[str, dict[str, Any]]
Curve = tuple[Sequence[float], Sequence[float]]
Estimates = Sequence[tuple[float, float, float | None, float | None]]
# Operating rule -> its symbol in every figure.
MARK_SYMBOLS = {
    "paper": "s",
    "youden": "^",
    "sensitivity": "D",
    "specificity": "v",
    "fp target": "P",
    "detector": "o",
    "given": "*",
}
OTHER_SYMBOLS = "Xph8<>"
# Without points, the axis of a free-response curve covers LUNA16's 1/8 to 8.
FROC_RANGE = (1 / 8, 8.0)
FURTHEST_LEFT = 1 / 64
NO_TRUTH = "not defined: no annotated fracture"
ONE_CLASS = "not defined: needs fractured and healthy images"
FROC_X = "False positives per image"
FROC_Y = "Sensitivity (recall of fractures)"
ROC_X = "1 \N{MINUS SIGN} specificity (false-positive rate)"
ROC_Y = "Sensitivity (true-positive rate)"


@figure_style()
def draw_overview(
    froc: Curve,
    roc: Curve,
    path: str | Path,
    *,
    froc_points: Estimates,
    froc_marks: Marks,
    roc_marks: Marks,
    auroc: str | None,
) -> None:
    """Save the free-response curve (fp_per_image, sensitivity) beside the image-level ROC curve (fpr, tpr).

    froc_points: as in `draw_froc`. froc_marks, roc_marks: operating points by rule, with the same symbol in both.
    auroc: text for the title, as in `draw_roc`.
    """
    figure = new_figure(FULL_IN, 4.1)
    left, right = figure.subplots(1, 2)
    styles = _mark_styles({**froc_marks, **roc_marks})
    _plot_froc(left, {"": froc}, froc_points, froc_marks, styles)
    _plot_roc(right, roc, roc_marks, styles)
    left.set_title(wrapped(_froc_title(froc, froc_points), FULL_IN / 2 - 0.6))
    right.set_title(wrapped(_roc_title(auroc), FULL_IN / 2 - 0.6))
    _legend(figure, styles)
    save(figure, path)


@figure_style()
def draw_froc(curves: Mapping[str, Curve], path: str | Path, *, points: Estimates, marks: Marks) -> None:
    """Save sensitivity (0..1) over false positives per image, log scale to base 2.

    curves: title -> (fp_per_image, sensitivity), one line per match rule, the first emphasised.
    points: (fp_per_image, sensitivity, low, high) of the first curve, with the interval where there is one.
    marks: operating points by rule, at (fp_per_image, sensitivity).
    """
    figure = new_figure(HALF_IN + (0.3 if len(curves) > 1 else 0), 3.6)
    panel = figure.subplots()
    styles = _mark_styles(marks)
    _plot_froc(panel, curves, points, marks, styles)
    first = next(iter(curves.values()), ([], []))
    panel.set_title(wrapped(_froc_title(first, points), HALF_IN - 0.5))
    _legend(figure, styles)
    save(figure, path)


@figure_style()
def draw_roc(curve: Curve, path: str | Path, *, marks: Marks, auroc: str | None) -> None:
    """Save the image-level ROC curve (fpr, tpr), 0..1.

    marks: operating points by rule, at (fpr, tpr). auroc: text for the title, e.g. ".785 (.721 to .841)".
    """
    figure = new_figure(HALF_IN, 3.9)
    panel = figure.subplots()
    styles = _mark_styles(marks)
    _plot_roc(panel, curve, marks, styles)
    panel.set_title(wrapped(_roc_title(auroc), HALF_IN - 0.5))
    _legend(figure, styles)
    save(figure, path)


@figure_style()
def draw_pr_curve(
    recall: Sequence[float],
    precision: Sequence[float],
    path: str | Path,
    *,
    ap50: float | None,
    points: Marks,
) -> None:
    """Save the precision-recall curve at IoU .5 (0..1); points: operating points by rule, at (recall, precision)."""
    figure = new_figure(HALF_IN, 3.9)
    panel = figure.subplots()
    styles = _mark_styles(points)
    if _drawable((recall, precision)):
        panel.plot(recall, precision, color=TRAINING, drawstyle="steps-pre")
        panel.fill_between(recall, precision, color=TRAINING, alpha=0.1, step="pre", linewidth=0)
    else:
        annotate_empty(panel, NO_TRUTH)
    _draw_marks(panel, points, styles)
    set_unit_range(panel, "xy")
    panel.set(xlabel="Recall", ylabel="Precision", aspect="equal")
    title = "Precision-recall curve at IoU .5" + ("" if ap50 is None else f": AP50 {format_share(ap50)}")
    panel.set_title(wrapped(title, HALF_IN - 0.5))
    _legend(figure, styles)
    save(figure, path)


def _plot_froc(panel: Axes, curves: Mapping[str, Curve], points: Estimates, marks: Marks, styles: Styles) -> None:
    left, right = _froc_range(points, marks)
    panel.set_xscale("log", base=2)
    drawn = {title: curve for title, curve in curves.items() if _drawable(curve)}
    ends = {}
    for index, (title, curve) in reversed(list(enumerate(drawn.items()))):
        colour, dash = TRAINING if index == 0 else GREY, DASHES[index % len(DASHES)]
        xs, ys = _on_log_axis(curve, left, right)
        width = 1.8 if index == 0 else 1.2
        panel.plot(xs, ys, color=colour, linestyle=dash, linewidth=width, drawstyle="steps-post", zorder=3 - index / 9)
        ends[title] = (float(ys[-1]), colour)
    if len(drawn) > 1:
        _label_ends(panel, ends)
    if not drawn:
        annotate_empty(panel, NO_TRUTH)
    elif points:
        draw_intervals(panel, points, TRAINING)
        panel.plot([x for x, *_ in points], [y for _, y, *_ in points], "o", color=TRAINING, markersize=3.5, zorder=4)
    _draw_marks(panel, {rule: mark._replace(x=max(mark.x, left)) for rule, mark in marks.items()}, styles)
    _label_edge(panel, [(mark.x, mark.y) for mark in marks.values() if mark.x < left], left)
    _label_powers(panel, left, right)
    set_unit_range(panel, "y")
    intervals = any(low is not None for _, _, low, _ in points)
    panel.set(xlim=(left, right), xlabel=FROC_X + (" (bars: 95 % intervals)" if intervals else ""), ylabel=FROC_Y)


def _froc_range(points: Estimates, marks: Marks) -> tuple[float, float]:
    """Return the ends of the log axis: one power of two beyond the points, and wide enough for every mark."""
    xs = [x for x, *_ in points if x > 0] or list(FROC_RANGE)
    marked = [mark.x for mark in marks.values() if mark.x > 0]
    low = max(min([min(xs) / 2, *marked]), FURTHEST_LEFT)
    high = max([max(xs) * 2, *marked])
    return 2.0 ** math.floor(math.log2(low)), 2.0 ** math.ceil(math.log2(high))


def _on_log_axis(curve: Curve, left: float, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a step curve between two ends; as a log axis has no zero, it starts with the value reached by there.

    Beyond its last point a curve is constant: the sensitivity at no more than so many false positives.
    """
    xs, ys = (np.asarray(values, dtype=float) for values in curve)
    inside = (xs > left) & (xs < right)
    at = [float(ys[xs <= end][-1]) if (xs <= end).any() else 0.0 for end in (left, right)]
    return np.r_[left, xs[inside], right], np.r_[at[0], ys[inside], at[1]]


def _label_powers(panel: Axes, left: float, right: float) -> None:
    powers = range(round(math.log2(left)), round(math.log2(right)) + 1)
    ticks = [power for power in powers if len(powers) <= 11 or power % 2]
    panel.set_xticks([2.0**p for p in ticks], [f"1/{2**-p}" if p < 0 else f"{2**p}" for p in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="x", labelsize=TEXT_PT - 1)


def _label_edge(panel: Axes, beyond: Sequence[tuple[float, float]], left: float) -> None:
    """Label marks to the left of the log axis, whose symbols are drawn at its edge, with their x."""
    by_height: dict[float, list[float]] = {}
    for x, y in beyond:
        by_height.setdefault(round(y * 20), []).append(x)
    for height, xs in by_height.items():
        text = "at " + " and ".join(f"{x:.1g}" for x in sorted(set(xs)))
        offset = (7, -11 if height >= 10 else 11)
        panel.annotate(text, (left, height / 20), offset, textcoords="offset points", va="center", fontsize=7)


def _label_ends(panel: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    titles = list(ends)
    places = spread_apart([ends[title][0] for title in titles], gap=0.065, top=1.02)
    for title, place in zip(titles, places, strict=True):
        panel.annotate(
            title,
            (1, place),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=ends[title][1],
        )


def _froc_title(curve: Curve, points: Estimates) -> str:
    at_one = [y for x, y, *_ in points if x == 1]
    if not at_one or not _drawable(curve):
        return "Free-response ROC (FROC) curve"
    return f"Sensitivity {format_share(at_one[0])} at 1 false positive per image (FROC)"


def _plot_roc(panel: Axes, curve: Curve, marks: Marks, styles: Styles) -> None:
    if _drawable(curve):
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        panel.annotate("chance", (0.62, 0.62), (4, -4), textcoords="offset points", va="top", color=GREY)
        panel.plot(*curve, color=TRAINING, linewidth=1.8)
    else:
        annotate_empty(panel, ONE_CLASS)
    _draw_marks(panel, marks, styles)
    set_unit_range(panel, "xy")
    panel.set(xlabel=ROC_X, ylabel=ROC_Y, aspect="equal")


def _roc_title(auroc: str | None) -> str:
    return "Image-level ROC" + ("" if auroc is None else f": AUROC {auroc}")


def _drawable(curve: Curve) -> bool:
    return len(curve[0]) > 0 and bool(np.isfinite(np.concatenate(curve)).all())


def _mark_styles(marks: Marks) -> Styles:
    """Return the style of each mark by its rule; the first, the main one, is filled; other rules get other symbols."""
    styles: Styles = {}
    others = iter(OTHER_SYMBOLS * 9)
    for rule, mark in marks.items():
        symbol = MARK_SYMBOLS[rule] if rule in MARK_SYMBOLS else next(others)
        styles[rule] = {
            "marker": symbol,
            "label": mark.title,
            "color": "white" if styles else VALIDATION,
            "markeredgecolor": INK,
            "markeredgewidth": 1.1,
            "markersize": {"*": 10, "D": 5.5, "s": 6}.get(symbol, 6.5),
            "linestyle": "none",
        }
    return styles


def _draw_marks(panel: Axes, marks: Marks, styles: Styles) -> None:
    for order, (rule, mark) in enumerate(marks.items()):
        # All outlines lie above all fills: where two marks share a place, both symbols are visible.
        panel.plot([mark.x], [mark.y], clip_on=False, zorder=6 - order / 99, **styles[rule])
        outline = styles[rule] | {"markerfacecolor": "none", "label": None}
        panel.plot([mark.x], [mark.y], clip_on=False, zorder=7, **outline)


def _legend(figure: Figure, styles: Styles) -> None:
    if not styles:
        return
    longest = max(len(style["label"]) for style in styles.values())
    entry_in = (longest * LETTER_WIDTH * TEXT_PT + 24) / 72
    figure.legend(
        handles=[Line2D([], [], **style) for style in styles.values()],
        loc="outside lower center",
        ncols=max(1, min(3, len(styles), int(figure.get_figwidth() / entry_in))),
        title="Operating points, fixed beforehand (filled: main)",
        handlelength=1,
        columnspacing=1.4,
    )
