"""Readers' readings of one radiograph: what each has marked, where they disagree, and the truth that follows.

The truth is what an adjudicator has settled; else what all readers agree on, each agreed box being the mean of theirs;
else nothing. A single reader agrees with nobody else, so that one finished reading is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from fracture_det.structures.boxes import box_iou, match_boxes

Box = tuple[float, float, float, float]

RIGHT = "right"
# Two readers' boxes are of one fracture from this IoU on.
MATCH_IOU = 0.5
# What readers can disagree on; each only where they agree on those before it.
READABLE, FRACTURED, BOXES, TYPES = "readable or not", "fractured or not", "boxes", "types"
UNREADABLE = "found it not readable"
SETTLED, AGREED, ONE_READER = "settled", "agreed", "one reader"


@dataclass(frozen=True)
class Reading:
    """What one reader says of one radiograph; boxes are x0, y0, x1, y1 px of the upright image.

    verdicts: number of a predicted box, from 1 -> "right" or "wrong". missed: fractures without a box. no_fracture: the
    image shows none. updated_at: seconds since 1970. types: number of a right box -> the type of its fracture, where
    the reader knew it. missed_types: the type of each missed fracture, None where unknown; () where none is stated.
    moved: number of a right box -> where the reader put it. unreadable: it cannot be judged, for `reason`, which may be
    empty. seconds: how long the reader had it in view, None where nobody measured.
    """

    verdicts: Mapping[int, str]
    missed: tuple[Box, ...]
    no_fracture: bool
    comment: str
    author: str = ""
    updated_at: float = 0.0
    types: Mapping[int, str] = field(default_factory=dict)
    missed_types: tuple[str | None, ...] = ()
    moved: Mapping[int, Box] = field(default_factory=dict)
    unreadable: bool = False
    reason: str = ""
    seconds: float | None = None

    @property
    def typed_missed(self) -> tuple[tuple[Box, str | None], ...]:
        """Each missed fracture with its type, None where unknown."""
        return tuple(zip(self.missed, self.missed_types or (None,) * len(self.missed), strict=True))

    @property
    def verdict(self) -> str:
        """What is said beside the predicted boxes, in words, for reports."""
        if self.unreadable:
            return f"not readable ({self.reason})" if self.reason else "not readable"
        return "no fracture" if self.no_fracture else f"{len(self.missed)} missed fractures marked"


@dataclass(frozen=True)
class Mark:
    """A fracture that a reader marks. number: of the predicted box that it is, or that was moved to `box`; None if
    drawn. label: the class of that box; "" if drawn. type: of the fracture, None where unknown.
    """

    box: Box
    number: int | None = None
    label: str = ""
    type: str | None = None


@dataclass(frozen=True)
class ReadRadiograph:
    """One radiograph with the latest reading of each reader.

    boxes, labels: the predicted boxes, highest score first. n_required: how many of them, from the first on, a reader
    must judge. settled: what an adjudicator has decided, if one has.
    """

    boxes: Sequence[Box]
    labels: Sequence[str]
    n_required: int
    readings: Sequence[Reading]
    settled: Reading | None = None

    def unfinished(self, reading: Reading) -> str:
        """Return what a reading lacks to be the truth, or an empty text."""
        if reading.no_fracture or reading.unreadable:
            return ""
        missing = [number for number in range(1, 1 + self.n_required) if number not in reading.verdicts]
        if missing:
            return f"box {missing[0]} was not judged"
        return "" if reading.verdicts or reading.missed else "there is only a comment"

    def marks(self, reading: Reading) -> tuple[Mark, ...]:
        """Return the fractures that a reading marks: its right boxes by number, where it put them, then those drawn."""
        if reading.no_fracture or reading.unreadable:
            return ()
        right = sorted(number for number, verdict in reading.verdicts.items() if verdict == RIGHT)
        confirmed = [
            Mark(reading.moved.get(n, self.boxes[n - 1]), n, self.labels[n - 1], reading.types.get(n)) for n in right
        ]
        return (*confirmed, *(Mark(box, type=kind) for box, kind in reading.typed_missed))

    @property
    def finished(self) -> tuple[Reading, ...]:
        """The readings that say enough."""
        return tuple(reading for reading in self.readings if not self.unfinished(reading))

    @cached_property
    def disagreements(self) -> tuple[str, ...]:
        """What the finished readings disagree on, also where it is settled: of several boxes and types, both."""
        finished = self.finished
        if len({reading.unreadable for reading in finished}) > 1:
            return (READABLE,)
        marked = [self.marks(reading) for reading in finished]
        if len({bool(marks) for marks in marked}) > 1:
            return (FRACTURED,)
        clusters = clusters_of(marked)
        is_same = all(len(marks) == len(clusters) for marks in marked)
        stated = [{getattr(mark, name) for mark in c} - {None, ""} for c in clusters for name in ("type", "label")]
        differ = any(len(names) > 1 for names in stated)
        return tuple(name for name, is_so in ((BOXES, not is_same), (TYPES, differ)) if is_so)

    @property
    def basis(self) -> str:
        """Whose word the truth is: settled, agreed or one reader's."""
        if self.settled is not None:
            return SETTLED
        return AGREED if len(self.readings) > 1 else ONE_READER

    @property
    def problem(self) -> str:
        """Why there is no truth, without names or anybody's own words, which may name a patient; or an empty text."""
        if self.settled is not None:
            return f"an adjudicator {UNREADABLE}" if self.settled.unreadable else ""
        if not self.readings:
            return "nobody has read it"
        if self.disagreements:
            return f"its readers disagree, and nobody has settled it: {', '.join(self.disagreements)}"
        for reading in self.readings:
            if what := self.unfinished(reading):
                return what if len(self.readings) == 1 else f"a reading is not finished: {what}"
        who = "its reader" if len(self.readings) == 1 else "all its readers"
        return f"{who} {UNREADABLE}" if self.readings[0].unreadable else ""

    @property
    def truth(self) -> tuple[Mark, ...]:
        """The fractures that it shows. Raises ValueError where there is a `problem`."""
        if self.problem:
            raise ValueError(self.problem)
        if self.settled is not None:
            return self.marks(self.settled)
        return tuple(map(_joined, clusters_of([self.marks(reading) for reading in self.readings])))


