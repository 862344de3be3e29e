"""Results: what was found on a radiograph, its picture under a random name, and what readers said of it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, and_, delete, func, or_, select

from fracture_det.inference.service import Detections, Prediction, encode_png

from .audit import Act, AuditLog
from .database import Database, StoreUnavailable
from .models import DetectionRow, FeedbackRow, PredictionRow

DAY_S = 86_400.0
# Idle servers forget, too: any request looks whether it is time.
SWEEP_EVERY_S = 600.0
# A request that finds so many to delete leaves the rest to the next one.
SWEEP_AT_MOST = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Feedback:
    """What a reader says of a result.

    verdicts: number of the box -> "right" or "wrong". missed: fractures without a box, (x0, y0, x1, y1) px of the
    upright image. no_fracture: the whole image shows none.
    """

    verdicts: Mapping[int, str]
    missed: tuple[tuple[float, float, float, float], ...]
    no_fracture: bool
    comment: str
    author: str = ""
    updated_at: float = 0.0


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """A result as it was kept.

    detections: every box above the floor, in pixels of the upright image; `labels` has one name for each.
    finding: "likely", "possible" or "none seen". confidence: calibrated probability that the image shows a fracture.
    operating_score, possible_score: 0..1, as they were when the radiograph was analysed; `calibrated` if scores are
    probabilities. image_path: None where pictures are not kept.
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

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels that occur; `detections.classes` are indices into them."""
        return tuple(dict.fromkeys(self.labels))


@dataclass(frozen=True)
class Reading:
    """What the page knows of a prediction beside the prediction: whose it is, and how its scores are to be read."""

    owner: str
    finding: str
    input_sha256: str
    operating_score: float
    possible_score: float
    calibrated: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Which results a history asks for; None and "" leave a condition out. `since`, `until`: seconds since 1970."""

    owner: str | None = None
    finding: str | None = None
    since: float | None = None
    until: float | None = None
    text: str = ""


