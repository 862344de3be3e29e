"""A forest plot of differences, each with its one-sided bound and the margin that the bound is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from fracture_det.visualization.style import (
    FULL_IN,
    GREY,
    INK,
    TRAINING,
    VALIDATION,
    add_title,
    annotate_empty,
    figure_style,
    format_share,
    new_figure,
    save,
)

LONGEST_LABEL = 34
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "too small to decide"
# outcome -> colour, symbol and face; they differ without colour too.
MARKS = {
    HOLDS: (TRAINING, "o", TRAINING),
    FAILS: (VALIDATION, "X", VALIDATION),
    UNDECIDED: (GREY, "s", "white"),
}


@dataclass(frozen=True)
class MarginRow:
    """One row: a difference with its one-sided bounds and its margin; a heading has neither.

    outcome: one of MARKS. note: beside the row, such as "better".
    """

    label: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    margin: float | None = None
    outcome: str = HOLDS
    note: str = ""


@figure_style()
def draw_margins(rows: Sequence[MarginRow], path: str | Path, *, title: str, xlabel: str) -> None:
    """Save the plot: a line from bound to bound, a symbol at the difference, a bar at the margin, top to bottom."""
    n = max(3, len(rows))
    figure = new_figure(FULL_IN, 1.15 + 0.21 * n)
    panel = figure.subplots()
    panel.set_ylim(n - 0.4, -0.6)
    panel.set_yticks(range(len(rows)), [_one_line(row.label) for row in rows])
    panel.tick_params(axis="y", length=0, pad=8)
    panel.spines["left"].set_visible(False)
    panel.grid(False, axis="y")
    numbers = [number for row in rows for number in (row.value, row.lower, row.upper, row.margin) if number is not None]
    furthest = max((abs(number) for number in numbers), default=0.1) * 1.08
    panel.set_xlim(-furthest, furthest)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_share(value, 2) if round(value, 6) else "0"))
    panel.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(rows):
        _draw(panel, place, row)
    if not rows:
        annotate_empty(panel, "no difference to draw")
    panel.set_xlabel(xlabel)
    _legend(panel, {row.outcome for row in rows if row.value is not None})
    add_title(figure, title)
    save(figure, path)


def _one_line(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def _draw(panel: Axes, place: int, row: MarginRow) -> None:
    if row.value is None:
        if row.margin is None:
            panel.get_yticklabels()[place].set_fontweight("bold")
        else:
            _write(panel, place, row.note)
        return
    colour, symbol, face = MARKS[row.outcome]
    if row.lower is not None and row.upper is not None:
        panel.plot([row.lower, row.upper], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt")
    panel.plot([row.value], [place], symbol, color=colour, markersize=5.5, markerfacecolor=face, clip_on=False)
    if row.margin is not None:
        panel.plot([row.margin, row.margin], [place - 0.36, place + 0.36], color=INK, linewidth=1.6)
    sign = "+" if row.value > 0 else ""
    _write(panel, place, f"{sign}{format_share(row.value)}" + (f"  {row.note}" if row.note else ""))


def _write(panel: Axes, place: int, text: str) -> None:
    panel.annotate(
        text,
        (1, place),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center_baseline",
        ha="left",
    )


def _legend(panel: Axes, outcomes: set[str]) -> None:
    handles = [
        Line2D([], [], color=colour, marker=symbol, markerfacecolor=face, linewidth=1.2, label=outcome)
        for outcome, (colour, symbol, face) in MARKS.items()
        if outcome in outcomes
    ]
    if handles:
        handles.append(Line2D([], [], color=INK, linewidth=0, marker="|", markersize=9, mew=1.6, label="margin"))
        panel.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
