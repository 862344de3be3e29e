"""The JSON API, version 1, its description, the two probes and the metrics. docs/api.md introduces it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from math import ceil
from typing import Any

from apiflask import APIBlueprint
from flask import Blueprint, Response, current_app, jsonify, request, send_file

from fracture_det.inference.service import overlay_png

from .auth import asker, limit_rate
from .context import app_context
from .errors import RETRY_AFTER_S, RequestError, drain
from .presentation import NOTICE, feedback_schema
from .schemas import (
    AliveSchema,
    ErrorSchema,
    FeedbackIn,
    FeedbackSchema,
    HistoryQuery,
    ModelSchema,
    OverlayQuery,
    PageSchema,
    PredictionSchema,
    ReadySchema,
    ScoreQuery,
    UploadHeaders,
)
from .store import Feedback, StoredPrediction, Wanted
from .uploads import BUSY, drawing, find, handle_upload, response_schema

blueprint = APIBlueprint("api", __name__, url_prefix="/api/v1", tag="API")
probes = APIBlueprint("probes", __name__, tag="Probes")
description = Blueprint("description", __name__)

UPLOAD_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary", "description": "one JPEG or PNG"}},
            }
        }
    },
}
METRICS: Any = {"200": {"description": "counters", "content": {"text/plain": {"schema": {"type": "string"}}}}}
WHAT = {
    400: "the request cannot be understood",
    401: "no login and no valid token",
    403: "from another site's page",
    404: "no such result, or another one's, or its time is over",
    409: "somebody else has logged in in this browser since the page was made",
    413: "too many bytes or pixels",
    415: "neither JPEG nor PNG; a body of another kind than the one described",
    422: "empty, damaged or contradictory",
    429: "too many requests; see Retry-After",
    500: "the detector or the server failed; nothing is known about the radiograph",
    503: "busy, starting, stopping, or results cannot be kept; see Retry-After",
}


def errors(*statuses: int) -> Any:
    """Return what `doc` needs to describe the errors of an operation."""
    every = sorted({400, 401, 500, 503, *statuses})
    schema = ErrorSchema.model_json_schema()
    return {
        str(status): {"description": WHAT[status], "content": {"application/json": {"schema": schema}}}
        for status in every
    }


def png(text: str, *statuses: int) -> Any:
    """Return the responses of an operation that answers with a picture."""
    binary = {"type": "string", "format": "binary"}
    return {"200": {"description": text, "content": {"image/png": {"schema": binary}}}, **errors(*statuses)}


@blueprint.before_request
def refuse_what_is_no_json() -> None:
    """Refuse a body that is not what it should be: the library would take none for an empty object."""
    if request.method == "PUT" and not request.is_json:
        raise RequestError(415, "Send a JSON document, with Content-Type: application/json.", reason="invalid")
    try:
        is_object = request.method != "PUT" or isinstance(request.get_json(silent=True), dict)
    except RecursionError:  # a hundred thousand brackets
        is_object = False
    if not is_object:
        raise RequestError(400, "The body is not a JSON object.", reason="invalid")


def gone(*statuses: int) -> Any:
    """Return the responses of an operation that deletes."""
    return {"204": {"description": "gone"}, **errors(*statuses)}


@blueprint.post("/predictions")
@blueprint.input(ScoreQuery, location="query", arg_name="query")
@blueprint.input(UploadHeaders, location="headers", arg_name="headers")
@blueprint.output(PredictionSchema, status_code=201, description="the result; `Location` is its address")
@blueprint.doc(responses=errors(403, 409, 413, 415, 422, 429), extensions={"requestBody": UPLOAD_BODY})
def create_prediction(query: ScoreQuery, headers: UploadHeaders) -> tuple[PredictionSchema, int, dict[str, str]]:
    """Analyse a radiograph."""
    limit_rate("uploads", app_context().settings.uploads_per_minute)
    if app_context().service.full and headers.idempotency_key is None:
        drain()  # taking the form apart would cost more than the answer
        raise RequestError(503, BUSY, reason="busy", retry_after_s=RETRY_AFTER_S)
    uploads = request.files.getlist("file")
    if len(uploads) != 1:
        sentence = f"Send exactly one image as the form field 'file'; {len(uploads) or 'none'} came."
        raise RequestError(400, sentence, reason="no_file")
    stored, replayed = handle_upload(uploads[0], key=headers.idempotency_key)
    answer = response_schema(stored, query.score)
    said = {"Location": answer.links.self} | ({"Idempotency-Replayed": "true"} if replayed else {})
    return answer, 201, said


@blueprint.get("/predictions")
@blueprint.input(HistoryQuery, location="query", arg_name="query")
@blueprint.output(PageSchema, description="one page, newest first")
@blueprint.doc(responses=errors())
def history(query: HistoryQuery) -> PageSchema:
    """List results: one's own, of everybody for an administrator."""
    found, total = app_context().store.results.page(wanted_by(query), page=query.page, per_page=query.per_page)
    return PageSchema(
        results=[response_schema(stored) for stored in found],
        page=query.page,
        pages=ceil(total / query.per_page),
        per_page=query.per_page,
        total=total,
    )


@blueprint.get("/predictions/<identifier>")
@blueprint.input(ScoreQuery, location="query", arg_name="query")
@blueprint.output(PredictionSchema, description="the result")
@blueprint.doc(responses=errors(404))
def prediction(identifier: str, query: ScoreQuery) -> PredictionSchema:
    """Return a result."""
    return response_schema(find(identifier), query.score)


