"""One stored result, and the rows that it is stored in."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_det.inference.service import NOTES, Detections, Prediction, Suitability
from fracture_det.monitoring.features import picture_values
from fracture_det.structures.readings import Reading, ReadRadiograph

from .images import Images
from .models import DetectionRow, PredictionRow, ReadingColumns

_SHARED_COLUMNS = (
    *("id", "created_at", "owner", "finding", "confidence", "height", "width", "model", "model_sha256"),
    *("input_sha256", "calibrated", "operating_score", "possible_score", "latency_ms"),
    *("type_confidence", "type_accuracy", "model_version"),
)


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """A result as it is stored.

    detections: every box above the floor, in pixels of the upright image; `labels` has one name for each.
    finding: "likely", "possible" or "none seen". confidence: calibrated probability that the image shows a fracture.
    operating_score, possible_score: 0..1, as they were when the radiograph was analysed; `calibrated` if scores are
    probabilities. image_path: None where images are not kept. readings: the latest of each reader, by name; settled:
    what an adjudicator has decided. suitability: whether it looked like a radiograph of a
    limb; not `ok` where it was analysed anyway, None where nobody asked. samples_path: None of an image of 8 bits.
    bits, window: how deep the radiograph was, and the samples (low, high) that are 0 and 255 in its image.
    spacing_mm: height and width of a pixel, None where the file did not say. spacing_kind: where that was measured (see
    `DicomFile`), None also in results of before. type_names: what the columns of `detections.types` are, () where the
    detector told no types; type_confidence, type_accuracy: what it stated of them (see `DetectorInfo`). model_version:
    its name in a registry of detectors, None where it came from elsewhere.
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
    readings: tuple[Reading, ...] = ()
    settled: Reading | None = None
    suitability: Suitability | None = None
    samples_path: Path | None = None
    bits: int = 8
    window: tuple[float, float] = (0.0, 255.0)
    spacing_mm: tuple[float, float] | None = None
    spacing_kind: str | None = None
    type_names: tuple[str, ...] = ()
    type_confidence: float | None = None
    type_accuracy: float | None = None
    model_version: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels that occur; `detections.classes` are indices into them."""
        return tuple(dict.fromkeys(self.labels))

    @property
    def read(self) -> ReadRadiograph:
        """Its readings beside the boxes that they are about; those from the operating point up need a verdict."""
        boxes = [(x0, y0, x1, y1) for x0, y0, x1, y1 in self.detections.boxes.tolist()]
        n_required = len(self.detections.above(self.operating_score))
        return ReadRadiograph(boxes, self.labels, n_required, self.readings, self.settled)

    def reading_of(self, reader: str) -> Reading | None:
        """Return the latest reading of one reader, or None."""
        return next((reading for reading in self.readings if reading.author == reader), None)


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


def row_of(prediction: Prediction, metadata: ResultMetadata) -> PredictionRow:
    """Return the rows of a new result, under a random identifier."""
    rows, said, deep = _rows_of(prediction), prediction.suitability, prediction.samples
    boxes = [
        [row.x0, row.y0, row.x1, row.y1, row.score, row.label, *([row.types] if row.types else [])] for row in rows
    ]
    info = prediction.detector
    return PredictionRow(
        id=secrets.token_hex(16),
        created_at=time.time(),
        confidence=prediction.confidence,
        height=prediction.height,
        width=prediction.width,
        model=info.name,
        model_sha256=info.sha256,
        model_version=info.version,
        result_sha256=content_sha256([metadata.finding, boxes]),
        latency_ms=dict(prediction.latency_ms),
        detections=rows,
        limb_probability=None if said is None else said.probability,
        suitability=None if said is None else list(said.reasons),
        bits=None if deep is None else deep.bits,
        window=None if deep is None else [float(value) for value in deep.window],
        spacing_mm=None if prediction.spacing_mm is None else [float(side) for side in prediction.spacing_mm],
        spacing_kind=None if prediction.dicom is None else prediction.dicom.spacing_kind,
        type_names=list(info.type_names) or None,
        type_confidence=info.type_confidence if info.type_names else None,
        type_accuracy=info.type_accuracy if info.type_names else None,
        features=picture_values(prediction.pixels),
        **vars(metadata),
    )


def _rows_of(prediction: Prediction) -> list[DetectionRow]:
    found = prediction.detections
    types = [None] * len(found) if found.types is None else found.types.tolist()
    boxes = zip(found.boxes.tolist(), found.scores, prediction.labels, types, strict=True)
    return [
        DetectionRow(number=number, x0=x0, y0=y0, x1=x1, y1=y1, score=float(score), label=label, types=of_box)
        for number, ((x0, y0, x1, y1), score, label, of_box) in enumerate(boxes, start=1)
    ]


def stored_prediction(row: PredictionRow, images: Images) -> StoredPrediction:
    """Return the result in a row, with the paths of those of its pictures that exist."""
    labels = tuple(box.label for box in row.detections)
    names = tuple(dict.fromkeys(labels))
    detections = Detections(
        np.array([(box.x0, box.y0, box.x1, box.y1) for box in row.detections]).reshape(-1, 4),
        np.array([box.score for box in row.detections]),
        np.array([names.index(label) for label in labels], dtype=np.int64),
        _types_of(row),
    )
    path, samples_path = images.path(row.id), images.samples_path(row.id)
    shared = {name: getattr(row, name) for name in _SHARED_COLUMNS}
    return StoredPrediction(
        **shared,
        detections=detections,
        labels=labels,
        image_path=path if path.exists() else None,
        readings=tuple(map(reading_of, row.readings)),
        settled=None if row.settlement is None else reading_of(row.settlement),
        suitability=_suitability_of(row),
        samples_path=samples_path if row.bits is not None and samples_path.exists() else None,
        bits=row.bits or 8,
        window=(0.0, 255.0) if row.window is None else (row.window[0], row.window[1]),
        spacing_mm=None if row.spacing_mm is None else (row.spacing_mm[0], row.spacing_mm[1]),
        spacing_kind=row.spacing_kind,
        type_names=tuple(row.type_names or ()),
    )


def _types_of(row: PredictionRow) -> NDArray[np.float32] | None:
    """Return the types (N, T) of the boxes of a result, None where the detector told none."""
    rows = [box.types for box in row.detections if box.types]
    return np.array(rows, dtype=np.float32) if rows else None


def reading_of(row: ReadingColumns) -> Reading:
    """Return the reading in a row."""
    return Reading(
        verdicts={int(number): verdict for number, verdict in row.verdicts.items()},
        missed=tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in row.missed),
        no_fracture=row.no_fracture,
        comment=row.comment,
        author=row.author,
        updated_at=row.updated_at,
        types={int(number): name for number, name in (row.types or {}).items()},
        missed_types=tuple(row.missed_types or ()),
        moved={int(number): (x0, y0, x1, y1) for number, (x0, y0, x1, y1) in (row.moved or {}).items()},
        unreadable=row.unreadable,
        reason=row.reason,
        seconds=row.seconds,
    )


def newest_reading(row: PredictionRow) -> Reading | None:
    """Return what is passed on to other systems: what was settled, else the newest reading, else None."""
    if row.settlement is not None:
        return reading_of(row.settlement)
    return max(map(reading_of, row.readings), key=lambda reading: reading.updated_at, default=None)


def fill_reading(row: ReadingColumns, said: Reading) -> str:
    """Write what the author of a row says now into it; return the SHA-256 of that, for the audit log."""
    row.updated_at = time.time()
    row.verdicts = {str(number): verdict for number, verdict in sorted(said.verdicts.items())}
    row.missed = [list(box) for box in said.missed]
    row.no_fracture, row.comment = said.no_fracture, said.comment
    row.types = {str(number): name for number, name in sorted(said.types.items())}
    row.missed_types = [name for _, name in said.typed_missed]
    row.moved = {str(number): list(box) for number, box in sorted(said.moved.items())}
    row.unreadable, row.reason, row.seconds = said.unreadable, said.reason, said.seconds
    content = [row.verdicts, row.missed, row.no_fracture, row.comment, row.types, row.missed_types]
    return content_sha256([*content, row.moved, row.unreadable, row.reason, row.seconds])


def _suitability_of(row: PredictionRow) -> Suitability | None:
    if row.suitability is None or row.limb_probability is None:
        return None
    is_ok = all(reason in NOTES for reason in row.suitability)
    return Suitability(is_ok, row.limb_probability, tuple(row.suitability))


def content_sha256(content: Any) -> str:
    """Return the SHA-256 of what JSON can hold, for the audit log."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
