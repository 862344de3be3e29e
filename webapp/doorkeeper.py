"""The server's worker: it says "busy" to a flood of uploads, and hangs up on those who do not."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from webapp.intake import BUSY, Rooms
from webapp.refusals import DRAIN_S, HEADERS, RETRY_AFTER_S

UPLOADS = (b"POST /api/v1/predictions ", b"POST /api/v1/predictions?")
LONGEST_HEAD = 8_192
HANG_UP_S = 2.0


class Doorkeeper(ThreadWorker):
    """gunicorn's worker with threads, and two things that gunicorn does not do.

    An upload that finds the queue full is refused before anything is taken apart: that costs a tenth, so that in a
    flood "busy" comes at once and the pages are still served. And the thread that answered waits until the client has
    hung up; gunicorn waits where it takes new connections, for everybody.
    """

    def handle(self, conn: TConn) -> Any:
        """Answer one request on a connection; what is returned is gunicorn's."""
        rooms: Rooms = self.wsgi.extensions["fracture"]
        if rooms.service.full and not conn.initialized and _is_upload(conn.sock):
            rooms.metrics.reject("busy")
            rooms.metrics.request("POST", "api.create_prediction", 503)
            conn.sock.sendall(BUSY_ANSWER)
            return _hang_up(conn.sock, DRAIN_S)
        goes_on = super().handle(conn)
        return goes_on or _hang_up(conn.sock, HANG_UP_S)


def _is_upload(sock: socket.socket) -> bool:
    """Return whether an upload comes, without a key: one with an idempotency key may have its answer already."""
    try:
        head, end, _ = sock.recv(LONGEST_HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT).partition(b"\r\n\r\n")
    except OSError:
        return False
    return bool(end) and head.startswith(UPLOADS) and b"\nidempotency-key:" not in head.lower()


def _hang_up(sock: socket.socket, longest_s: float) -> bool:
    """Wait until the client has read what was sent and is gone; return False, for gunicorn to close the rest.

    Cut off while it sends, it would see a broken line and not the answer.
    """
    deadline = time.monotonic() + longest_s
    try:
        sock.shutdown(socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0:
            sock.settimeout(left_s)
            if not sock.recv(65_536):
                break
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # gone
        pass
    return False


def _answer() -> bytes:
    body = json.dumps({"ok": False, "error": BUSY, "status": 503}).encode()
    headers = HEADERS | {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Retry-After": str(RETRY_AFTER_S),
        "Connection": "close",
    }
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


BUSY_ANSWER = _answer()
