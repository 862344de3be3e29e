"""What breaks around the server breaks one answer and not the next, and never looks like a finding."""

import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.webapp.bright import BLUE, GREEN, HANG_S, RED, ROOT, dark_plate, start_bright
from tests.webapp.conftest import LIKELY, encoded, fill

PLATE = encoded(dark_plate(LIKELY))
# Far longer than anything here takes: a guard against a test that never ends.
GUARD_S = 90


def plate_with(first: tuple[int, int, int]) -> bytes:
    pixels = np.zeros((50, 50, 3), np.uint8)
    pixels[0, 0] = first
    return encoded(pixels)


def noise(side: int) -> bytes:
    return encoded(np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8))


def ask(address: str, path: str, data: bytes | None = None) -> tuple[int, dict]:
    """Ask once over a connection of its own; a lost connection raises."""
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=GUARD_S)
    try:
        if data is None:
            connection.request("GET", path)
        else:
            head = b'--frame\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            kind = {"Content-Type": "multipart/form-data; boundary=frame"}
            connection.request("POST", path, head + data + b"\r\n--frame--\r\n", kind)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def upload(server, data: bytes = PLATE) -> tuple[int, dict]:
    return ask(server.address, "/api/v1/predictions", data)


def worker_of(server) -> int:
    (worker,) = psutil.Process(server.process.pid).children()
    return worker.pid


def wait_until(condition) -> None:
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.05)


def is_ready(server) -> bool:
    try:
        return ask(server.address, "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def assert_failure(status: int, body: dict) -> None:
    """Check that it is an error with a sentence and says nothing about a fracture."""
    assert status in (500, 503), body
    assert (body["ok"], body["status"]) == (False, status)
    assert body["error"].endswith(".")
    assert not body.keys() & {"finding", "detections", "image"}
    assert not re.search(r"no fracture|none seen", json.dumps(body), re.IGNORECASE)


def assert_finding(status: int, body: dict) -> None:
    assert (status, body.get("finding", {}).get("level")) == (201, "likely"), body


@pytest.fixture
def server(tmp_path):
    with start_bright(tmp_path, FRACTURE_TIMEOUT_S="2.5") as running:
        yield running


@pytest.mark.parametrize("by", ["another", "the detector"])
def test_a_worker_that_is_killed_loses_its_own_requests_and_a_new_one_responds(tmp_path, by):
    with start_bright(tmp_path, detector="bright:1") as server, ThreadPoolExecutor(1) as pool:
        status, before = upload(server)
        assert_finding(status, before)
        first = worker_of(server)
        under_way = pool.submit(upload, server, plate_with(BLUE) if by == "the detector" else PLATE)
        if by == "another":
            time.sleep(0.3)  # it is with the detector now
            os.kill(first, signal.SIGKILL)
        assert isinstance(under_way.exception(GUARD_S), (OSError, http.client.HTTPException))
        wait_until(lambda: is_ready(server))
        assert worker_of(server) != first
        assert_finding(*upload(server))
        assert ask(server.address, before["links"]["self"]) == (200, before)
        assert server.process.poll() is None


def test_stopping_finishes_every_request_that_is_inside(tmp_path):
    with start_bright(tmp_path, detector="bright:1", FRACTURE_MAX_BATCH="1") as server, ThreadPoolExecutor(3) as pool:
        under_way = [pool.submit(upload, server) for _ in range(3)]
        time.sleep(0.7)
        server.process.terminate()
        for future in under_way:
            assert_finding(*future.result(GUARD_S))
        assert server.process.wait(30) == 0


@pytest.mark.slow
def test_stopping_tells_those_for_whom_there_is_no_time(tmp_path):
    with start_bright(tmp_path, detector="bright:12", FRACTURE_MAX_BATCH="1") as server, ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(upload, server) for _ in range(4)]
        time.sleep(0.7)
        server.process.terminate()
        answers = [future.result(GUARD_S) for future in under_way]
        assert sorted(status for status, _ in answers) == [201, 201, 503, 503]
        assert {answer["error"] for status, answer in answers if status == 503} == {
            "This file was not analysed. The server is stopping; please try again in a minute."
        }
        assert server.process.wait(30) == 0


def test_a_detector_that_raises_fails_that_upload_only(server):
    assert_failure(*upload(server, plate_with(RED)))
    assert_finding(*upload(server))


