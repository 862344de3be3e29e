"""What a shadow said of stored results: kept as long as these, deleted with them, and shown to no reader."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from fracture_det.registry.agreement import Agreement, Said, agree

from .database import Database
from .models import PredictionRow, ShadowRow
from .records import StoredPrediction


@dataclass(frozen=True)
class ShadowAnswer:
    """What a version said of a radiograph. boxes: x0, y0, x1, y1, score, label, highest score first."""

    version: str
    model: str
    model_sha256: str | None
    finding: str
    confidence: float | None
    operating_score: float
    possible_score: float
    calibrated: bool
    boxes: list[tuple[float, float, float, float, float, str]]


class ShadowAnswers:
    """The answers of shadows in `database`. A result that is deleted takes its own with it (ON DELETE CASCADE)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, identifier: str, answer: ShadowAnswer) -> bool:
        """Store an answer beside its result; return False where that was deleted meanwhile, or has one already."""
        key = (identifier, answer.version)
        with self._database.writing() as session:
            if session.get(PredictionRow, identifier) is None or session.get(ShadowRow, key) is not None:
                return False
            session.add(ShadowRow(prediction_id=identifier, created_at=time.time(), **vars(answer)))
        return True

    def comparisons(self, version: str | None = None) -> list[Agreement]:
        """Return how far each shadow, or the one of a version, agrees with each served version that it ran beside."""
        chosen = select(PredictionRow, ShadowRow).join(ShadowRow, ShadowRow.prediction_id == PredictionRow.id)
        if version is not None:
            chosen = chosen.where(ShadowRow.version == version)
        pairs: dict[tuple[str, str], list[tuple[Said, Said]]] = {}
        calibrated: dict[tuple[str, str], bool] = {}
        with self._database.reading() as session:
            for served, shadow in session.execute(chosen):
                key = (shadow.version, served.model_version or served.model)
                pairs.setdefault(key, []).append((_served(served), _shadow(shadow)))
                calibrated[key] = calibrated.get(key, True) and served.calibrated and shadow.calibrated
        return [agree(*key, pairs[key], calibrated=calibrated[key]) for key in sorted(pairs)]


def _served(row: PredictionRow) -> Said:
    boxes = [(box.x0, box.y0, box.x1, box.y1, box.score) for box in row.detections]
    return _said(row.finding, boxes, row.possible_score)


def _shadow(row: ShadowRow) -> Said:
    return _said(row.finding, [tuple(box[:5]) for box in row.boxes], row.possible_score)


def said_of(stored: StoredPrediction) -> Said:
    """Return what the served version said."""
    found = stored.detections
    boxes = np.column_stack([found.boxes, found.scores]).tolist()
    return _said(stored.finding, boxes, stored.possible_score)


def said_by(answer: ShadowAnswer) -> Said:
    """Return what the shadow said."""
    return _said(answer.finding, [box[:5] for box in answer.boxes], answer.possible_score)


def _said(level: str, boxes: Sequence[Sequence[float]], possible: float) -> Said:
    array: NDArray[np.float64] = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    highest = float(array[:, 4].max()) if len(array) else 0.0
    return Said(level, highest, array[array[:, 4].round(6) >= possible, :4])
