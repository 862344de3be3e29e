"""Error responses: one JSON shape for the API, an HTML page for browsers, messages for a clinician."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from apiflask import HTTPError
from flask import Flask, Response, current_app, jsonify, render_template, request
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Response as AnyResponse

from .private_logs import where
from .security_headers import HEADERS
from .store import StoreUnavailable

JSON_PATHS = ("/api/", "/healthz", "/readyz", "/metrics")
# How much of a rejected body, as a multiple of the limit, and how long is read before the connection is closed.
DRAIN_FACTOR, DRAIN_S = 8, 20.0
MESSAGES = {
    400: "The request could not be understood.",
    404: "There is no such page or result. Results are deleted after {kept_for}.",
    405: "This address does not accept this kind of request.",
    413: "The upload is larger than {megabytes:g} MB, which is the limit. Please export a smaller image.",
    429: "There were too many requests; please wait a moment.",
    500: "Something failed on the server, so there is no result for this radiograph; please try again.",
}
STORE_FAILED = (
    "The server cannot store results at the moment, so there is no result for this radiograph; please try again."
)
RETRY_AFTER_S = 3


class RequestError(Exception):
    """A request that is rejected, with an HTTP status and a message that a clinician understands.

    reason: one word, the label in the metrics. details: further fields of the JSON.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        retry_after_s: int | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.reason, self.retry_after_s = status, message, reason, retry_after_s
        self.details = dict(details or {})


def register(app: Flask) -> None:
    """Register the error handlers of `app`, and what is done with every response."""
    app.register_error_handler(RequestError, _handle_request_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(HTTPError, _handle_validation_error)
    app.register_error_handler(StoreUnavailable, _handle_store_error)
    for broken_body in (ParseException, NoMoreData):
        app.register_error_handler(broken_body, _handle_broken_body)
    app.register_error_handler(Exception, _handle_unexpected_error)
    app.after_request(_finish)


def _handle_request_error(error: RequestError) -> Response:
    _count(error.reason)
    return _error_response(error.status, error.message, error.retry_after_s, error.details)


def _handle_validation_error(error: HTTPError) -> Response:
    """Name the first invalid field and the reason."""
    _count("invalid")
    locations: dict[str, dict[str, list[str]]] = error.detail if isinstance(error.detail, dict) else {}
    fields = next(iter(locations.values()), {})
    field, reasons = next(iter(fields.items()), ("_schema", [error.message or "The request cannot be understood"]))
    prefix = "" if field == "_schema" else f"{field}: "
    return _error_response(error.status_code, f"{prefix}{reasons[0].removeprefix('Value error, ')}.")


def _handle_store_error(error: StoreUnavailable) -> Response:
    current_app.logger.error("The store failed at %s %s: %s", request.method, request.url_rule, error)
    _count("store")
    return _error_response(503, STORE_FAILED, RETRY_AFTER_S)


def _handle_broken_body(_error: ParseException | NoMoreData) -> Response:
    """The body came in chunks that contradict themselves, or ended too early; gunicorn finds out while it is read."""
    _count("bad_request")
    return _error_response(400, MESSAGES[400])


def _count(reason: str) -> None:
    current_app.extensions["fracture"].metrics.reject(reason)


def _handle_http_error(error: HTTPException) -> Response | AnyResponse:
    if error.code is None or error.code < 400:  # a redirect
        return error.get_response()
    if isinstance(error, SecurityError):  # an unknown host name, for which url_for cannot make the links of a page
        return Response("This server does not serve that host name.\n", 400, mimetype="text/plain")
    _count(error.name.lower().replace(" ", "_"))
    settings = current_app.extensions["fracture"].settings
    message = MESSAGES.get(error.code, f"The server rejected the request ({error.name}).")
    message = message.format(kept_for=settings.kept_for, megabytes=settings.max_upload_mb)
    if error.code == 413:
        message = _other_limit() or message
    response = _error_response(error.code, message)
    if error.code == 405 and (allowed := getattr(error, "valid_methods", None)):
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _other_limit() -> str | None:
    """Return which limit a 413 is about where it is not the largest upload: the parts of a form, or a smaller form."""
    limit, length = request.max_content_length, request.content_length
    if limit is not None and length is not None and length <= limit:
        return f"The form has more than {request.max_form_parts} parts, which is the limit."
    if limit is not None and limit < current_app.config["MAX_CONTENT_LENGTH"]:
        return f"The form is larger than {limit // 1024} kB, which is the limit."
    return None


def _handle_unexpected_error(error: Exception) -> Response:
    _count("crash")
    current_app.logger.error("A request failed: %s %s: %s", request.method, request.url_rule, where(error))
    return _error_response(500, MESSAGES[500])


def _error_response(
    status: int, message: str, retry_after_s: int | None = None, details: Mapping[str, object] | None = None
) -> Response:
    if request.path.startswith(JSON_PATHS):
        response = jsonify(ok=False, error=message, status=status, **(details or {}))
    else:
        response = current_app.make_response(render_template("error.html", status=status, message=message))
    response.status_code = status
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def drain_body() -> None:
    """Read the rest of the body: a client cut off while it sends would see a network error instead of the response."""
    stream = request.environ["wsgi.input"]
    left, deadline = DRAIN_FACTOR * int(current_app.config["MAX_CONTENT_LENGTH"]), time.monotonic() + DRAIN_S
    with suppress(ParseException, OSError):  # broken chunks, or a client that has gone
        while left > 0 and time.monotonic() < deadline and (chunk := stream.read(min(left, 65_536))):
            left -= len(chunk)


def _finish(response: Response) -> Response:
    if response.status_code >= 400:
        drain_body()
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    current_app.extensions["fracture"].metrics.request(request.method, request.endpoint, response.status_code)
    return response
