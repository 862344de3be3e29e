"""The figures of a data set report: box sizes, how well anchors fit them, and image size against label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.visualization.style import (
    COLOURS,
    DASHES,
    FULL_IN,
    GREY,
    INK,
    PALE,
    TRAINING,
    VALIDATION,
    annotate_empty,
    figure_style,
    format_share,
    new_figure,
    save,
    set_unit_range,
)

# The sides, in px, of the boxes that the histogram has room for; others are counted in its first and last bar.
SMALLEST_PX, LARGEST_PX = 8, 800
NO_BOX = "no box"


@figure_style()
def draw_box_sizes(
    sides: NDArray[np.float64], anchors: Mapping[str, Sequence[float]], path: str | Path, *, letterbox_px: int
) -> None:
    """Save the histogram of box sides (M,) in px, with the anchor sizes in px, by name of the set, above it."""
    figure = new_figure(FULL_IN, 3.4)
    above, panel = figure.subplots(2, sharex=True, height_ratios=[max(1, len(anchors)), 8])
    for row, (sizes, colour) in enumerate(zip(anchors.values(), COLOURS[1:], strict=False)):
        above.plot(sizes, [row] * len(sizes), "v", color=colour, markersize=6)
    above.set_yticks(range(len(anchors)), [f"{name} anchors" for name in anchors])
    above.set(ylim=(len(anchors) - 0.4, -0.6))
    above.tick_params(left=False, labelbottom=False, bottom=False)
    above.spines[["left", "bottom"]].set_visible(False)
    above.grid(visible=False, axis="y")
    above.set_title(f"Sizes of {len(sides):,} boxes, letterboxed to {letterbox_px} px")
    edges = np.geomspace(SMALLEST_PX, LARGEST_PX, 36)
    panel.hist(np.clip(sides, edges[0], edges[-1]), bins=list(edges), color=TRAINING, edgecolor="white", linewidth=0.5)
    panel.set_xscale("log")
    ticks = [8, 16, 32, 64, 128, 256, 512, 800]
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("Side of the square of equal area, px (log scale)")
    panel.set_ylabel("Boxes")
    if not len(sides):
        panel.set(ylim=(0, 1), yticks=[])
        annotate_empty(panel, NO_BOX)
    save(figure, path)


@figure_style()
def draw_anchor_fit(
    best_ious: Mapping[str, NDArray[np.float64]], anchors: Mapping[str, Sequence[float]], path: str | Path
) -> None:
    """Save, for each anchor set by name, the share of boxes whose best IoU (M,) with its anchors is at least x.

    anchors: name -> sizes in px, for the legend.
    """
    figure = new_figure(FULL_IN, 3.6)
    panel = figure.subplots()
    panel.set_title("Share of boxes that an anchor on the feature grid meets at an IoU of at least x")
    set_unit_range(panel, "xy")
    panel.set_ylim(0, 1.1)
    panel.set_xlabel("Best IoU with any anchor")
    panel.set_ylabel("Share of boxes")
    for index, (name, ious) in enumerate(best_ious.items(), 1):
        label = f"{name}: {', '.join(f'{size:g}' for size in anchors[name])} px"
        best = np.sort(ious)
        x = np.concatenate([[0.0], best, best[-1:]])
        y = np.concatenate([[1.0], 1 - np.arange(len(best)) / max(len(best), 1), np.zeros(min(len(best), 1))])
        panel.plot(x, y, color=COLOURS[index], linestyle=DASHES[index - 1], label=label)
    for threshold, meaning in ((0.3, "negative below"), (0.7, "positive from")):
        panel.axvline(threshold, color=INK, linewidth=0.8, linestyle=":")
        panel.text(threshold + 0.008, 1.03, f"{meaning} {format_share(threshold, 1)}", color=INK)
    if any(len(ious) for ious in best_ious.values()):
        figure.legend(loc="outside lower left", ncols=1)
    else:
        annotate_empty(panel, NO_BOX)
    save(figure, path)


@figure_style()
def draw_image_size(bins: Sequence[Mapping[str, Any]], auc: float | None, path: str | Path) -> None:
    """Save how many images of each size are healthy and fractured, with the share of the fractured above.

    bins: "long_side_px" (a range in words), "images" and "fractured" (counts). auc: of the long side for the label.
    """
    figure = new_figure(FULL_IN, 3.2)
    panel = figure.subplots()
    says = (
        ""
        if auc is None
        else f"; the size alone predicts the label with an AUC of {format_share(auc, 2)} (.5: not at all)"
    )
    panel.set_title(f"Images by size and label{says}")
    panel.set_xlabel("Long side of the image, px")
    panel.set_ylabel("Images")
    if not bins:
        annotate_empty(panel, "no image")
        save(figure, path)
        return
    places = np.arange(len(bins))
    fractured = np.array([entry["fractured"] for entry in bins])
    images = np.array([entry["images"] for entry in bins])
    panel.bar(places, images - fractured, width=0.7, color=PALE, edgecolor=GREY, linewidth=0.6, label="healthy")
    panel.bar(places, fractured, bottom=images - fractured, width=0.7, color=VALIDATION, label="fractured")
    for place, part, whole in zip(places, fractured, images, strict=True):
        panel.annotate(
            f"{part / whole:.0%} of\n{whole:,}",
            (place, whole),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=INK,
        )
    panel.set_xticks(places, [entry["long_side_px"] for entry in bins])
    panel.grid(visible=False)
    panel.set(xlim=(-0.6, max(len(bins), 3) - 0.4), ylim=(0, 1.2 * max(images)))
    panel.yaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc="outside lower left", ncols=2)
    save(figure, path)