@blueprint.delete("/predictions/<identifier>")
@blueprint.doc(responses=gone(403, 404, 409))
def delete_prediction(identifier: str) -> tuple[str, int]:
    """Delete a result with its picture and feedback."""
    remove(find(identifier))
    return "", 204


@blueprint.get("/predictions/<identifier>/image.png")
@blueprint.doc(responses=png("the radiograph as it was analysed: upright, 8 bits, without metadata", 404))
def image(identifier: str) -> Response:
    """Return the radiograph."""
    return send_file(picture_of(find(identifier)), mimetype="image/png")


@blueprint.get("/predictions/<identifier>/overlay.png")
@blueprint.input(OverlayQuery, location="query", arg_name="query")
@blueprint.doc(responses=png("the radiograph with numbered boxes", 404))
def overlay(identifier: str, query: OverlayQuery) -> Response:
    """Return the radiograph with its boxes drawn on it."""
    stored = find(identifier)
    score = stored.operating_score if query.score is None else query.score
    with drawing():
        drawn = overlay_png(
            picture_of(stored), stored.detections, stored.class_names, minimum_score=score, longest_px=query.longest_px
        )
    return Response(drawn, mimetype="image/png")


@blueprint.put("/predictions/<identifier>/feedback")
@blueprint.input(FeedbackIn, location="json", arg_name="given")
@blueprint.output(FeedbackSchema, description="what is kept")
@blueprint.doc(responses=errors(403, 404, 409, 415, 422))
def give_feedback(identifier: str, given: FeedbackIn) -> FeedbackSchema:
    """Say of each box whether it is right, what was missed, or that there is no fracture."""
    stored = find(identifier)
    said = checked_feedback(given, stored)
    kept = app_context().store.results.give_feedback(stored.id, said, author=asker().name)
    if kept is None or kept.feedback is None:
        raise RequestError(404, "This result was deleted in the meantime.", reason="not_found")
    return feedback_schema(kept.feedback)


@blueprint.get("/model")
@blueprint.output(ModelSchema, description="the detector")
@blueprint.doc(responses=errors())
def model() -> ModelSchema:
    """Say which detector answers."""
    house = app_context()
    facts = house.service.info
    return ModelSchema(
        name=facts.name,
        class_names=list(facts.class_names),
        sha256=facts.sha256,
        operating_score=house.operating_score,
        possible_score=house.possible_score,
        calibrated=facts.calibrated,
        notice=NOTICE,
    )


@probes.get("/healthz")
@probes.output(AliveSchema, description="the process lives")
def healthz() -> AliveSchema:
    """Answer as long as the process lives."""
    return AliveSchema()


@probes.get("/readyz")
@probes.output(ReadySchema, description="a warm-up prediction has passed")
@probes.doc(responses=errors())
def readyz() -> ReadySchema:
    """Answer 200 once a warm-up prediction has passed, and while nothing stops it."""
    service = app_context().service
    if not service.ready or current_app.config.get("DRAINING"):
        sentence = "The detector is not ready yet; please try again in a few seconds."
        raise RequestError(503, sentence, reason="not_ready", retry_after_s=3)
    return ReadySchema(model=service.info.name)


@probes.get("/metrics")
@probes.doc(responses=METRICS)
def metrics() -> Response:
    """Return the counters that Prometheus reads."""
    return Response(app_context().metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


def require_bodies(spec: Any) -> Any:
    """Say in the description that a request with a body cannot do without it, which the library leaves out."""
    for operations in spec["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
    return spec


@description.get("/api/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI 3.1 description."""
    return jsonify(current_app.spec)  # type: ignore[attr-defined]


def remove(stored: StoredPrediction) -> None:
    """Delete a result for who asks."""
    app_context().store.results.delete(stored.id, by=asker().name)


def wanted_by(query: HistoryQuery) -> Wanted:
    """Return the conditions of a history. Raises RequestError for a day that does not exist."""
    days = {name: _day(name, getattr(query, name)) for name in ("since", "until")}
    return Wanted(
        owner=None if asker().is_admin else asker().name,
        finding=query.finding,
        since=None if days["since"] is None else days["since"].timestamp(),
        until=None if days["until"] is None else (days["until"] + timedelta(days=1)).timestamp(),
        text=query.q,
    )


def picture_of(stored: StoredPrediction) -> Any:
    """Return the path of a result's picture. Raises RequestError where it was not kept."""
    if stored.image_path is None:
        raise RequestError(404, "The picture of this result was not kept.", reason="not_found")
    return stored.image_path


def checked_feedback(given: FeedbackIn, stored: StoredPrediction) -> Feedback:
    """Return feedback that fits its result. Raises RequestError for a box that is not there, or outside the image."""
    for box in given.boxes:
        if box.number > len(stored.detections):
            sentence = f"There is no box {box.number}; this result has {len(stored.detections)}."
            raise RequestError(422, sentence, reason="feedback")
    for x0, y0, x1, y1 in given.missed:
        if not (0 <= x0 < x1 <= stored.width and 0 <= y0 < y1 <= stored.height):
            sentence = f"A missed fracture must lie inside the {stored.width} x {stored.height} px of the radiograph."
            raise RequestError(422, sentence, reason="feedback")
    verdicts = {box.number: box.verdict for box in given.boxes}
    return Feedback(verdicts, tuple(given.missed), given.no_fracture, given.comment)


def _day(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        day + timedelta(days=1)  # the last day of all has none after it
        return day
    except (ValueError, OverflowError) as error:
        raise RequestError(400, f"{name}: there is no day {text}.", reason="bad_request") from error
