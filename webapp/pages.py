"""The HTML pages. They work without JavaScript; with it, the upload page shows progress and a viewer."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, g, redirect, render_template, request, url_for
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as AnyResponse

from fracture_det.structures.wording import percent

from .adjudication import adjudication_schema
from .api import delete_result, history_filter, image_path_of, may_delete
from .auth import checked_host, current_account, limit_uploads
from .context import app_context
from .errors import RequestError
from .fracture_types import definition_of, leading, listed_types
from .pdf import facts, report_pdf, verdicts_of
from .presentation import FINDING_BY_LEVEL, NOTICE
from .reading_api import require_adjudicator
from .schemas import MAX_COMMENT_LENGTH, MAX_REASON_LENGTH, HistoryQuery, ScoreQuery
from .uploads import drawing_slot, find_result, handle_upload, response_schema, sent_files
from .watch_page import watch_page

blueprint = Blueprint("pages", __name__)
Query = TypeVar("Query", bound=BaseModel)


@blueprint.app_context_processor
def shared_variables() -> dict[str, Any]:
    """Return the variables of every template: the model, the settings, the notice and the account."""
    context = app_context()
    return {
        "model": context.service.info,
        "settings": context.settings,
        "notice": NOTICE,
        "account": g.get("account"),
        "max_comment_length": MAX_COMMENT_LENGTH,
        "max_reason_length": MAX_REASON_LENGTH,
        "listed_types": listed_types(),
    }


blueprint.add_app_template_filter(percent)
blueprint.add_app_template_filter(definition_of)
blueprint.add_app_template_filter(leading)


@blueprint.get("/")
def upload() -> str:
    """Show the upload page."""
    context = app_context()
    return render_template(
        "upload.html",
        operating_score=context.operating_score,
        possible_score=context.possible_score,
    )


@blueprint.post("/")
def upload_form() -> tuple[str, int]:
    """Handle the form without JavaScript: each file gets its own result or error."""
    force = request.form.get("force") == "1"
    outcomes = [_outcome(file, force=force) for file in sent_files()]
    analysed = [outcome for outcome in outcomes if "result" in outcome]
    return render_template("outcomes.html", outcomes=outcomes), 200 if analysed else outcomes[0]["status"]


@blueprint.get("/results/<identifier>")
def result(identifier: str) -> str:
    """Show one stored result."""
    stored = find_result(identifier)
    page = response_schema(stored, _query(ScoreQuery).score)
    return render_template("result.html", result=page, may_delete=may_delete(stored))


@blueprint.post("/results/<identifier>/delete")
def delete(identifier: str) -> AnyResponse:
    """Delete a result; the form for pages without JavaScript."""
    delete_result(find_result(identifier))
    return redirect(url_for("pages.history"))


@blueprint.get("/results/<identifier>/report")
def report(identifier: str) -> str:
    """Show a printable report."""
    page = response_schema(find_result(identifier), _query(ScoreQuery).score)
    return render_template("report.html", result=page, facts=facts(page), verdicts=verdicts_of(page))


@blueprint.get("/results/<identifier>/report.pdf")
def report_file(identifier: str) -> Response:
    """Return the report as a PDF."""
    stored = find_result(identifier)
    page = response_schema(stored, _query(ScoreQuery).score)
    with drawing_slot():
        content = report_pdf(page, image_path_of(stored), stored)
    headers = {"Content-Disposition": f'inline; filename="fracture-report-{stored.id[:8]}.pdf"'}
    return Response(content, mimetype="application/pdf", headers=headers)


@blueprint.get("/history")
def history() -> str:
    """List stored results, newest first."""
    query = _query(HistoryQuery)
    results, total = app_context().store.results.page(history_filter(query), page=query.page, per_page=query.per_page)
    return render_template(
        "history.html",
        results=[(stored.owner, response_schema(stored)) for stored in results],
        total=total,
        pages=-(-total // query.per_page),
        query=query,
        levels=FINDING_BY_LEVEL,
    )


@blueprint.get("/readings")
def readings() -> str:
    """Show what readers disagree on, and how they agree; for adjudicators."""
    require_adjudicator()
    said = adjudication_schema(app_context().store.results.read_by_several(), current_account())
    return render_template("readings.html", said=said)


@blueprint.get("/readings/<identifier>")
def settling(identifier: str) -> str:
    """Show one result with all its readings, to be settled; for adjudicators."""
    require_adjudicator()
    stored = find_result(identifier)
    result, read = response_schema(stored), stored.read
    return render_template("settling.html", result=result, disagreements=read.disagreements)


@blueprint.get("/model")
def model() -> str:
    """Show the model card."""
    card = app_context().service.info.card
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else None
    # Without HTML and images the card can neither run a script nor make the page fetch anything.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    shown = None if text is None else markdown.render(re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE))
    return render_template("model.html", card=None if shown is None else Markup(shown))  # nosec


@blueprint.get("/watch")
def watch() -> str:
    """Show the model over time, of everybody's results; where there is a login, to administrators alone."""
    if not current_account().is_admin:
        raise RequestError(403, "This page is of everybody's results: only an administrator may see it.", reason="role")
    return render_template("watch.html", page=watch_page(app_context().watch.state()))


@blueprint.get("/api")
def api_documentation() -> str:
    """Show the description of the API."""
    # A name that anybody can send is not one to send a token to.
    address = f"{request.scheme}://{checked_host() or 'SERVER'}"
    return render_template("api.html", spec=current_app.spec, address=address)  # type: ignore[attr-defined]


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Return the icon to browsers that ignore the page's link to it."""
    return current_app.send_static_file("favicon.svg")


def _query(kind: type[Query]) -> Query:
    try:
        return kind.model_validate({name: value for name, value in request.args.items() if value})
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(
            400, f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}.", reason="invalid"
        ) from error


def _outcome(file: FileStorage, *, force: bool) -> dict[str, Any]:
    # The file name is shown to its sender and neither stored nor logged.
    name = file.filename
    try:
        limit_uploads()
        stored, _ = handle_upload(file, force=force)
    except RequestError as error:
        return {"name": name, "error": error.message, "status": error.status, "reason": error.details.get("reason")}
    return {"name": name, "result": response_schema(stored)}
