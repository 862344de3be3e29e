"""The JSON API, version 1, and the two probes. docs/api.md describes it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request, send_file

from fracture_det.inference.service import overlay_png
from webapp.findings import document, parse_score
from webapp.intake import find, rooms, take_in
from webapp.refusals import Refusal

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
probes = Blueprint("probes", __name__)


@blueprint.post("/predictions")
def create_prediction() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Analyse the image in the form field `file`."""
    score = asked_score(rooms().operating_score)
    uploads = request.files.getlist("file")
    if len(uploads) != 1:
        raise Refusal(400, f"Send exactly one image as the form field 'file'; {len(uploads) or 'none'} came.")
    answer = document(take_in(uploads[0]), score)
    return answer, 201, {"Location": answer["links"]["self"]}


@blueprint.get("/predictions/<identifier>")
def prediction(identifier: str) -> dict[str, Any]:
    """Return a stored result."""
    stored = find(identifier)
    return document(stored, asked_score(stored.operating_score))


@blueprint.get("/predictions/<identifier>/image.png")
def image(identifier: str) -> Response:
    """Return the radiograph as it was analysed: upright, 8 bits, without metadata."""
    return send_file(find(identifier).image_path, mimetype="image/png")


@blueprint.get("/predictions/<identifier>/overlay.png")
def overlay(identifier: str) -> Response:
    """Return the radiograph with numbered boxes drawn on it."""
    stored = find(identifier)
    score = asked_score(stored.operating_score)
    drawn = overlay_png(stored.image_path, stored.detections, stored.class_names, minimum_score=score)
    return Response(drawn, mimetype="image/png")


@probes.get("/healthz")
def healthz() -> dict[str, bool]:
    """Answer as long as the process lives."""
    return {"ok": True}


@probes.get("/readyz")
def readyz() -> dict[str, Any]:
    """Answer 200 once a warm-up prediction has passed."""
    service = rooms().service
    if not service.ready:
        raise Refusal(503, "The detector is not ready yet; please try again in a few seconds.", retry_after_s=3)
    return {"ok": True, "model": service.model.name}


def asked_score(default: float) -> float:
    """Return the `score` of the query, or `default`.

    Raises Refusal.
    """
    try:
        return parse_score(request.args.get("score"), default)
    except ValueError as error:
        raise Refusal(400, str(error)) from error
