"""The application factory: settings, blueprints, detector and store."""

from __future__ import annotations

import io
import logging
import threading
from dataclasses import replace
from typing import IO

from apiflask import APIFlask
from flask import Request, request

from fracture_det.inference.service import PredictionService

from . import api, auth, errors, login, pages, reading_api
from .context import AppContext, IdempotencyKeys
from .metrics import Metrics
from .served import Follower, followed_registry, open_service
from .settings import Settings
from .shadow import Shadow
from .store import Store
from .uploads import MAX_DRAWINGS
from .watch import open_watch

# Allowance for the multipart form around its file.
FORM_OVERHEAD_BYTES = 64 * 1024


class MemoryRequest(Request):
    """A request whose uploads stay in memory, so that no file is written to disk as the client sent it."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


class FractureApp(APIFlask):
    """The app: uploads in memory, its API described in OpenAPI 3.1."""

    request_class = MemoryRequest


def create_app(
    config: Settings | None = None, *, predictor: PredictionService | None = None, loopback: bool = True
) -> FractureApp:
    """Return the app, with `config` or the FRACTURE_* variables as its settings.

    Without a `predictor` the detector of the settings is opened and warmed up; under a server with worker processes
    call this after the fork. loopback: whether only this machine can reach it; then only local host names are served.

    Raises SettingsError, StoreError, DetectorError or DetectorFailed.
    """
    settings = Settings.from_environ() if config is None else config
    logging.getLogger("PIL").setLevel(logging.WARNING)  # its debug messages include EXIF data, which may name a patient
    store = open_store(settings)
    service = open_service(settings) if predictor is None else predictor
    # APIFlask's own documentation pages would load scripts from other sites.
    app = FractureApp(__name__, title="fracture_det", version="1.0", docs_path=None, spec_path=None, json_errors=False)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
        MAX_FORM_PARTS=50,
        # An image that comes as a text part is read like any other, so that the response can say what is wrong with it.
        MAX_FORM_MEMORY_SIZE=settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
        AUTO_404_RESPONSE=False,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
        AUTO_SERVERS=False,
        VALIDATION_ERROR_STATUS_CODE=400,
        DESCRIPTION=api.__doc__,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.spec_processor(api.require_bodies)
    drawing = threading.BoundedSemaphore(MAX_DRAWINGS)
    watch = open_watch(settings, service.info, store.watch)
    metrics = Metrics(service, watch)
    context = AppContext(settings, service, store, metrics, IdempotencyKeys(), drawing, watch)
    app.extensions["fracture"] = context if predictor is not None else _following(context)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    errors.register(app)
    auth.register(app, settings, loopback=loopback)
    blueprints = (api.blueprint, reading_api.blueprint, api.probes, api.description, login.blueprint, pages.blueprint)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    # API requests carry a token or come from our own pages; auth checks their origin.
    for blueprint in (api.blueprint, reading_api.blueprint):
        auth.csrf.exempt(blueprint)
    app.before_request(lambda: None if request.blueprint == "probes" else store.results.sweep_if_due())
    store.results.sweep_if_due()
    return app


def _following(context: AppContext) -> AppContext:
    """Return the context with what follows the registry and runs its shadow, where the detector is of a registry."""
    registry, metrics = followed_registry(context.settings), context.metrics
    if registry is None:
        return context
    shadow = Shadow(registry, context.store, metrics, context.settings)
    follower = Follower(
        registry,
        context.service,
        context.settings,
        on_swap=metrics.swap,
        on_states=lambda states: shadow.use(states.shadow),
    )
    metrics.follow(follower)
    follower.start()
    return replace(context, follower=follower, shadow=shadow)


def open_store(settings: Settings) -> Store:
    """Open the store of `settings`. Raises StoreError."""
    return Store(
        settings.data_dir,
        url=settings.database_url,
        retention_days=settings.retention_days,
        feedback_days=settings.feedback_days,
        keep_images=settings.keep_images,
        audit_folder=settings.audit_dir,
        audit_key=settings.audit_key,
    )
