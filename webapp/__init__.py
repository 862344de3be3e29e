"""The upload page and its API."""

from __future__ import annotations

import io
from typing import IO

from flask import Flask, Request

from fracture_det.inference.detector import open_detector
from fracture_det.inference.service import PredictionService
from webapp import api, pages, refusals
from webapp.intake import Rooms
from webapp.settings import Settings
from webapp.store import Store

# Room for the frame of a multipart form around its file.
FORM_FRAME_BYTES = 64 * 1024


class MemoryRequest(Request):
    """A request whose uploads stay in memory: nothing that a client sends is written to disk as it came."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


class FractureApp(Flask):
    """A Flask app with uploads in memory."""

    request_class = MemoryRequest


def create_app(config: Settings | None = None, *, predictor: PredictionService | None = None) -> Flask:
    """Return the app, with `config` or the FRACTURE_* variables as its settings.

    Without a `predictor` the detector that the settings name is opened and warmed up; this belongs after the fork
    of a server's worker.

    Raises SettingsError, StoreError, DetectorError or DetectorFailed.
    """
    settings = Settings.from_environ() if config is None else config
    store = Store(settings.data_dir, retention_hours=settings.retention_hours)
    service = open_service(settings) if predictor is None else predictor
    app = FractureApp(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes + FORM_FRAME_BYTES
    app.config["MAX_FORM_PARTS"] = 50
    app.extensions["fracture"] = Rooms(settings, service, store)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    refusals.register(app)
    for blueprint in (api.blueprint, api.probes, pages.blueprint):
        app.register_blueprint(blueprint)
    app.before_request(store.sweep_if_due)
    store.sweep_if_due()
    return app


def open_service(settings: Settings) -> PredictionService:
    """Open the detector of `settings` and return a service that has passed its warm-up.

    Raises DetectorError or DetectorFailed.
    """
    options = {} if settings.nms_iou is None else {"nms_iou": settings.nms_iou}
    service = PredictionService(
        open_detector(settings.detector, calibration=settings.calibration, **options),
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        queue_size=settings.queue_size,
        max_pixels=settings.max_pixels,
        timeout_s=settings.timeout_s,
    )
    service.warm_up()
    return service
