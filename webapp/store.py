"""Where results are kept: rows by SQLAlchemy, images as files under random names. The only SQL of the page."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import JSON, ForeignKey, create_engine, delete, event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from fracture_det.inference.service import Detections, Prediction, encode_png

# Idle servers forget, too: any request looks whether it is time.
SWEEP_EVERY_S = 600.0

log = logging.getLogger(__name__)


class StoreError(ValueError):
    """The data folder cannot be used; the message names it and says why."""


class Base(DeclarativeBase):
    """The tables."""


class PredictionRow(Base):
    """One analysed radiograph."""

    __tablename__ = "predictions"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float] = mapped_column(index=True)  # seconds since 1970, UTC
    height: Mapped[int]
    width: Mapped[int]
    model: Mapped[str]
    model_sha256: Mapped[str | None]
    operating_score: Mapped[float]
    possible_score: Mapped[float]
    latency_ms: Mapped[dict[str, float]] = mapped_column(JSON)
    detections: Mapped[list[DetectionRow]] = relationship(
        order_by="DetectionRow.number", cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )


class DetectionRow(Base):
    """One box; `number` counts from 1, highest score first."""

    __tablename__ = "detections"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    x0: Mapped[float]
    y0: Mapped[float]
    x1: Mapped[float]
    y1: Mapped[float]
    score: Mapped[float]
    label: Mapped[str]


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """A result as it was kept.

    detections: every box above the floor, in pixels of the upright image; `labels` has one name for each.
    operating_score, possible_score: 0..1, as they were when the radiograph was analysed.
    """

    id: str
    created_at: float
    height: int
    width: int
    model: str
    operating_score: float
    possible_score: float
    latency_ms: Mapping[str, float]
    detections: Detections
    labels: tuple[str, ...]
    image_path: Path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels that occur; `detections.classes` are indices into them."""
        return tuple(dict.fromkeys(self.labels))


class Store:
    """Results in `folder`, forgotten after `retention_hours`. Thread-safe. Raises StoreError.

    An identifier has 128 random bits: who does not know it cannot guess it.
    """

    def __init__(self, folder: Path, *, retention_hours: float) -> None:
        self._retention_s = retention_hours * 3600
        self._images = folder.absolute() / "images"
        self._engine = create_engine(f"sqlite:///{folder.absolute() / 'results.sqlite3'}")
        event.listen(self._engine, "connect", _prepare_sqlite)
        try:
            self._images.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            Base.metadata.create_all(self._engine)
        except (OSError, SQLAlchemyError) as error:
            self._engine.dispose()
            reason = getattr(error, "orig", None) or error
            raise StoreError(f"the data folder {folder} cannot be used ({reason}); see FRACTURE_DATA_DIR") from error
        self._session = sessionmaker(self._engine)
        self._sweeping = threading.Lock()
        self._next_sweep = 0.0

    def add(self, prediction: Prediction, *, operating_score: float, possible_score: float) -> StoredPrediction:
        """Keep `prediction` with its image, re-encoded without metadata, and return it with its new identifier."""
        identifier = secrets.token_hex(16)
        path = self._image_path(identifier)
        row = PredictionRow(
            id=identifier,
            created_at=time.time(),
            height=prediction.height,
            width=prediction.width,
            model=prediction.model.name,
            model_sha256=prediction.model.sha256,
            operating_score=operating_score,
            possible_score=possible_score,
            latency_ms=dict(prediction.latency_ms),
            detections=_rows_of(prediction),
        )
        try:
            path.write_bytes(encode_png(prediction.pixels))
            with self._session.begin() as session:
                session.add(row)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        stored = self.get(identifier)
        if stored is None:
            raise LookupError("a result vanished while it was being stored")
        return stored

    def get(self, identifier: str) -> StoredPrediction | None:
        """Return the result with this identifier, or None when there is none or its time is over."""
        with self._session() as session:
            row = session.get(PredictionRow, identifier)
            if row is None or row.created_at < time.time() - self._retention_s:
                return None
            return self._read(row)

    def sweep_if_due(self) -> None:
        """Delete what is older than the retention time, unless that was done a short while ago."""
        if time.monotonic() >= self._next_sweep and self._sweeping.acquire(blocking=False):
            try:
                self._next_sweep = time.monotonic() + min(SWEEP_EVERY_S, self._retention_s)
                self.sweep()
            except (OSError, SQLAlchemyError):
                log.exception("Old results could not be deleted")  # the request at hand has nothing to do with it
            finally:
                self._sweeping.release()

    def sweep(self) -> int:
        """Delete every row and image older than the retention time; return the number of results deleted."""
        oldest = time.time() - self._retention_s
        with self._session.begin() as session:
            old = set(session.scalars(select(PredictionRow.id).where(PredictionRow.created_at < oldest)))
            session.execute(delete(PredictionRow).where(PredictionRow.created_at < oldest))
        # By age, so that a file whose row was never written goes as well.
        for path in self._images.iterdir():
            if path.stem in old or path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        return len(old)

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

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
        return StoredPrediction(
            id=row.id,
            created_at=row.created_at,
            height=row.height,
            width=row.width,
            model=row.model,
            operating_score=row.operating_score,
            possible_score=row.possible_score,
            latency_ms=row.latency_ms,
            detections=detections,
            labels=labels,
            image_path=self._image_path(row.id),
        )


def _rows_of(prediction: Prediction) -> list[DetectionRow]:
    found = zip(prediction.detections.boxes, prediction.detections.scores, prediction.labels, strict=True)
    return [
        DetectionRow(number=number, x0=x0, y0=y0, x1=x1, y1=y1, score=float(score), label=label)
        for number, ((x0, y0, x1, y1), score, label) in enumerate(
            ((box.tolist(), score, label) for box, score, label in found), start=1
        )
    ]


def _prepare_sqlite(connection, _record) -> None:
    cursor = connection.cursor()
    # Readers do not wait for a writer; SQLite forgets the cascade unless told for each connection.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "busy_timeout = 10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
