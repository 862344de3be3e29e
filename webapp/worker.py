"""The gunicorn worker of the page: it answers "busy" to surplus uploads before a thread is spent on them.

It overrides internals of gunicorn's thread worker, so tests/webapp/test_worker.py compares these with what is used here
and fails when an upgrade of gunicorn changes them. Without this worker, that is with FRACTURE_WORKER=gthread, the page
works as well: the queue still limits uploads, but each surplus upload is received and parsed by a thread before it is
rejected, silent connections hold threads, and clients that do not close their connection delay others.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from .context import AppContext
from .errors import DRAIN_S, RETRY_AFTER_S
from .security_headers import HEADERS
from .uploads import BUSY

UPLOAD_REQUESTS = (b"POST /api/v1/predictions ", b"POST /api/v1/predictions?")
MAX_HEAD_BYTES = 8_192
# Connections accepted, and reads from one connection, per turn of the event loop.
MAX_ACCEPTS, MAX_READS = 64, 16
# Threads that parse uploads keep the event loop, which rejects the surplus, from its work: start them one by one.
START_INTERVAL_S = 0.01
# How long a client may be silent before its first byte and between bytes of a rejected body, and how long a connection
# may stay open after the response.
FIRST_BYTE_S, NEXT_BYTE_S, LINGER_S = 5.0, 2.0, 2.0


class UploadLimitWorker(ThreadWorker):
    """gunicorn's thread worker with three additions.

    A connection gets a thread only once data has arrived on it. Uploads beyond the size of the queue are rejected here,
    before a thread parses them, which under overload would be most of the work. Connections are closed gracefully in
    the background, where gunicorn would wait for each client to close.
    """

    def init_process(self) -> None:
        """Start with no upload in progress."""
        self.uploads_in_progress, self.upload_lock = 0, threading.Lock()
        self.admitted: deque[TConn] = deque()
        self.next_start = 0.0
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Accept new connections and wait for their first byte."""
        for _ in range(MAX_ACCEPTS):
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # too many open files, for example
                self.log.warning("A connection could not be accepted: %s", error.strerror)
                time.sleep(START_INTERVAL_S)
                return
            self.nr_conns += 1
            conn = TConn(self.cfg, sock, client, listener.getsockname())
            conn.is_closing = conn.is_upload = False
            self._watch(conn, FIRST_BYTE_S)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Pass a request on to a thread, or reject an upload for which there is no room."""
        if conn.is_closing:
            self._unwatch(conn)
            self._discard_input(conn)
            return
        is_upload, has_key = _peek(client)
        is_full = is_upload and self._is_full()
        if is_full and not has_key:
            self._reject(conn)
        elif is_upload and not is_full:
            self._admit(conn)
        else:  # also an upload with an idempotency key, whose result may already be stored
            super().on_pending_socket_readable(conn, client)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Handle what clients send, then start the next admitted upload."""
        super().wait_for_and_dispatch_events(START_INTERVAL_S if self.admitted else timeout)
        if self.admitted and time.monotonic() >= self.next_start:
            self.enqueue_req(self.admitted.popleft())
            self.next_start = time.monotonic() + START_INTERVAL_S

    def handle(self, conn: TConn) -> Any:
        """Handle one request in a thread, and count its upload as done before the client can send another one."""
        try:
            return super().handle(conn)
        finally:
            with self.upload_lock:
                self.uploads_in_progress -= conn.is_upload
            conn.is_upload = False

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Close the connection gracefully unless it is kept alive."""
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
        else:
            self._close_gracefully(conn, LINGER_S)

    def _is_full(self) -> bool:
        context: AppContext = self.wsgi.extensions["fracture"]
        return context.service.full or self.uploads_in_progress >= context.settings.queue_size

    def _admit(self, conn: TConn) -> None:
        self._unwatch(conn)
        conn.data_ready = conn.is_upload = True
        with self.upload_lock:
            self.uploads_in_progress += 1
        self.admitted.append(conn)

    def _reject(self, conn: TConn) -> None:
        metrics = self.wsgi.extensions["fracture"].metrics
        metrics.reject("busy")
        metrics.request("POST", "api.create_prediction", 503)
        self._unwatch(conn)
        with suppress(OSError):  # closed by the client, which reading will notice
            conn.sock.send(BUSY_RESPONSE)  # fits into the empty send buffer of a new connection
        self._close_gracefully(conn, DRAIN_S)

    def _close_gracefully(self, conn: TConn, timeout_s: float) -> None:
        """Discard what the client still sends until it closes; cut off earlier, it would see a network error."""
        conn.is_closing, conn.close_at = True, time.monotonic() + timeout_s
        with suppress(OSError):
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        self._discard_input(conn)

    def _discard_input(self, conn: TConn) -> None:
        is_done = time.monotonic() > conn.close_at
        try:
            for _ in range(MAX_READS):
                is_done = is_done or not conn.sock.recv(65_536)
        except BlockingIOError:
            pass
        except OSError:
            is_done = True
        if is_done:
            self.nr_conns -= 1
            conn.close()
        else:
            self._watch(conn, NEXT_BYTE_S)

    def _watch(self, conn: TConn, silence_s: float) -> None:
        conn.timeout = time.monotonic() + silence_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _unwatch(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        self.pending_conns.remove(conn)


def _peek(sock: socket.socket) -> tuple[bool, bool]:
    """Return whether the request is an upload and whether it has an idempotency key, leaving it in the socket."""
    try:
        head, end, _ = sock.recv(MAX_HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT).partition(b"\r\n\r\n")
    except OSError:
        return False, False
    return bool(end) and head.startswith(UPLOAD_REQUESTS), b"\nidempotency-key:" in head.lower()


def _busy_response() -> bytes:
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


BUSY_RESPONSE = _busy_response()
