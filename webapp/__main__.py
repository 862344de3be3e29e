"""Serve the upload page with gunicorn.

    fracture-det serve --host 127.0.0.1 --port 8000 --detector shipped

One worker process holds one model, loaded after the fork; its threads share it. Everything else is set by the
FRACTURE_* variables, see docs/api.md.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import socket
import struct
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from fracture_det.inference.base import DetectorError
from fracture_det.inference.service import DetectorFailed, return_freed_memory

from . import create_app
from .context import AppContext
from .presentation import NOTICE
from .private_logs import WithoutRequests
from .settings import Settings, SettingsError
from .store import StoreError
from .worker import UploadLimitWorker

# Allows for importing torch and loading a model on a busy machine; requests have the shorter limit of the service.
START_TIMEOUT_S = 300
# Threads beyond those that the queue can hold, so that "busy" is sent at once and probes are always answered.
SPARE_THREADS = 16
# Connections that the kernel queues; a client that finds the backlog full retries only after a second.
BACKLOG = 2048
# Open connections: well below the usual limit of 1,024 open files per process.
MAX_CONNECTIONS = 512
SOCKET_TIMEOUT_S = 20
# A detector that has not responded for this many times its time limit never will: the worker is replaced.
HANG_FACTOR = 3
# How long a stopping server finishes requests in progress, and when it rejects those still waiting for the detector,
# so early that one more batch fits.
GRACE_S, REJECT_WAITING_S = 30, 22.0
CANNOT_START = 3  # the exit code with which gunicorn does not restart a worker


def main(argv: list[str] | None = None) -> int:
    """Serve until stopped; return 1 when the settings or the port cannot be used."""
    arguments = build_parser().parse_args(argv)
    try:
        settings = Settings.from_environ(**vars(arguments))
        listener = listen(settings)
        require_login_beyond_loopback(settings, listener)
    except SettingsError as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 1
    url = url_of(listener, settings.host)
    print(f"fracture_det: opening detector {settings.detector} ...", flush=True)
    Server(settings, listener, url).run()
    return 0


def build_parser(prog: str = "python -m webapp", description: str | None = __doc__) -> argparse.ArgumentParser:
    """Return the parser; options that are not given come from the FRACTURE_* variables."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000; 0 takes a free one)")
    parser.add_argument("--detector", help="shipped, registry:FOLDER, or scheme:path such as d2:output/model_best.pth")
    parser.add_argument("--calibration", type=Path, help="calibration.json of tools/eval.py, fitted for this detector")
    return parser


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the address of `settings`.

    Raises SettingsError when the port is in use or the address is not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Inherited by its connections: a client that neither sends nor receives frees its thread.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SOCKET_TIMEOUT_S, 0))
        listener.listen(BACKLOG)  # gunicorn does not call it on a socket that it is given
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror or error});"
            " is another program using it? Choose another with --port or FRACTURE_PORT"
        ) from error
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """Return the URL at which `listener` is reached."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def require_login_beyond_loopback(settings: Settings, listener: socket.socket) -> None:
    """Raise SettingsError if other machines could reach the page without a login."""
    if settings.login or (_is_loopback(listener) and not settings.trusted_proxies):
        return
    raise SettingsError(
        f"{settings.host} can be reached from other machines: expected FRACTURE_LOGIN=on, FRACTURE_SECRET_KEY and a"
        " user created with `fracture-det admin add-user`, or --host 127.0.0.1 and no FRACTURE_TRUSTED_PROXIES"
    )


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


class Server(BaseApplication):
    """gunicorn with one worker process and many threads."""

    def __init__(self, settings: Settings, listener: socket.socket, url: str) -> None:
        self.settings, self.listener, self.url = settings, listener, url
        self.loopback = _is_loopback(listener)
        self.stopped = threading.Event()
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options; its own files and variables are not read."""
        options: dict[str, Any] = {
            "bind": f"fd://{self.listener.fileno()}",
            "workers": 1,
            "worker_class": UploadLimitWorker if self.settings.worker == "upload-limit" else "gthread",
            "threads": self.settings.queue_size + SPARE_THREADS,  # see webapp/worker.py for who gets them
            "worker_connections": max(MAX_CONNECTIONS, 2 * (self.settings.queue_size + SPARE_THREADS)),
            "timeout": START_TIMEOUT_S,
            "graceful_timeout": GRACE_S,
            "loglevel": "warning",
            "proc_name": "fracture_det",
            "control_socket_disable": True,
            "forwarder_headers": "",  # a URL prefix comes from trusted proxies alone, as X-Forwarded-Prefix
            "on_starting": _filter_log,
            "post_worker_init": self._announce_ready,
            "worker_exit": self._close,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Create the app in the worker, after the fork; a failure is reported in one sentence."""
        # Deprecations inside torch do not concern whoever starts a server.
        warnings.filterwarnings("ignore", module=r"(torch|detectron2)\b")
        return_freed_memory()
        try:
            return create_app(self.settings, loopback=self.loopback)
        except (DetectorError, DetectorFailed, StoreError) as error:
            print(f"fracture_det: {error}", file=sys.stderr, flush=True)
            sys.exit(CANNOT_START)

    def _announce_ready(self, worker: Any) -> None:
        app_context: AppContext = worker.wsgi.extensions["fracture"]
        _report_draining(worker.wsgi)
        watch = threading.Thread(target=_exit_if_hung, args=(app_context, self.stopped), name="watch", daemon=True)
        watch.start()
        notice = NOTICE[0].lower() + NOTICE[1:].rstrip(".").replace(". N", ", n")
        print(f"fracture_det: {self.url} (detector {app_context.service.info.name}; {notice})", flush=True)

    def _close(self, _arbiter: Any, worker: Any) -> None:
        app = getattr(worker, "wsgi", None)
        if app is not None:
            app_context: AppContext = app.extensions["fracture"]
            app_context.close()
        self.stopped.set()


def _report_draining(app: Flask) -> None:
    """Make /readyz return 503 from SIGTERM on, while the worker finishes the requests in progress."""
    stop_worker = signal.getsignal(signal.SIGTERM)
    app_context: AppContext = app.extensions["fracture"]

    def drain(number: int, frame: Any) -> None:
        is_first = not app.config.get("DRAINING")
        app.config["DRAINING"] = True
        if callable(stop_worker):
            stop_worker(number, frame)
        if is_first:
            timer = threading.Timer(REJECT_WAITING_S, app_context.service.turn_away)
            timer.daemon = True
            timer.start()

    signal.signal(signal.SIGTERM, drain)


def _exit_if_hung(app_context: AppContext, stopped: threading.Event) -> None:
    """End the process when the detector hangs, since a thread cannot be stopped; gunicorn starts a new worker."""
    limit_s = HANG_FACTOR * app_context.settings.timeout_s
    while app_context.service.silent_s <= limit_s:
        if stopped.wait(1):
            return
    print(f"fracture_det: the detector has not responded for {limit_s:g} s; restarting", file=sys.stderr, flush=True)
    os._exit(1)


def _filter_log(arbiter: Any) -> None:
    arbiter.log.error_log.addFilter(_is_relevant)
    arbiter.log.error_log.addFilter(WithoutRequests())


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return False for what gunicorn adds when a worker could not start: the worker has said why."""
    message = record.getMessage()
    echoes = (f"exited with code {CANNOT_START}.", "Shutting down: Master", "Reason: Worker failed to boot.")
    return not message.endswith(echoes)


if __name__ == "__main__":
    sys.exit(main())