def clusters_of(marked: Sequence[Sequence[Mark]]) -> list[tuple[Mark, ...]]:
    """Return the fractures that all readers mark: for each the mark of every reader, every two matching.

    marked: the marks of each reader. Those of the first are matched to each other reader's, one to one, as many as
    possible.
    """
    if not marked:
        return []
    first, *others = marked
    found = [dict(match_boxes([m.box for m in first], [m.box for m in other], iou=MATCH_IOU)) for other in others]
    clusters = []
    for index, mark in enumerate(first):
        if all(index in pairs for pairs in found):
            cluster = (mark, *(other[pairs[index]] for other, pairs in zip(others, found, strict=True)))
            if all(box_iou(a.box, b.box)[0, 0] >= MATCH_IOU for a, b in combinations(cluster, 2)):
                clusters.append(cluster)
    return clusters


def _joined(cluster: Sequence[Mark]) -> Mark:
    """Return one mark for a fracture: the mean of the boxes, to .01 px, and the type that somebody has stated."""
    boxes = {mark.box for mark in cluster}
    first = cluster[0]
    if len(boxes) > 1:
        x0, y0, x1, y1 = np.array([mark.box for mark in cluster]).mean(axis=0).round(2).tolist()
        first = replace(first, box=(x0, y0, x1, y1))
    label = next((mark.label for mark in cluster if mark.label), "")
    return replace(first, label=label, type=next((mark.type for mark in cluster if mark.type), None))
