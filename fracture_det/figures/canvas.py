"""What the figures of training and evaluation share: colours, the empty sheet and how it is saved."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, TRAINING, VALIDATION = "#333333", "#0072B2", "#D55E00"


def say_empty(panel: Axes, text: str = "no values yet") -> None:
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color=INK, wrap=True)


def new_figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#E5E5E5", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.title.set_fontsize(10)
    # Without the software's version and date the same curves give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
