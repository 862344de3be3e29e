"""Clients that send slowly, or not what they announce: they hold nobody up, and nothing of theirs is logged."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.client import HTTPResponse

import pytest

from tests.webapp.bright import dark_plate
from tests.webapp.conftest import LIKELY, encoded
from tests.webapp.test_prefix import documented_block, nginx
from tests.webapp.test_serve import upload
from webapp.request_head import MAX_HEAD_BYTES, RequestHead

NAME = b"Mueller-1950-Hans"


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("instance")
    return start_server(folder, FRACTURE_MAX_UPLOAD_MB="2", FRACTURE_QUEUE_SIZE="4", FRACTURE_WORKER="upload-limit")


@contextmanager
def lines(server, count: int, start: bytes) -> Iterator[list[socket.socket]]:
    """Open so many connections, each of which has sent `start`."""
    host, port = server.address.removeprefix("http://").split(":")
    with ExitStack() as opened:
        sockets = []
        for _ in range(count):
            sockets.append(opened.enter_context(socket.create_connection((host, int(port)), timeout=30)))
            sockets[-1].sendall(start)
        yield sockets


def healthz(server) -> bool:
    with urllib.request.urlopen(f"{server.address}/healthz", timeout=4) as answer:
        return json.load(answer)["ok"]


def ask(server, request: bytes) -> bytes:
    """Send bytes and return everything that comes until the server closes, or is silent for two seconds."""
    with lines(server, 1, request) as [line]:
        line.settimeout(2)
        answer = b""
        try:
            while block := line.recv(65_536):
                answer += block
        except TimeoutError:
            pass
        return answer


def status_of(line: socket.socket) -> int:
    """Read one response to its end and return its status."""
    with HTTPResponse(line) as response:
        response.begin()
        response.read()
        return response.status


@pytest.mark.parametrize(
    "start",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        b"POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\nContent-Length: 999999\r\n\r\n",
        b"GET /x/healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 00000000000000000000000000005\r\n\r\n",
        b"POST /login?/healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0000000000000000000000005\r\n\r\n",
    ],
    ids=[
        "first byte",
        "head",
        "small body",
        "large body",
        "chunks",
        "upload",
        "form",
        "upload with a key",
        "padded",
        "padded post",
    ],
)
def test_a_hundred_slow_clients_keep_nobody_from_being_answered(server, start):
    with lines(server, 100, start) as slow:
        for _ in range(2):
            for line in slow:
                try:
                    line.sendall(b"x")
                except OSError:  # it has been answered that the server is busy
                    continue
            assert healthz(server)
            with urllib.request.urlopen(f"{server.address}/", timeout=4) as answer:
                assert answer.status == 200


def test_slow_clients_are_cut_off_however_steadily_they_send(server):
    with lines(server, 3, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") as slow:
        ended, deadline = set(), time.monotonic() + 40
        while len(ended) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.5)
            for line in slow:
                try:
                    line.sendall(b"x")
                except OSError:
                    ended.add(line)


def test_a_body_has_a_deadline_and_its_client_an_answer(server):
    head = b"POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000\r\n\r\n"
    with lines(server, 1, head) as [line]:
        line.settimeout(0.5)
        answer, deadline = b"", time.monotonic() + 60
        while b"\r\n\r\n" not in answer:
            assert time.monotonic() < deadline
            line.sendall(b"x")
            try:
                answer += line.recv(65_536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert upload(server.address, encoded(dark_plate(LIKELY)))[0] == 201


def test_a_request_in_pieces_is_answered_like_a_whole_one(server):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with lines(server, 1, b"") as [line]:
        for place in range(0, len(request), 7):
            line.sendall(request[place : place + 7])
            time.sleep(0.01)
        assert status_of(line) == 200


def test_a_kept_connection_is_looked_at_like_a_new_one(server):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with lines(server, 20, request) as kept:
        assert [status_of(line) for line in kept] == [200] * 20
        for line in kept:
            line.sendall(request[:20])
        assert healthz(server)
        for line in kept:
            line.sendall(request[20:])
        assert [status_of(line) for line in kept] == [200] * 20


def test_a_client_that_stops_in_its_head_takes_no_processor_time(server):
    with lines(server, 1, b"GET / HTTP/1.1\r\nHost: localhost\r\n") as [line]:
        line.shutdown(socket.SHUT_WR)
        line.settimeout(10)
        while line.recv(65_536):
            pass
    assert healthz(server)


MALFORMED = {
    "request line": b"GET /results?q=" + NAME + b" 1950 HTTP/1.1\r\n\r\n",
    "method": NAME + b"\x01 / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "version": b"GET / HTTP/9." + NAME + b"\r\nHost: localhost\r\n\r\n",
    "field": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + NAME + b" : x\r\n\r\n",
    "lengths": b"POST /login?q=" + NAME + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + NAME + b"\r\n\r\n",
    "coding": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: " + NAME + b"\r\n\r\n",
    "long line": b"GET /" + NAME * 1000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + NAME * 4000,
    "chunk size": b"POST /login?q="
    + NAME
    + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    + NAME
    + b"\r\n",
    "chunk end": b"POST /login?q="
    + NAME
    + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc"
    + NAME,
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_refused_and_nothing_of_it_is_logged(server, request_bytes):
    before = len(server.first_lines)
    answer = ask(server, request_bytes)
    assert answer.split(b" ")[1][:1] in (b"4", b"5"), answer
    assert not answer.startswith(b"HTTP/1.1 500")
    assert healthz(server)
    logged = server.first_lines[before:]
    assert len(logged) <= 1
    assert not any(part in line for line in logged for part in ("Mueller", "1950", "127.0.0.1"))


def test_a_refused_request_is_read_to_its_end_so_that_its_connection_can_go_on(start_server, tmp_path):
    server = start_server(tmp_path, FRACTURE_UPLOADS_PER_MINUTE="1")
    assert upload(server.address, encoded(dark_plate(LIKELY)))[0] == 201
    body = bytes(400_000)
    head = f"POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with lines(server, 1, b"") as [line]:
        for _ in range(3):
            line.sendall(head + body)
            assert status_of(line) == 429


def test_a_head_is_taken_for_what_it_is():
    def head(text: str) -> RequestHead | None:
        return RequestHead.of(text.replace("\n", "\r\n").encode())

    assert head("GET / HTTP/1.1\nHost: x\n") is None
    assert head("GET / HTTP/1.1\nHost: x\n\n") == RequestHead()
    assert head("GET /healthz HTTP/1.1\n\n") == head("HEAD /readyz?x=1 HTTP/1.1\n\n")
    assert head("GET /healthz HTTP/1.1\n\n").is_probe
    assert not head("GET /healthz HTTP/1.1\nContent-Length: 5\n\n").is_probe
    assert not head("POST /healthz HTTP/1.1\n\n").is_probe
    assert head("GET http://localhost:8000/healthz HTTP/1.1\n\n").is_probe
    for other in ("/x/healthz", "/image.png?x=/healthz", "/a?/readyz", "//healthz", "http://x/y/healthz", "/healthzz"):
        assert not head(f"GET {other} HTTP/1.1\n\n").is_probe, other
    assert not head("POST /login?x=/api/v1/predictions HTTP/1.1\n\n").is_upload
    assert head("POST /fracture/api/v1/predictions HTTP/1.1\n\n").is_upload
    for unsure in ("0" * 30 + "5", "5x", "+5", "", "5, 5", "5\nContent-Length: 5", "٣"):
        doubtful = head(f"POST /login HTTP/1.1\nContent-Length: {unsure}\n\n")
        assert (doubtful.body_bytes, doubtful.body_is_missing, doubtful.body_is_near) == (None, True, False), unsure
    form = head("POST / HTTP/1.1\nContent-Length: 4\n\nabcd")
    assert (form.is_upload, form.is_form, form.body_bytes, form.body_is_missing) == (True, True, 4, False)
    sent = head("POST /api/v1/predictions?score=1 HTTP/1.1\nidempotency-KEY: k\ncontent-LENGTH:  70000 \n\nabc")
    assert (sent.is_upload, sent.is_form, sent.has_key, sent.body_bytes) == (True, False, True, 70_000)
    assert (sent.body_is_missing, sent.body_is_near) == (True, False)
    assert not head("POST /api/v1/predictions/1/feedback HTTP/1.1\n\n").is_upload
    assert head("POST /login HTTP/1.1\nContent-Length: 9\n\nabc").body_is_near
    assert not head("POST /login HTTP/1.1\nContent-Length: 9\nExpect: 100-continue\n\n").body_is_near
    assert not head(f"POST /login HTTP/1.1\nContent-Length: {MAX_HEAD_BYTES}\n\n").body_is_near
    chunked = head("POST /login HTTP/1.1\nTransfer-Encoding: chunked\n\n")
    assert (chunked.body_bytes, chunked.body_is_missing, chunked.body_is_near) == (None, True, False)
    assert (chunked.bytes_at_most(7), sent.bytes_at_most(7), form.bytes_at_most(7)) == (7, 7, 4)


SLOW_UPLOAD = b"POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"


def test_only_a_proxy_keeps_places_for_uploads_while_others_send_slowly(start_server, tmp_path):
    server = start_server(tmp_path / "instance", FRACTURE_QUEUE_SIZE="4")
    plate = encoded(dark_plate(LIKELY))
    with lines(server, 40, SLOW_UPLOAD):
        assert healthz(server)
        assert upload(server.address, plate)[0] == 503
    block = documented_block("location / ").replace("127.0.0.1:8000", server.address.removeprefix("http://"))
    with nginx(tmp_path, block) as address, lines(replace(server, address=address), 40, SLOW_UPLOAD):
        deadline = time.monotonic() + 30  # until the slow ones of before are gone
        while (status := upload(address, plate)[0]) == 503 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert status == 201
        assert [upload(address, plate)[0] for _ in range(4)] == [201] * 4
