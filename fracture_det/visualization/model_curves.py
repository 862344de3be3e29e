"""Curves of several detectors in one figure: losses and AP over their trainings, precision and recall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fracture_det.visualization.style import (
    COLOURS,
    DASHES,
    FULL_IN,
    HALF_IN,
    TRAINING,
    VALIDATION,
    annotate_empty,
    figure_style,
    new_figure,
    save,
    set_unit_range,
    wrapped,
)

COLUMNS = 3
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class TrainingCurves:
    """One training over iterations: total loss and validation loss (points x, y), validation AP50 0..1."""

    training: Points
    validation: Points
    ap50: Points


@figure_style()
def draw_trainings(trainings: Mapping[str, TrainingCurves], path: str | Path) -> None:
    """Save a panel of losses for each training, by title, and one panel with the validation AP50 of all.

    Losses of different detectors have different meanings, so that each panel has a scale of its own.
    """
    rows = math.ceil(len(trainings) / COLUMNS)
    figure = new_figure(FULL_IN, 2.6 + 2.1 * rows)
    grid = figure.add_gridspec(rows + 1, COLUMNS)
    panels = [figure.add_subplot(grid[divmod(index, COLUMNS)]) for index in range(len(trainings))]
    for panel, (title, curves) in zip(panels, trainings.items(), strict=True):
        _draw_losses(panel, curves)
        panel.set_title(wrapped(title, FULL_IN / COLUMNS - 0.4))
    below = figure.add_subplot(grid[rows, :])
    _draw_ap50(below, trainings)
    for panel in (*panels, below):
        panel.set_xlabel("Iteration")
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    save(figure, path)


@figure_style()
def draw_precision_recall(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: str | Path) -> None:
    """Save the precision-recall curves (recall, precision), 0..1, of several detectors by title."""
    figure = new_figure(HALF_IN + 2.2, 3.6)
    panel = figure.subplots()
    for index, (title, (recall, precision)) in enumerate(curves.items()):
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
        panel.plot(recall, precision, label=wrapped(title, 1.9), drawstyle="steps-pre", **style)
    if not any(len(recall) for recall, _ in curves.values()):
        annotate_empty(panel)
    set_unit_range(panel, "xy")
    panel.set(xlabel="Recall", ylabel="Precision", title="Precision-recall curves at IoU .5", aspect="equal")
    figure.legend(loc="outside right upper")
    save(figure, path)


def _draw_losses(panel: Axes, curves: TrainingCurves) -> None:
    if curves.training:
        marker = "o" if len(curves.training) == 1 else None
        panel.plot(*zip(*curves.training, strict=True), color=TRAINING, linewidth=1, marker=marker, label="training")
    if curves.validation:
        panel.plot(
            *zip(*curves.validation, strict=True), color=VALIDATION, marker="s", markersize=3, label="validation"
        )
    if curves.training or curves.validation:
        panel.legend(loc="upper right")
    else:
        annotate_empty(panel)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("Loss")


def _draw_ap50(panel: Axes, trainings: Mapping[str, TrainingCurves]) -> None:
    for index, (title, curves) in enumerate(trainings.items()):
        if curves.ap50:
            style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
            panel.plot(*zip(*curves.ap50, strict=True), marker="o", markersize=2.5, label=title, **style)
    if any(curves.ap50 for curves in trainings.values()):
        panel.set_ylim(0, None)
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        annotate_empty(panel)
    panel.set_title("Validation AP50 of all")
    panel.set_ylabel("AP at IoU .5")
