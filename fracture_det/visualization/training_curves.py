"""Training curves: losses and validation AP over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fracture_det.visualization.style import TRAINING, VALIDATION, annotate_empty, figure_style, new_figure, save

LOSS_TITLES = {
    "loss": "Total loss",
    "loss_rpn_cls": "Proposals: objectness",
    "loss_rpn_loc": "Proposals: boxes",
    "loss_cls": "Head: classification",
    "loss_box_reg": "Head: boxes",
}
# The parts of other detectors than Faster R-CNN, whose losses begin with loss_rpn.
OTHER_TITLES = {
    "loss_cls": "Classification",
    "loss_objectness": "Objectness",
    "loss_box_reg": "Boxes",
    "loss_giou": "Boxes: generalised IoU",
}


@figure_style()
def draw_loss_curves(history: Sequence[Mapping[str, Any]], iterations_per_epoch: float, path: str | Path) -> None:
    """Save the total loss and its parts over epochs, training and validation (the paper's Fig. 6).

    history: lines of Detectron2's metrics.json; `iteration` counts from 0. Of two lines of one iteration
    (training was interrupted and resumed) the later one counts.
    """
    titles = _titles(history)
    parts = [name for name in titles if name != "loss"]
    half = math.ceil(len(parts) / 2)
    lower = [*parts[half:], *["."] * (2 * half - len(parts))]
    figure = new_figure(4.6 + 2.2 * half, 4.2)
    axes = figure.subplot_mosaic([["loss", "loss", *parts[:half]], ["loss", "loss", *lower]])
    for name, panel in axes.items():
        training = _series(history, "total_loss" if name == "loss" else name, iterations_per_epoch)
        validation = _series(history, f"validation_{name}", iterations_per_epoch)
        _draw_loss(panel, training, validation)
        panel.set_title(titles[name])
    for name in ("loss", *(name for name in lower if name != ".")):
        axes[name].set_xlabel("Epoch")
    axes["loss"].set_ylabel("Loss")
    if axes["loss"].get_legend_handles_labels()[0]:
        axes["loss"].legend()
    save(figure, path)


def _titles(history: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """Return the losses that `history` has with their titles, the total first; without any, those of Faster R-CNN."""
    found = {name for line in history for name in line}
    if "loss_rpn_cls" in found or not found & set(OTHER_TITLES):
        return LOSS_TITLES
    parts = {name: title for name, title in OTHER_TITLES.items() if name in found}
    return {"loss": LOSS_TITLES["loss"], **parts}


@figure_style()
def draw_ap_curve(history: Sequence[Mapping[str, Any]], iterations_per_epoch: float, path: str | Path) -> None:
    """Save the validation AP50 (0..1) over epochs, the best epoch marked.

    history: as in `draw_loss_curves`; its `bbox/AP50` is 0..100, as Detectron2 writes it.
    """
    figure = new_figure(5, 3)
    panel = figure.subplots()
    points = [(epoch, value / 100) for epoch, value in _series(history, "bbox/AP50", iterations_per_epoch)]
    if points:
        panel.plot(*zip(*points, strict=True), color=VALIDATION, marker="o", markersize=4)
        epoch, best = max(points, key=lambda point: point[1])
        panel.plot([epoch], [best], "o", color=VALIDATION, markersize=9, markerfacecolor="none")
        panel.set_title(f"Validation AP50: best {best:.3f} after epoch {epoch:g}")
    else:
        annotate_empty(panel)
        panel.set_title("Validation AP50")
    panel.set_ylim(0, 1)
    _whole_epochs(panel, points)
    panel.set_xlabel("Epoch")
    panel.set_ylabel("AP at IoU 0.5")
    save(figure, path)


def _series(history: Sequence[Mapping[str, Any]], key: str, iterations_per_epoch: float) -> list[tuple[float, float]]:
    values: dict[int, float] = {}
    for line in history:
        if key in line and line[key] is not None and math.isfinite(line[key]):
            values[int(line["iteration"])] = float(line[key])
    return [((iteration + 1) / iterations_per_epoch, values[iteration]) for iteration in sorted(values)]


def _epoch_means(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    epochs: dict[int, list[float]] = {}
    for epoch, value in points:
        epochs.setdefault(max(1, math.ceil(epoch - 1e-9)), []).append(value)
    return [(min(epoch, points[-1][0]), sum(values) / len(values)) for epoch, values in sorted(epochs.items())]


def _draw_loss(panel: Axes, training: list[tuple[float, float]], validation: list[tuple[float, float]]) -> None:
    if not training and not validation:
        annotate_empty(panel)
    if training:
        means = _epoch_means(training)
        several = len(means) > 1
        raw = {"alpha": 0.3, "linewidth": 0.8} if several else {"label": "Training"}
        panel.plot(*zip(*training, strict=True), color=TRAINING, **raw)
        if several:
            panel.plot(
                *zip(*means, strict=True), color=TRAINING, marker="o", markersize=3, label="Training, epoch mean"
            )
    if validation:
        panel.plot(*zip(*validation, strict=True), color=VALIDATION, marker="s", markersize=3, label="Validation")
    panel.set_ylim(bottom=0)
    _whole_epochs(panel, training + validation)


def _whole_epochs(panel: Axes, points: list[tuple[float, float]]) -> None:
    panel.set_xlim(0, max([1.0, *(epoch for epoch, _ in points)]) * 1.02)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
