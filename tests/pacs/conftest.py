"""A node in this process with the bright-rectangles detector, and its programs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fracture_det.inference.service import PredictionService
from tests.pacs.programs import MllpServer, Orthanc, free_port, wait_for
from tests.webapp.bright import INFO, BrightRectangles
from webapp.pacs.config import PacsConfig
from webapp.pacs.node import Node
from webapp.settings import Settings
from webapp.store.pacs_status import QueueStatus


def plate(level=230, size=(120, 160)):
    """Return a dark plate with one bright rectangle, at (20, 30) to (60, 50); its score is level / 255."""
    pixels = np.full(size, 5, np.uint8)
    pixels[30:50, 20:60] = level
    return pixels


@dataclass
class Running:
    """A node that runs in this process."""

    node: Node
    config: PacsConfig
    settings: Settings
    detector: BrightRectangles

    @property
    def port(self):
        return self.node.port

    @property
    def queue(self):
        return self.node.store.pacs

    def status(self) -> QueueStatus:
        return self.node.store.pacs_status.status()

    def results(self):
        """Return {SOP instance UID: what is said of it} of the objects that are done."""
        from sqlalchemy import select

        from webapp.store.models import PacsObjectRow

        with self.node.store._database.reading() as session:
            rows = session.scalars(select(PacsObjectRow))
            return {row.sop_instance_uid: row.result for row in rows if row.state == "done"}

    def settle(self, studies=1, wait_s=60):
        """Wait until so many studies are answered and nothing waits."""

        def is_settled():
            status = self.status()
            idle = status.objects["waiting"] == 0 and status.studies_due == 0
            return idle and status.studies_answered >= studies and self.node.store.pacs_status.unsent() == 0

        wait_for(is_settled, f"{studies} answered studies", wait_s)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRACTURE_{name.upper()}", raising=False)


@pytest.fixture
def start_node(tmp_path):
    """Return a function that starts a node with sections of a configuration; each is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(*, name="node", settings=None, detector=None, destinations=(), peers=None, **values):
            peers = (
                [{"ae_title": "STORESCU", "address": "127.0.0.1", "answer_to": [d["name"] for d in destinations]}]
                if (peers is None)
                else peers
            )
            config = PacsConfig(
                port=free_port(),
                http_port=0,
                **{"quiet_s": 0.2, "first_pause_s": 0.2, "longest_pause_s": 0.5, "idle_s": 5.0, **values},
                peers=peers,
                destinations=destinations,
            )
            settings = settings or Settings(data_dir=tmp_path / name)
            detector = detector or BrightRectangles()
            service = PredictionService(detector)
            service.warm_up()
            node = Node(config, settings, service=service)
            node.start()
            stack.callback(node.stop)
            return Running(node, config, settings, detector)

        yield start


@pytest.fixture
def folder_destination(tmp_path):
    """A FHIR folder: the destination that needs no program."""
    return {"kind": "fhir", "name": "fhir", "folder": tmp_path / "fhir"}


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory):
    running = Orthanc(tmp_path_factory.mktemp("orthanc"))
    yield running
    running.close()


@pytest.fixture
def mllp():
    server = MllpServer()
    yield server
    server.close()


__all__ = ["INFO", "Path"]