class Results:
    """Results in `database` and in the folder `images`, forgotten after their time. Thread-safe.

    retention_days: how long a result is kept; feedback_days: how long after the last feedback one with feedback is.
    keep_images: whether pictures are kept at all. An identifier has 128 random bits. Raises StoreUnavailable.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        images: Path,
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

    def add(self, prediction: Prediction, reading: Reading) -> StoredPrediction:
        """Keep `prediction` with its picture, re-encoded without metadata, and return it with its new identifier."""
        row = _row_of(prediction, reading)
        act = Act(reading.owner, "analyse", row.id, row.input_sha256, row.model_sha256, row.result_sha256)
        path = self._image_path(row.id)
        try:
            if self._keep_images:
                self._write(path, encode_png(prediction.pixels))
            with self._database.writing() as session:
                if row.idempotency_key is not None:  # of a result whose time is over, but that is not yet swept
                    same = and_(PredictionRow.owner == row.owner, PredictionRow.idempotency_key == row.idempotency_key)
                    session.execute(delete(PredictionRow).where(same))
                session.add(row)
                session.flush()
                self._audit.add(session, act)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreUnavailable(f"the picture could not be kept: {error.strerror}") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        stored = self.get(row.id)
        if stored is None:
            raise LookupError("a result vanished while it was being stored")
        return stored

    def get(self, identifier: str) -> StoredPrediction | None:
        """Return the result with this identifier, or None when there is none or its time is over."""
        return self._one(PredictionRow.id == identifier)

    def of_key(self, owner: str, key: str) -> StoredPrediction | None:
        """Return the result that `owner` got for an upload with this idempotency key, or None."""
        return self._one(and_(PredictionRow.owner == owner, PredictionRow.idempotency_key == key))

    def page(self, wanted: Wanted, *, page: int, per_page: int) -> tuple[list[StoredPrediction], int]:
        """Return the `page`-th (from 1) page of the results that are `wanted`, newest first, and how many there are."""
        which = and_(~self._is_over(), *_conditions(wanted))
        with self._database.reading() as session:
            total = session.scalar(select(func.count()).select_from(PredictionRow).outerjoin(FeedbackRow).where(which))
            chosen = select(PredictionRow).outerjoin(FeedbackRow).where(which)
            order = (PredictionRow.created_at.desc(), PredictionRow.id)
            rows = session.scalars(chosen.order_by(*order).limit(per_page).offset((page - 1) * per_page))
            return [self._read(row) for row in rows], total or 0

    def give_feedback(self, identifier: str, feedback: Feedback, *, author: str) -> StoredPrediction | None:
        """Replace what was said of a result; return it, or None when there is none."""
        with self._database.writing() as session:
            row = session.get(PredictionRow, identifier)
            if row is None:
                return None
            row.feedback = row.feedback or FeedbackRow(prediction_id=identifier)
            row.feedback.author, row.feedback.updated_at = author, time.time()
            row.feedback.verdicts = {str(number): verdict for number, verdict in sorted(feedback.verdicts.items())}
            row.feedback.missed = [list(box) for box in feedback.missed]
            row.feedback.no_fracture, row.feedback.comment = feedback.no_fracture, feedback.comment
            said = _sha256([row.feedback.verdicts, row.feedback.missed, feedback.no_fracture, feedback.comment])
            self._audit.add(session, Act(author, "feedback", identifier, row.input_sha256, row.model_sha256, said))
        return self.get(identifier)

    def delete(self, identifier: str, *, by: str) -> bool:
        """Delete a result with its picture and feedback; return False when there is none."""
        is_deleted = self._delete(identifier, by=by)
        self._database.forget()
        return is_deleted

    def _delete(self, identifier: str, *, by: str) -> bool:
        with self._database.writing() as session:
            row = session.get(PredictionRow, identifier)
            if row is None:
                return False
            act = Act(by, "delete", identifier, row.input_sha256, row.model_sha256, row.result_sha256)
            session.delete(row)
            self._audit.add(session, act)
        self._image_path(identifier).unlink(missing_ok=True)
        return True

    def sweep_if_due(self) -> None:
        """Delete what is over its time, unless that was done a short while ago."""
        if time.monotonic() >= self._next_sweep and self._sweeping.acquire(blocking=False):
            try:
                self._next_sweep = time.monotonic() + min(SWEEP_EVERY_S, self._retention_s)
                if self.sweep(at_most=SWEEP_AT_MOST) == SWEEP_AT_MOST:
                    self._next_sweep = 0.0  # the next request takes its share
            except (OSError, StoreUnavailable):
                log.exception("Old results could not be deleted")  # the request at hand has nothing to do with it
            finally:
                self._sweeping.release()

    def sweep(self, *, at_most: int | None = None) -> int:
        """Delete results and pictures whose time is over, all or `at_most`; return the number of results deleted."""
        chosen = select(PredictionRow.id).outerjoin(FeedbackRow).where(self._is_over()).limit(at_most)
        with self._database.reading() as session:
            over = session.scalars(chosen).all()
        deleted = sum(self._delete(identifier, by="retention") for identifier in over)
        if deleted:
            self._database.forget()
        with self._database.reading() as session:
            kept = set(session.scalars(select(PredictionRow.id)))
        oldest = time.time() - self._retention_s
        for path in self._images.iterdir():  # also a picture whose row was never written
            if path.stem not in kept and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        return deleted

    def _write(self, path: Path, picture: bytes) -> None:
        self._images.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("wb") as file:
            file.write(picture)
            file.flush()
            os.fsync(file.fileno())  # a row that is kept must not lose its picture to a power cut

    def _one(self, which: ColumnElement[bool]) -> StoredPrediction | None:
        chosen = select(PredictionRow).outerjoin(FeedbackRow).where(which, ~self._is_over())
        with self._database.reading() as session:
            row = session.scalars(chosen).first()
            return None if row is None else self._read(row)

    def _is_over(self) -> ColumnElement[bool]:
        now = time.time()
        said = func.coalesce(FeedbackRow.updated_at, 0.0)
        return and_(PredictionRow.created_at < now - self._retention_s, said < now - self._feedback_s)

    def _image_path(self, identifier: str) -> Path:
        return self._images / f"{identifier}.png"

    def _read(self, row: PredictionRow) -> StoredPrediction:
        labels = tuple(found.label for found in row.detections)
        names = tuple(dict.fromkeys(labels))
        detections = Detections(
            np.array([(found.x0, found.y0, found.x1, found.y1) for found in row.detections]).reshape(-1, 4),
            np.array([found.score for found in row.detections]),
            np.array([names.index(label) for label in labels], dtype=np.int64),
        )
        path = self._image_path(row.id)
        same = {name: getattr(row, name) for name in _SAME}
        return StoredPrediction(
            **same,
            detections=detections,
            labels=labels,
            image_path=path if path.exists() else None,
            feedback=_feedback_of(row.feedback),
        )


_SAME = (
    *("id", "created_at", "owner", "finding", "confidence", "height", "width", "model", "model_sha256"),
    *("input_sha256", "calibrated", "operating_score", "possible_score", "latency_ms"),
)


def _row_of(prediction: Prediction, reading: Reading) -> PredictionRow:
    rows = _rows_of(prediction)
    boxes = [[row.x0, row.y0, row.x1, row.y1, row.score, row.label] for row in rows]
    return PredictionRow(
        id=secrets.token_hex(16),
        created_at=time.time(),
        confidence=prediction.confidence,
        height=prediction.height,
        width=prediction.width,
        model=prediction.detector.name,
        model_sha256=prediction.detector.sha256,
        result_sha256=_sha256([reading.finding, boxes]),
        latency_ms=dict(prediction.latency_ms),
        detections=rows,
        **vars(reading),
    )


def _rows_of(prediction: Prediction) -> list[DetectionRow]:
    found = zip(prediction.detections.boxes, prediction.detections.scores, prediction.labels, strict=True)
    return [
        DetectionRow(number=number, x0=x0, y0=y0, x1=x1, y1=y1, score=float(score), label=label)
        for number, ((x0, y0, x1, y1), score, label) in enumerate(
            ((box.tolist(), score, label) for box, score, label in found), start=1
        )
    ]


def _feedback_of(row: FeedbackRow | None) -> Feedback | None:
    if row is None:
        return None
    verdicts = {int(number): verdict for number, verdict in row.verdicts.items()}
    missed = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in row.missed)
    return Feedback(verdicts, missed, row.no_fracture, row.comment, row.author, row.updated_at)


def _conditions(wanted: Wanted) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.owner is not None:
        found.append(PredictionRow.owner == wanted.owner)
    if wanted.finding:
        found.append(PredictionRow.finding == wanted.finding)
    if wanted.since is not None:
        found.append(PredictionRow.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(PredictionRow.created_at < wanted.until)
    for word in wanted.text.split():
        columns = (PredictionRow.id, PredictionRow.model, FeedbackRow.comment, PredictionRow.owner)
        found.append(or_(*(column.icontains(word, autoescape=True) for column in columns)))
    return found


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
