"""The page "Model over time": what the watch knows, as charts and sentences. No result and no reader is told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from fracture_det.monitoring.counts import Counts, total
from fracture_det.monitoring.features import FEATURES, Feature
from fracture_det.monitoring.reference import Reference
from fracture_det.monitoring.windows import INPUT, MIX, OUTPUT, READERS, Day, Window
from fracture_det.structures.intervals import wilson

from .charts import Chart, ChartPoint, Mark, chart
from .presentation import LIKELY, POSSIBLE
from .watch import ADVICE, WatchState

# The features that have a chart without an alarm; the others get one with it.
SHOWN = ("grey", "size", "sharpness", "noise", "score", "boxes")
QUARTILES = (0.25, 0.5, 0.75)
KINDS = {
    INPUT: "radiographs differ",
    OUTPUT: "scores differ",
    MIX: "another mix of body parts",
    READERS: "readers correct more",
}


@dataclass(frozen=True)
class Alarm:
    """The alarm of the newest window, in words."""

    title: str
    details: str
    advice: tuple[str, ...]


@dataclass(frozen=True)
class WatchPage:
    """What the template shows. models: number of the mark, name and first day of each detector."""

    state: WatchState
    alarm: Alarm | None
    charts: list[Chart]
    models: list[tuple[str, str, str]]
    past: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Week:
    """The counts of one detector in a week, which begins on a Monday."""

    day: date
    counts: Counts


def watch_page(state: WatchState) -> WatchPage:
    """Return the page of a state."""
    models = _models(state.days)
    marks = [Mark(date.fromisoformat(first), number) for number, _, first in models[1:]]
    weeks = _weeks(state.days)
    charts: list[Chart] = []
    if weeks:
        span = (weeks[0].day, max(date.fromisoformat(state.days[-1].date), weeks[0].day + timedelta(days=1)))
        drawn = _Drawer(state, weeks, span, marks)
        charts = [chart for chart in drawn.charts() if chart.dots]
    alarms = [window for window in state.windows if window.kinds]
    past = [(window.first, window.last, _what(window)) for window in reversed(alarms)]
    return WatchPage(state, _alarm(state.newest), charts, models, past)


@dataclass(frozen=True)
class _Drawer:
    state: WatchState
    weeks: Sequence[Week]
    span: tuple[date, date]
    marks: Sequence[Mark]

    def charts(self) -> Iterable[Chart]:
        reference = self.state.reference
        if reference is not None:
            yield self._statistic(reference)
        alarmed = {name for window in self.state.windows for name in window.alarms}
        for name, feature in FEATURES.items():
            if name in SHOWN or name in alarmed:
                yield self._feature(name, feature, reference)
        yield self._share("Share “likely”", lambda counts: counts.findings.get(LIKELY, 0), _findings)
        either = "Share “likely” or “possible”"
        yield self._share(
            either, lambda counts: counts.findings.get(LIKELY, 0) + counts.findings.get(POSSIBLE, 0), _findings
        )
        yield self._share("Share that readers corrected", lambda counts: counts.corrected, lambda counts: counts.judged)

    def _statistic(self, reference: Reference) -> Chart:
        readings = []
        for window in self.state.windows:
            ratio = window.ratio(reference)
            text = f"{window.first} to {window.last}: {ratio:.2f}, {window.counts.images} radiographs"
            text += f"; alarm: {_what(window)}" if window.kinds else ""
            readings.append(
                ChartPoint(date.fromisoformat(window.last), ratio, ratio, ratio, text, is_alarm=bool(window.kinds))
            )
        note = "of each window, the largest of all features, as a multiple of its threshold; above 1 is an alarm"
        return self._chart("Drift", note, readings, limit=1.0, floor=0.0)

    def _feature(self, name: str, feature: Feature, reference: Reference | None) -> Chart:
        readings = []
        for week in self.weeks:
            found = _quartiles(week.counts, name)
            if found is not None:
                low, value, high = found
                text = f"{week.day}: {value:.3g} ({low:.3g} to {high:.3g}), {week.counts.n(name)} radiographs"
                readings.append(ChartPoint(week.day, value, low, high, text))
        band = None if reference is None else _quartiles(reference.counts, name)
        alarms = [_at(window, name) for window in self.state.windows if name in window.alarms]
        note = f"{feature.unit + '; ' if feature.unit else ''}median and middle half of each week"
        return self._chart(
            feature.title, note, [*readings, *filter(None, alarms)], band=None if band is None else (band[0], band[2])
        )

    def _share(self, title: str, count: Callable[[Counts], int], of: Callable[[Counts], int]) -> Chart:
        readings = []
        for week in self.weeks:
            n, k = of(week.counts), count(week.counts)
            low, high = wilson(k, n)
            if low is not None and high is not None:
                text = f"{week.day}: {k} of {n}, {100 * k / n:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
                readings.append(ChartPoint(week.day, k / n, low, high, text))
        band = None
        if self.state.reference is not None:
            low, high = wilson(count(self.state.reference.counts), of(self.state.reference.counts))
            band = None if low is None or high is None else (low, high)
        return self._chart(title, "of each week, with its 95 % interval (Wilson)", readings, band=band, floor=0.0)

    def _chart(
        self,
        title: str,
        note: str,
        readings: Sequence[ChartPoint],
        *,
        band: tuple[float, float] | None = None,
        limit: float | None = None,
        floor: float | None = None,
    ) -> Chart:
        bounds = None
        if floor is not None:
            values = [*(one.high for one in readings), *(band or ()), *([] if limit is None else [1.2 * limit])]
            bounds = (floor, max(values, default=1.0))
        where = {"span": self.span, "marks": self.marks, "band": band, "limit": limit, "bounds": bounds}
        return chart(title, note, readings, **where)  # type: ignore[arg-type]


def _at(window: Window, name: str) -> ChartPoint | None:
    """Return the alarm of a feature in a window as a reading at the window's end."""
    found = _quartiles(window.counts, name)
    if found is None:
        return None
    low, value, high = found
    text = f"{window.first} to {window.last}: alarm, {value:.3g} ({low:.3g} to {high:.3g})"
    return ChartPoint(date.fromisoformat(window.last), value, value, value, text, is_alarm=True)


