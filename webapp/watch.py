"""The watch over the served detector: its days, its windows and their alarms, for the page and for Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fracture_det.inference.service import DetectorInfo
from fracture_det.monitoring.counts import WatchError
from fracture_det.monitoring.features import FEATURES
from fracture_det.monitoring.reference import Reference, load_reference
from fracture_det.monitoring.windows import INPUT, KINDS, MIX, OUTPUT, READERS, Day, Window, windows_of
from fracture_det.resources import resource

from .settings import PREFIX, Settings, SettingsError
from .store import StoreUnavailable
from .store.watch import WatchCounts

# All results are read for it: at most once a minute, and for a twentieth of the time.
FRESH_S, FRESH_READS = 60.0, 20
# What is to be done about an alarm of each kind.
ADVICE: Mapping[str, str] = {
    INPUT: "The radiographs look different. Open some of these days in the history, and ask whether a device, its "
    "settings or its export changed. Until that is known, do not rely on the error rates of the model card.",
    MIX: "Another mix of body parts explains what differs. Nothing need be wrong; but the model is better on some "
    "parts than on others: its report has figures by body part.",
    OUTPUT: "The model's scores are distributed differently. Ask whether other patients come than before; if not, have "
    "readers look at a hundred of these results, and compare the share that they correct.",
    READERS: "Readers correct more results than in the reference period. Read the corrected ones in the history; "
    "`fracture-det snapshot` makes them a data set to evaluate or train on.",
}


@dataclass(frozen=True, eq=False)
class WatchState:
    """What is known at a moment. waiting: radiographs since the last window, of finished days and of today."""

    days: list[Day]
    windows: list[Window]
    waiting: int
    reference: Reference | None

    @property
    def newest(self) -> Window | None:
        """The newest tested window."""
        return self.windows[-1] if self.windows else None


class Watch:
    """Tests the days of the store against a reference, at most once a minute. Thread-safe."""

    def __init__(self, counts: WatchCounts, reference: Reference | None) -> None:
        self._counts, self.reference = counts, reference
        self._lock = threading.Lock()
        self._state: WatchState | None = None
        self._stale_at = 0.0

    def state(self) -> WatchState:
        """Return what is known. Raises StoreUnavailable."""
        with self._lock:
            begun = time.monotonic()
            if self._state is None or begun > self._stale_at:
                self._state = self._read()
                self._stale_at = time.monotonic() + max(FRESH_S, FRESH_READS * (time.monotonic() - begun))
            return self._state

    def _read(self) -> WatchState:
        days = self._counts.days()
        if self.reference is None:
            return WatchState(days, [], 0, None)
        today = f"{datetime.now(timezone.utc):%Y-%m-%d}"
        windows, waiting = windows_of((day for day in days if day.date < today), self.reference)
        unfinished = sum(day.counts.images for day in days if day.date >= today)
        return WatchState(days, windows, waiting.images + unfinished, self.reference)


def open_watch(settings: Settings, info: DetectorInfo, counts: WatchCounts) -> Watch:
    """Return the watch with the reference of the settings, else with the shipped one where its detector is served.

    Raises SettingsError for a reference that cannot be read.
    """
    try:
        if settings.watch_reference is not None:
            return Watch(counts, load_reference(settings.watch_reference))
        shipped = load_reference(resource("weights/shipped/watch.json"))
    except WatchError as error:
        raise SettingsError(f"{PREFIX}WATCH_REFERENCE: {error}") from error
    return Watch(counts, shipped if shipped.detector_sha256 == info.sha256 else None)


class WatchCollector(Collector):
    """The watch as metrics; nothing while the database does not answer."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the newest window, and how many windows and alarms there were."""
        try:
            state = self._watch.state()
        except StoreUnavailable:
            return
        alarms = CounterMetricFamily("fracture_watch_alarms", "Windows with an alarm, by kind", labels=["kind"])
        for kind in KINDS:
            alarms.add_metric([kind], sum(kind in window.kinds for window in state.windows))
        yield alarms
        yield CounterMetricFamily("fracture_watch_windows", "Tested windows", value=len(state.windows))
        yield GaugeMetricFamily("fracture_watch_waiting", "Radiographs since the last window", value=state.waiting)
        has_reference = float(state.reference is not None)
        yield GaugeMetricFamily("fracture_watch_reference", "1 where there is a reference", value=has_reference)
        if state.newest is not None and state.reference is not None:
            yield from _of_window(state.newest, state.reference)


def _of_window(window: Window, reference: Reference) -> Iterator[Metric]:
    found = GaugeMetricFamily("fracture_watch_statistic", "Drift of the newest window", labels=["feature"])
    limits = GaugeMetricFamily("fracture_watch_threshold", "Above it is an alarm", labels=["feature"])
    for name in FEATURES:
        if name in window.statistics:
            found.add_metric([name], window.statistics[name])
            limits.add_metric([name], reference.thresholds[name])
    alarm = GaugeMetricFamily("fracture_watch_alarm", "1 where the newest window is an alarm, by kind", labels=["kind"])
    for kind in KINDS:
        alarm.add_metric([kind], float(kind in window.kinds))
    yield from (found, limits, alarm)
    counts = window.counts
    yield GaugeMetricFamily("fracture_watch_judged", "Results of it that readers judged", value=counts.judged)
    if counts.judged:
        share = counts.corrected / counts.judged
        yield GaugeMetricFamily("fracture_watch_corrected_share", "Share of these that they corrected", value=share)