def test_a_detector_that_hangs_is_not_ready_refuses_at_once_and_recovers(server):
    begun = time.monotonic()
    assert_failure(*upload(server, plate_with(GREEN)))
    wait_until(lambda: not is_ready(server))
    assert ask(server.address, "/readyz")[0] == 503
    assert ask(server.address, "/healthz")[0] == 200
    refused = 0
    while time.monotonic() < begun + HANG_S - 1:
        assert_failure(*upload(server))
        refused += 1
        time.sleep(0.2)
    assert refused > 6, "each waited for the detector instead of being refused at once"
    wait_until(lambda: is_ready(server))
    assert_finding(*upload(server))


def test_a_detector_that_never_returns_is_replaced(tmp_path):
    with start_bright(tmp_path, FRACTURE_TIMEOUT_S="1") as server:
        before = worker_of(server)
        assert_failure(*upload(server, plate_with(GREEN)))
        wait_until(lambda: "the detector has not responded for 3 s; restarting" in server.log.read_text())
        wait_until(lambda: is_ready(server))
        assert worker_of(server) != before
        assert_finding(*upload(server))


def test_a_full_disk_is_an_error_until_there_is_room_again(tmp_path, small_disk):
    with start_bright(tmp_path, FRACTURE_DATA_DIR=str(small_disk / "instance")) as server:
        assert_finding(*upload(server))
        filler = fill(small_disk)
        images = sorted((small_disk / "instance" / "images").iterdir())
        for data in (noise(600), PLATE):
            assert_failure(*upload(server, data))
        assert sorted((small_disk / "instance" / "images").iterdir()) == images, "half an image was left behind"
        assert ask(server.address, "/healthz")[0] == 200
        filler.unlink()
        assert_finding(*upload(server))


def database_of(settings) -> Path:
    (path,) = settings.data_dir.glob("*.sqlite3")
    return path


def test_a_locked_database_is_an_error_until_it_is_free(settings, client, post):
    before = post().json
    other = sqlite3.connect(database_of(settings), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    images = sorted((settings.data_dir / "images").iterdir())
    answer = post()
    other.execute("ROLLBACK")
    other.close()
    assert_failure(answer.status_code, answer.json)
    assert sorted((settings.data_dir / "images").iterdir()) == images
    assert_finding(201, post().json)
    assert client.get(before["links"]["self"]).json == before


def test_a_database_that_vanishes_is_an_error_or_a_result_that_can_be_read_again(settings, client, post):
    post()
    for path in settings.data_dir.glob("*.sqlite3*"):
        path.unlink()
    for _ in range(3):
        answer = post()
        if answer.status_code == 201:
            assert client.get(answer.json["links"]["self"]).json == answer.json
        else:
            assert_failure(answer.status_code, answer.json)


def test_a_server_whose_database_vanishes_works_again(tmp_path):
    with start_bright(tmp_path) as server, ThreadPoolExecutor(8) as pool:
        assert_finding(*upload(server))
        for path in (tmp_path / "instance").glob("*.sqlite3*"):
            path.unlink()
        for status, body in pool.map(lambda _: upload(server), range(24)):
            if status == 201:
                assert ask(server.address, body["links"]["self"]) == (200, body)
            else:
                assert_failure(status, body)
        assert_finding(*upload(server))


@pytest.mark.parametrize("damage", ["cut", "noise", "cut without checksums", "absent"])
def test_a_corrupt_model_stops_the_start_with_one_sentence(tmp_path, damage):
    shipped = ROOT / "weights" / "shipped" / "int8" / "resnet"
    if not shipped.is_dir():
        pytest.skip("no shipped detector here")
    model = tmp_path / "model"
    shutil.copytree(shipped, model)
    weights = model / "model.bin"
    if damage.startswith("cut"):
        weights.write_bytes(weights.read_bytes()[:1_000_000])
    elif damage == "noise":
        (model / "model.xml").write_bytes(np.random.default_rng(0).bytes(5_000))
    else:
        weights.unlink()
    if damage.endswith("without checksums"):
        (model / "SHA256SUMS").unlink()
    environ = os.environ | {"FRACTURE_DATA_DIR": str(tmp_path / "instance")}
    ended = subprocess.run(
        [sys.executable, "-m", "webapp", "--port", "0", "--detector", f"openvino:{model}"],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=GUARD_S, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    assert ended.stderr.startswith("fracture_det: "), ended.stderr
    assert str(model) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "http://" not in ended.stdout
