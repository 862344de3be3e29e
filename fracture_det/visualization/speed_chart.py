"""The speed of detectors, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fracture_det.visualization.style import (
    FULL_IN,
    GREY,
    INK,
    TRAINING,
    VALIDATION,
    annotate_empty,
    figure_style,
    new_figure,
    save,
    wrapped,
)

# Kind -> colour and its meaning; all other kinds are baselines.
COLOURS = {"ours": (TRAINING, "this project's detector"), "detectron2": (INK, "the same model in Detectron2")}
NAME_IN = 2.9
BASELINE = (GREY, "baselines")


@figure_style()
def draw_benchmark(rows: Sequence[tuple[str, str, float, float, float]], path: str | Path) -> None:
    """Save one bar per detector: radiographs per second, with the range over the rounds.

    rows: (name, kind, images_per_s, low, high); the fastest is on top. kind: a key of COLOURS, or that of a baseline.
    """
    ordered = sorted(rows, key=lambda row: -row[2])
    figure = new_figure(FULL_IN, 0.9 + 0.24 * max(3, len(ordered)))
    panel = figure.subplots()
    panel.set_title("Throughput (higher is better)")
    panel.set_xlabel("Radiographs per second (line: slowest and fastest round)")
    if not ordered:
        annotate_empty(panel, "no detector was measured")
        save(figure, path)
        return
    labelled: set[str] = set()
    most = max(row[4] for row in ordered)
    for index, (_, kind, speed, low, high) in enumerate(ordered):
        colour, label = COLOURS.get(kind, BASELINE)
        panel.barh(index, speed, height=0.7, color=colour, alpha=0.8, label=None if label in labelled else label)
        labelled.add(label)
        panel.plot([low, high], [index, index], color=VALIDATION, linewidth=1.2)
        panel.annotate(f"{speed:.2f}", (high + 0.01 * most, index), va="center", color=INK)
    panel.set_yticks(range(len(ordered)), [wrapped(row[0], NAME_IN) for row in ordered])
    panel.set(ylim=(len(ordered) - 0.4, -0.6), xlim=(0, 1.12 * most))
    panel.grid(visible=False, axis="y")
    panel.legend(loc="lower right")
    save(figure, path)
