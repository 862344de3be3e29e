"""Results: the detections on a radiograph, its image under a random name, and the feedback of readers."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from fracture_det.inference.service import NOTES, Detections, Prediction, Suitability, encode_png, encode_samples

from .audit import RETENTION, AuditEntry, AuditLog
from .database import Database, StoreUnavailable
from .images import Images, ImagesUnavailable
from .models import DetectionRow, FeedbackRow, PredictionRow

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
class Feedback:
    """A reader's feedback on a result.

    verdicts: number of the box -> "right" or "wrong". missed: fractures without a box, (x0, y0, x1, y1) px of the
    upright image. no_fracture: the image shows none.
    """

    verdicts: Mapping[int, str]
    missed: tuple[tuple[float, float, float, float], ...]
    no_fracture: bool
    comment: str
    author: str = ""
    updated_at: float = 0.0


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """A result as it is stored.

    detections: every box above the floor, in pixels of the upright image; `labels` has one name for each.
    finding: "likely", "possible" or "none seen". confidence: calibrated probability that the image shows a fracture.
    operating_score, possible_score: 0..1, as they were when the radiograph was analysed; `calibrated` if scores are
    probabilities. image_path: None where images are not kept. suitability: whether it looked like a radiograph of a
    limb; not `ok` where it was analysed anyway, None where nobody asked. samples_path: None of an image of 8 bits.
    bits, window: how deep the radiograph was, and the samples (low, high) that are 0 and 255 in its image.
    spacing_mm: height and width of a pixel, None where the file did not say.
    """

    id: str
    created_at: float
    owner: str
    finding: str
    confidence: float | None
    height: int
    width: int
    model: str
    model_sha256: str | None
    input_sha256: str
    calibrated: bool
    operating_score: float
    possible_score: float
    latency_ms: Mapping[str, float]
    detections: Detections
    labels: tuple[str, ...]
    image_path: Path | None
    feedback: Feedback | None
    suitability: Suitability | None = None
    samples_path: Path | None = None
    bits: int = 8
    window: tuple[float, float] = (0.0, 255.0)
    spacing_mm: tuple[float, float] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels that occur; `detections.classes` are indices into them."""
        return tuple(dict.fromkeys(self.labels))


@dataclass(frozen=True)
class ResultMetadata:
    """What is stored with a prediction: its owner, its finding, and the thresholds that the finding follows from."""

    owner: str
    finding: str
    input_sha256: str
    operating_score: float
    possible_score: float
    calibrated: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True)
class HistoryFilter:
    """Which results to list; None and "" mean any. `since`, `until`: seconds since 1970."""

    owner: str | None = None
    finding: str | None = None
    since: float | None = None
    until: float | None = None
    text: str = ""


