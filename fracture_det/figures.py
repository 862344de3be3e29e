"""Pictures: boxes on a radiograph, and the curves of training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from fracture_det.detections import Detections
from fracture_det.images import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), colours that stay apart for colour-blind readers; amber first: it is seen on bone and on black.
BOX_COLOURS = ((255, 176, 0), (86, 180, 233), (0, 190, 130), (240, 228, 66), (204, 121, 167), (213, 94, 0))
# Sizes as shares of the longer side, so that an overlay fitted to a screen looks alike at 300 px and at 3000 px.
FONT_SHARE, LINE_SHARE = 0.018, 0.0028
MIN_FONT_PX, MIN_LINE_PX = 12, 2
MAX_TAG_SHARE = 0.2

Rectangle = tuple[int, int, int, int]


def draw_overlay(
    pixels: Pixels, detections: Detections, class_names: Sequence[str], *, minimum_score: float = 0.0
) -> Image.Image:
    """Return the radiograph (H, W, 3) uint8 RGB with a numbered box, a label and a score for each detection.

    Number n is the n-th highest score, whatever `minimum_score` (0..1) leaves out. `pixels` is not changed.
    """
    image = Image.fromarray(pixels).copy()
    shown = detections.above(minimum_score)
    draw = ImageDraw.Draw(image)
    side = max(image.size)
    line = max(MIN_LINE_PX, round(side * LINE_SHARE))
    font = ImageFont.load_default(max(MIN_FONT_PX, round(side * FONT_SHARE)))
    frames = [_frame(box, image.size, line) for box in shown.boxes]
    for index in reversed(range(len(shown))):  # the surest box lies on top
        _draw_frame(draw, frames[index], _colour(shown, index), line)
    taken: list[Rectangle] = []
    for index, frame in enumerate(frames):
        text = _tag_text(draw, font, index, shown, class_names, image.width)
        taken.append(_draw_tag(draw, font, text, frame, _colour(shown, index), line, (frames, taken, image.size)))
    return image


def _colour(detections: Detections, index: int) -> tuple[int, int, int]:
    return BOX_COLOURS[int(detections.classes[index]) % len(BOX_COLOURS)]


def _frame(box: Iterable[float], size: tuple[int, int], line: int) -> Rectangle:
    """Return the outer corners of the line around a box: outside it, so that the finding stays free."""
    x0, y0, x1, y1 = (float(value) for value in box)
    width, height = size
    left = min(max(math.floor(x0) - line, 0), width - 1)
    top = min(max(math.floor(y0) - line, 0), height - 1)
    return left, top, max(left, min(math.ceil(x1) + line, width) - 1), max(top, min(math.ceil(y1) + line, height) - 1)


def _draw_frame(draw: ImageDraw.ImageDraw, frame: Rectangle, colour: tuple[int, int, int], line: int) -> None:
    halo = max(1, line // 2)
    left, top, right, bottom = frame
    draw.rectangle((left - halo, top - halo, right + halo, bottom + halo), outline=(0, 0, 0), width=halo)
    draw.rectangle(frame, outline=colour, width=line)


def _tag_text(
    draw: ImageDraw.ImageDraw,
    font: Any,
    index: int,
    detections: Detections,
    class_names: Sequence[str],
    image_width: int,
) -> str:
    score = f"{float(detections.scores[index]):.2f}"
    full = f"{index + 1}  {class_names[int(detections.classes[index])]} {score}"
    return full if draw.textlength(full, font=font) <= MAX_TAG_SHARE * image_width else f"{index + 1}  {score}"


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    font: Any,
    text: str,
    frame: Rectangle,
    colour: tuple[int, int, int],
    line: int,
    around: tuple[list[Rectangle], list[Rectangle], tuple[int, int]],
) -> Rectangle:
    frames, taken, size = around
    ascent, descent = font.getmetrics()
    width, height = round(draw.textlength(text, font=font)) + 4 * line, ascent + descent + 2 * line
    near, far = _tag_places(frame, (width, height), size)
    # A tag on another tag cannot be read, one that is far off is searched for, and one on a box hides a finding.
    place = min(
        near + far,
        key=lambda p: (sum(_overlap(p, t) for t in taken), p not in near, sum(_overlap(p, f) for f in frames)),
    )
    draw.rectangle(place, fill=colour, outline=(0, 0, 0), width=max(1, line // 2))
    draw.text((place[0] + 2 * line, place[1] + line), text, fill=(0, 0, 0), font=font)
    return place


def _tag_places(
    frame: Rectangle, tag: tuple[int, int], size: tuple[int, int]
) -> tuple[list[Rectangle], list[Rectangle]]:
    """Return where a tag may lie, moved into the image, best first: at its box, and one or two tags further off."""
    left, top, right, bottom = frame
    width, height = tag
    near = [(left, top - height), (left, bottom), (right - width, top - height), (right - width, bottom)]
    near += [(right, top), (left - width, top), (right, bottom - height), (left - width, bottom - height)]
    ends = [(top - height, top - 2 * height), (bottom, bottom + height)]
    far = [(x, y) for step in (0, 1) for x in (right, left - width) for y in (ends[0][step], ends[1][step])]

    def inside(corner: tuple[int, int]) -> Rectangle:
        x, y = (max(0, min(corner[axis], size[axis] - tag[axis])) for axis in (0, 1))
        return x, y, x + width - 1, y + height - 1

    return [inside(corner) for corner in near], [inside(corner) for corner in far]


def _overlap(one: Rectangle, other: Rectangle) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


# --- curves -----------------------------------------------------------------------------------------------------

INK, TRAINING, VALIDATION = "#333333", "#0072B2", "#D55E00"
LOSS_TITLES = {
    "loss": "Total loss",
    "loss_rpn_cls": "Proposals: objectness",
    "loss_rpn_loc": "Proposals: boxes",
    "loss_cls": "Head: classification",
    "loss_box_reg": "Head: boxes",
}


def draw_loss_curves(history: Sequence[Mapping[str, Any]], iterations_per_epoch: float, path: str | Path) -> None:
    """Save as PNG the total loss and its four parts over epochs, training and validation (the paper's Fig. 6).

    history: lines of Detectron2's metrics.json; `iteration` counts from 0. Of two lines about one iteration
    (training was killed and resumed) the later one counts.
    """
    figure = _new_figure(11, 5)
    axes = figure.subplot_mosaic([["loss", "loss", "loss_rpn_cls", "loss_rpn_loc"],
                                  ["loss", "loss", "loss_cls", "loss_box_reg"]])  # fmt: skip
    for name, panel in axes.items():
        training = _series(history, "total_loss" if name == "loss" else name, iterations_per_epoch)
        validation = _series(history, f"validation_{name}", iterations_per_epoch)
        _draw_loss(panel, training, validation)
        panel.set_title(LOSS_TITLES[name])
    for name in ("loss", "loss_cls", "loss_box_reg"):
        axes[name].set_xlabel("Epoch")
    axes["loss"].set_ylabel("Loss")
    if axes["loss"].get_legend_handles_labels()[0]:
        axes["loss"].legend(frameon=False)
    _save(figure, path)


def draw_ap_curve(history: Sequence[Mapping[str, Any]], iterations_per_epoch: float, path: str | Path) -> None:
    """Save as PNG the validation AP50 (0..1) over epochs, the best epoch marked.

    history: as in `draw_loss_curves`; its `bbox/AP50` is 0..100, as Detectron2 writes it.
    """
    figure = _new_figure(7, 4)
    panel = figure.subplots()
    points = [(epoch, value / 100) for epoch, value in _series(history, "bbox/AP50", iterations_per_epoch)]
    if points:
        panel.plot(*zip(*points, strict=True), color=VALIDATION, marker="o", markersize=4)
        epoch, best = max(points, key=lambda point: point[1])
        panel.plot([epoch], [best], "o", color=VALIDATION, markersize=9, markerfacecolor="none")
        panel.set_title(f"Validation AP50: best {best:.3f} after epoch {epoch:g}")
    else:
        _say_empty(panel)
        panel.set_title("Validation AP50")
    panel.set_ylim(0, 1)
    _whole_epochs(panel, points)
    panel.set_xlabel("Epoch")
    panel.set_ylabel("AP at IoU 0.5")
    _save(figure, path)


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
        _say_empty(panel)
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
    from matplotlib.ticker import MaxNLocator

    panel.set_xlim(0, max([1.0, *(epoch for epoch, _ in points)]) * 1.02)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _say_empty(panel: Axes, text: str = "no values yet") -> None:
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color=INK, wrap=True)


def _new_figure(width_in: float, height_in: float) -> Figure:
    # Imported on use: the web page draws overlays only and starts faster without matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#E5E5E5", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.title.set_fontsize(10)
    # Without the software's version and date the same curves give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def draw_pr_curve(
    recall: Sequence[float],
    precision: Sequence[float],
    path: str | Path,
    *,
    ap50: float | None,
    points: Mapping[str, tuple[float, float]],
) -> None:
    """Save as PNG precision over recall at IoU .5 (0..1); `points` are named (recall, precision) to be marked."""
    figure = _new_figure(5.5, 5)
    panel = figure.subplots()
    if len(recall):
        panel.plot(recall, precision, color=TRAINING, drawstyle="steps-pre")
        panel.fill_between(recall, precision, color=TRAINING, alpha=0.08, step="pre", linewidth=0)
    else:
        _say_empty(panel, "not defined: no truth box")
    for (name, (x, y)), marker in zip(points.items(), "os^Dv", strict=False):
        panel.plot([x], [y], marker, color=VALIDATION, markersize=7, label=name, clip_on=False)
    if points:
        panel.legend(frameon=False, loc="upper right", fontsize=9)
    panel.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall (share of fractures found)", aspect="equal")
    panel.set_ylabel("Precision (share of boxes that hit)")
    panel.set_title("Precision and recall at IoU 0.5" + ("" if ap50 is None else f", AP50 {ap50:.3f}"))
    _save(figure, path)


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
    figure = _new_figure(6.5, 4.5)
    panel = figure.subplots()
    panel.set_xscale("log", base=2)
    left, right = (points[0][0] / 2, points[-1][0] * 2) if points else (1 / 16, 16)
    if len(fp_per_image):
        # A log axis has no zero: the curve enters at the left edge with what is found up to there.
        start = sum(x <= left for x in fp_per_image) - 1
        xs = [left, *fp_per_image[start + 1 :], max(right, fp_per_image[-1])]
        panel.plot(xs, [*sensitivity[start:], sensitivity[-1]], color=TRAINING, drawstyle="steps-post")
    else:
        _say_empty(panel, "not defined: no truth box")
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
    _save(figure, path)
