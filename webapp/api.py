"""The JSON API, version 1, its description, the two probes and the metrics. docs/api.md introduces it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from math import ceil
from typing import Any

from apiflask import APIBlueprint
from flask import Blueprint, Response, current_app, jsonify, request, send_file

from fracture_det.inference.service import overlay_png
from webapp.access import asker, limit_rate
from webapp.documents import (
    AliveDocument,
    ErrorDocument,
    FeedbackDocument,
    FeedbackIn,
    HistoryQuery,
    ModelDocument,
    OverlayQuery,
    PageDocument,
    PredictionDocument,
    ReadyDocument,
    ScoreQuery,
    UploadHeaders,
)
from webapp.findings import NOTICE, feedback_document
from webapp.intake import BUSY, documented, drawing, find, rooms, take_in
from webapp.refusals import RETRY_AFTER_S, Refusal, drain
from webapp.store import Feedback, StoredPrediction, Wanted

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
    schema = ErrorDocument.model_json_schema()
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
    """Refuse a body that is not what it should be: the library would take none for an empty document."""
    if request.method == "PUT" and not request.is_json:
        raise Refusal(415, "Send a JSON document, with Content-Type: application/json.", reason="invalid")
    try:
        is_object = request.method != "PUT" or isinstance(request.get_json(silent=True), dict)
    except RecursionError:  # a hundred thousand brackets
        is_object = False
    if not is_object:
        raise Refusal(400, "The body is not a JSON object.", reason="invalid")


def gone(*statuses: int) -> Any:
    """Return the responses of an operation that deletes."""
    return {"204": {"description": "gone"}, **errors(*statuses)}


@blueprint.post("/predictions")
@blueprint.input(ScoreQuery, location="query", arg_name="query")
@blueprint.input(UploadHeaders, location="headers", arg_name="headers")
@blueprint.output(PredictionDocument, status_code=201, description="the result; `Location` is its address")
@blueprint.doc(responses=errors(403, 409, 413, 415, 422, 429), extensions={"requestBody": UPLOAD_BODY})
def create_prediction(query: ScoreQuery, headers: UploadHeaders) -> tuple[PredictionDocument, int, dict[str, str]]:
    """Analyse a radiograph."""
    limit_rate("uploads", rooms().settings.uploads_per_minute)
    if rooms().service.full and headers.idempotency_key is None:
        drain()  # taking the form apart would cost more than the answer
        raise Refusal(503, BUSY, reason="busy", retry_after_s=RETRY_AFTER_S)
    uploads = request.files.getlist("file")
    if len(uploads) != 1:
        sentence = f"Send exactly one image as the form field 'file'; {len(uploads) or 'none'} came."
        raise Refusal(400, sentence, reason="no_file")
    stored, replayed = take_in(uploads[0], key=headers.idempotency_key)
    answer = documented(stored, query.score)
    said = {"Location": answer.links.self} | ({"Idempotency-Replayed": "true"} if replayed else {})
    return answer, 201, said


@blueprint.get("/predictions")
@blueprint.input(HistoryQuery, location="query", arg_name="query")
@blueprint.output(PageDocument, description="one page, newest first")
@blueprint.doc(responses=errors())
def history(query: HistoryQuery) -> PageDocument:
    """List results: one's own, of everybody for an administrator."""
    found, total = rooms().store.results.page(wanted_by(query), page=query.page, per_page=query.per_page)
    return PageDocument(
        results=[documented(stored) for stored in found],
        page=query.page,
        pages=ceil(total / query.per_page),
        per_page=query.per_page,
        total=total,
    )


@blueprint.get("/predictions/<identifier>")
@blueprint.input(ScoreQuery, location="query", arg_name="query")
@blueprint.output(PredictionDocument, description="the result")
@blueprint.doc(responses=errors(404))
def prediction(identifier: str, query: ScoreQuery) -> PredictionDocument:
    """Return a result."""
    return documented(find(identifier), query.score)


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
@blueprint.output(FeedbackDocument, description="what is kept")
@blueprint.doc(responses=errors(403, 404, 409, 415, 422))
def give_feedback(identifier: str, given: FeedbackIn) -> FeedbackDocument:
    """Say of each box whether it is right, what was missed, or that there is no fracture."""
    stored = find(identifier)
    said = checked_feedback(given, stored)
    kept = rooms().store.results.give_feedback(stored.id, said, author=asker().name)
    if kept is None or kept.feedback is None:
        raise Refusal(404, "This result was deleted in the meantime.", reason="not_found")
    return feedback_document(kept.feedback)


@blueprint.get("/model")
@blueprint.output(ModelDocument, description="the detector")
@blueprint.doc(responses=errors())
def model() -> ModelDocument:
    """Say which detector answers."""
    house = rooms()
    facts = house.service.model
    return ModelDocument(
        name=facts.name,
        class_names=list(facts.class_names),
        sha256=facts.sha256,
        operating_score=house.operating_score,
        possible_score=house.possible_score,
        calibrated=facts.calibrated,
        notice=NOTICE,
    )


@probes.get("/healthz")
@probes.output(AliveDocument, description="the process lives")
def healthz() -> AliveDocument:
    """Answer as long as the process lives."""
    return AliveDocument()


@probes.get("/readyz")
@probes.output(ReadyDocument, description="a warm-up prediction has passed")
@probes.doc(responses=errors())
def readyz() -> ReadyDocument:
    """Answer 200 once a warm-up prediction has passed, and while nothing stops it."""
    service = rooms().service
    if not service.ready or current_app.config.get("DRAINING"):
        sentence = "The detector is not ready yet; please try again in a few seconds."
        raise Refusal(503, sentence, reason="not_ready", retry_after_s=3)
    return ReadyDocument(model=service.model.name)


@probes.get("/metrics")
@probes.doc(responses=METRICS)
def metrics() -> Response:
    """Return the counters that Prometheus reads."""
    return Response(rooms().metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


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
    rooms().store.results.delete(stored.id, by=asker().name)


def wanted_by(query: HistoryQuery) -> Wanted:
    """Return the conditions of a history. Raises Refusal for a day that does not exist."""
    days = {name: _day(name, getattr(query, name)) for name in ("since", "until")}
    return Wanted(
        owner=None if asker().is_admin else asker().name,
        finding=query.finding,
        since=None if days["since"] is None else days["since"].timestamp(),
        until=None if days["until"] is None else (days["until"] + timedelta(days=1)).timestamp(),
        text=query.q,
    )


def picture_of(stored: StoredPrediction) -> Any:
    """Return the path of a result's picture. Raises Refusal where it was not kept."""
    if stored.image_path is None:
        raise Refusal(404, "The picture of this result was not kept.", reason="not_found")
    return stored.image_path


def checked_feedback(given: FeedbackIn, stored: StoredPrediction) -> Feedback:
    """Return feedback that fits its result. Raises Refusal for a box that is not there, or outside the image."""
    for box in given.boxes:
        if box.number > len(stored.detections):
            sentence = f"There is no box {box.number}; this result has {len(stored.detections)}."
            raise Refusal(422, sentence, reason="feedback")
    for x0, y0, x1, y1 in given.missed:
        if not (0 <= x0 < x1 <= stored.width and 0 <= y0 < y1 <= stored.height):
            sentence = f"A missed fracture must lie inside the {stored.width} x {stored.height} px of the radiograph."
            raise Refusal(422, sentence, reason="feedback")
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
        raise Refusal(400, f"{name}: there is no day {text}.", reason="bad_request") from error
