"""The served version is changed under a running page: no upload is lost, and each says which version answered it."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.request
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from fracture_det.inference.service import PredictionService
from fracture_det.registry.states import SERVED, Change, now, write_states
from tests.registry.toys import add_toy, make_registry, serve
from tests.webapp.bright import BrightRectangles, dark_plate, start_bright
from tests.webapp.conftest import LIKELY, ClosingClient, encoded
from tests.webapp.test_serve import upload
from webapp import create_app
from webapp.served import Follower, open_service
from webapp.settings import Settings

# What the first version says of it: its brightest pixel is 230.
SCORE = round(0.9 * 230 / 255, 3)
PLATE = encoded(dark_plate(LIKELY))


@pytest.fixture
def registry(tmp_path):
    return make_registry(tmp_path)


@pytest.fixture
def two(registry):
    """A registry with a served version and another, and their names."""
    first, second = add_toy(registry, 0.9), add_toy(registry, 0.6, operating=0.7)
    serve(registry, first)
    return registry, first, second


@pytest.fixture
def page(two, tmp_path):
    """An app whose detector is that of the registry, and its context."""
    settings = Settings(detector=f"registry:{two[0].folder}", data_dir=tmp_path / "instance", suitability=False)
    app = create_app(settings)
    app.test_client_class = ClosingClient
    yield app.test_client(), app.extensions["fracture"]
    app.extensions["fracture"].close()


def eventually(what, seconds=60):
    """Return what `what` gives once that is true."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


def ready(address):
    with urllib.request.urlopen(f"{address}/readyz") as answer:
        return json.load(answer)


def post(client):
    form = {"file": (io.BytesIO(PLATE), "x.png")}
    return client.post("/api/v1/predictions", data=form)


def test_uploads_during_a_change_and_the_way_back_are_all_answered(two, tmp_path):
    registry, first, second = two
    stop, answers = threading.Event(), []

    def send(address):
        while not stop.is_set():
            answers.append(upload(address, PLATE))

    with start_bright(tmp_path, detector=f"registry:{registry.folder}") as server:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(send, server.address)
            try:
                for change, name in ((lambda: serve(registry, second), second), (registry.rollback, first)):
                    change()
                    eventually(lambda name=name: ready(server.address)["version"] == name)
                    seen = len(answers)
                    eventually(lambda seen=seen: len(answers) > seen + 8)
            finally:
                stop.set()
        assert [status for status, _, _ in answers] == [201] * len(answers)
        bodies = [body for _, body, _ in answers]
        assert {body["model_version"] for body in bodies} == {first, second}
        for body in bodies:  # the version it names is the one that answered, and so are hash and card
            shown = [round(box["score"], 3) for box in body["detections"]]
            assert shown == ([SCORE] if body["model_version"] == first else [])  # .541 is below its operating point
            assert body["model_sha256"] == registry.read(body["model_version"]).manifest.detector.sha256
        with urllib.request.urlopen(f"{server.address}/api/v1/predictions?per_page=100") as listed:
            stored = json.load(listed)
        assert stored["total"] == len(answers)
        # The finding is by the thresholds of the version that answered.
        said = {(body["model_version"], body["finding"]["level"], body["operating_score"]) for body in bodies}
        assert said == {(first, "likely", 0.5), (second, "possible", 0.7)}
        with urllib.request.urlopen(f"{server.address}/metrics") as metrics:
            text = metrics.read().decode()
        assert 'fracture_model_swaps_total{outcome="done"} 2.0' in text
        assert f'version="{first}"' in text
        assert Counter(body["model_version"] for body in bodies)[second] >= 8


def test_a_version_that_is_damaged_is_not_served_and_the_former_goes_on(two, page):
    registry, former, name = two
    client, context = page
    damaged = registry.path_of(name) / "detector" / "model.bin"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"x" * len(whole))
    # As if it had been damaged after the promotion, which would have refused it.
    write_states(registry.folder, registry.states.after(Change(now(), "x", "promote", name, SERVED)))
    problem = eventually(lambda: client.get("/readyz").json["problem"] or None)
    assert problem == f"version {name} cannot be served; {former} goes on"
    assert post(client).json["model_version"] == former
    assert client.get("/api/v1/model").json["problem"] == problem
    assert "fracture_model_problem 1.0" in client.get("/metrics").text
    assert 'fracture_model_swaps_total{outcome="failed"}' in client.get("/metrics").text
    damaged.write_bytes(whole)
    context.follower._retry_at = 0.0
    eventually(lambda: context.problem is None)
    assert client.get("/readyz").json["version"] == name


