"""A client of the app with the bright-rectangles detector and a store of its own."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
from tests.webapp.bright import CARD, BrightRectangles, BrightServer, dark_plate, start_bright
from webapp import create_app
from webapp.context import AppContext
from webapp.settings import Settings

LIKELY = (20, 30, 60, 50, 230)  # score .90
POSSIBLE = (90, 60, 120, 100, 80)  # score .31
WEAK = (130, 10, 140, 20, 38)  # score .15


def encoded(plate: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return the file of an array, or of an image in any mode."""
    buffer = io.BytesIO()
    image = plate if isinstance(plate, Image.Image) else Image.fromarray(plate)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def changed(settings: Settings, **changes: object) -> Settings:
    """Return `settings` with some changes, checked anew."""
    return Settings(**settings.model_dump() | changes)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the variables of whoever runs the tests out of them."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRACTURE_{name.upper()}", raising=False)


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
    app_context: AppContext = made.extensions["fracture"]
    app_context.store.close()


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
    match = re.search(r'name="csrf-token" content="([^"]+)"', client.get(path).text)
    assert match is not None
    return match[1]


@dataclass(frozen=True)
class RunningServer(BrightServer):
    """A server with its data in `folder`."""

    folder: Path

    @property
    def first_lines(self) -> list[str]:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningServer]]:
    """Start servers on free ports with their data in a given folder; they are stopped at the end."""
    with ExitStack() as running:

        def start(folder: Path, *, detector: str = "bright:0", **variables: str) -> RunningServer:
            variables = {"FRACTURE_DATA_DIR": str(folder)} | variables
            bright = start_bright(tmp_path_factory.mktemp("server"), detector=detector, **variables)
            return RunningServer(**vars(running.enter_context(bright)), folder=folder)

        yield start


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with _mounted(["-t", "tmpfs", "-o", "size=4m", "none"], folder):
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only, even for root."""
    with _mounted(["--bind", str(folder)], folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield


@contextmanager
def _mounted(what: list[str], folder: Path) -> Iterator[None]:
    command = ["mount", *what, str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount anything here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte and return the file to delete."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler
