"""What the store counts over time, the page "Model over time", and the metrics that alerts are made of."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import yaml

from fracture_det.monitoring.drift import Rule
from fracture_det.monitoring.features import FEATURES
from fracture_det.monitoring.windows import KINDS
from fracture_det.structures.readings import Reading
from tests.monitoring.cases import drawn_counts, drawn_reference
from tests.webapp.conftest import changed
from tests.webapp.test_auth import PASSWORD, browser
from tests.webapp.test_store import METADATA, SAID, change, prediction, store, url  # noqa: F401
from webapp import create_app
from webapp.charts import ChartPoint, Mark, chart
from webapp.settings import Settings, SettingsError
from webapp.store.models import WatchDayRow
from webapp.store.watch import is_corrected
from webapp.watch import ADVICE

RULES = Path(__file__).parents[2] / "docker" / "prometheus_rules.yaml"
SHA = "0" * 64  # of the bright rectangles


def today() -> str:
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


class TestStore:
    def test_a_result_is_counted_with_the_values_of_its_picture(self, store, prediction):  # noqa: F811
        store.results.add(prediction, METADATA)
        [day] = store.watch.days()
        assert (day.date, day.model, day.model_sha256) == (today(), "bright rectangles", SHA)
        assert (day.counts.images, day.counts.findings, day.counts.judged) == (1, {"likely": 1}, 0)
        assert {name for name in FEATURES if day.counts.n(name)} == set(FEATURES) - {"limb"}

    def test_what_expires_stays_in_the_counts(self, store, prediction):  # noqa: F811
        for _ in range(2):
            store.results.add(prediction, METADATA)
        judged = store.results.add(prediction, METADATA)
        store.results.save_reading(judged.id, SAID, author="anna")
        before = [day.counts.to_json() for day in store.watch.days()]
        change(store, "UPDATE predictions SET created_at = created_at - 3 * 86400")
        change(store, "UPDATE readings SET updated_at = updated_at - 60 * 86400")
        assert store.results.sweep() == 3
        [day] = store.watch.days()
        assert [day.counts.to_json()] == before
        assert (day.counts.judged, day.counts.corrected) == (1, 1)
        assert day.date < today()

    @pytest.mark.parametrize(
        ("said", "counted"),
        [
            ({"verdicts": {1: "right"}}, (1, 0)),
            ({"verdicts": {1: "wrong"}}, (1, 1)),
            ({"verdicts": {1: "right"}, "moved": {1: (1.0, 2.0, 30.0, 40.0)}}, (1, 1)),
            ({"unreadable": True}, (0, 0)),
        ],
    )
    @pytest.mark.parametrize("settles", [False, True])
    def test_what_is_settled_counts_else_the_newest_reading(self, store, prediction, said, counted, settles):  # noqa: F811
        stored = store.results.add(prediction, METADATA)
        reading = Reading(**{"verdicts": {}, "missed": (), "no_fracture": False, "comment": "", **said})
        store.results.save_reading(stored.id, Reading({}, (), True, ""), author="anna")
        store.results.save_reading(stored.id, Reading({}, (), True, "") if settles else reading, author="ben")
        if settles:
            store.results.settle(stored.id, reading, by="root")
        store.results.save_reading(stored.id, Reading({}, (), False, "it judges nothing"), author="eve")
        [day] = store.watch.days()
        assert (day.counts.judged, day.counts.corrected) == counted
        change(store, "UPDATE predictions SET created_at = created_at - 3 * 86400")
        for table in ("readings", "settlements"):
            change(store, f"UPDATE {table} SET updated_at = updated_at - 60 * 86400")
        assert store.results.sweep() == 1
        [expired] = store.watch.days()
        assert (expired.counts.judged, expired.counts.corrected) == counted

    def test_what_is_deleted_leaves_nothing(self, store, prediction):  # noqa: F811
        stored = store.results.add(prediction, METADATA)
        assert store.results.delete(stored.id, by="anna")
        assert store.watch.days() == []

    def test_days_and_detectors_are_counted_apart(self, store, prediction):  # noqa: F811
        store.results.add(prediction, METADATA)
        old = store.results.add(prediction, METADATA)
        change(store, "UPDATE predictions SET created_at = created_at - 7200 * 24 WHERE id = :id", id=old.id)
        other = replace(prediction, detector=replace(prediction.detector, name="another", sha256=None))
        store.results.add(other, METADATA)
        assert [(day.model, day.counts.images) for day in store.watch.days()] == [
            ("bright rectangles", 1),
            ("another", 1),
            ("bright rectangles", 1),
        ]

    def test_results_of_before_have_their_outputs_alone(self, store, prediction):  # noqa: F811
        stored = store.results.add(prediction, METADATA)
        change(store, "UPDATE predictions SET features = NULL WHERE id = :id", id=stored.id)
        [day] = store.watch.days()
        assert (day.counts.n("score"), day.counts.n("grey")) == (1, 0)


@pytest.mark.parametrize(
    ("finding", "verdicts", "missed", "none", "expected"),
    [
        ("likely", {"1": "right"}, False, False, False),
        ("likely", {"1": "wrong"}, False, False, True),
        ("likely", {"1": "right", "2": "wrong"}, False, False, False),  # the second box is below the operating score
        ("none seen", {}, True, False, True),
        ("likely", {}, False, True, True),
        ("none seen", {}, False, True, False),
        ("possible", {"2": "wrong"}, False, True, False),
    ],
)
def test_when_a_result_is_corrected(finding, verdicts, missed, none, expected):
    assert is_corrected(finding, 0.5, [0.9, 0.3], verdicts, missed, none) is expected


@pytest.fixture(scope="module")
def reference_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "watch.json"
    replace(drawn_reference(Rule(draws=200)), detector_sha256=SHA).save(path)
    return path


@pytest.fixture
def settings(tmp_path, reference_file) -> Settings:
    return Settings(data_dir=tmp_path / "instance", max_upload_mb=1, max_megapixels=1, watch_reference=reference_file)


def fill(app, per_day: list[int], *, first: str = "2026-01-05", **shifts) -> None:
    """Write days of a drawn site into the store, as results that have expired."""
    start, rng = datetime.fromisoformat(first).timestamp(), np.random.default_rng(5)
    with app.extensions["fracture"].store._database.writing() as session:
        for index, n in enumerate(per_day):
            day = f"{datetime.fromtimestamp(start + 86400 * index):%Y-%m-%d}"
            counts = drawn_counts(rng, n, judged=n // 2, corrected=n // 10, **shifts).to_json()
            session.add(WatchDayRow(day=day, model_sha256=SHA, model="bright rectangles", counts=counts))


class TestPage:
    def test_without_results(self, client):
        shown = client.get("/watch").text
        assert "Nothing tested yet" in shown
        assert "There are no results yet" in shown
        assert "<svg" not in shown

    def test_without_a_reference(self, settings, service, tmp_path):
        app = create_app(changed(settings, watch_reference=None), predictor=service)
        fill(app, [120])
        shown = app.test_client().get("/watch").text
        assert "No reference" in shown
        assert "FRACTURE_WATCH_REFERENCE" in shown
        assert 'class="band"' not in shown
        app.extensions["fracture"].store.close()

    def test_without_an_alarm(self, app, client):
        fill(app, [30] * 20)
        shown = client.get("/watch").text
        assert "There is nothing to do" in shown
        assert "a drawn site; 400 radiographs" in shown
        for title in ("Drift", "Mean grey", "Size", "Highest score", "Share “likely”", "Share that readers corrected"):
            assert f"<strong>{title}</strong>" in shown, title
        assert 'class="alarm"' not in shown

    def test_with_an_alarm(self, app, client):
        fill(app, [30] * 16)
        fill(app, [30] * 4, first="2026-01-21", noise=3)
        shown = client.get("/watch").text
        assert "The newest window is an alarm" in shown
        assert "2026-01-21 to 2026-01-24, 120 images: radiographs differ (noise)" in shown
        assert ADVICE["input"] in shown
        assert 'class="alarm"' in shown

    def test_another_detector_is_a_mark(self, app, client):
        fill(app, [30] * 10)
        with app.extensions["fracture"].store._database.writing() as session:
            counts = drawn_counts(np.random.default_rng(0), 30).to_json()
            session.add(WatchDayRow(day="2026-01-20", model_sha256="1" * 64, model="the next one", counts=counts))
        shown = client.get("/watch").text
        assert shown.count('<line class="version"') == shown.count("<svg")
        assert "the next one" in shown
        assert "since 2026-01-20" in shown

    def test_a_window_is_of_finished_days(self, app, client, post):
        fill(app, [99])
        for _ in range(2):
            assert post().status_code == 201
        assert "101 radiographs since the newest window" in client.get("/watch").text

    def test_no_result_can_be_found_from_it(self, client, post):
        identifier = post().get_json()["id"]
        shown = client.get("/watch").text
        assert "<svg" in shown
        assert identifier[:8] not in shown
        assert "local" not in shown

    def test_it_is_for_administrators_alone(self, settings, service):
        made = changed(settings, login=True, secret_key="s" * 32)
        app = create_app(made, predictor=service)
        accounts = app.extensions["fracture"].store.accounts
        for name, role in (("anna", "reader"), ("root", "admin")):
            accounts.add_user(name, role, PASSWORD, by="test")
        assert app.test_client().get("/watch").status_code == 302
        anna, root = browser(app, "anna"), browser(app, "root")
        assert anna.get("/watch").status_code == 403
        assert root.get("/watch").status_code == 200
        assert 'href="/watch"' not in anna.get("/history").text
        assert 'href="/watch"' in root.get("/history").text
        app.extensions["fracture"].store.close()

    def test_a_broken_reference_keeps_the_server_from_starting(self, settings, service, tmp_path):
        (tmp_path / "watch.json").write_text("{}")
        with pytest.raises(SettingsError, match=r"FRACTURE_WATCH_REFERENCE: .*watch\.json: format: missing"):
            create_app(changed(settings, watch_reference=tmp_path / "watch.json"), predictor=service)


def metrics_of(client) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


class TestMetrics:
    def test_the_newest_window(self, app, client, reference_file):
        fill(app, [30] * 16)
        fill(app, [30] * 4, first="2026-01-21", noise=3)
        found = metrics_of(client)
        assert found['fracture_watch_statistic{feature="noise"}'] > found['fracture_watch_threshold{feature="noise"}']
        assert {kind: found[f'fracture_watch_alarm{{kind="{kind}"}}'] for kind in KINDS} == {
            "input": 1,
            "mix": 0,
            "output": 0,
            "readers": 0,
        }
        assert found["fracture_watch_windows_total"] == 5
        assert found['fracture_watch_alarms_total{kind="input"}'] == 1
        assert found["fracture_watch_waiting"] == 0
        assert found["fracture_watch_judged"] == 60
        assert found["fracture_watch_corrected_share"] == pytest.approx(12 / 60)

    def test_every_name_of_the_alert_rules_is_a_metric(self, app, client, post):
        fill(app, [30] * 4)
        post()
        known = set(re.findall(r"^# TYPE (\S+)", client.get("/metrics").text, flags=re.MULTILINE))
        groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) >= 5
        assert len({rule["alert"] for rule in rules}) == len(rules)
        for rule in rules:
            named = set(re.findall(r"fracture_\w+", rule["expr"]))
            assert named, rule["alert"]
            assert named <= known, rule["alert"]
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
            assert {"summary", "description"} == set(rule["annotations"])

    def test_the_kinds_of_the_alert_rules_are_kinds(self):
        named = re.findall(r'kind(?:=|=~)"([^"]+)"', RULES.read_text(encoding="utf-8"))
        assert {kind for kinds in named for kind in kinds.split("|")} == set(KINDS) - {"mix"}


class TestChart:
    def test_what_lies_where(self):
        days = [datetime(2026, 1, day).date() for day in (5, 12, 19)]
        points = [ChartPoint(day, value, value - 1, value + 1, "") for day, value in zip(days, (2, 4, 8), strict=True)]
        made = chart("t", "n", points, span=(days[0], days[2]), marks=[Mark(days[2], "2")], band=(1, 3), limit=10)
        # From 1 to 10, so from 0 to 10 in steps of 2.5; x from 54 to 400.
        assert [text for _, text in made.ticks_y] == ["0", "2.5", "5", "7.5", "10"]
        assert [dot.x for dot in made.dots] == [54, 227, 400]
        assert made.dots[0].y_low > made.dots[0].y > made.dots[0].y_high > made.dots[2].y
        assert made.limit == made.top
        assert made.band == (132.6, 164.2)
        # The line is broken at the other detector.
        assert made.lines == [f"54.0,{made.dots[0].y} 227.0,{made.dots[1].y}", f"400.0,{made.dots[2].y}"]

    def test_one_constant_value(self):
        day = datetime(2026, 1, 5).date()
        made = chart("t", "n", [ChartPoint(day, 3, 3, 3, "")], span=(day, day))
        assert made.top <= made.dots[0].y <= made.bottom
        assert len({y for y, _ in made.ticks_y}) == len(made.ticks_y) >= 2


def test_every_kind_has_advice():
    assert set(ADVICE) == set(KINDS)
