"""The real server: a process under gunicorn, spoken to over a socket."""

import http.client
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.webapp.bright import ROOT, dark_plate
from tests.webapp.conftest import LIKELY, encoded
from webapp.__main__ import listen
from webapp.security_headers import HEADERS
from webapp.settings import Settings


def upload(address: str, data: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict, dict]:
    frame = (
        b'--frame\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + data + b"\r\n--frame--\r\n"
    )
    request = urllib.request.Request(
        f"{address}/api/v1/predictions",
        frame,
        {"Content-Type": "multipart/form-data; boundary=frame", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", **variables}
    command = [sys.executable, "-m", "tests.webapp.bright", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(tmp_path_factory.mktemp("instance"), FRACTURE_MAX_UPLOAD_MB="2", FRACTURE_QUEUE_SIZE="50")


def test_it_says_its_address_and_model_when_it_is_ready(server):
    facts = r"\(detector bright rectangles; research use only, not a medical device\)"
    assert re.fullmatch(rf"fracture_det: http://127\.0\.0\.1:\d+ {facts}", server.first_lines[-1])
    with urllib.request.urlopen(f"{server.address}/readyz") as answer:
        assert json.load(answer) == {"ok": True, "model": "bright rectangles", "version": None, "problem": None}
        assert "gunicorn" in answer.headers["Server"]


def test_fifty_uploads_at_once_all_get_their_own_response(server):
    plates = [encoded(dark_plate((index, 30, index + 20, 50, 230))) for index in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda plate: upload(server.address, plate), plates))
    assert [status for status, _, _ in answers] == [201] * 50
    assert [answer["detections"][0]["box_xyxy_px"][0] for _, answer, _ in answers] == list(range(50))


@pytest.mark.parametrize("size_mb", [3, 12])
def test_an_upload_that_is_too_large_hears_the_sentence_and_not_a_broken_line(server, size_mb):
    status, answer, _ = upload(server.address, bytes(size_mb * 1024 * 1024))
    assert (status, answer["status"]) == (413, 413)
    assert "larger than 2 MB" in answer["error"]


def test_one_too_many_hears_at_once_that_the_server_is_busy(start_server, tmp_path):
    server = start_server(tmp_path, detector="bright:0.6", FRACTURE_QUEUE_SIZE="2", FRACTURE_MAX_BATCH="1")
    plate = encoded(dark_plate(LIKELY))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: upload(server.address, plate), range(8)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {201, 503}
    assert statuses.count(503) >= 4
    assert all(headers["Retry-After"] == "3" for status, _, headers in answers if status == 503)
    assert upload(server.address, plate)[0] == 201
    with urllib.request.urlopen(f"{server.address}/metrics") as metrics:
        assert f'fracture_rejects_total{{reason="busy"}} {statuses.count(503)}.0' in metrics.read().decode()


def test_a_full_queue_refuses_uploads_and_nothing_else(start_server, tmp_path):
    server = start_server(tmp_path, detector="bright:2", FRACTURE_QUEUE_SIZE="1", FRACTURE_MAX_BATCH="1")
    plate = encoded(dark_plate(LIKELY))
    kept = upload(server.address, plate, {"Idempotency-Key": "k"})
    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(upload, server.address, plate)
        time.sleep(0.8)
        status, answer, headers = upload(server.address, bytes(1_500_000))
        assert (status, answer["status"], "waiting" in answer["error"]) == (503, 503, True)
        assert HEADERS.items() <= headers.items()
        again = upload(server.address, plate, {"Idempotency-Key": "k"})
        assert (again[0], again[1]["id"]) == (201, kept[1]["id"])
        assert json.load(urllib.request.urlopen(f"{server.address}/healthz"))["ok"]
        assert inside.result()[0] == 201


def test_clients_that_do_not_hang_up_keep_nobody_waiting(server):
    host, port = server.address.removeprefix("http://").split(":")
    with ExitStack() as lines:
        for _ in range(6):
            line = lines.enter_context(socket.create_connection((host, int(port)), timeout=5))
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert line.recv(100).startswith(b"HTTP/1.1 200")
        time.sleep(2.2)  # gunicorn alone would now wait two seconds for each of them
        with urllib.request.urlopen(f"{server.address}/healthz", timeout=5) as answer:
            assert answer.status == 200


def test_stopping_finishes_what_is_under_way(start_server, tmp_path):
    server = start_server(tmp_path, detector="bright:1")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(upload, server.address, encoded(dark_plate(LIKELY)))
        time.sleep(0.4)
        server.process.terminate()
        assert under_way.result()[0] == 201
    assert server.process.wait(60) == 0


def test_untrained_weights_stop_it_with_a_sentence(tmp_path):
    ended = run("--port", "0", "--detector", "bright:untrained", FRACTURE_DATA_DIR=str(tmp_path))
    assert ended.returncode != 0
    assert ended.stderr == "fracture_det: detector 'bright:untrained': these weights were never trained\n"
    assert "http://" not in ended.stdout


def test_a_data_folder_that_cannot_be_used_stops_it_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    ended = run("--port", "0", "--detector", "bright:0", FRACTURE_DATA_DIR=str(tmp_path / "file"))
    assert ended.returncode != 0
    assert ended.stderr.startswith(f"fracture_det: the data folder {tmp_path / 'file'} cannot be used (")
    assert len(ended.stderr.splitlines()) == 1


def test_a_port_in_use_stops_it_with_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run("--port", port)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"fracture_det: cannot listen on 127.0.0.1 port {port} (Address already in use);")
    assert len(ended.stderr.splitlines()) == 1


def test_a_wrong_setting_stops_it_with_a_sentence():
    ended = run(FRACTURE_SCORE="high")
    assert (ended.returncode, ended.stderr) == (1, "fracture_det: FRACTURE_SCORE: expected a number, got 'high'\n")


def test_it_does_not_listen_beyond_this_machine_without_a_login(tmp_path):
    ended = run("--host", "0.0.0.0", "--port", "0", "--detector", "bright:0", FRACTURE_DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        "fracture_det: 0.0.0.0 can be reached from other machines: expected FRACTURE_LOGIN=on, FRACTURE_SECRET_KEY"
    )
    assert len(ended.stderr.splitlines()) == 1


def test_behind_a_proxy_it_wants_a_login_too(tmp_path):
    ended = run("--port", "0", FRACTURE_TRUSTED_PROXIES="1", FRACTURE_DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert "no FRACTURE_TRUSTED_PROXIES" in ended.stderr


def test_clients_that_send_nothing_do_not_hold_its_threads(start_server, tmp_path, monkeypatch):
    monkeypatch.setattr("webapp.__main__.SOCKET_TIMEOUT_S", 1)
    listener = listen(Settings(port=0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted, pytest.raises(BlockingIOError):
            accepted.recv(1)
        assert client.fileno() > 0


def test_clients_that_say_nothing_take_no_thread(server):
    host, port = server.address.removeprefix("http://").split(":")
    with ExitStack() as lines:
        for _ in range(200):
            lines.enter_context(socket.create_connection((host, int(port))))
        with urllib.request.urlopen(f"{server.address}/healthz", timeout=4) as answer:  # gunicorn alone takes 15 s
            assert answer.status == 200


def test_it_works_with_gunicorns_own_worker_too(start_server, tmp_path):
    server = start_server(
        tmp_path, detector="bright:0.6", FRACTURE_WORKER="gthread", FRACTURE_QUEUE_SIZE="2", FRACTURE_MAX_BATCH="1"
    )
    plate = encoded(dark_plate(LIKELY))
    with ThreadPoolExecutor(8) as pool:
        statuses = [status for status, _, _ in pool.map(lambda _: upload(server.address, plate), range(8))]
    assert set(statuses) == {201, 503}


def test_with_a_login_it_listens_and_asks(start_server, tmp_path):
    server = start_server(tmp_path, FRACTURE_HOST="0.0.0.0", FRACTURE_LOGIN="on", FRACTURE_SECRET_KEY="k" * 32)
    address = server.address.replace("0.0.0.0", "127.0.0.1")
    status, answer, _ = upload(address, encoded(dark_plate(LIKELY)))
    assert (status, answer["ok"]) == (401, False)
    with urllib.request.urlopen(f"{address}/login") as page:
        assert "Secure" in page.headers["Set-Cookie"]


def test_a_client_that_hangs_up_harms_nobody(server):
    host, port = server.address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.putrequest("POST", "/api/v1/predictions")
    connection.putheader("Content-Type", "multipart/form-data; boundary=frame")
    connection.putheader("Content-Length", "100000")
    connection.endheaders()
    connection.send(b"--frame\r\n")
    connection.close()
    assert upload(server.address, encoded(dark_plate(LIKELY)))[0] == 201