def _quartiles(counts: Counts, name: str) -> tuple[float, float, float] | None:
    found = [value for share in QUARTILES if (value := counts.quantile(name, share)) is not None]
    if not found:
        return None
    low, middle, high = (2.0**value if FEATURES[name].is_log2 else value for value in found)
    return low, middle, high


def _findings(counts: Counts) -> int:
    return sum(counts.findings.values())


def _weeks(days: Iterable[Day]) -> list[Week]:
    """Return the weeks of days, oldest first; of a week with two detectors, the later one begins on its first day."""
    parts: dict[tuple[date, str], list[Day]] = {}
    for day in days:
        at = date.fromisoformat(day.date)
        parts.setdefault((at - timedelta(days=at.weekday()), day.model_sha256), []).append(day)
    weeks = []
    for (monday, _), of_week in parts.items():
        first = date.fromisoformat(of_week[0].date)
        is_shared = sum(other == monday for other, _ in parts) > 1
        weeks.append(Week(first if is_shared else monday, total(day.counts for day in of_week)))
    return sorted(weeks, key=lambda week: week.day)


def _models(days: Iterable[Day]) -> list[tuple[str, str, str]]:
    """Return a number, the name and the first day of each detector, whenever it changed.

    Of several on one day, the one with most radiographs counts.
    """
    models: list[tuple[str, str, str]] = []
    last = None
    for date_, of_day in groupby(days, key=lambda day: day.date):
        day = max(of_day, key=lambda one: one.counts.images)
        if day.model_sha256 != last:
            models.append((str(len(models) + 1), day.model, date_))
            last = day.model_sha256
    return models


def _what(window: Window) -> str:
    """Return what an alarm is about, such as "radiographs differ (mean grey, noise)"."""
    return ", ".join(KINDS[kind] + _named(window, kind) for kind in window.kinds)


def _named(window: Window, kind: str) -> str:
    """Return the features of an alarm of this kind in brackets; nothing where it is of none."""
    sides = (INPUT, OUTPUT) if kind == MIX else (kind,)
    names = [FEATURES[name].title.lower() for name in window.alarms if FEATURES[name].side in sides]
    return f" ({', '.join(names)})" if names else ""


def _alarm(window: Window | None) -> Alarm | None:
    if window is None or not window.kinds:
        return None
    details = f"{window.first} to {window.last}, {window.counts.images} images: {_what(window)}."
    if MIX in window.kinds:
        parts = sorted(window.mix.items(), key=lambda part: -part[1])
        details += f" Most like: {', '.join(f'{100 * share:.0f} % {name}' for name, share in parts)}."
    return Alarm("The newest window is an alarm", details, tuple(ADVICE[kind] for kind in window.kinds))
