"""The JSON API, version 1, with its OpenAPI description, health probes and metrics. docs/api.md introduces it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from math import ceil
from typing import Any

from apiflask import APIBlueprint
from flask import Blueprint, Response, current_app, jsonify, request, send_file

from fracture_det.inference.service import overlay_png

from .auth import current_account, limit_uploads, sees_everything
from .context import app_context
from .errors import RETRY_AFTER_S, RequestError
from .fracture_types import listed_types
from .presentation import NOTICE, comparison_schema, overlay_caption
from .schemas import (
    AliveSchema,
    ErrorSchema,
    HistoryQuery,
    ModelSchema,
    OverlayQuery,
    PageSchema,
    PredictionSchema,
    ReadySchema,
    ScoreQuery,
    ShadowSchema,
    UploadHeaders,
    UploadQuery,
)
from .store import HistoryFilter, StoredPrediction
from .uploads import BUSY, ONE_IMAGE, drawing_slot, find_result, handle_upload, response_schema, sent_files

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
                "properties": {"file": {"type": "string", "format": "binary", "description": "one JPEG, PNG or DICOM"}},
            }
        }
    },
}
METRICS: Any = {"200": {"description": "counters", "content": {"text/plain": {"schema": {"type": "string"}}}}}
ERROR_DESCRIPTIONS = {
    400: "malformed request",
    401: "neither logged in nor a valid token",
    403: "sent by a page of another site; not allowed to this account",
    404: "no such result, or it is somebody else's, or it has expired",
    409: "somebody else has logged in in this browser since the page was loaded",
    413: "too many bytes or pixels",
    415: "neither JPEG, PNG nor a DICOM radiograph; a body of an undocumented type",
    422: "empty, damaged or contradictory; not a radiograph of a limb (with `reason`)",
    429: "too many requests; see Retry-After",
    500: "the detector or the server failed; this says nothing about the radiograph",
    503: "busy, starting, stopping, or results cannot be stored; see Retry-After",
}


def errors(*statuses: int) -> Any:
    """Return the OpenAPI responses for the errors of an operation: the common statuses and `statuses`."""
    all_statuses = sorted({400, 401, 500, 503, *statuses})
    schema = ErrorSchema.model_json_schema()
    return {
        str(status): {"description": ERROR_DESCRIPTIONS[status], "content": {"application/json": {"schema": schema}}}
        for status in all_statuses
    }


def png(text: str, *statuses: int) -> Any:
    """Return the OpenAPI responses of an operation that returns an image."""
    binary = {"type": "string", "format": "binary"}
    return {"200": {"description": text, "content": {"image/png": {"schema": binary}}}, **errors(*statuses)}


@blueprint.before_request
def require_json_object() -> None:
    """Reject a PUT whose body is not a JSON object; APIFlask would take a missing body for an empty one."""
    if request.method == "PUT" and not request.is_json:
        raise RequestError(415, "Send a JSON document, with Content-Type: application/json.", reason="invalid")
    try:
        is_object = request.method != "PUT" or isinstance(request.get_json(silent=True), dict)
    except RecursionError:  # deeply nested brackets
        is_object = False
    if not is_object:
        raise RequestError(400, "The body is not a JSON object.", reason="invalid")


def no_content(*statuses: int) -> Any:
    """Return the OpenAPI responses of an operation that deletes."""
    return {"204": {"description": "deleted"}, **errors(*statuses)}


@blueprint.post("/predictions")
@blueprint.input(UploadQuery, location="query", arg_name="query")
@blueprint.input(UploadHeaders, location="headers", arg_name="headers")
@blueprint.output(PredictionSchema, status_code=201, description="the result; `Location` is its address")
@blueprint.doc(responses=errors(403, 409, 413, 415, 422, 429), extensions={"requestBody": UPLOAD_BODY})
def create_prediction(query: UploadQuery, headers: UploadHeaders) -> tuple[PredictionSchema, int, dict[str, str]]:
    """Analyse a radiograph."""
    limit_uploads()
    if app_context().service.full and headers.idempotency_key is None:  # before the form is parsed, which costs more
        raise RequestError(503, BUSY, reason="busy", retry_after_s=RETRY_AFTER_S)
    uploads = sent_files()
    if len(uploads) > 1:
        raise RequestError(400, f"{ONE_IMAGE} got {len(uploads)}.", reason="no_file")
    stored, replayed = handle_upload(uploads[0], key=headers.idempotency_key, force=query.force)
    result = response_schema(stored, query.score)
    headers_out = {"Location": result.links.self} | ({"Idempotency-Replayed": "true"} if replayed else {})
    return result, 201, headers_out


@blueprint.get("/predictions")
@blueprint.input(HistoryQuery, location="query", arg_name="query")
@blueprint.output(PageSchema, description="one page, newest first")
@blueprint.doc(responses=errors())
def history(query: HistoryQuery) -> PageSchema:
    """List the results that you may see, newest first."""
    results, total = app_context().store.results.page(history_filter(query), page=query.page, per_page=query.per_page)
    return PageSchema(
        results=[response_schema(stored) for stored in results],
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
    return response_schema(find_result(identifier), query.score)


@blueprint.delete("/predictions/<identifier>")
@blueprint.doc(responses=no_content(403, 404, 409))
def delete_prediction(identifier: str) -> tuple[str, int]:
    """Delete a result with its image and readings."""
    delete_result(find_result(identifier))
    return "", 204


@blueprint.get("/predictions/<identifier>/image.png")
@blueprint.doc(responses=png("the radiograph as it was analysed: upright, 8 bits, without metadata", 404))
def image(identifier: str) -> Response:
    """Return the radiograph."""
    return send_file(image_path_of(find_result(identifier)), mimetype="image/png")


@blueprint.get("/predictions/<identifier>/samples.png")
@blueprint.doc(responses=png("its samples: grey, 16 bits, upright, without metadata", 404))
def samples(identifier: str) -> Response:
    """Return the samples of a grey radiograph of more than 8 bits."""
    path = find_result(identifier).samples_path
    if path is None:
        message = "There are no further samples: the image has 8 bits, is in colour, or was not kept."
        raise RequestError(404, message, reason="not_found")
    return send_file(path, mimetype="image/png")


@blueprint.get("/predictions/<identifier>/overlay.png")
@blueprint.input(OverlayQuery, location="query", arg_name="query")
@blueprint.doc(responses=png("the radiograph with numbered boxes", 404))
def overlay(identifier: str, query: OverlayQuery) -> Response:
    """Return the radiograph with its boxes drawn on it."""
    stored = find_result(identifier)
    score = stored.operating_score if query.score is None else query.score
    with drawing_slot():
        drawn = overlay_png(
            image_path_of(stored),
            stored.detections,
            stored.class_names,
            minimum_score=score,
            longest_px=query.longest_px,
            caption=overlay_caption(stored),
        )
    return Response(drawn, mimetype="image/png")


@blueprint.get("/model")
@blueprint.output(ModelSchema, description="the detector")
@blueprint.doc(responses=errors())
def model() -> ModelSchema:
    """Describe the detector in use."""
    context = app_context()
    facts = context.service.info
    return ModelSchema(
        name=facts.name,
        class_names=list(facts.class_names),
        sha256=facts.sha256,
        version=facts.version,
        problem=context.problem,
        operating_score=context.operating_score,
        possible_score=context.possible_score,
        calibrated=facts.calibrated,
        type_names=list(facts.type_names),
        type_confidence=facts.type_confidence,
        type_accuracy=facts.type_accuracy,
        types=listed_types(),
        notice=NOTICE,
    )


@blueprint.get("/shadow")
@blueprint.output(ShadowSchema, description="one comparison for each pair of versions")
@blueprint.doc(responses=errors(403))
def shadow() -> ShadowSchema:
    """Compare shadows with the versions that they ran beside; for administrators."""
    if not current_account().is_admin:
        raise RequestError(403, "Only an administrator may see what a shadow said.", reason="role")
    return ShadowSchema(comparisons=[comparison_schema(one) for one in app_context().store.shadow.comparisons()])


@probes.get("/healthz")
@probes.output(AliveSchema, description="the process is alive")
def healthz() -> AliveSchema:
    """Return 200 as long as the process is alive."""
    return AliveSchema()


@probes.get("/readyz")
@probes.output(ReadySchema, description="a warm-up prediction has passed, and results can be kept")
@probes.doc(responses=errors())
def readyz() -> ReadySchema:
    """Return 200 once a warm-up prediction has passed, while the detector responds and results can be kept."""
    service = app_context().service
    if not service.ready or current_app.config.get("DRAINING"):
        message = "The detector is not ready yet; please try again in a few seconds."
        raise RequestError(503, message, reason="not_ready", retry_after_s=3)
    problem = app_context().store.problem
    if problem is not None:
        raise RequestError(503, f"Results cannot be kept: {problem}.", reason="not_ready", retry_after_s=RETRY_AFTER_S)
    return ReadySchema(model=service.info.name, version=service.info.version, problem=app_context().problem)


@probes.get("/metrics")
@probes.doc(responses=METRICS)
def metrics() -> Response:
    """Return the metrics in the format of Prometheus."""
    return Response(app_context().metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


def require_bodies(spec: Any) -> Any:
    """Mark request bodies as required in the OpenAPI description, which APIFlask leaves out."""
    for operations in spec["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
    return spec


@description.get("/api/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI 3.1 description, whose server is the URL prefix under which it was asked for."""
    spec: dict[str, Any] = current_app.spec  # type: ignore[attr-defined]
    return jsonify(spec | {"servers": [{"url": request.script_root or "/"}]})


