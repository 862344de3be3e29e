"""One upload: checked, analysed by the service, stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from flask import request
from werkzeug.datastructures import FileStorage

from fracture_det.inference.service import (
    HEADLINE,
    DamagedImage,
    DetectorFailed,
    ImageTooLarge,
    Prediction,
    ServiceBusy,
    ServiceClosed,
    Suitability,
    UnreadableImage,
    UnsuitableImage,
    UnsupportedImage,
)

from .auth import current_account, sees_everything
from .context import app_context, thresholds_of
from .errors import RETRY_AFTER_S, RequestError
from .presentation import finding_level, floor_score, prediction_schema
from .schemas import PredictionSchema
from .settings import Settings
from .store import KeyTaken, ResultMetadata, StoredPrediction

IDENTIFIER = re.compile(r"[0-9a-f]{32}")
MAX_DRAWINGS, DRAWING_TIMEOUT_S = 2, 30.0
NOT_ANALYSED = "This file was not analysed."
ONE_IMAGE = "Send exactly one JPEG, PNG or DICOM image as the part 'file' of a form, in curl with -F file=@wrist.png;"
NO_FILE = "No file was chosen. Please choose a JPEG, PNG or DICOM image."
MAX_SHOWN = 60  # of a name that the client chose
BUSY = f"{NOT_ANALYSED} Too many radiographs are waiting; please try again in a few seconds."


def sent_files() -> list[FileStorage]:
    """Return the files that came as the form part `file`. Raises RequestError with 400 and what came instead of one."""
    files = request.files.getlist("file")
    chosen = [file for file in files if file.filename or file.stream.read(1)]
    for file in files:
        file.stream.seek(0)
    if chosen:
        return chosen
    # A browser sends the part without a name where nothing was chosen.
    is_unchosen = files or set(request.form) == {"csrf_token"}
    message = NO_FILE if is_unchosen else f"{ONE_IMAGE} got none: {_what_came()}."
    raise RequestError(400, message, reason="no_file")


def _what_came() -> str:
    """Return in words what a request holds whose form has no file `file`."""
    if request.mimetype != "multipart/form-data":
        kind = request.mimetype[:MAX_SHOWN]
        return f"the body came as {kind}, not as a form" if kind else "the body is not a form (multipart/form-data)"
    if "file" in request.form:
        return "the part 'file' came as text, without a file name; in curl write file=@wrist.png, not file=<wrist.png"
    others = [name[:MAX_SHOWN] for name in dict.fromkeys((*request.files, *request.form)) if name]
    return (
        f"the form has only {', '.join(map(repr, others[:5]))}" if others else "the form has no part that can be read"
    )


def handle_upload(upload: FileStorage, *, key: str | None = None, force: bool = False) -> tuple[StoredPrediction, bool]:
    """Analyse one uploaded image and store the result; its file name is ignored.

    force: analyse it also where it does not look like a radiograph of a limb. key: the client's idempotency key. If the
    same image came before with the same key, its stored result is returned with True. Raises RequestError or
    StoreUnavailable.
    """
    context = app_context()
    data = upload.stream.read(context.settings.max_upload_bytes + 1)
    if len(data) > context.settings.max_upload_bytes:
        limit = context.settings.max_upload_mb
        message = f"{NOT_ANALYSED} It is larger than {limit:g} MB; please export a smaller image."
        raise RequestError(413, message, reason="bytes")
    if not data:
        raise RequestError(422, f"{NOT_ANALYSED} It is empty; please export the radiograph again.", reason="empty")
    digest, owner = hashlib.sha256(data).hexdigest(), current_account().name
    with context.keys.hold(owner, key):
        previous = None if key is None else context.store.results.of_key(owner, key)
        if previous is None:
            try:
                return _analyse(data, ResultMetadata(owner, "", digest, 0, 0, idempotency_key=key), force=force), False
            except KeyTaken as conflict:  # another process was faster
                previous = conflict.stored
    if previous.input_sha256 != digest:
        message = f"{NOT_ANALYSED} Its Idempotency-Key was already used for another image; please use a new one."
        raise RequestError(422, message, reason="key")
    return previous, True


def _analyse(data: bytes, metadata: ResultMetadata, *, force: bool) -> StoredPrediction:
    context = app_context()
    try:
        with context.service.predicting(data, force=force) as prediction:
            stored = _store(prediction, metadata)
            if context.shadow is not None:
                context.shadow.offer(stored, prediction.pixels)
            return stored
    except UnsuitableImage as error:
        context.metrics.unsuitable(error.suitability)
        raise _unsuitable_error(error.suitability) from error
    except (UnreadableImage, ServiceBusy, ServiceClosed, DetectorFailed) as error:
        raise _request_error(error, context.settings) from error


def _store(prediction: Prediction, metadata: ResultMetadata) -> StoredPrediction:
    context = app_context()
    # Of the detector that answered: another one may be served by now.
    operating, possible = thresholds_of(context.settings, prediction.detector)
    detections = prediction.detections.above(floor_score(possible))
    highest = float(detections.scores[0]) if len(detections) else None
    metadata = replace(
        metadata,
        finding=finding_level(highest, operating, possible),
        operating_score=operating,
        possible_score=possible,
        calibrated=prediction.detector.calibrated,
    )
    stored = context.store.results.add(replace(prediction, detections=detections), metadata)
    context.metrics.result(stored)
    return stored


def find_result(identifier: str) -> StoredPrediction:
    """Return the stored result with this identifier, if the current account may see it.

    Raises RequestError with 404, also for a result of somebody else, so that its existence is not revealed.
    """
    context = app_context()
    stored = context.store.results.get(identifier) if IDENTIFIER.fullmatch(identifier) else None
    if stored is None or not (sees_everything(current_account()) or stored.owner == current_account().name):
        message = f"There is no such result. Results are deleted after {context.settings.kept_for}."
        raise RequestError(404, message, reason="not_found")
    return stored


@contextmanager
def drawing_slot() -> Iterator[None]:
    """Wait for a free drawing slot: the largest radiographs take gigabytes each to draw on. Raises RequestError."""
    slots = app_context().drawing
    if not slots.acquire(timeout=DRAWING_TIMEOUT_S):
        message = "Too many images are being drawn; please try again in a few seconds."
        raise RequestError(503, message, reason="drawing", retry_after_s=RETRY_AFTER_S)
    try:
        yield
    except UnreadableImage as error:  # truncated by a full disk or a power cut
        raise RequestError(404, "The image of this result was not kept.", reason="not_found") from error
    finally:
        slots.release()


def response_schema(stored: StoredPrediction, score: float | None = None) -> PredictionSchema:
    """Return the JSON of a result with the boxes of at least `score`, by default its operating score."""
    threshold = stored.operating_score if score is None else score
    days = app_context().settings.feedback_days
    return prediction_schema(stored, threshold, viewer=current_account(), feedback_days=days)


# Exception, status, reason for the metrics, message ({reason}: of an UnreadableImage). Subclasses come first.
ERRORS: tuple[tuple[type[Exception], int, str, Callable[[Settings], str]], ...] = (
    (
        UnsupportedImage,
        415,
        "kind",
        lambda _: "It is {reason}.",
    ),
    (
        ImageTooLarge,
        413,
        "pixels",
        lambda _: "It is too large ({reason}); please export a smaller image.",
    ),
    (
        DamagedImage,
        422,
        "damaged",
        lambda _: "It is damaged or incomplete ({reason}); please export the radiograph again.",
    ),
    (UnreadableImage, 422, "damaged", lambda _: "It is damaged or incomplete; please export the radiograph again."),
    (ServiceBusy, 503, "busy", lambda _: BUSY.removeprefix(f"{NOT_ANALYSED} ")),
    (ServiceClosed, 503, "stopping", lambda _: "The server is stopping; please try again in a minute."),
    (
        DetectorFailed,
        500,
        "detector",
        lambda _: "The analysis failed on the server; this says nothing about a fracture.",
    ),
)


def _unsuitable_error(said: Suitability) -> RequestError:
    """Return the 422 that names the reason, for people and for programs."""
    return RequestError(
        422,
        f"Not analysed: {HEADLINE}. {said.sentence}",
        reason="unsuitable",
        details={"reason": said.reason, "probability": round(said.probability, 4)},
    )


def _request_error(error: Exception, settings: Settings) -> RequestError:
    status, reason, text = next(row[1:] for row in ERRORS if isinstance(error, row[0]))
    retry_after_s = RETRY_AFTER_S if status == 503 else None
    return RequestError(
        status,
        f"{NOT_ANALYSED} {text(settings).format(reason=getattr(error, 'reason', ''))}",
        reason=reason,
        retry_after_s=retry_after_s,
    )
