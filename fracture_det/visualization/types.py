"""Figures of types of fracture: the confusion table as a heat map, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from fracture_det.visualization.style import (
    FULL_IN,
    GREY,
    HALF_IN,
    INK,
    TRAINING,
    VALIDATION,
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

# From this share on a cell is so dark that its number is white.
DARK = 0.55
LONGEST_NAME = 18
# The coverage that the label of a point takes.
ROOM = 0.07
HEAT = LinearSegmentedColormap.from_list("house", ["#FFFFFF", TRAINING])
# coverage, accuracy, low, high
Point = tuple[float, float | None, float | None, float | None]


@figure_style()
def draw_confusion(
    counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], path: str | Path
) -> None:
    """Save a confusion table: a row for each true type, shaded by the share of the row, with the counts in it.

    counts: (T, C). columns: the answers; those that are also a row have a frame where the answer is right.
    """
    table = np.array(counts, dtype=float).reshape(len(rows), len(columns))
    total = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
    width = min(FULL_IN, 2.1 + 0.44 * max(3, len(columns)))
    figure = new_figure(width, 1.7 + 0.3 * max(3, len(rows)))
    panel = figure.subplots()
    panel.grid(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_visible(False)
    panel.tick_params(length=0)
    if not table.size:
        annotate_empty(panel, "no image of known type")
    else:
        panel.pcolormesh(shares, cmap=HEAT, vmin=0, vmax=1, edgecolors="white", linewidth=1, rasterized=False)
        panel.invert_yaxis()
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if shares[row, column] >= DARK else INK
        text = f"{count:.0f}" if count else "·"
        place = (column + 0.5, row + 0.5)
        panel.text(*place, text, ha="center", va="center_baseline", color=colour if count else GREY)
        if rows[row] == columns[column]:
            panel.add_patch(
                Rectangle((column, row), 1, 1, fill=False, edgecolor=INK, linewidth=0.9, zorder=4, clip_on=False)
            )
    titles = [f"{_short(name)} ({n:.0f})" for name, n in zip(rows, total[:, 0], strict=True)]
    panel.set_yticks(np.arange(len(rows)) + 0.5, titles)
    panel.set_xticks(np.arange(len(columns)) + 0.5, [_short(name) for name in columns], rotation=90)
    panel.set(xlabel="Answer", ylabel="True type (images)")
    right = sum(table[rows.index(name), columns.index(name)] for name in rows if name in columns)
    add_title(figure, f"Right on {right:.0f} of {table.sum():.0f} images (framed); shade: share of the row")
    save(figure, path)


@figure_style()
def draw_risk_coverage(
    curve: tuple[Sequence[float], Sequence[float]],
    path: str | Path,
    *,
    points: Sequence[tuple[float, Point]],
    frozen: tuple[str, Point] | None,
    chance: float | None,
) -> None:
    """Save the accuracy of the surest answers against the share of all images that have such an answer.

    curve: coverage, accuracy, from the surest answer on. points: (confidence, (coverage, accuracy, low, high)).
    frozen: title and place of the confidence chosen on validation data. chance: accuracy of the most frequent type.
    """
    figure = new_figure(HALF_IN, 3.4)
    panel = figure.subplots()
    coverage, accuracy = curve
    if not len(coverage):
        annotate_empty(panel, "not defined: no image has an answer")
    else:
        panel.plot(coverage, accuracy, color=TRAINING, drawstyle="steps-post", linewidth=1.4)
        if chance is not None:
            panel.axhline(chance, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
            panel.annotate("always the most frequent type", (0.99, chance), (0, -3), textcoords="offset points",
                           ha="right", va="top", color=GREY)  # fmt: skip
        places = [(x, y, low, high) for _, (x, y, low, high) in points if y is not None]
        draw_intervals(panel, places, TRAINING)
        panel.plot([x for x, *_ in places], [y for _, y, *_ in places], "o", color=TRAINING, markersize=3.5, zorder=4)
        _label_confidences(panel, points)
    if frozen is not None and frozen[1][1] is not None:
        panel.plot([frozen[1][0]], [frozen[1][1]], "D", color=VALIDATION, markeredgecolor=INK, markersize=5.5, zorder=6,
                   label=frozen[0])  # fmt: skip
        figure.legend(loc="outside lower center", handlelength=1)
    set_unit_range(panel, "xy")
    panel.set_ylim(0, 1.08)
    panel.set(xlabel="Coverage: share of images with such an answer", ylabel="Accuracy of these answers")
    panel.set_title(
        wrapped("Accuracy of the surest answers (numbers: least confidence; bars: 95 % intervals)", HALF_IN - 0.5)
    )
    save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _label_confidences(panel: Axes, points: Sequence[tuple[float, Point]]) -> None:
    """Write each confidence above its point, from the strictest on; not where another one stands."""
    last = -1.0
    for confidence, (x, y, _, high) in sorted(points, reverse=True):
        if y is None or not confidence or x - last < ROOM:
            continue
        place = (max(x, ROOM / 2), y if high is None else high)
        style: dict[str, Any] = {"ha": "center", "va": "bottom", "color": TRAINING, "fontsize": 7}
        panel.annotate(format_share(confidence, 1), place, (0, 3), textcoords="offset points", **style)
        last = x
