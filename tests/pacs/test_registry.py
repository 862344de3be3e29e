"""The node follows a registry of detectors, as the page does."""

from __future__ import annotations

from tests.pacs.programs import free_port, wait_for
from tests.registry.toys import add_toy, make_registry, serve
from tests.webapp.test_swap import PLATE
from webapp.pacs.config import PacsConfig
from webapp.pacs.node import Node
from webapp.settings import Settings


def test_another_version_takes_over_without_a_restart(tmp_path):
    registry = make_registry(tmp_path)
    first, second = add_toy(registry, 0.9), add_toy(registry, 0.6)
    serve(registry, first)
    peers = [{"ae_title": "STORESCU", "address": "127.0.0.1", "answer_to": []}]
    config = PacsConfig(port=free_port(), http_port=0, peers=peers, destinations=[])
    settings = Settings(detector=f"registry:{registry.folder}", data_dir=tmp_path / "node", suitability=False)
    node = Node(config, settings)
    node.start()
    try:
        assert node.service.predict(PLATE).detector.version == first
        serve(registry, second)
        wait_for(lambda: node.service.info.version == second, "the second version")
        assert node.service.predict(PLATE).detector.version == second
        assert node.problem is None
    finally:
        node.stop()