def test_the_way_back_needs_no_opening_and_is_verified_all_the_same(two, page):
    registry, first, second = two
    _, context = page
    served = context.service._detector
    serve(registry, second)
    eventually(lambda: context.service.info.version == second)
    card = registry.path_of(first) / "MODEL_CARD.md"
    whole = card.read_text()
    registry.rollback()
    eventually(lambda: context.service.info.version == first)
    assert context.service._detector is served
    card.write_text("")
    serve_again = registry.states.after(Change(now(), "x", "promote", second, SERVED))
    write_states(registry.folder, serve_again)
    eventually(lambda: context.service.info.version == second)
    write_states(registry.folder, serve_again.after(Change(now(), "x", "rollback", first, SERVED)))
    assert first in eventually(lambda: context.problem)
    card.write_text(whole)


@pytest.mark.parametrize("minutes", [0, 60])
def test_the_former_one_is_freed_after_its_minutes(two, tmp_path, minutes):
    registry, _, second = two
    settings = Settings(detector=f"registry:{registry.folder}", former_minutes=minutes, suitability=False)
    with open_service(settings) as service:
        follower, gone = Follower(registry, service, settings), weakref.ref(service._detector)
        serve(registry, second)
        follower.look()
        assert (service.info.version, gone() is None) == (second, False)
        follower.look()
        assert (gone() is None) == (minutes == 0)


def test_a_registry_that_is_gone_changes_nothing(two, page):
    registry, first, _ = two
    client, context = page
    registry.folder.rename(registry.folder.with_name("away"))
    assert eventually(lambda: context.problem) == f"the registry cannot be read; {first} goes on"
    assert post(client).json["model_version"] == first
    registry.folder.with_name("away").rename(registry.folder)
    eventually(lambda: context.problem is None)


def test_every_place_that_shows_a_result_names_the_version(two, page):
    _, first, _ = two
    client, _ = page
    result = post(client).json
    assert result["model_version"] == first
    for path in (result["links"]["report"], "/model", "/history"):
        assert first in client.get(path).text, path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unserved", "no version is served yet"),
        ("calibration", "a version brings its own calibration; unset FRACTURE_CALIBRATION"),
        ("damaged", r"MODEL_CARD\.md: was changed"),
        ("hash", "FRACTURE_MODEL_SHA256 expects"),
    ],
)
def test_it_does_not_start_with_what_cannot_be_served(registry, tmp_path, change, message):
    name = add_toy(registry, 0.9)
    more = {"calibration": {"calibration": "x.json"}, "hash": {"model_sha256": "0" * 64}}.get(change, {})
    if change != "unserved":
        serve(registry, name)
    if change == "damaged":
        (registry.path_of(name) / "MODEL_CARD.md").write_text("")
    settings = Settings(detector=f"registry:{registry.folder}", data_dir=tmp_path / "instance", **more)
    with pytest.raises(ValueError, match=message):
        create_app(settings)


class TestService:
    def test_a_running_batch_is_finished_by_the_former_one_which_is_then_freed(self):
        former = BrightRectangles(delay_s=0.5, version="former")
        with PredictionService(former) as service, ThreadPoolExecutor(1) as pool:
            running = pool.submit(service.predict, PLATE)
            eventually(lambda: service.silent_s)
            service.swap(BrightRectangles(version="later", operating_score=0.95))
            assert service.predict(PLATE).detector.version == "later"
            assert running.result().detector.version == "former"
            gone = weakref.ref(former)
            del former
            eventually(lambda: gone() is None)


def test_one_that_fails_at_its_warm_up_is_never_asked(two, page):
    registry, first, _ = two
    client, context = page
    broken = add_toy(registry, 0.6, label=7)  # it opens, but its every answer has a class that there is not
    serve(registry, broken)
    assert eventually(lambda: context.problem) == f"version {broken} cannot be served; {first} goes on"
    assert post(client).json["model_version"] == first
