"""Figures of an evaluation: reliability diagrams, forest plots, error types and robustness, from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fracture_det.visualization.style import (
    COLOURS,
    DASHES,
    FULL_IN,
    GREY,
    HALF_IN,
    INK,
    SYMBOLS,
    TEXT_PT,
    TRAINING,
    add_title,
    annotate_empty,
    draw_intervals,
    figure_style,
    format_share,
    new_figure,
    save,
    set_unit_range,
    wrapped,
)

# low, high, n, mean score, observed frequency, and its interval
Bin = tuple[float, float, int, float | None, float | None, float | None, float | None]
# label, value, low, high, n, and whether the sample is small
Row = tuple[str, float | None, float | None, float | None, int | None, bool]
# strength, value, low, high
Step = tuple[float, float | None, float | None, float | None]
LONGEST_LABEL = 34
# The types of evaluation.tide in words; another name is shown as it is.
ERROR_NAMES = {
    "classification": "Classification",
    "localisation": "Localisation",
    "both": "Classification and localisation",
    "duplicate": "Duplicate detection",
    "background": "Background",
    "missed": "Missed fracture",
    "false positive": "All false positives",
    "false negative": "All false negatives",
}
# The types that are counted in fractures; the others are counted in boxes.
FRACTURE_TYPES = ("missed", "false negative")
# Each of these contains several of the others, and is never the single worst type.
SUMMARY_TYPES = ("false positive", "false negative")


@figure_style()
def draw_reliability(panels: Mapping[str, Sequence[Bin]], path: str | Path) -> None:
    """Save reliability diagrams: the observed frequency in each bin of scores, above the number of cases.

    panels: title -> bins (low, high, n, mean_score, rate, rate_low, rate_high), 0..1; an empty bin has no rate.
    """
    columns = min(2, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = new_figure(HALF_IN if columns == 1 else FULL_IN, 3.9 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    for index, (title, bins) in enumerate((panels or {"Reliability of scores": ()}).items()):
        row, column = divmod(index, columns)
        above = figure.add_subplot(grid[2 * row, column])
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=above)
        _draw_rates(above, bins)
        _draw_counts(below, bins)
        above.set_title(wrapped(title, HALF_IN - 0.5))
    save(figure, path)


def _draw_rates(panel: Axes, bins: Sequence[Bin]) -> None:
    set_unit_range(panel, "xy")
    panel.tick_params(labelbottom=False)
    panel.set_ylabel("Observed frequency")
    if all(rate is None for _, _, _, _, rate, _, _ in bins):
        annotate_empty(panel, "not defined: no score")
        return
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=DASHES[1], zorder=2)
    panel.annotate("dashed: perfect calibration", (0.02, 0.965), xycoords="axes fraction", va="top", color=GREY)
    for low, high, _, _, rate, _, _ in bins:
        if rate is not None:
            panel.bar(
                low, rate, high - low, align="edge", color=TRAINING, alpha=0.25, edgecolor=TRAINING, linewidth=0.6
            )
    dots = [((a + b) / 2 if x is None else x, y, low, high) for a, b, _, x, y, low, high in bins if y is not None]
    draw_intervals(panel, dots, INK)
    panel.plot([x for x, *_ in dots], [y for _, y, *_ in dots], "o", color=INK, markersize=4, clip_on=False)


def _draw_counts(panel: Axes, bins: Sequence[Bin]) -> None:
    most = max((n for _, _, n, *_ in bins), default=0)
    for low, high, n, *_ in bins:
        panel.bar(low, n, high - low, align="edge", color=GREY, alpha=0.5, edgecolor=GREY, linewidth=0.6)
        if n and high - low > 0.06:
            text = str(n) if n < 10_000 else f"{n / 1000:.0f}k"
            panel.annotate(text, ((low + high) / 2, n), (0, 1.5), textcoords="offset points", ha="center", fontsize=6.5)
    panel.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    panel.set(ylim=(0, max(1, most) * 1.25), ylabel="Number", xlabel="Score (dot: mean of the bin)")
    set_unit_range(panel, "x")


@figure_style()
def draw_forest(rows: Sequence[Row], path: str | Path, *, title: str, xlabel: str) -> None:
    """Save a forest plot: one line per row with its value and interval, beside the same in numbers.

    rows: (label, value, low, high, n, small), top to bottom; a heading has neither value nor n; small samples are
    hollow. The value of a first row whose label begins with "all" is a reference line through the others.
    """
    figure = new_figure(FULL_IN, 1.0 + 0.19 * max(4, len(rows)))
    panel = figure.subplots()
    panel.set_ylim(max(4, len(rows)) - 0.4, -0.6)
    panel.set_yticks(range(len(rows)), [_one_line(row[0]) for row in rows])
    panel.tick_params(axis="y", length=0, pad=8)
    panel.spines["left"].set_visible(False)
    panel.grid(False, axis="y")
    _set_forest_range(panel, [value for row in rows for value in row[1:4] if value is not None])
    for place, row in enumerate(rows):
        _draw_row(panel, place, row)
    if not rows:
        annotate_empty(panel, "no row to draw")
    elif rows[0][1] is not None and rows[0][0].lower().startswith("all"):
        panel.axvline(rows[0][1], color=GREY, linewidth=0.8, linestyle=DASHES[1], zorder=1)
    panel.set_xlabel(xlabel + (" (hollow: small sample)" if any(row[5] for row in rows) else ""))
    add_title(figure, title)
    save(figure, path)


def _draw_row(panel: Axes, place: int, row: Row) -> None:
    _, value, low, high, n, small = row
    if value is None and n is None:
        panel.get_yticklabels()[place].set_fontweight("bold")
        return
    if value is not None:
        if low is not None and high is not None:
            panel.plot([low, high], [place, place], color=TRAINING, linewidth=1.2, solid_capstyle="butt")
        face = "white" if small else TRAINING
        panel.plot([value], [place], "s", color=TRAINING, markersize=5, markerfacecolor=face, clip_on=False)
    figures = "not defined" if value is None else format_share(value)
    if value is not None and low is not None and high is not None:
        figures += f" ({format_share(low)} to {format_share(high)})"
    _write_beside(panel, place, figures, 8, "left")
    _write_beside(panel, place, "" if n is None else f"n = {n}", 150, "right")


def _write_beside(panel: Axes, place: int, text: str, offset_pt: int, side: Literal["left", "right"]) -> None:
    panel.annotate(
        text,
        (1, place),
        (offset_pt, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center_baseline",
        ha=side,
    )


def _set_forest_range(panel: Axes, values: Sequence[float]) -> None:
    if all(0 <= value <= 1 for value in values):
        set_unit_range(panel, "x")
        return
    furthest = max(abs(value) for value in values) * 1.05  # differences: zero in the middle
    panel.set_xlim(-furthest, furthest)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.xaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, place: int | None = None) -> str:
    return format_share(value, 2) if round(value, 6) else "0"


def _one_line(label: str) -> str:
    label = " ".join(label.split())
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


@figure_style()
def draw_errors(types: Mapping[str, tuple[int, float | None]], path: str | Path, *, base_ap50: float | None) -> None:
    """Save the AP50 gained if one type of error alone were corrected, with the number of such errors.

    types: name -> (count, delta_ap50), see `ERROR_NAMES`; without any delta the bars show the counts.
    """
    figure = new_figure(FULL_IN * 0.8, 1.1 + 0.24 * max(3, len(types)))
    panel = figure.subplots()
    deltas = {name: delta for name, (_, delta) in types.items() if delta is not None}
    lengths = deltas or {name: float(count) for name, (count, _) in types.items()}
    for place, (name, (count, delta)) in enumerate(types.items()):
        length = lengths.get(name, 0.0)
        face = "white" if name in SUMMARY_TYPES else TRAINING
        panel.barh(
            place, length, height=0.66, facecolor=face, edgecolor=TRAINING, hatch="///" if face == "white" else ""
        )
        unit = ("fracture", "fractures") if name in FRACTURE_TYPES else ("box", "boxes")
        number = f"{count} {unit[count != 1]}"
        text = number if delta is None else f"{'+' if delta >= 0 else ''}{format_share(delta)} ({number})"
        panel.annotate(text, (max(0.0, length), place), (4, 0), textcoords="offset points", va="center_baseline")
    panel.set_ylim(max(3, len(types)) - 0.4, -0.6)
    panel.set_yticks(range(len(types)), [_one_line(ERROR_NAMES.get(name, name)) for name in types])
    panel.set_xlim(min([0.0, *lengths.values()]), max([*lengths.values(), 0.0]) * 1.4 or 1)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=not deltas))
    if deltas:
        panel.xaxis.set_major_formatter(FuncFormatter(_tick))
    panel.tick_params(axis="y", length=0)
    panel.grid(False, axis="y")
    if not types:
        annotate_empty(panel, "no error type was counted")
    panel.set_xlabel("AP50 gained if this error type alone were corrected" if deltas else "Number of errors")
    add_title(figure, _error_title(deltas, base_ap50))
    save(figure, path)


def _error_title(deltas: Mapping[str, float], base_ap50: float | None) -> str:
    single = {name: delta for name, delta in deltas.items() if name not in SUMMARY_TYPES}
    if base_ap50 is None or not deltas:
        return "Error types; AP50 is not defined: no annotated fracture"
    if not single:
        return f"Error types; AP50 {format_share(base_ap50)}"
    worst = max(single, key=lambda name: single[name])
    if round(single[worst], 3) <= 0:
        return f"AP50 {format_share(base_ap50)}; correcting no single error type raises it"
    name = ERROR_NAMES.get(worst, worst)
    return f"AP50 {format_share(base_ap50)}; costliest error type: {name.lower()} ({format_share(single[worst])})"


@figure_style()
def draw_robustness(panels: Mapping[str, Mapping[str, Sequence[Step]]], path: str | Path) -> None:
    """Save a small panel per perturbation, with a line per figure over the strength of the perturbation.

    panels: figure name -> perturbation -> (strength, value, low, high); strength 0 is the untouched images, either in
    each perturbation or once under their own name.
    """
    references = {name: _reference(by_kind) for name, by_kind in panels.items()}
    kinds = [kind for by_kind in panels.values() for kind, steps in by_kind.items() if any(s[0] > 0 for s in steps)]
    kinds = list(dict.fromkeys(kinds))
    columns = min(4, max(1, len(kinds)))
    rows = max(1, math.ceil(len(kinds) / columns))
    figure = new_figure(FULL_IN if columns > 2 else HALF_IN * columns, 1.1 + 1.6 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, kind in zip(grid.flat, kinds, strict=False):
        for order, (name, by_kind) in enumerate(panels.items()):
            _draw_steps(panel, by_kind.get(kind, ()), references[name], order, name)
        if not any(step[1] is not None for by_kind in panels.values() for step in by_kind.get(kind, ())):
            annotate_empty(panel, "not defined")
        panel.set_title(kind, fontsize=TEXT_PT)
    if not kinds:
        annotate_empty(grid[0, 0], "no perturbation was measured")
    _finish_grid(grid, len(kinds))
    _robustness_legend(figure, grid)
    add_title(figure, _robustness_title(panels, references))
    save(figure, path)


def _draw_steps(panel: Axes, steps: Sequence[Step], reference: float | None, order: int, name: str) -> None:
    colour, symbol = COLOURS[order % len(COLOURS)], SYMBOLS[order % len(SYMBOLS)]
    if reference is not None:
        panel.axhline(reference, color=colour, linewidth=0.7, alpha=0.6, zorder=1)
    points = [(x, math.nan if value is None else value) for x, value, *_ in sorted(steps, key=lambda step: step[0])]
    if points and points[0][0] > 0 and reference is not None:
        points.insert(0, (0, reference))
    line = Line2D([x for x, _ in points], [y for _, y in points], color=colour, marker=symbol, label=name)
    line.set(linestyle=DASHES[order % len(DASHES)], linewidth=1.3, markersize=3.5)
    panel.add_line(line)
    draw_intervals(panel, steps, colour)


def _finish_grid(grid: Any, n_panels: int) -> None:
    columns = grid.shape[1]
    for index, panel in enumerate(grid.flat):
        if index + columns >= n_panels:  # the lowest panel of its column
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("Strength")
        panel.set_visible(index < max(1, n_panels))
    set_unit_range(grid[0, 0], "y")
    grid[0, 0].set(xlim=(-0.3, 5.3), xticks=range(6))


def _robustness_legend(figure: Figure, grid: Any) -> None:
    handles: dict[str, Any] = {}
    for panel in grid.flat:
        handles |= {label: line for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if handles:
        handles["Thin line: untouched; bars: 95 % intervals"] = Line2D([], [], color=GREY, linewidth=0.7)
        columns = len(handles) if figure.get_figwidth() == FULL_IN and len(handles) <= 4 else 1
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def _reference(by_kind: Mapping[str, Sequence[Step]]) -> float | None:
    return next((s[1] for steps in by_kind.values() for s in steps if s[0] == 0 and s[1] is not None), None)


def _robustness_title(
    panels: Mapping[str, Mapping[str, Sequence[Step]]], references: Mapping[str, float | None]
) -> str:
    """Return a title with the perturbation that lowers the first figure most."""
    for name, by_kind in panels.items():
        values = [(s[1], kind) for kind, steps in by_kind.items() for s in steps if s[0] > 0 and s[1] is not None]
        reference = references[name]
        if values and reference is not None:
            lowest, kind = min(values)
            if lowest < reference:
                return f"{name} falls most under {kind}: from {format_share(reference)} to {format_share(lowest)}"
            return f"{name} falls under no perturbation: {format_share(reference)} untouched"
    return "Performance under image perturbations"
