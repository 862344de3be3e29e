"""The gunicorn worker of the page: it decides which request gets a thread, and when, so that nobody is kept waiting.

It overrides internals of gunicorn's thread worker, so tests/webapp/test_worker.py compares these with what is used here
and fails when an upgrade of gunicorn changes them. Without this worker, that is with FRACTURE_WORKER=gthread, the page
works as well: the queue still limits uploads, but each surplus upload is received and parsed by a thread before it is
rejected, slow connections hold threads, and clients that do not close their connection delay others.
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
from .request_head import MAX_HEAD_BYTES, RequestHead
from .security_headers import HEADERS
from .uploads import BUSY

# Connections accepted, and reads from one connection, per turn of the event loop.
MAX_ACCEPTS, MAX_READS = 64, 16
# Threads that parse uploads keep the event loop, which rejects the surplus, from its work: start them one by one.
START_INTERVAL_S = 0.01
# How long a client may be silent before its first byte and between bytes of a rejected body, and how long a connection
# may stay open after the response.
FIRST_BYTE_S, NEXT_BYTE_S, LINGER_S = 5.0, 2.0, 2.0
# Deadlines for a request: its whole head; its whole body, with an allowance for its size at the speed of a poor line.
HEAD_S, BODY_S, SLOWEST_BYTES_PER_S = 10.0, 20.0, 50_000
# Bodies of uploads that are received or in memory at once; and other bodies that are still on their way.
MAX_UPLOAD_BYTES, MAX_SLOW_BODIES = 256_000_000, 8
# As what a request is counted: an upload; a body that is awaited in a thread; one that has arrived, or none.
UPLOAD, SLOW, QUICK = "upload", "slow", "quick"
# Threads that only probes get: /healthz and /readyz are answered whatever all others do.
PROBE_THREADS = 2


class UploadLimitWorker(ThreadWorker):
    """gunicorn's thread worker with four additions.

    A connection gets a thread only once the head of a request has arrived on it, and within a deadline, which its body
    has too. Uploads beyond the size of the queue or the memory for them are rejected here, before a thread parses them,
    which under overload would be most of the work. Probes have threads of their own. Connections are closed gracefully
    in the background, where gunicorn would wait for each client to close.
    """

    def init_process(self) -> None:
        """Start with no request in progress."""
        self.in_progress: set[TConn] = set()
        self.admitted: deque[TConn] = deque()
        self.progress_lock = threading.Lock()
        self.next_start = self.looked_at = 0.0
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
            conn.is_closing = False
            self._await_request(conn, FIRST_BYTE_S)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Go on reading what is discarded, or look at a request whose head is arriving."""
        if conn.is_closing:
            self._unwatch(conn)
            self._discard_input(conn)
        else:
            self._look(conn)

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Treat a connection that was kept alive like a new one."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_request(conn, HEAD_S)
        self._look(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Handle what clients send, end bodies that are too late, then start the next admitted request."""
        self.looked_at = time.monotonic()
        super().wait_for_and_dispatch_events(START_INTERVAL_S if self.admitted else timeout)
        now = time.monotonic()
        with self.progress_lock:
            late = [conn for conn in self.in_progress if now > conn.body_by]
        for conn in late:
            conn.body_by = float("inf")
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)  # whoever reads the body sees it end; the response can be sent
        if self.admitted and now >= self.next_start and self._threads_left() > PROBE_THREADS:
            self._start(self.admitted.popleft())
            self.next_start = now + START_INTERVAL_S

    def murder_pending(self) -> None:
        """Close connections that are silent for too long, or whose head is; gunicorn expects one time limit for all."""
        # What had arrived before the last look has been handled, however long that took.
        for conn in [conn for conn in self.pending_conns if self.looked_at > conn.timeout]:
            self._unwatch(conn)
            self._drop(conn)

    def handle(self, conn: TConn) -> Any:
        """Handle one request in a thread, and count it as done before the client can send another one."""
        try:
            return super().handle(conn)
        finally:
            with self.progress_lock:
                self.in_progress.discard(conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Close the connection gracefully unless it is kept alive."""
        is_kept = not fs.cancelled() and fs.exception() is None and fs.result() is True
        if is_kept and not conn.parser.unreader.buf.getvalue():  # else the start of a request whose rest may be slow
            super().finish_request(conn, fs)
        else:
            self._close_gracefully(conn, LINGER_S)

    def _await_request(self, conn: TConn, silence_s: float) -> None:
        conn.seen, conn.head_by = 0, time.monotonic() + HEAD_S
        self._watch(conn, silence_s)

    def _look(self, conn: TConn) -> None:
        """Decide about a request once its head is there; until then wait for more of it than has been seen."""
        try:
            data = conn.sock.recv(MAX_HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        head = RequestHead.of(data)
        is_whole = head is not None and (head.is_upload or not head.body_is_near)
        if not is_whole and conn.seen < len(data) < MAX_HEAD_BYTES:
            conn.seen, conn.timeout = len(data), conn.head_by
            _wake_at(conn.sock, len(data) + 1)
            return
        _wake_at(conn.sock, 1)
        self._unwatch(conn)
        if not data:
            self._drop(conn)
            return
        if len(data) == MAX_HEAD_BYTES and head is None:
            self._answer(conn, HEAD_TOO_LONG)
            return
        conn.head = RequestHead() if head is None else head  # the client has stopped sending: gunicorn will find out
        place = self._place_for(conn.head)
        if place is None:
            self._reject(conn)
        else:
            self._begin(conn, place)

    def _place_for(self, head: RequestHead) -> str | None:
        """Return as what a request may begin, or None where there is no place for it."""
        context: AppContext = self.wsgi.extensions["fracture"]
        largest, queue_size = context.settings.max_upload_bytes, context.settings.queue_size
        with self.progress_lock:
            others = [(conn.place, conn.head) for conn in (*self.in_progress, *self.admitted)]
        places = [place for place, _ in others]
        if head.is_upload:
            held = sum(other.bytes_at_most(largest) for _, other in others if other.is_upload)
            fits = not held or held + head.bytes_at_most(largest) <= MAX_UPLOAD_BYTES
            if fits and not context.service.full and places.count(UPLOAD) < queue_size:
                return UPLOAD
            if not fits or not head.has_key:  # the result for its key may be stored already
                return None
        elif not head.body_is_missing:
            return QUICK
        return SLOW if places.count(SLOW) < MAX_SLOW_BODIES else None

    def _begin(self, conn: TConn, place: str) -> None:
        conn.place, conn.data_ready = place, True
        left = self._threads_left()
        if place == UPLOAD or left <= (0 if conn.head.is_probe else PROBE_THREADS):
            self.admitted.append(conn)
        else:
            self._start(conn)

    def _start(self, conn: TConn) -> None:
        context: AppContext = self.wsgi.extensions["fracture"]
        body = conn.head.bytes_at_most(context.settings.max_upload_bytes)
        conn.body_by = time.monotonic() + BODY_S + body / SLOWEST_BYTES_PER_S
        with self.progress_lock:
            self.in_progress.add(conn)
        self.enqueue_req(conn)

    def _threads_left(self) -> int:
        with self.progress_lock:
            return self.cfg.threads - len(self.in_progress)

    def _reject(self, conn: TConn) -> None:
        metrics = self.wsgi.extensions["fracture"].metrics
        metrics.reject("busy")
        metrics.request("POST", "api.create_prediction" if conn.head.is_upload else None, 503)
        self._answer(conn, BUSY_FORM if conn.head.is_form else BUSY_UPLOAD if conn.head.is_upload else BUSY_OTHER)

    def _answer(self, conn: TConn, response: bytes) -> None:
        with suppress(OSError):  # closed by the client, which reading will notice
            conn.sock.send(response)  # fits into the empty send buffer of a connection
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
            self._drop(conn)
        else:
            self._watch(conn, NEXT_BYTE_S)

    def _drop(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def _watch(self, conn: TConn, silence_s: float) -> None:
        conn.timeout = time.monotonic() + silence_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _unwatch(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        self.pending_conns.remove(conn)


def _wake_at(sock: socket.socket, count: int) -> None:
    """Make the poller report a connection only once `count` bytes have arrived: peeking leaves them there."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _response(status: str, kind: str, body: bytes, **more: str) -> bytes:
    headers = (
        HEADERS
        | more
        | {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _busy(kind: str, body: str) -> bytes:
    return _response("503 Service Unavailable", kind, body.encode(), **{"Retry-After": str(RETRY_AFTER_S)})


TEXT = "text/plain; charset=utf-8"
BUSY_UPLOAD = _busy("application/json", json.dumps({"ok": False, "error": BUSY, "status": 503}))
BUSY_FORM = _busy(TEXT, f"{BUSY}\n")
BUSY_OTHER = _busy(TEXT, "The server is busy; please try again in a few seconds.\n")
HEAD_TOO_LONG = _response("431 Request Header Fields Too Large", TEXT, b"The head of this request is too long.\n")