class Results:
    """Results in `database` with their `images`, deleted when they expire. Thread-safe.

    retention_days: how long a result is kept; feedback_days: how long after its last feedback.
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
        row = _row_of(prediction, metadata)
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
            counted = select(func.count()).select_from(PredictionRow).outerjoin(FeedbackRow).where(matches)
            total = session.scalar(counted)
            chosen = select(PredictionRow).outerjoin(FeedbackRow).where(matches)
            order = (PredictionRow.created_at.desc(), PredictionRow.id)
            rows = session.scalars(chosen.order_by(*order).limit(per_page).offset((page - 1) * per_page))
            return [self._stored(row) for row in rows], total or 0

    def save_feedback(self, identifier: str, feedback: Feedback, *, author: str) -> StoredPrediction | None:
        """Replace the feedback on a result; return the result, or None if there is none."""
        with self._database.writing() as session:
            row = session.get(PredictionRow, identifier)
            if row is None:
                return None
            row.feedback = row.feedback or FeedbackRow(prediction_id=identifier)
            row.feedback.author, row.feedback.updated_at = author, time.time()
            row.feedback.verdicts = {str(number): verdict for number, verdict in sorted(feedback.verdicts.items())}
            row.feedback.missed = [list(box) for box in feedback.missed]
            row.feedback.no_fracture, row.feedback.comment = feedback.no_fracture, feedback.comment
            content = [row.feedback.verdicts, row.feedback.missed, feedback.no_fracture, feedback.comment]
            hashes = (row.input_sha256, row.model_sha256, _sha256(content))
            self._audit.add(session, AuditEntry(author, "feedback", identifier, *hashes))
        return self.get(identifier)

    def delete(self, identifier: str, *, by: str) -> bool:
        """Delete a result with its image and feedback; return False if there is none."""
        is_deleted = self._delete(identifier, by=by)
        self._database.purge_deleted()
        return is_deleted

    def _delete(self, identifier: str, *conditions: ColumnElement[bool], by: str) -> bool:
        """Delete a result if `conditions` hold. Its image goes before the deletion is committed, or nothing goes."""
        chosen = select(PredictionRow).outerjoin(FeedbackRow).where(PredictionRow.id == identifier, *conditions)
        with self._images.deleting() as hide, self._database.writing() as session:
            row = session.scalars(chosen).first()
            if row is None:
                return False
            self._delete_row(session, row, by=by)
            hide(identifier)
        return True

    def _delete_row(self, session: Session, row: PredictionRow, *, by: str) -> None:
        entry = AuditEntry(by, "delete", row.id, row.input_sha256, row.model_sha256, row.result_sha256)
        session.delete(row)
        self._audit.add(session, entry)

    def _free_key(self, session: Session, row: PredictionRow) -> str | None:
        """Delete an expired result that still holds the key of `row` and return its identifier. Raises KeyTaken."""
        if row.idempotency_key is None:
            return None
        has_key = _has_key(row.owner, row.idempotency_key)
        current = select(PredictionRow).outerjoin(FeedbackRow).where(has_key, ~self._is_expired())
        if (holder := session.scalars(current).first()) is not None:
            raise KeyTaken(self._stored(holder))
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
        chosen = select(PredictionRow.id).outerjoin(FeedbackRow).where(self._is_expired()).limit(at_most)
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
        chosen = select(PredictionRow).outerjoin(FeedbackRow).where(which, ~self._is_expired())
        with self._database.reading() as session:
            row = session.scalars(chosen).first()
            return None if row is None else self._stored(row)

    def _is_expired(self) -> ColumnElement[bool]:
        now = time.time()
        feedback_at = func.coalesce(FeedbackRow.updated_at, 0.0)
        return and_(PredictionRow.created_at < now - self._retention_s, feedback_at < now - self._feedback_s)

    def _stored(self, row: PredictionRow) -> StoredPrediction:
        labels = tuple(box.label for box in row.detections)
        names = tuple(dict.fromkeys(labels))
        detections = Detections(
            np.array([(box.x0, box.y0, box.x1, box.y1) for box in row.detections]).reshape(-1, 4),
            np.array([box.score for box in row.detections]),
            np.array([names.index(label) for label in labels], dtype=np.int64),
        )
        path, samples_path = self._images.path(row.id), self._images.samples_path(row.id)
        shared = {name: getattr(row, name) for name in _SHARED_COLUMNS}
        return StoredPrediction(
            **shared,
            detections=detections,
            labels=labels,
            image_path=path if path.exists() else None,
            feedback=feedback_of(row.feedback),
            suitability=_suitability_of(row),
            samples_path=samples_path if row.bits is not None and samples_path.exists() else None,
            bits=row.bits or 8,
            window=(0.0, 255.0) if row.window is None else (row.window[0], row.window[1]),
            spacing_mm=None if row.spacing_mm is None else (row.spacing_mm[0], row.spacing_mm[1]),
        )


_SHARED_COLUMNS = (
    *("id", "created_at", "owner", "finding", "confidence", "height", "width", "model", "model_sha256"),
    *("input_sha256", "calibrated", "operating_score", "possible_score", "latency_ms"),
)


def _row_of(prediction: Prediction, metadata: ResultMetadata) -> PredictionRow:
    rows, said, deep = _rows_of(prediction), prediction.suitability, prediction.samples
    boxes = [[row.x0, row.y0, row.x1, row.y1, row.score, row.label] for row in rows]
    return PredictionRow(
        id=secrets.token_hex(16),
        created_at=time.time(),
        confidence=prediction.confidence,
        height=prediction.height,
        width=prediction.width,
        model=prediction.detector.name,
        model_sha256=prediction.detector.sha256,
        result_sha256=_sha256([metadata.finding, boxes]),
        latency_ms=dict(prediction.latency_ms),
        detections=rows,
        limb_probability=None if said is None else said.probability,
        suitability=None if said is None else list(said.reasons),
        bits=None if deep is None else deep.bits,
        window=None if deep is None else [float(value) for value in deep.window],
        spacing_mm=None if prediction.spacing_mm is None else [float(side) for side in prediction.spacing_mm],
        **vars(metadata),
    )


def _rows_of(prediction: Prediction) -> list[DetectionRow]:
    boxes = zip(prediction.detections.boxes, prediction.detections.scores, prediction.labels, strict=True)
    return [
        DetectionRow(number=number, x0=x0, y0=y0, x1=x1, y1=y1, score=float(score), label=label)
        for number, ((x0, y0, x1, y1), score, label) in enumerate(
            ((box.tolist(), score, label) for box, score, label in boxes), start=1
        )
    ]


def _has_key(owner: str, key: str) -> ColumnElement[bool]:
    return and_(PredictionRow.owner == owner, PredictionRow.idempotency_key == key)


def feedback_of(row: FeedbackRow | None) -> Feedback | None:
    """Return the feedback in a row, if there is one."""
    if row is None:
        return None
    verdicts = {int(number): verdict for number, verdict in row.verdicts.items()}
    missed = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in row.missed)
    return Feedback(verdicts, missed, row.no_fracture, row.comment, row.author, row.updated_at)


def _suitability_of(row: PredictionRow) -> Suitability | None:
    if row.suitability is None or row.limb_probability is None:
        return None
    is_ok = all(reason in NOTES for reason in row.suitability)
    return Suitability(is_ok, row.limb_probability, tuple(row.suitability))


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
        columns = (PredictionRow.id, PredictionRow.model, FeedbackRow.comment, PredictionRow.owner)
        conditions.append(or_(*(column.icontains(word, autoescape=True) for column in columns)))
    return conditions


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
