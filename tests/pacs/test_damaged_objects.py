"""Damaged objects of every coding by C-STORE: each gets a status, each that was taken an answer, and the node lives."""

import pytest

from tests.pacs.damaged_objects import account, damaged_objects, is_idle, node_with_archive, send_objects
from tests.pacs.programs import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:pydicom")]
OBJECTS = 108  # each coding damaged in each way


def test_every_damaged_object_gets_a_status_and_an_answer(tmp_path):
    with node_with_archive(tmp_path) as node:
        objects = list(damaged_objects(OBJECTS, seed=1, folder=tmp_path))
        statuses = send_objects(node.port, objects, tmp_path, associations=4)
        wait_for(lambda: is_idle(node), "an empty queue", 600)
        outcome = account(node, statuses)
        assert node.get("/readyz") == "ready\n"
    assert len(statuses) == OBJECTS
    assert outcome.unaccounted == []
    assert set(outcome.statuses) <= {0x0000, 0xA900, 0xC000}
    assert outcome.statuses[0] >= OBJECTS // 2
    assert outcome.statuses[0xC000] > 0
    kinds = {said.partition(":")[0] for said in outcome.said}
    assert {"analysed", "not analysed"} <= kinds
    log = node.log.read_text()
    assert "Traceback" not in log
    assert "seed" not in log.lower().replace("tests.", "")
