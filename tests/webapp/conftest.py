"""A client of the app with the bright-rectangles detector and a store of its own."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from fracture_det.inference.service import PredictionService
from tests.webapp.bright import CARD, BrightRectangles, dark_plate
from webapp import create_app
from webapp.intake import Rooms
from webapp.settings import Settings

ROOT = Path(__file__).parents[2]
LIKELY = (20, 30, 60, 50, 230)  # score .90
POSSIBLE = (90, 60, 120, 100, 80)  # score .31
WEAK = (130, 10, 140, 20, 38)  # score .15


def encoded(plate: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return the file of an array, or of an image in any mode."""
    buffer = io.BytesIO()
    image = plate if isinstance(plate, Image.Image) else Image.fromarray(plate)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "instance", max_upload_mb=1, max_megapixels=1)


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Iterator[PredictionService]:
    card = tmp_path / "card.md"
    card.write_text(CARD, encoding="utf-8")
    with PredictionService(BrightRectangles(card=card), max_pixels=settings.max_pixels) as running:
        yield running


@pytest.fixture
def app(settings: Settings, service: PredictionService) -> Iterator[Flask]:
    made = create_app(settings, predictor=service)
    yield made
    rooms: Rooms = made.extensions["fracture"]
    rooms.store.close()


class ClosingClient(FlaskClient):
    """A client that reads every answer to its end, so that files which the app sends are closed."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, **{"buffered": True} | kwargs)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    app.test_client_class = ClosingClient
    return app.test_client()


@pytest.fixture
def post(client: FlaskClient) -> Callable[..., TestResponse]:
    """Upload bytes, or by default a plate with one likely, one possible and one weak box."""

    def upload(data: bytes | None = None, *, name: str = "doe^john.png", query: str = "") -> TestResponse:
        data = encoded(dark_plate(LIKELY, POSSIBLE, WEAK)) if data is None else data
        # Written by hand, because the test client keeps the temporary file of a large form open.
        head = f'--frame\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--frame--\r\n"
        kind = "multipart/form-data; boundary=frame"
        return client.post(f"/api/v1/predictions{query}", data=body, content_type=kind)

    return upload


def form_token(client: FlaskClient, path: str = "/") -> str:
    """Return the token that a form of the page at `path` carries."""
    found = re.search(r'name="csrf-token" content="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


@dataclass
class RunningServer:
    """`python -m webapp` with the bright-rectangles detector, as a process of its own."""

    process: subprocess.Popen[str]
    address: str
    first_lines: list[str]
    folder: Path


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., RunningServer]]:
    """Start servers on free ports; those still running are stopped at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, *, detector: str = "bright:0", **variables: str) -> RunningServer:
        environ = os.environ | {"FRACTURE_DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1"} | variables
        command = [sys.executable, "-m", "tests.webapp.bright", "--port", "0", "--detector", detector]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(process)
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if found := re.match(r"fracture_det: (http://\S+) \(detector", line):
                return RunningServer(process, found[1], lines, folder)
        raise AssertionError(f"the server ended with code {process.wait()}: {lines}")

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)
