"""What all figures share: their style, axes and labels, and saving as PNG or SVG."""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, TRAINING, VALIDATION = "#333333", "#0072B2", "#D55E00"
GREY, PALE = "#767676", "#E5E5E5"
# Okabe and Ito (2008); each colour goes with a dash and a symbol, so that lines differ without colour too.
COLOURS = (TRAINING, VALIDATION, "#009E73", "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
SYMBOLS = "os^Dv*"
# Widths in inches on an A4 page: one of two columns, and the full width. Text sizes are for print at these widths.
HALF_IN, FULL_IN = 3.5, 7.1
TEXT_PT, TITLE_PT = 8, 9
# Mean width of a letter of DejaVu Sans, as a share of its size.
LETTER_WIDTH = 0.55
STYLE = {
    "figure.dpi": 200,
    "savefig.dpi": 200,
    # Ships with matplotlib, so that every machine breaks lines alike.
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": TEXT_PT,
    "text.color": INK,
    "text.parse_math": False,  # the name of a body part or a file may contain a dollar sign
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": TITLE_PT,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": TEXT_PT,
    "lines.linewidth": 1.6,
    "path.simplify_threshold": 0.2,  # of a point in SVG: a curve of 10,000 steps shrinks and looks the same
    "svg.fonttype": "none",
    "svg.hashsalt": "fracture_det",
}
# Verdana is as wide as DejaVu Sans and most other fonts are narrower: without DejaVu Sans nothing overflows.
FONT_FAMILY = "'DejaVu Sans', Verdana, sans-serif"
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


class FigureError(ValueError):
    """A figure cannot be drawn or saved as requested; the message says what was expected."""


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the style of this project, whatever matplotlibrc the user has."""
    with style.context(["default", STYLE]):
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure, independent of pyplot and of any window."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def annotate_empty(panel: Axes, text: str = "no values yet") -> None:
    """Write into an empty panel why nothing is drawn."""
    lines = wrapped(text, HALF_IN - 1.2, TEXT_PT)
    panel.text(0.5, 0.5, lines, transform=panel.transAxes, ha="center", va="center")


def add_title(figure: Figure, title: str) -> None:
    """Add a title above all panels."""
    figure.suptitle(wrapped(title, figure.get_figwidth() - 0.2), x=0.01, ha="left", fontsize=TITLE_PT)


def wrapped(text: str, width_in: float, size_pt: float = TITLE_PT) -> str:
    """Return a text wrapped into lines of at most `width_in`, by the mean width of a letter."""
    return textwrap.fill(text, max(8, int(width_in * 72 / (size_pt * LETTER_WIDTH))))


def format_share(value: float, digits: int = 3) -> str:
    """Return a number without the zero before its point: .412, 1.000, -.030."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{round(value, digits) + 0.0:.{digits}f}")


def set_unit_range(panel: Axes, axes: str) -> None:
    """Set the named axes ("x", "y" or "xy") to the range 0 to 1, with room for a symbol on the edge."""
    for name in axes:
        getattr(panel, f"set_{name}lim")(0, 1.02 if name == "y" else 1)
        getattr(panel, f"set_{name}ticks")([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", ".2", ".4", ".6", ".8", "1"])


def spread_apart(places: Sequence[float], *, gap: float, top: float) -> list[float]:
    """Return positions moved apart until each is at least `gap` from the next, none above `top`, in the same order."""
    order = sorted(range(len(places)), key=lambda index: -places[index])
    moved = list(places)
    ceiling = top
    for index in order:
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    floor = 0.0
    for index in reversed(order):
        moved[index] = max(moved[index], floor)
        floor = moved[index] + gap
    return moved


def draw_intervals(
    panel: Axes, points: Iterable[tuple[float, float | None, float | None, float | None]], colour: str
) -> None:
    """Draw an error bar from low to high at each (x, y, low, high) that has an interval."""
    intervals = [(x, low, high) for x, _, low, high in points if low is not None and high is not None]
    xs = [coordinate for x, _, _ in intervals for coordinate in (x, x, math.nan)]  # NaN: the line breaks
    ys = [coordinate for _, low, high in intervals for coordinate in (low, high, math.nan)]
    panel.plot(xs, ys, color=colour, linewidth=0.9, marker="_", markersize=4, zorder=2.5)


def save(figure: Figure, path: str | Path) -> None:
    """Save PNG or SVG, by the suffix of `path`; the same figure gives the same bytes, without date and version.

    Raises FigureError for another suffix.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        figure.savefig(path, format="png", metadata={"Software": None})
    elif path.suffix.lower() == ".svg":
        path.write_text(_svg(figure), encoding="utf-8", newline="\n")
    else:
        raise FigureError(f"{path}: expected a name in .png or .svg, got {path.suffix!r}")


def _svg(figure: Figure) -> str:
    """Return a figure as SVG to be embedded in HTML: no external reference, no style of the page, ids of its own.

    Text stays text, which can be searched and copied; the figure's titles are its label for a screen reader.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = stream.getvalue()
    root = ElementTree.fromstring(text)  # nosec
    for defs in root.findall(f"{{{SVG}}}defs"):
        if defs.find(f"{{{SVG}}}style") is not None:
            root.remove(defs)  # it would style every line of the page; the root's attributes replace it
    titles = [figure.get_suptitle(), *(panel.get_title(loc="left") for panel in figure.axes)]
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt", "font-family": FONT_FAMILY, "role": "img"}
    root.attrib["aria-label"] = ". ".join(" ".join(title.split()) for title in titles if title)
    used = set(re.findall(r"#([\w-]+)", text))
    prefix = hashlib.sha256(text.encode()).hexdigest()[:8]
    for element in root.iter():
        element.attrib = _slim(element.attrib, used, prefix)
        element.text = None if len(element) else element.text
        element.tail = "\n"
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _slim(attributes: Mapping[str, str], used: set[str], prefix: str) -> dict[str, str]:
    """Drop unused ids and what the root sets already; prefix the other ids, so that they are unique in a page."""
    slim = {}
    for name, value in attributes.items():
        if (name == "id" and value not in used) or value.startswith("rotate(-0 "):
            continue
        if name == "id":
            value = f"{prefix}-{value}"
        elif name in ("clip-path", f"{{{XLINK}}}href"):
            value = value.replace("#", f"#{prefix}-")
        elif name == "style":
            value = re.sub(r"font-family: [^;]*(; |$)", "", value).replace("url(#", f"url(#{prefix}-")
        elif name in ("d", "x", "y", "width", "height", "transform"):
            value = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value).strip()
        slim[name] = value
    return slim
