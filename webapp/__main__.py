"""Serve the upload page with gunicorn.

    .venv/bin/python -m webapp --host 127.0.0.1 --port 8000 --detector shipped

One worker process holds one model, opened after the fork; its threads share it. Everything else is set by the
FRACTURE_* variables of docs/api.md.
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
import time
import warnings
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from fracture_det.inference.base import DetectorError
from fracture_det.inference.service import DetectorFailed

from . import create_app
from .context import AppContext
from .presentation import NOTICE
from .settings import Settings, SettingsError
from .store import StoreError
from .worker import UploadLimitWorker

# Opening torch and a model on a busy machine; requests have the service's own, shorter limit.
START_TIMEOUT_S = 300
# Threads beside those that the queue can hold, so that "busy" is said at once and probes are always answered.
SPARE_THREADS = 16
# Connections that the kernel holds until a thread is free; one that finds no room tries again only after a second.
WAITING_CONNECTIONS = 2048
# Connections taken in at a time: well below the 1,024 files that a process may usually open.
CONNECTIONS = 512
SILENT_CLIENT_S = 20
# A detector that is silent for so many times its time limit will not come back: the worker ends, a new one starts.
GIVE_UP_FACTOR = 3
# Told to stop, the server finishes for so long what is under way. Who then still waits for the detector must hear so
# a batch before the end.
GRACE_S, TURN_AWAY_S = 30, 22.0
CANNOT_START = 3  # gunicorn's code for a worker that must not be started again


def main(argv: list[str] | None = None) -> int:
    """Serve until stopped; return 1 when the settings or the port cannot be used."""
    arguments = build_parser().parse_args(argv)
    try:
        settings = Settings.from_environ(**vars(arguments))
        listener = listen(settings)
        refuse_open_door(settings, listener)
    except SettingsError as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 1
    address = address_of(listener, settings.host)
    print(f"fracture_det: opening detector {settings.detector} ...", flush=True)
    Server(settings, listener, address).run()
    return 0


def build_parser(prog: str = "python -m webapp", description: str | None = __doc__) -> argparse.ArgumentParser:
    """Return the parser; what is not given comes from the FRACTURE_* variables."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000; 0 takes a free one)")
    parser.add_argument("--detector", help="shipped, or scheme:path such as d2:output/model_best.pth")
    parser.add_argument("--calibration", type=Path, help="calibration.json of tools/eval.py, fitted for this detector")
    return parser


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the address of `settings`.

    Raises SettingsError when the port is in use or the address is not one of this machine.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        # Taken over by its connections: who sends nothing, or takes nothing, gives a thread back.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SILENT_CLIENT_S, 0))
        listener.listen(WAITING_CONNECTIONS)  # gunicorn takes the socket as it is
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror or error});"
            " is another program using it? Choose another one with --port or FRACTURE_PORT"
        ) from error
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """Return the URL under which `listener` is reached."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def refuse_open_door(settings: Settings, listener: socket.socket) -> None:
    """Raise SettingsError where other machines could reach a page without a login."""
    if settings.login or (_is_loopback(listener) and not settings.trusted_proxies):
        return
    raise SettingsError(
        f"{settings.host} can be reached from other machines: expected FRACTURE_LOGIN=on, FRACTURE_SECRET_KEY and a"
        " user made with `python -m webapp.admin add-user`, or --host 127.0.0.1 and no FRACTURE_TRUSTED_PROXIES"
    )


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


class Server(BaseApplication):
    """gunicorn with one worker process and many threads."""

    def __init__(self, settings: Settings, listener: socket.socket, address: str) -> None:
        self.settings, self.listener, self.address = settings, listener, address
        self.loopback = _is_loopback(listener)
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options; its own files and variables are not read."""
        options: dict[str, Any] = {
            "bind": f"fd://{self.listener.fileno()}",
            "workers": 1,
            "worker_class": UploadLimitWorker,
            "threads": self.settings.queue_size + SPARE_THREADS,
            "worker_connections": max(CONNECTIONS, 2 * (self.settings.queue_size + SPARE_THREADS)),
            "timeout": START_TIMEOUT_S,
            "graceful_timeout": GRACE_S,
            "loglevel": "warning",
            "proc_name": "fracture_det",
            "control_socket_disable": True,
            "on_starting": _drop_boot_noise,
            "post_worker_init": self._say_ready,
            "worker_exit": _close,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Open the app in the worker, after the fork; what stops it is said in one sentence."""
        # What torch deprecates within itself is no news for who starts a server.
        warnings.filterwarnings("ignore", module=r"(torch|detectron2)\b")
        try:
            return create_app(self.settings, loopback=self.loopback)
        except (DetectorError, DetectorFailed, StoreError) as error:
            print(f"fracture_det: {error}", file=sys.stderr, flush=True)
            sys.exit(CANNOT_START)

    def _say_ready(self, worker: Any) -> None:
        app_context: AppContext = worker.wsgi.extensions["fracture"]
        _say_draining(worker.wsgi)
        watch = threading.Thread(target=_end_if_hung, args=(app_context,), name="watch", daemon=True)
        watch.start()
        notice = NOTICE[0].lower() + NOTICE[1:].rstrip(".").replace(". N", ", n")
        print(f"fracture_det: {self.address} (detector {app_context.service.info.name}; {notice})", flush=True)


def _say_draining(app: Flask) -> None:
    """Let /readyz say no from the signal on that ends the worker, while it finishes what is under way."""
    finish = signal.getsignal(signal.SIGTERM)
    app_context: AppContext = app.extensions["fracture"]

    def drain(number: int, frame: Any) -> None:
        is_first = not app.config.get("DRAINING")
        app.config["DRAINING"] = True
        if callable(finish):
            finish(number, frame)
        if is_first:
            later = threading.Timer(TURN_AWAY_S, app_context.service.turn_away)
            later.daemon = True
            later.start()

    signal.signal(signal.SIGTERM, drain)


def _end_if_hung(app_context: AppContext) -> None:
    """End the process when the detector hangs for good: no thread can be stopped from outside; gunicorn starts anew."""
    limit_s = GIVE_UP_FACTOR * app_context.settings.timeout_s
    while app_context.service.silent_s <= limit_s:
        time.sleep(1)
    print(f"fracture_det: the detector has been silent for {limit_s:g} s; starting anew", file=sys.stderr, flush=True)
    os._exit(1)


def _drop_boot_noise(arbiter: Any) -> None:
    arbiter.log.error_log.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what gunicorn adds when a worker could not start: the worker has said why."""
    message = record.getMessage()
    echoes = (f"exited with code {CANNOT_START}.", "Shutting down: Master", "Reason: Worker failed to boot.")
    return not message.endswith(echoes)


def _close(_arbiter: Any, worker: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app_context: AppContext = app.extensions["fracture"]
        app_context.service.close()
        app_context.store.close()


if __name__ == "__main__":
    sys.exit(main())
