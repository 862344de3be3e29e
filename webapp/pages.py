"""The pages for people. They work without JavaScript; with it, the upload page shows progress and a viewer."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, render_template, request
from markdown_it import MarkdownIt
from markupsafe import Markup
from werkzeug.datastructures import FileStorage

from webapp.api import asked_score
from webapp.findings import FLOOR_SCORE, NOTICE, document
from webapp.intake import find, rooms, take_in
from webapp.refusals import Refusal

blueprint = Blueprint("pages", __name__)


@blueprint.app_context_processor
def every_page() -> dict[str, Any]:
    """Name the model and the limits on every page."""
    house = rooms()
    return {"model": house.service.model, "settings": house.settings, "notice": NOTICE}


@blueprint.get("/")
def upload() -> str:
    """Show the upload page."""
    house = rooms()
    return render_template(
        "upload.html", operating_score=house.operating_score, possible_score=house.possible_score, floor=FLOOR_SCORE
    )


@blueprint.post("/")
def upload_form() -> tuple[str, int]:
    """Answer the plain form: each file with its own result or its own refusal."""
    uploads = [file for file in request.files.getlist("file") if file.filename]
    if not uploads:
        raise Refusal(400, "No file was chosen. Please choose a JPEG or PNG image.")
    outcomes = [_outcome(file) for file in uploads]
    analysed = [outcome for outcome in outcomes if "result" in outcome]
    return render_template("outcomes.html", outcomes=outcomes), 200 if analysed else outcomes[0]["status"]


@blueprint.get("/results/<identifier>")
def result(identifier: str) -> str:
    """Show one stored result."""
    stored = find(identifier)
    return render_template("result.html", result=document(stored, asked_score(stored.operating_score)))


@blueprint.get("/model")
def model() -> str:
    """Show the model card."""
    card = rooms().service.model.card
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else None
    # Without HTML and pictures the card can neither script the page nor make it fetch anything.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return render_template("model.html", card=None if text is None else Markup(markdown.render(text)))


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Return the icon to browsers that do not read the page's link."""
    return current_app.send_static_file("favicon.svg")


def _outcome(file: FileStorage) -> dict[str, Any]:
    # The name goes back to the one who sent it, and nowhere else.
    name = file.filename
    try:
        stored = take_in(file)
    except Refusal as refusal:
        return {"name": name, "sentence": refusal.sentence, "status": refusal.status}
    return {"name": name, "result": document(stored, stored.operating_score)}
