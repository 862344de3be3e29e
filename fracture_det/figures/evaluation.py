"""The figures of an evaluation, drawn from plain numbers, so that a saved report can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fracture_det.figures.canvas import INK, TRAINING, VALIDATION, new_figure, save, say_empty


def draw_pr_curve(
    recall: Sequence[float],
    precision: Sequence[float],
    path: str | Path,
    *,
    ap50: float | None,
    points: Mapping[str, tuple[float, float]],
) -> None:
    """Save as PNG precision over recall at IoU .5 (0..1); `points` are named (recall, precision) to be marked."""
    figure = new_figure(5.5, 5)
    panel = figure.subplots()
    if len(recall):
        panel.plot(recall, precision, color=TRAINING, drawstyle="steps-pre")
        panel.fill_between(recall, precision, color=TRAINING, alpha=0.08, step="pre", linewidth=0)
    else:
        say_empty(panel, "not defined: no truth box")
    for (name, (x, y)), marker in zip(points.items(), "os^Dv", strict=False):
        panel.plot([x], [y], marker, color=VALIDATION, markersize=7, label=name, clip_on=False)
    if points:
        panel.legend(frameon=False, loc="upper right", fontsize=9)
    panel.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall (share of fractures found)", aspect="equal")
    panel.set_ylabel("Precision (share of boxes that hit)")
    panel.set_title("Precision and recall at IoU 0.5" + ("" if ap50 is None else f", AP50 {ap50:.3f}"))
    save(figure, path)


def draw_froc(
    fp_per_image: Sequence[float],
    sensitivity: Sequence[float],
    path: str | Path,
    *,
    points: Sequence[tuple[float, float, float | None, float | None]],
) -> None:
    """Save as PNG sensitivity (0..1) over false positives per image, log scale to base 2.

    points: (false positives per image, sensitivity, low, high) to be marked, with the interval where there is one.
    """
    figure = new_figure(6.5, 4.5)
    panel = figure.subplots()
    panel.set_xscale("log", base=2)
    left, right = (points[0][0] / 2, points[-1][0] * 2) if points else (1 / 16, 16)
    if len(fp_per_image):
        # A log axis has no zero: the curve enters at the left edge with what is found up to there.
        start = sum(x <= left for x in fp_per_image) - 1
        xs = [left, *fp_per_image[start + 1 :], max(right, fp_per_image[-1])]
        panel.plot(xs, [*sensitivity[start:], sensitivity[-1]], color=TRAINING, drawstyle="steps-post")
    else:
        say_empty(panel, "not defined: no truth box")
    for x, y, low, high in points:
        if low is not None and high is not None:
            panel.plot([x, x], [low, high], color=VALIDATION, linewidth=1.2)
        panel.plot([x], [y], "o", color=VALIDATION, markersize=5)
        panel.annotate(f"{y:.2f}", (x, y), (5, -11), textcoords="offset points", fontsize=8, color=INK)
    ticks = [x for x, *_ in points]
    panel.set_xticks(ticks, [f"1/{round(1 / x)}" if x < 1 else f"{x:g}" for x in ticks])
    panel.set(xlim=(left, right), ylim=(0, 1.02), xlabel="False positives per image")
    panel.set_ylabel("Sensitivity (share of fractures found)")
    panel.set_title("Free-response curve" + (", with 95 % intervals" if any(p[2] is not None for p in points) else ""))
    save(figure, path)
