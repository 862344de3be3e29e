"""What the store counts for the watch over the served detector: by day and detector.

A result that expires is added to the counts of its day, which are kept; one that somebody deletes leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fracture_det.monitoring.counts import Counts, count
from fracture_det.monitoring.features import limb_value, result_values
from fracture_det.monitoring.windows import Day

from .database import Database
from .models import DetectionRow, PredictionRow, ReadingColumns, ReadingRow, SettlementRow, WatchDayRow

# Values by feature, finding, whether a reader judged it, whether a reader corrected it.
Counted = tuple[Mapping[str, float], str, bool, bool]


class WatchCounts:
    """Reads the counts of all days in `database`. Thread-safe. Raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def days(self) -> list[Day]:
        """Return the counts of every day and detector, oldest first; expired results are in them."""
        columns = [getattr(PredictionRow, name) for name in _COLUMNS]
        boxes = select(DetectionRow.prediction_id, DetectionRow.score)
        with self._database.reading() as session:
            kept = session.scalars(select(WatchDayRow)).all()
            rows = session.execute(select(*columns)).all()
            readings = session.scalars(select(ReadingRow).order_by(ReadingRow.updated_at)).all()
            settlements = session.scalars(select(SettlementRow)).all()
            found = session.execute(boxes.order_by(DetectionRow.prediction_id, DetectionRow.number)).all()
        said: dict[str, ReadingColumns] = {reading.prediction_id: reading for reading in readings if _judges(reading)}
        said |= {settlement.prediction_id: settlement for settlement in settlements}
        scores = {key: [score for _, score in group] for key, group in groupby(found, key=lambda box: box[0])}
        days = {(day.day, day.model_sha256): (day.model, Counts.from_json(day.counts)) for day in kept}
        by_day: dict[tuple[str, str], list[Counted]] = {}
        for row in rows:
            key = _day_of(row)
            if key not in days:
                days[key] = (row.model, Counts())
            by_day.setdefault(key, []).append(_counted(row, scores.get(row.id, []), said.get(row.id)))
        return [
            Day(date, model, sha256, kept_counts + _sum(by_day.get((date, sha256), [])))
            for (date, sha256), (model, kept_counts) in sorted(days.items(), key=lambda item: item[0])
        ]


# What is read of a result.
_COLUMNS = (
    *("id", "created_at", "model", "model_sha256", "finding", "features", "limb_probability"),
    *("operating_score", "possible_score"),
)


def keep_counts(session: Session, row: PredictionRow) -> None:
    """Add a result that is about to expire to the counts of its day; the caller deletes it and commits."""
    newest = max(filter(_judges, row.readings), key=lambda reading: reading.updated_at, default=None)
    counts = _sum([_counted(row, [box.score for box in row.detections], row.settlement or newest)])
    date, sha256 = _day_of(row)
    day = session.get(WatchDayRow, (date, sha256))
    if day is None:
        session.add(WatchDayRow(day=date, model_sha256=sha256, model=row.model, counts=counts.to_json()))
    else:
        day.counts = (Counts.from_json(day.counts) + counts).to_json()


def is_corrected(
    finding: str, operating_score: float, scores: Sequence[float], verdicts: Mapping[str, str], missed: bool, none: bool
) -> bool:
    """Return whether a reader corrected a result, whose boxes have `scores`, the first of which is number 1.

    A box at or above the operating score was called wrong, a fracture was drawn that had no box (`missed`), or there is
    no fracture (`none`) where one was called likely.
    """
    shown = (str(number) for number, score in enumerate(scores, start=1) if round(score, 6) >= operating_score)
    return missed or (none and finding == "likely") or any(verdicts.get(number) == "wrong" for number in shown)


def _judges(said: ReadingColumns) -> bool:
    """Return whether a reading says more than a comment."""
    return bool(said.verdicts or said.missed or said.no_fracture or said.unreadable)


def _counted(row: Any, scores: Sequence[float], said: ReadingColumns | None) -> Counted:
    """Return what is counted of a result. row: its columns. said: what was settled, else the newest reading.

    A box that was moved counts as one that is wrong; what could not be read, as not judged.
    """
    values = {**(row.features or {}), **result_values(scores, row.possible_score)}
    if row.limb_probability is not None:
        values["limb"] = limb_value(row.limb_probability)
    if said is None or said.unreadable:
        return values, row.finding, False, False
    verdicts = {**said.verdicts, **dict.fromkeys(said.moved or {}, "wrong")}
    judgement = (verdicts, bool(said.missed), said.no_fracture)
    return values, row.finding, True, is_corrected(row.finding, row.operating_score, scores, *judgement)


def _sum(results: Iterable[Counted]) -> Counts:
    rows = list(results)
    judged, corrected = sum(row[2] for row in rows), sum(row[3] for row in rows)
    return count([row[0] for row in rows], [row[1] for row in rows], judged=judged, corrected=corrected)


def _day_of(row: Any) -> tuple[str, str]:
    return f"{datetime.fromtimestamp(row.created_at, timezone.utc):%Y-%m-%d}", row.model_sha256 or ""
