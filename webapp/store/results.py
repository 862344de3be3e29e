"""Results: the detections on a radiograph, its image under a random name, and the readings of its readers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from fracture_det.inference.service import Prediction, encode_png, encode_samples
from fracture_det.structures.readings import Reading

from .audit import RETENTION, AuditEntry, AuditLog
from .database import Database, StoreUnavailable
from .images import Images, ImagesUnavailable
from .models import PredictionRow, ReadingRow, SettlementRow
from .records import ResultMetadata, StoredPrediction, fill_reading, row_of, stored_prediction
from .watch import keep_counts

DAY_S = 86_400.0
# Expired results are deleted by requests, health probes excepted, at most this often.
SWEEP_EVERY_S = 600.0
# How soon a sweep that failed is tried again.
RETRY_SWEEP_S = 60.0
# One request deletes at most this many and leaves the rest to the next one.
SWEEP_AT_MOST = 50

log = logging.getLogger(__name__)


class KeyTaken(LookupError):
    """Another upload with the same idempotency key was stored first; `stored` is its result."""

    def __init__(self, stored: StoredPrediction) -> None:
        super().__init__("the idempotency key belongs to another result")
        self.stored = stored


@dataclass(frozen=True)
class HistoryFilter:
    """Which results to list; None and "" mean any. `since`, `until`: seconds since 1970.

    reader: whose comments `text` is looked for in.
    """

    owner: str | None = None
    finding: str | None = None
    since: float | None = None
    until: float | None = None
    text: str = ""
    reader: str | None = None


class Results:
    """Results in `database` with their `images`, deleted when they expire. Thread-safe.

    Of a result that expires, the watch keeps counts (see `watch`); of one that is deleted, nothing is kept.
    retention_days: how long a result is kept; feedback_days: how long after its last reading or settlement.
    keep_images: whether images are kept at all. An identifier has 128 random bits. Raises StoreUnavailable.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        images: Images,
        *,
        retention_days: float,
        feedback_days: float,
        keep_images: bool = True,
    ) -> None:
        self._database, self._audit, self._images = database, audit, images
        self._retention_s, self._feedback_s = retention_days * DAY_S, feedback_days * DAY_S
        self._keep_images = keep_images
        self._sweeping = threading.Lock()
        self._next_sweep = 0.0

    def add(self, prediction: Prediction, metadata: ResultMetadata) -> StoredPrediction:
        """Store `prediction` with its image, re-encoded without metadata, and return it with its new identifier.

        An image into which writing is burned, which may name a patient, is not kept.
        Raises KeyTaken if another process has stored a result with the same idempotency key in the meantime.
        """
        row = row_of(prediction, metadata)
        entry = AuditEntry(metadata.owner, "analyse", row.id, row.input_sha256, row.model_sha256, row.result_sha256)
        try:
            if self._keep_images and prediction.may_be_kept:
                samples = None if prediction.samples is None else encode_samples(prediction.samples)
                self._images.write(row.id, encode_png(prediction.pixels), samples)
            with self._images.deleting() as hide, self._database.writing() as session:
                expired = self._free_key(session, row)
                session.add(row)
                session.flush()
                self._audit.add(session, entry)
                if expired is not None:
                    hide(expired)
        except BaseException:
            self._images.discard(row.id)
            raise
        if expired is not None:
            self._database.purge_deleted()
        stored = self.get(row.id)
        if stored is None:
            raise LookupError("a result vanished while it was being stored")
        return stored

    def get(self, identifier: str) -> StoredPrediction | None:
        """Return the result with this identifier, or None if there is none or it has expired."""
        return self._first(PredictionRow.id == identifier)

    def of_key(self, owner: str, key: str) -> StoredPrediction | None:
        """Return the result that `owner` got for an upload with this idempotency key, or None."""
        return self._first(_has_key(owner, key))

    def page(self, which: HistoryFilter, *, page: int, per_page: int) -> tuple[list[StoredPrediction], int]:
        """Return page `page` (from 1) of the results that match, newest first, and how many match."""
        matches = and_(~self._is_expired(), *_conditions(which))
        with self._database.reading() as session:
            counted = select(func.count()).select_from(PredictionRow).where(matches)
            total = session.scalar(counted)
            chosen = select(PredictionRow).where(matches)
            order = (PredictionRow.created_at.desc(), PredictionRow.id)
            rows = session.scalars(chosen.order_by(*order).limit(per_page).offset((page - 1) * per_page))
            return [stored_prediction(row, self._images) for row in rows], total or 0

    def save_reading(self, identifier: str, reading: Reading, *, author: str) -> StoredPrediction | None:
        """Replace the reading of a result by one reader; return the result, or None if there is none."""
        return self._save(ReadingRow(prediction_id=identifier, author=author), reading, "feedback")

    def settle(self, identifier: str, reading: Reading, *, by: str) -> StoredPrediction | None:
        """Replace what is settled of a result; return the result, or None if there is none."""
        return self._save(SettlementRow(prediction_id=identifier, author=by), reading, "settle")

    def _save(self, row: ReadingRow | SettlementRow, said: Reading, action: str) -> StoredPrediction | None:
        digest = fill_reading(row, said)
        with self._database.writing() as session:
            result = session.get(PredictionRow, row.prediction_id)
            if result is None:
                return None
            session.merge(row)
            entry = AuditEntry(row.author, action, result.id, result.input_sha256, result.model_sha256, digest)
            self._audit.add(session, entry)
        return self.get(row.prediction_id)

    def read_by_several(self) -> list[StoredPrediction]:
        """Return the results that have two readings or more, newest first."""
        n_readings = select(func.count()).where(ReadingRow.prediction_id == PredictionRow.id).scalar_subquery()
        chosen = select(PredictionRow).where(n_readings > 1, ~self._is_expired())
        with self._database.reading() as session:
            rows = session.scalars(chosen.order_by(PredictionRow.created_at.desc(), PredictionRow.id))
            return [stored_prediction(row, self._images) for row in rows]

    def delete(self, identifier: str, *, by: str) -> bool:
        """Delete a result with its image and feedback; return False if there is none."""
        is_deleted = self._delete(identifier, by=by)
        self._database.purge_deleted()
        return is_deleted

    def _delete(self, identifier: str, *conditions: ColumnElement[bool], by: str) -> bool:
        """Delete a result if `conditions` hold. Its image goes before the deletion is committed, or nothing goes."""
        chosen = select(PredictionRow).where(PredictionRow.id == identifier, *conditions)
        with self._images.deleting() as hide, self._database.writing() as session:
            row = session.scalars(chosen).first()
            if row is None:
                return False
            self._delete_row(session, row, by=by)
            hide(identifier)
        return True

    def _delete_row(self, session: Session, row: PredictionRow, *, by: str) -> None:
        entry = AuditEntry(by, "delete", row.id, row.input_sha256, row.model_sha256, row.result_sha256)
        if by == RETENTION:
            keep_counts(session, row)
        session.delete(row)
        self._audit.add(session, entry)

    def _free_key(self, session: Session, row: PredictionRow) -> str | None:
        """Delete an expired result that still holds the key of `row` and return its identifier. Raises KeyTaken."""
        if row.idempotency_key is None:
            return None
        has_key = _has_key(row.owner, row.idempotency_key)
        current = select(PredictionRow).where(has_key, ~self._is_expired())
        if (holder := session.scalars(current).first()) is not None:
            raise KeyTaken(stored_prediction(holder, self._images))
        if (holder := session.scalars(select(PredictionRow).where(has_key)).first()) is None:
            return None
        self._delete_row(session, holder, by=RETENTION)
        return holder.id

    def sweep_if_due(self) -> None:
        """Delete expired results, unless that was done a short while ago."""
        if time.monotonic() >= self._next_sweep and self._sweeping.acquire(blocking=False):
            try:
                self._next_sweep = time.monotonic() + min(SWEEP_EVERY_S, self._retention_s)
                if self.sweep(at_most=SWEEP_AT_MOST) == SWEEP_AT_MOST:
                    self._next_sweep = 0.0  # the next request goes on
            except (OSError, StoreUnavailable):
                self._next_sweep = time.monotonic() + min(RETRY_SWEEP_S, self._retention_s)
                log.exception("Old results could not be deleted")  # not the fault of the current request
            finally:
                self._sweeping.release()

    def sweep(self, *, at_most: int | None = None) -> int:
        """Delete expired results with their images, all or `at_most`; return the number of results deleted.

        One whose image cannot be deleted stays whole and keeps no other; StoreUnavailable is raised after the others.
        """
        chosen = select(PredictionRow.id).where(self._is_expired()).limit(at_most)
        with self._database.reading() as session:
            expired = session.scalars(chosen).all()
        deleted, failures = 0, []
        for identifier in expired:
            try:
                deleted += self._delete(identifier, self._is_expired(), by=RETENTION)
            except ImagesUnavailable as error:
                failures.append(error)
        if deleted:
            self._database.purge_deleted()
        with self._database.reading() as session:
            kept = set(session.scalars(select(PredictionRow.id)))
        try:
            self._images.sweep(kept)
        except ImagesUnavailable as error:
            failures.append(error)
        if failures:
            raise ImagesUnavailable(f"{deleted} expired results are deleted, {len(failures)} not all: {failures[0]}")
        return deleted

    def _first(self, which: ColumnElement[bool]) -> StoredPrediction | None:
        chosen = select(PredictionRow).where(which, ~self._is_expired())
        with self._database.reading() as session:
            row = session.scalars(chosen).first()
            return None if row is None else stored_prediction(row, self._images)

    def _is_expired(self) -> ColumnElement[bool]:
        now = time.time()
        said_lately = (
            exists().where(row.prediction_id == PredictionRow.id, row.updated_at >= now - self._feedback_s)
            for row in (ReadingRow, SettlementRow)
        )
        return and_(PredictionRow.created_at < now - self._retention_s, ~or_(*said_lately))


def _has_key(owner: str, key: str) -> ColumnElement[bool]:
    return and_(PredictionRow.owner == owner, PredictionRow.idempotency_key == key)


def _conditions(which: HistoryFilter) -> Sequence[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if which.owner is not None:
        conditions.append(PredictionRow.owner == which.owner)
    if which.finding:
        conditions.append(PredictionRow.finding == which.finding)
    if which.since is not None:
        conditions.append(PredictionRow.created_at >= which.since)
    if which.until is not None:
        conditions.append(PredictionRow.created_at < which.until)
    for word in which.text.split():
        columns = (PredictionRow.id, PredictionRow.model, PredictionRow.model_version, PredictionRow.owner)
        is_said = ReadingRow.comment.icontains(word, autoescape=True)
        said = exists().where(ReadingRow.prediction_id == PredictionRow.id, is_said)
        if which.reader is not None:
            said = said.where(ReadingRow.author == which.reader)
        conditions.append(or_(said, *(column.icontains(word, autoescape=True) for column in columns)))
    return conditions
