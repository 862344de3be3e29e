"""Lines over weeks as SVG: where everything lies, in units of the drawing; templates/chart.html draws it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 30
TICKS = 4


@dataclass(frozen=True)
class ChartPoint:
    """One value at a date, with the range around it. text: the same in words. is_alarm: drawn as such."""

    day: date
    value: float
    low: float
    high: float
    text: str
    is_alarm: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line at a date, such as another detector's first day."""

    day: date
    text: str


@dataclass(frozen=True)
class Dot:
    """Where a reading lies: x, y, and the ends of its range."""

    x: float
    y: float
    y_low: float
    y_high: float
    reading: ChartPoint


@dataclass(frozen=True)
class Chart:
    """A drawing of WIDTH x HEIGHT. band: top and bottom of the reference; limit: y of a threshold."""

    title: str
    note: str
    dots: list[Dot]
    lines: list[str]
    ticks_y: list[tuple[float, str]]
    ticks_x: list[tuple[float, str]]
    marks: list[tuple[float, str]] = field(default_factory=list)
    band: tuple[float, float] | None = None
    limit: float | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str,
    note: str,
    readings: Sequence[ChartPoint],
    *,
    span: tuple[date, date],
    marks: Iterable[Mark] = (),
    band: tuple[float, float] | None = None,
    limit: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> Chart:
    """Lay out `readings` in order of their dates within `span`.

    band: low and high of the reference; limit: a threshold; bounds: of the values, else as all that is drawn.
    Lines are broken at `marks`: across another detector no value is compared.
    """
    marks = sorted(marks, key=lambda mark: mark.day)
    drawn = [value for one in readings for value in (one.low, one.high, one.value)]
    drawn += [*(band or ()), *([] if limit is None else [limit])]
    steps = _steps(*(bounds or (min(drawn, default=0), max(drawn, default=1))))
    low, high = steps[0], steps[-1]

    def x_of(day: date) -> float:
        share = (day - span[0]).days / max((span[1] - span[0]).days, 1)
        return round(LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16), 1)

    def y_of(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    dots = [Dot(x_of(one.day), y_of(one.value), y_of(one.low), y_of(one.high), one) for one in readings]
    return Chart(
        title,
        note,
        dots,
        _lines(dots, marks),
        [(y_of(step), f"{step:g}") for step in steps],
        [(x_of(day), f"{day:%-d %b}" if (span[1] - span[0]).days < 330 else f"{day:%b %Y}") for day in _dates(*span)],
        [(x_of(mark.day), mark.text) for mark in marks],
        None if band is None else (y_of(band[1]), y_of(band[0])),
        None if limit is None else y_of(limit),
    )


def _lines(dots: Sequence[Dot], marks: Sequence[Mark]) -> list[str]:
    parts: dict[int, list[str]] = {}
    for dot in dots:
        part = sum(dot.reading.day >= mark.day for mark in marks)
        parts.setdefault(part, []).append(f"{dot.x},{dot.y}")
    return [" ".join(points) for points in parts.values()]


def _steps(low: float, high: float) -> list[float]:
    """Return round numbers from at most `low` to at least `high`."""
    width = max(high - low, 1e-3, abs(high) * 1e-3)
    power = 10 ** math.floor(math.log10(width / TICKS))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * TICKS >= width * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * index, 10) for index in range(first, max(last, first + 1) + 1)]


def _dates(first: date, last: date) -> list[date]:
    """Return up to four dates, evenly apart."""
    days = (last - first).days
    n = min(days, 3)
    return [first] if n < 1 else [first + (last - first) * index / n for index in range(n + 1)]
