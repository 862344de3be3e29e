"""Every response that is not a result: one error shape, sentences for a clinician."""

from __future__ import annotations

import time

from apiflask import HTTPError
from flask import Flask, Response, current_app, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Response as AnyResponse

from .security_headers import HEADERS
from .store import StoreUnavailable

JSON_PATHS = ("/api/", "/healthz", "/readyz", "/metrics")
# What a sender may still push after a refusal before the connection is cut.
DRAIN_FACTOR, DRAIN_S = 8, 20.0
SENTENCES = {
    400: "The request could not be understood.",
    404: "There is no such page or result. Results are deleted after {kept_for}.",
    405: "This address does not accept that kind of request.",
    413: "The upload is larger than {megabytes:g} MB, which is the limit. Please export a smaller image.",
    429: "There were too many requests; please wait a little.",
    500: "Something failed on the server. Nothing was concluded about the radiograph; please try again.",
}
NOT_KEPT = "The server cannot keep results at the moment. Nothing was concluded about the radiograph; please try again."
RETRY_AFTER_S = 3


class RequestError(Exception):
    """An upload or a question that gets no result: an HTTP status and a sentence that a clinician understands.

    `reason` is one word for the metrics.
    """

    def __init__(self, status: int, sentence: str, *, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason, self.retry_after_s = status, sentence, reason, retry_after_s


def register(app: Flask) -> None:
    """Give `app` its error handlers and the headers of every answer."""
    app.register_error_handler(RequestError, _answer_refusal)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(HTTPError, _answer_invalid)
    app.register_error_handler(StoreUnavailable, _answer_store)
    app.register_error_handler(Exception, _answer_crash)
    app.after_request(_add_headers)


def _answer_refusal(refusal: RequestError) -> Response:
    _count(refusal.reason)
    return _answer(refusal.status, refusal.sentence, refusal.retry_after_s)


def _answer_invalid(error: HTTPError) -> Response:
    """Name the first field that is wrong, and say why."""
    _count("invalid")
    places: dict[str, dict[str, list[str]]] = error.detail if isinstance(error.detail, dict) else {}
    fields = next(iter(places.values()), {})
    field, reasons = next(iter(fields.items()), ("_schema", [error.message or "The request cannot be understood"]))
    where = "" if field == "_schema" else f"{field}: "
    return _answer(error.status_code, f"{where}{reasons[0].removeprefix('Value error, ')}.")


def _answer_store(error: StoreUnavailable) -> Response:
    current_app.logger.error("The store failed at %s %s: %s", request.method, request.url_rule, error)
    _count("store")
    return _answer(503, NOT_KEPT, RETRY_AFTER_S)


def _count(reason: str) -> None:
    current_app.extensions["fracture"].metrics.reject(reason)


def _answer_http(error: HTTPException) -> Response | AnyResponse:
    if error.code is None or error.code < 400:  # a redirect
        return error.get_response()
    if isinstance(error, SecurityError):  # a foreign host name: no page can be made, since addresses cannot be
        return Response("This server does not answer to that name.\n", 400, mimetype="text/plain")
    if error.code == 413:
        drain()
    _count(error.name.lower().replace(" ", "_"))
    settings = current_app.extensions["fracture"].settings
    sentence = SENTENCES.get(error.code, f"The server refused the request ({error.name}).")
    sentence = sentence.format(kept_for=settings.kept_for, megabytes=settings.max_upload_mb)
    response = _answer(error.code, sentence)
    if error.code == 405 and (allowed := getattr(error, "valid_methods", None)):
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _answer_crash(error: Exception) -> Response:
    _count("crash")
    current_app.logger.error("A request failed: %s %s", request.method, request.url_rule, exc_info=error)
    return _answer(500, SENTENCES[500])


def _answer(status: int, sentence: str, retry_after_s: int | None = None) -> Response:
    if request.path.startswith(JSON_PATHS):
        response = jsonify(ok=False, error=sentence, status=status)
    else:
        response = current_app.make_response(render_template("refusal.html", status=status, sentence=sentence))
    response.status_code = status
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def drain() -> None:
    """Read on for a while: a browser that is cut off while it sends shows a broken line and not our sentence."""
    stream = request.environ["wsgi.input"]
    left = DRAIN_FACTOR * int(current_app.config["MAX_CONTENT_LENGTH"])
    if request.content_length is None or request.content_length > left:
        return
    left, deadline = request.content_length, time.monotonic() + DRAIN_S
    while left > 0 and time.monotonic() < deadline and (chunk := stream.read(min(left, 65_536))):
        left -= len(chunk)


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    current_app.extensions["fracture"].metrics.request(request.method, request.endpoint, response.status_code)
    return response
