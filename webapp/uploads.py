"""The way of one upload through the service into the store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from werkzeug.datastructures import FileStorage

from fracture_det.inference.service import (
    DetectorFailed,
    ImageTooLarge,
    Prediction,
    ServiceBusy,
    ServiceClosed,
    UnreadableImage,
    UnsupportedImage,
)

from .auth import asker
from .context import app_context
from .errors import RETRY_AFTER_S, RequestError
from .presentation import finding_level, floor_score, prediction_schema
from .schemas import PredictionSchema
from .settings import Settings
from .store import Reading, StoredPrediction

IDENTIFIER = re.compile(r"[0-9a-f]{32}")
DRAWING_AT_ONCE, DRAWING_WAIT_S = 2, 30.0
NOT_ANALYSED = "This file was not analysed."
BUSY = f"{NOT_ANALYSED} Too many radiographs are waiting; please try again in a few seconds."


def handle_upload(upload: FileStorage, *, key: str | None = None) -> tuple[StoredPrediction, bool]:
    """Analyse one uploaded image and keep the result; its file name is never looked at.

    key: the client's idempotency key; of an upload that came before with the same key, the result of then is returned,
    with True. Raises RequestError or StoreUnavailable.
    """
    house = app_context()
    data = upload.stream.read(house.settings.max_upload_bytes + 1)
    if len(data) > house.settings.max_upload_bytes:
        limit = house.settings.max_upload_mb
        sentence = f"{NOT_ANALYSED} It is larger than {limit:g} MB; please export a smaller image."
        raise RequestError(413, sentence, reason="bytes")
    if not data:
        raise RequestError(422, f"{NOT_ANALYSED} It is empty; please export the radiograph again.", reason="empty")
    digest, owner = hashlib.sha256(data).hexdigest(), asker().name
    with house.keys.hold(owner, key):
        before = None if key is None else house.store.results.of_key(owner, key)
        if before is None:
            return _analyse(data, Reading(owner, "", digest, 0, 0, idempotency_key=key)), False
    if before.input_sha256 != digest:
        sentence = f"{NOT_ANALYSED} Its Idempotency-Key was used for another image; please take a new one."
        raise RequestError(422, sentence, reason="key")
    return before, True


def _analyse(data: bytes, reading: Reading) -> StoredPrediction:
    house = app_context()
    try:
        with house.service.predicting(data) as prediction:
            return _keep(prediction, reading)
    except (UnreadableImage, ServiceBusy, ServiceClosed, DetectorFailed) as error:
        raise _refusal_for(error, house.settings) from error


def _keep(prediction: Prediction, reading: Reading) -> StoredPrediction:
    house = app_context()
    operating, possible = house.operating_score, house.possible_score
    found = prediction.detections.above(floor_score(possible))
    highest = float(found.scores[0]) if len(found) else None
    reading = replace(
        reading,
        finding=finding_level(highest, operating, possible),
        operating_score=operating,
        possible_score=possible,
        calibrated=prediction.detector.calibrated,
    )
    stored = house.store.results.add(replace(prediction, detections=found), reading)
    house.metrics.result(stored)
    return stored


def find(identifier: str) -> StoredPrediction:
    """Return the stored result with this identifier, if it is the asker's own or an administrator asks.

    Raises RequestError: another one's result is answered like one that does not exist.
    """
    house = app_context()
    stored = house.store.results.get(identifier) if IDENTIFIER.fullmatch(identifier) else None
    if stored is None or not (asker().is_admin or stored.owner == asker().name):
        sentence = f"There is no such result. Results are deleted after {house.settings.kept_for}."
        raise RequestError(404, sentence, reason="not_found")
    return stored


@contextmanager
def drawing() -> Iterator[None]:
    """Wait for leave to draw on a picture, which takes memory by the gigabyte for the largest. Raises RequestError."""
    place = app_context().drawing
    if not place.acquire(timeout=DRAWING_WAIT_S):
        sentence = "Too many pictures are being drawn; please try again in a few seconds."
        raise RequestError(503, sentence, reason="drawing", retry_after_s=RETRY_AFTER_S)
    try:
        yield
    except UnreadableImage as error:  # cut short by a full disk or a power cut
        raise RequestError(404, "The picture of this result was not kept.", reason="not_found") from error
    finally:
        place.release()


def response_schema(stored: StoredPrediction, score: float | None = None) -> PredictionSchema:
    """Return the JSON of a result with the boxes of at least `score`, or of its operating point."""
    threshold = stored.operating_score if score is None else score
    return prediction_schema(stored, threshold, feedback_days=app_context().settings.feedback_days)


# The narrower kinds first.
REFUSALS: tuple[tuple[type[Exception], int, str, Callable[[Settings], str]], ...] = (
    (
        UnsupportedImage,
        415,
        "kind",
        lambda _: "It is not a JPEG or PNG image; please export the radiograph as one of these.",
    ),
    (
        ImageTooLarge,
        413,
        "pixels",
        lambda settings: f"It has more than {settings.max_megapixels:g} megapixels; please export a smaller image.",
    ),
    (UnreadableImage, 422, "damaged", lambda _: "It is damaged or incomplete; please export the radiograph again."),
    (ServiceBusy, 503, "busy", lambda _: BUSY.removeprefix(f"{NOT_ANALYSED} ")),
    (ServiceClosed, 503, "stopping", lambda _: "The server is stopping; please try again in a minute."),
    (
        DetectorFailed,
        500,
        "detector",
        lambda _: "The analysis failed on the server, which says nothing about a fracture.",
    ),
)


def _refusal_for(error: Exception, settings: Settings) -> RequestError:
    status, reason, text = next(row[1:] for row in REFUSALS if isinstance(error, row[0]))
    wait_s = RETRY_AFTER_S if status == 503 else None
    return RequestError(status, f"{NOT_ANALYSED} {text(settings)}", reason=reason, retry_after_s=wait_s)
