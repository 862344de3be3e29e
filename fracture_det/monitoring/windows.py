"""Days of a served detector, and the windows of days that are tested one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fracture_det.monitoring.counts import Counts, total
from fracture_det.monitoring.drift import fitted_mix, mixture, statistic, statistics
from fracture_det.monitoring.features import FEATURES, INPUTS
from fracture_det.monitoring.reference import Reference
from fracture_det.structures.intervals import wilson

# What an alarm is about. A mix of body parts that explains all that differs is no other scanner.
INPUT, OUTPUT, MIX, READERS = "input", "output", "mix", "readers"
KINDS = (INPUT, MIX, OUTPUT, READERS)
# Of the two intervals of the share that readers corrected; an alarm where they do not meet.
READERS_LEVEL = 0.99


@dataclass(frozen=True, eq=False)
class Day:
    """What one detector did on one day. date: YYYY-MM-DD in UTC. model: its name, for people."""

    date: str
    model: str
    model_sha256: str
    counts: Counts


@dataclass(frozen=True, eq=False)
class Window:
    """Whole days of one detector, one after the other, as few as have enough radiographs, and their test.

    statistics: feature -> statistic. alarms: the features above their thresholds. kinds: of KINDS, () without an alarm.
    mix: body part -> share (0..1) in the mixture of the reference's that is most like it, {} unless it was asked for.
    """

    days: tuple[Day, ...]
    counts: Counts
    statistics: Mapping[str, float]
    alarms: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    mix: Mapping[str, float] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The date of its first day."""
        return self.days[0].date

    @property
    def last(self) -> str:
        """The date of its last day."""
        return self.days[-1].date

    def ratio(self, reference: Reference) -> float:
        """Return the largest statistic as a multiple of its threshold; above 1 is an alarm."""
        return max((value / reference.thresholds[name] for name, value in self.statistics.items()), default=0.0)


def windows_of(days: Iterable[Day], reference: Reference) -> tuple[list[Window], Counts]:
    """Return the tested windows of finished days, in order, and the counts of the days that wait for more.

    A window has radiographs of one detector, whatever others served meanwhile.
    """
    windows: list[Window] = []
    waiting: dict[str, tuple[list[Day], Counts]] = {}
    for day in sorted(days, key=lambda day: (day.date, day.model_sha256)):
        before, counts = waiting.pop(day.model_sha256, ([], Counts()))
        before, counts = [*before, day], counts + day.counts
        if counts.images >= reference.rule.window:
            windows.append(tested(tuple(before), counts, reference))
        else:
            waiting[day.model_sha256] = (before, counts)
    return windows, total(counts for _, counts in waiting.values())


def tested(days: tuple[Day, ...], counts: Counts, reference: Reference) -> Window:
    """Return the window of `days`, whose counts are `counts`, with what its test says.

    Outputs are compared only with those of the same detector.
    """
    same = days[0].model_sha256 == reference.detector_sha256
    found = statistics(counts, reference.counts, tuple(FEATURES) if same else INPUTS)
    alarms = tuple(name for name, value in found.items() if value > reference.thresholds[name])
    kinds: list[str] = []
    mix: Mapping[str, float] = {}
    if alarms and reference.strata:
        mix = fitted_mix(counts, reference.strata, tuple(found))
        if _explains(mix, counts, alarms, reference):
            kinds.append(MIX)
    if MIX not in kinds:
        kinds += [side for side in (INPUT, OUTPUT) if any(FEATURES[name].side == side for name in alarms)]
    if corrected_more_often(counts, reference.counts):
        kinds.append(READERS)
    return Window(days, counts, found, alarms, tuple(kinds), mix)


def corrected_more_often(window: Counts, reference: Counts) -> bool:
    """Return whether readers correct a larger share than in the reference: the two intervals (Wilson) do not meet."""
    high = wilson(reference.corrected, reference.judged, READERS_LEVEL)[1]
    low = wilson(window.corrected, window.judged, READERS_LEVEL)[0]
    return low is not None and high is not None and low > high


def _explains(mix: Mapping[str, float], counts: Counts, alarms: Sequence[str], reference: Reference) -> bool:
    """Return whether no feature that differs from the reference differs from the mixture of its body parts."""
    for name in alarms:
        known = {stratum: share for stratum, share in mix.items() if reference.strata[stratum].n(name)}
        # As if the mixture had as many radiographs as the reference.
        expected = mixture(reference.strata, known, name) * reference.counts.n(name)
        if statistic(counts.bins[name], expected) > reference.thresholds[name]:
            return False
    return True
