"""A shadow sees what is uploaded, and its answers are stored, compared and deleted; no reader sees one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from fracture_det.cli.models import main
from tests.webapp.test_swap import add_toy, eventually, make_registry, page, post, serve, two  # noqa: F401
from webapp import shadow as shadows
from webapp.store.accounts import Account


@pytest.fixture
def registry(tmp_path):
    return make_registry(tmp_path)


@pytest.fixture
def beside(two, page):  # noqa: F811
    """A page with the second version in the shadow of the first, its client, its context and their names."""
    registry, first, second = two
    client, context = page
    registry.shadow(second)
    eventually(lambda: context.shadow._version == second)
    return client, context, first, second


def answers(context):
    with context.store._database.reading() as session:
        return [dict(row._mapping) for row in session.execute(text("SELECT * FROM shadow_answers"))]


def counted(client, outcome):
    """Return how many radiographs had this outcome."""
    found = [
        line for line in client.get("/metrics").text.splitlines() if f'shadow_total{{outcome="{outcome}"}}' in line
    ]
    return float(found[0].split()[1]) if found else 0


def test_its_answers_are_stored_and_compared_and_shown_to_nobody(beside):
    client, context, first, second = beside
    results = [post(client).json for _ in range(3)]
    eventually(lambda: len(answers(context)) == 3)
    assert {row["prediction_id"] for row in answers(context)} == {result["id"] for result in results}
    assert {(row["version"], row["finding"]) for row in answers(context)} == {(second, "possible")}
    for path in ("/history", results[0]["links"]["page"], results[0]["links"]["report"], results[0]["links"]["self"]):
        shown = client.get(path).text
        assert (first in shown or path == "/history", second in shown) == (True, False), path
    [comparison] = client.get("/api/v1/shadow").json["comparisons"]
    assert (comparison["shadow"], comparison["served"], comparison["radiographs"]) == (second, first, 3)
    assert comparison["levels"] == [{"served": "likely", "shadow": "possible", "radiographs": 3}]
    assert comparison["boxes"] == {"both": 3, "served": 0, "shadow": 0}
    assert comparison["score_mean"] == pytest.approx((0.6 - 0.9) * 230 / 255, abs=1e-5)
    metrics = eventually(lambda: counted(client, "answered") == 3 and client.get("/metrics").text)
    assert 'fracture_shadow_findings_total{served="likely",shadow="possible"} 3.0' in metrics
    assert 'fracture_shadow_boxes_total{of="both"} 3.0' in metrics


def test_they_are_deleted_with_their_result_by_request_and_by_time(beside):
    client, context, *_ = beside
    deleted, expired, kept = (post(client).json["id"] for _ in range(3))
    eventually(lambda: len(answers(context)) == 3)
    assert client.delete(f"/api/v1/predictions/{deleted}").status_code == 204
    with context.store._database.writing() as session:
        session.execute(text("UPDATE predictions SET created_at = 1 WHERE id = :id"), {"id": expired})
    assert context.store.results.sweep() == 1
    assert [row["prediction_id"] for row in answers(context)] == [kept]


def test_no_answer_outlives_a_result_that_is_deleted_before_it(beside, monkeypatch):
    client, context, *_ = beside
    real = context.store.shadow.add
    monkeypatch.setattr(
        context.store.shadow, "add", lambda *said: context.store.results.delete(said[0], by="x") and real(*said)
    )
    post(client)
    eventually(lambda: counted(client, "deleted") == 1)
    assert answers(context) == []


def test_a_reader_who_is_no_administrator_may_not_ask(page, monkeypatch):  # noqa: F811
    client, _ = page
    monkeypatch.setattr("webapp.api.current_account", lambda: Account("anna", "reader"))
    assert client.get("/api/v1/shadow").status_code == 403


def test_a_crash_of_the_shadow_touches_no_answer(beside, monkeypatch):
    client, context, first, _ = beside
    monkeypatch.setattr(shadows, "RETRY_S", 0.5)
    post(client)
    eventually(lambda: len(answers(context)) == 1)
    os.kill(context.shadow._process.pid, signal.SIGKILL)
    assert (post(client).status_code, post(client).json["model_version"]) == (201, first)
    eventually(lambda: counted(client, "failed") == 1)
    before = len(answers(context))
    eventually(lambda: post(client).status_code == 201 and len(answers(context)) > before)  # it was started again


def test_a_shadow_that_cannot_be_opened_touches_no_answer(two, page):  # noqa: F811
    registry, first, second = two
    client, context = page
    registry.shadow(second)
    (registry.path_of(second) / "MODEL_CARD.md").write_text("")
    eventually(lambda: context.shadow._version == second)
    assert post(client).json["model_version"] == first
    eventually(lambda: counted(client, "failed") == 1)
    assert post(client).status_code == 201
    assert (counted(client, "dropped"), answers(context)) == (1, [])


def test_a_shadow_that_is_behind_drops_and_says_so(beside):
    client, context, *_ = beside
    post(client)
    eventually(lambda: len(answers(context)) == 1)
    process = context.shadow._process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        codes = [post(client).status_code for _ in range(shadows.PLACES + 4)]
        assert set(codes) == {201}
        assert counted(client, "dropped") >= 3  # one is with the process
    finally:
        os.kill(process.pid, signal.SIGCONT)
    eventually(lambda: counted(client, "answered") + counted(client, "dropped") == len(codes) + 1)


def test_it_runs_at_the_lowest_priority_and_ends_with_its_part(two, beside):  # noqa: F811
    client, context, *_ = beside
    post(client)
    eventually(lambda: len(answers(context)) == 1)
    pid = context.shadow._process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    two[0].stop_shadow()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert post(client).status_code == 201
    assert len(answers(context)) == 1


def test_the_command_prints_the_comparison(beside, two, tmp_path, monkeypatch, capsys):  # noqa: F811
    client, context, first, second = beside
    post(client)
    eventually(lambda: len(answers(context)) == 1)
    monkeypatch.setenv("FRACTURE_DATA_DIR", str(tmp_path / "instance"))
    for wanted, expected in ((second, f"{second} in the shadow of {first}: 1 radiographs"), (first, "no answers of a")):
        assert main(["compare", wanted, "--models", str(two[0].folder)]) == 0
        assert expected in capsys.readouterr().out