def delete_result(stored: StoredPrediction) -> None:
    """Delete a result on behalf of the current account. Raises RequestError with 403 where it is somebody else's."""
    if not may_delete(stored):
        raise RequestError(403, "Only its owner or an administrator can delete this result.", reason="owner")
    app_context().store.results.delete(stored.id, by=current_account().name)


def may_delete(stored: StoredPrediction) -> bool:
    """Return whether the current account may delete a result: its own, and an administrator any."""
    return current_account().is_admin or stored.owner == current_account().name


def history_filter(query: HistoryQuery) -> HistoryFilter:
    """Return the filter of a history query. Raises RequestError for a day that does not exist."""
    days = {name: _day(name, getattr(query, name)) for name in ("since", "until")}
    account = current_account()
    return HistoryFilter(
        owner=None if sees_everything(account) else account.name,
        reader=None if account.can_settle else account.name,
        finding=query.finding,
        since=None if days["since"] is None else days["since"].timestamp(),
        until=None if days["until"] is None else (days["until"] + timedelta(days=1)).timestamp(),
        text=query.q,
    )


def image_path_of(stored: StoredPrediction) -> Any:
    """Return the path of a result's image. Raises RequestError with 404 where it was not kept."""
    if stored.image_path is None:
        raise RequestError(404, "The image of this result was not kept.", reason="not_found")
    return stored.image_path


def _day(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        day + timedelta(days=1)  # fails on the last day that datetime knows
        return day
    except (ValueError, OverflowError) as error:
        raise RequestError(400, f"{name}: there is no day {text}.", reason="bad_request") from error
