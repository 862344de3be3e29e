"""The node: storage SCP, sources, worker and health around one queue and one detector."""

from __future__ import annotations

import fcntl
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from fracture_det.inference.service import PredictionService

from ..app import open_store
from ..served import Follower, followed_registry, open_service
from ..settings import Settings
from ..store import Store, StoreError
from .analysis import Analyser
from .commitment import CommitmentSender
from .config import PacsConfig
from .health import HealthServer
from .metrics import PacsMetrics
from .senders import Sender, open_sender
from .sources import Sources
from .storage_scp import COMMITMENT, StorageScp
from .tls import server_context
from .worker import Worker

LOCK_FILE = "node.lock"

log = logging.getLogger(__name__)


class Node:
    """A running node. Raises PacsConfigError, StoreError, OSError, DetectorError or DetectorFailed."""

    def __init__(self, config: PacsConfig, settings: Settings, *, service: PredictionService | None = None) -> None:
        quiet_loggers()
        self.config = config
        self.store: Store = open_store(settings)
        self.store.pacs.spool.prepare()
        self._lock = _lock(self.store)
        tls = None if config.tls is None else server_context(config.tls)
        self.metrics = PacsMetrics(self.store.pacs_status)
        senders: dict[str, Sender] = {known.name: open_sender(known, config) for known in config.destinations}
        for peer in config.peers:
            senders[f"{COMMITMENT}:{peer.ae_title}"] = CommitmentSender(peer, config)
        self.service = service or open_service(settings)
        registry = followed_registry(settings) if service is None else None
        self._follower = None if registry is None else Follower(registry, self.service, settings)
        analyser = Analyser(self.service, self.store, settings)
        self._worker = Worker(config, self.store.pacs, analyser, senders, self.metrics)
        self._sources = Sources(config, self.store.pacs, self.metrics, self._worker.wake)
        self._scp = StorageScp(config, self.store.pacs, self.metrics, self._worker.wake, tls)
        self._health = HealthServer(config.http_host, config.http_port, lambda: self.problem, self.metrics.text)
        self._serving = threading.Thread(target=self._scp.serve, name="storage SCP", daemon=True)

    @property
    def port(self) -> int:
        """The port of the storage SCP."""
        return self._scp.port

    @property
    def http_port(self) -> int:
        """The port of health and metrics."""
        return self._health.port

    @property
    def problem(self) -> str | None:
        """Why objects cannot be taken or analysed at the moment, or None."""
        if not (self._serving.is_alive() and self._worker.is_alive and self._sources.is_alive):
            return "a part of the node has ended"
        if not self.service.ready:
            return "the detector is not ready"
        return self.store.problem

    def start(self) -> None:
        """Start everything."""
        if self._follower is not None:
            self._follower.start()
        self._worker.start()
        self._sources.start()
        self._health.start()
        self._serving.start()

    def stop(self) -> None:
        """Take no more objects, finish what is in progress and close; what waits stays in the queue."""
        self._scp.close()
        self._sources.stop()
        if self._follower is not None:
            self._follower.close()
        self.service.turn_away()  # what waits for the detector is analysed by the next process
        self._worker.stop()
        self._health.close()
        self.service.close()
        self.store.close()
        self._lock.close()


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set."""
    stopped = threading.Event()
    former = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def quiet_loggers() -> None:
    """Keep libraries from logging what is in objects, messages and addresses; the node says what happens itself."""
    for name in ("pynetdicom", "pydicom", "highdicom", "dicomweb_client", "urllib3", "PIL", "fontTools", "fpdf"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _lock(store: Store) -> IO[str]:
    """Hold the queue against a second node. Raises StoreError."""
    file = (store.pacs.spool.folder / LOCK_FILE).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoreError(f"another node works on the queue in {store.pacs.spool.folder}") from error
    return file
