"""The server's worker: it says "busy" to a flood of uploads, and hangs up on those who do not."""

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

UPLOADS = (b"POST /api/v1/predictions ", b"POST /api/v1/predictions?")
LONGEST_HEAD = 8_192
ACCEPTED_AT_ONCE, READS_AT_ONCE = 64, 16
# Threads that take uploads apart keep the one from its work that says "busy": they start one after the other.
STARTED_EVERY_S = 0.01
# How long a client may be silent: before its first byte, between the bytes of what was refused, and at the end.
FIRST_BYTE_S, NEXT_BYTE_S, HANG_UP_S = 5.0, 2.0, 2.0


class UploadLimitWorker(ThreadWorker):
    """gunicorn's worker with threads, and three things that gunicorn does not do.

    A thread is taken for a connection once something came over it. Uploads beyond the places of the queue are
    refused here, before a thread takes them apart: in a flood that would be most of the work. And who has been answered
    is seen off while others are served; gunicorn waits for each until it has hung up.
    """

    def init_process(self) -> None:
        """Begin with an empty house."""
        self.uploads_inside, self.counting = 0, threading.Lock()
        self.let_in: deque[TConn] = deque()
        self.next_start = 0.0
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Take new connections."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no more files may be opened, say
                self.log.warning("A connection could not be taken: %s", error.strerror)
                time.sleep(STARTED_EVERY_S)
                return
            self.nr_conns += 1
            conn = TConn(self.cfg, sock, client, listener.getsockname())
            conn.is_leaving = conn.is_upload = False
            self._listen_to(conn, FIRST_BYTE_S)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Let in whoever says something, but for uploads that find no place."""
        if conn.is_leaving:
            self._forget(conn)
            self._read_on(conn)
            return
        is_upload, has_key = _look_at(client)
        is_full = is_upload and self._is_full()
        if is_full and not has_key:
            self._refuse(conn)
        elif is_upload and not is_full:
            self._let_in(conn)
        else:  # an upload with an idempotency key, too: it may have its answer already
            super().on_pending_socket_readable(conn, client)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Look at what clients say, then start the next upload."""
        super().wait_for_and_dispatch_events(STARTED_EVERY_S if self.let_in else timeout)
        if self.let_in and time.monotonic() >= self.next_start:
            self.enqueue_req(self.let_in.popleft())
            self.next_start = time.monotonic() + STARTED_EVERY_S

    def handle(self, conn: TConn) -> Any:
        """Answer one request on a connection, in a thread; its place is free before the client asks anew."""
        try:
            return super().handle(conn)
        finally:
            with self.counting:
                self.uploads_inside -= conn.is_upload
            conn.is_upload = False

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """See off who does not stay for another question."""
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
        else:
            self._see_off(conn, HANG_UP_S)

    def _is_full(self) -> bool:
        app_context: AppContext = self.wsgi.extensions["fracture"]
        return app_context.service.full or self.uploads_inside >= app_context.settings.queue_size

    def _let_in(self, conn: TConn) -> None:
        self._forget(conn)
        conn.data_ready = conn.is_upload = True
        with self.counting:
            self.uploads_inside += 1
        self.let_in.append(conn)

    def _refuse(self, conn: TConn) -> None:
        metrics = self.wsgi.extensions["fracture"].metrics
        metrics.reject("busy")
        metrics.request("POST", "api.create_prediction", 503)
        self._forget(conn)
        with suppress(OSError):  # gone; reading will tell
            conn.sock.send(BUSY_ANSWER)  # a new connection has room for so little
        self._see_off(conn, DRAIN_S)

    def _see_off(self, conn: TConn, longest_s: float) -> None:
        """Read what the client still sends until it hangs up: cut off before, it would see a broken line, no answer."""
        conn.is_leaving, conn.cut_at = True, time.monotonic() + longest_s
        with suppress(OSError):
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        self._read_on(conn)

    def _read_on(self, conn: TConn) -> None:
        is_gone = time.monotonic() > conn.cut_at
        try:
            for _ in range(READS_AT_ONCE):
                is_gone = is_gone or not conn.sock.recv(65_536)
        except BlockingIOError:
            pass
        except OSError:
            is_gone = True
        if is_gone:
            self.nr_conns -= 1
            conn.close()
        else:
            self._listen_to(conn, NEXT_BYTE_S)

    def _listen_to(self, conn: TConn, silence_s: float) -> None:
        conn.timeout = time.monotonic() + silence_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _forget(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        self.pending_conns.remove(conn)


def _look_at(sock: socket.socket) -> tuple[bool, bool]:
    """Return whether an upload comes, and whether it has an idempotency key."""
    try:
        head, end, _ = sock.recv(LONGEST_HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT).partition(b"\r\n\r\n")
    except OSError:
        return False, False
    return bool(end) and head.startswith(UPLOADS), b"\nidempotency-key:" in head.lower()


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
