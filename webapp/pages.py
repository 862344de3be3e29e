"""The pages for people. They work without JavaScript; with it, the upload page shows progress and a viewer."""

from __future__ import annotations

from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, g, redirect, render_template, request, url_for
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as AnyResponse

from .api import picture_of, remove, wanted_by
from .auth import limit_rate
from .context import app_context
from .errors import RequestError
from .pdf import facts, report_pdf
from .presentation import FINDINGS, NOTICE, percent
from .schemas import LONGEST_COMMENT, HistoryQuery, ScoreQuery
from .uploads import drawing, find, handle_upload, response_schema

blueprint = Blueprint("pages", __name__)
Query = TypeVar("Query", bound=BaseModel)


@blueprint.app_context_processor
def every_page() -> dict[str, Any]:
    """Name the model, the limits and who asks on every page."""
    house = app_context()
    return {
        "model": house.service.info,
        "settings": house.settings,
        "notice": NOTICE,
        "asker": g.get("account"),
        "longest_comment": LONGEST_COMMENT,
    }


blueprint.add_app_template_filter(percent)


@blueprint.get("/")
def upload() -> str:
    """Show the upload page."""
    house = app_context()
    return render_template(
        "upload.html",
        operating_score=house.operating_score,
        possible_score=house.possible_score,
    )


@blueprint.post("/")
def upload_form() -> tuple[str, int]:
    """Answer the plain form: each file with its own result or its own refusal."""
    uploads = [file for file in request.files.getlist("file") if file.filename]
    if not uploads:
        raise RequestError(400, "No file was chosen. Please choose a JPEG or PNG image.", reason="no_file")
    outcomes = [_outcome(file) for file in uploads]
    analysed = [outcome for outcome in outcomes if "result" in outcome]
    return render_template("outcomes.html", outcomes=outcomes), 200 if analysed else outcomes[0]["status"]


@blueprint.get("/results/<identifier>")
def result(identifier: str) -> str:
    """Show one stored result."""
    return render_template("result.html", result=response_schema(find(identifier), _asked(ScoreQuery).score))


@blueprint.post("/results/<identifier>/delete")
def delete(identifier: str) -> AnyResponse:
    """Delete a result; the way of the plain form."""
    remove(find(identifier))
    return redirect(url_for("pages.history"))


@blueprint.get("/results/<identifier>/report")
def report(identifier: str) -> str:
    """Show a report to be printed."""
    page = response_schema(find(identifier), _asked(ScoreQuery).score)
    return render_template("report.html", result=page, facts=facts(page))


@blueprint.get("/results/<identifier>/report.pdf")
def report_file(identifier: str) -> Response:
    """Return the report as a PDF."""
    stored = find(identifier)
    page = response_schema(stored, _asked(ScoreQuery).score)
    with drawing():
        content = report_pdf(page, picture_of(stored), stored)
    named = {"Content-Disposition": f'inline; filename="fracture-report-{stored.id[:8]}.pdf"'}
    return Response(content, mimetype="application/pdf", headers=named)


@blueprint.get("/history")
def history() -> str:
    """Show what was analysed, newest first."""
    query = _asked(HistoryQuery)
    found, total = app_context().store.results.page(wanted_by(query), page=query.page, per_page=query.per_page)
    return render_template(
        "history.html",
        results=[(stored.owner, response_schema(stored)) for stored in found],
        total=total,
        pages=-(-total // query.per_page),
        query=query,
        findings=FINDINGS,
    )


@blueprint.get("/model")
def model() -> str:
    """Show the model card."""
    card = app_context().service.info.card
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else None
    # Without HTML and pictures the card can neither script the page nor make it fetch anything.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return render_template("model.html", card=None if text is None else Markup(markdown.render(text)))  # nosec


@blueprint.get("/api")
def api_documentation() -> str:
    """Show the API's description for people."""
    return render_template("api.html", spec=current_app.spec)  # type: ignore[attr-defined]


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Return the icon to browsers that do not read the page's link."""
    return current_app.send_static_file("favicon.svg")


def _asked(kind: type[Query]) -> Query:
    try:
        return kind.model_validate({name: value for name, value in request.args.items() if value})
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(
            400, f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}.", reason="invalid"
        ) from error


def _outcome(file: FileStorage) -> dict[str, Any]:
    # The name goes back to the one who sent it, and nowhere else.
    name = file.filename
    try:
        limit_rate("uploads", app_context().settings.uploads_per_minute)
        stored, _ = handle_upload(file)
    except RequestError as refusal:
        return {"name": name, "sentence": refusal.sentence, "status": refusal.status}
    return {"name": name, "result": response_schema(stored)}
