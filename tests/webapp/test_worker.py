"""The worker rides on internals of gunicorn: here they are, so that an upgrade that changes one fails here first."""

import hashlib
import inspect
import socket

import pytest
from gunicorn.app.base import BaseApplication
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import TConn, ThreadWorker

from webapp.worker import UploadLimitWorker

# What UploadLimitWorker overrides or calls, and what calls it in turn: the signature, and the start of the SHA-256 of
# the source. When one differs, read what gunicorn changed, mend webapp/worker.py, and put the new value here.
USED = [
    (ThreadWorker.init_process, "(self)", "e4fc63a1a68e4f48"),
    (ThreadWorker.accept, "(self, listener)", "f8dcead3dce5c851"),
    (ThreadWorker.on_pending_socket_readable, "(self, conn, client)", "2475f7087832c086"),
    (ThreadWorker.on_client_socket_readable, "(self, conn, client)", "aead1a3ea7b7daff"),
    (ThreadWorker.wait_for_and_dispatch_events, "(self, timeout)", "ea969b352482bd5c"),
    (ThreadWorker.handle, "(self, conn)", "ca85c9be3df75da4"),
    (ThreadWorker.finish_request, "(self, conn, fs)", "616e7bb15a009ff7"),
    (ThreadWorker.enqueue_req, "(self, conn)", "c9f428953d24acef"),
    (ThreadWorker.set_accept_enabled, "(self, enabled)", "140150ebfd3cae34"),
    (ThreadWorker.murder_pending, "(self)", "7bf11f46454296e1"),
    (ThreadWorker.run, "(self)", "f92c7394d85715a4"),
    (TConn.__init__, "(self, cfg, sock, client, server)", "c8763d7c65974e1b"),
    (TConn.close, "(self, graceful=False)", "6d1c334ed1979fcb"),
]
OVERRIDDEN = {
    "init_process",
    "accept",
    "on_pending_socket_readable",
    "on_client_socket_readable",
    "murder_pending",
    "wait_for_and_dispatch_events",
    "handle",
    "finish_request",
}


@pytest.mark.parametrize(("method", "signature", "digest"), USED, ids=[used[0].__qualname__ for used in USED])
def test_gunicorn_is_as_the_worker_expects_it(method, signature, digest):
    assert str(inspect.signature(method)) == signature
    assert hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:16] == digest


def test_every_override_is_one_and_is_listed():
    own = {name for name, value in vars(UploadLimitWorker).items() if inspect.isfunction(value)}
    assert {name for name in own if not name.startswith("_")} == OVERRIDDEN
    assert {method.__name__ for method, _, _ in USED} >= OVERRIDDEN
    # A name of our own that gunicorn takes into use would be overridden unawares.
    ours = {name for name in own if name.startswith("_")}
    assert not ours & {name for parent in (ThreadWorker, Worker) for name in vars(parent)}


class Application(BaseApplication):
    """gunicorn's configuration, and nothing served."""

    def load_config(self) -> None:
        """Take the defaults."""

    def load(self) -> None:
        """Serve nothing."""


@pytest.fixture
def worker():
    application = Application()
    made = ThreadWorker(1, 1, [], application, 30, application.cfg, None)
    yield made
    made.tmp.close()


def test_a_worker_has_the_attributes_that_are_used_and_none_of_ours(worker):
    assert worker.nr_conns == 0
    for connections in (worker.pending_conns, worker.keepalived_conns):
        assert list(connections) == []
        assert callable(connections.append)
        assert callable(connections.remove)
    assert {"cfg", "log", "poller", "sockets"} <= vars(worker).keys()
    assert "self.wsgi = self.app.wsgi()" in inspect.getsource(Worker.load_wsgi)
    assert not {"in_progress", "progress_lock", "admitted", "next_start", "looked_at"} & vars(worker).keys()


def test_a_connection_has_the_attributes_that_are_used_and_none_of_ours(worker):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = TConn(worker.cfg, ours, None, ("127.0.0.1", 8000))
        assert connection.sock is ours
        assert (connection.timeout, connection.data_ready) == (None, False)
        assert not {"is_closing", "close_at", "seen", "head_by", "body_by", "head", "place"} & vars(connection).keys()
        connection.close()
        assert ours.fileno() == -1
