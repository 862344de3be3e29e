"""Where objects come from without an association: a DICOMweb server that is polled, and a watched folder."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from requests import RequestException

from ..private_logs import where
from ..store import StoreUnavailable
from ..store.pacs import CHANGED, NEW, PacsQueue
from .config import Folder, PacsConfig, Poll
from .metrics import PacsMetrics
from .objects import MalformedObject, inspect
from .senders import dicomweb_client

REFUSED = "refused"
# A file is taken when it has not changed for so long: whoever writes it is done.
SETTLED_S = 2.0
PAGE = 100

log = logging.getLogger(__name__)


class Sources:
    """Threads that fetch objects into the queue until they are stopped."""

    def __init__(self, config: PacsConfig, queue: PacsQueue, metrics: PacsMetrics, on_new: Callable[[], None]) -> None:
        self._config, self._queue, self._metrics, self._on_new = config, queue, metrics, on_new
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start one thread for each source."""
        for poll in self._config.polls:
            self._run(f"poll:{poll.name}", poll.every_s, lambda poll=poll: self._fetch(poll))  # type: ignore[misc]
        for folder in self._config.folders:
            self._run(f"folder:{folder.name}", folder.every_s, lambda folder=folder: self._take(folder))  # type: ignore[misc]

    def stop(self) -> None:
        """Stop after what is in progress."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    def _run(self, name: str, every_s: float, step: Callable[[], None]) -> None:
        def loop() -> None:
            while not self._stopped.is_set():
                try:
                    step()
                except (StoreUnavailable, RequestException, OSError) as error:
                    log.error("The source %s cannot be read for now (%s)", name, type(error).__name__)
                    self._metrics.failure("source")
                except Exception as error:
                    log.error("The source %s failed: %s", name, where(error))
                    self._metrics.failure("source")
                self._stopped.wait(every_s)

        thread = threading.Thread(target=loop, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fetch(self, poll: Poll) -> None:
        """Ask by QIDO-RS for instances of the last days, and fetch by WADO-RS those that are not known."""
        client = dicomweb_client(poll, self._config)
        for found in _instances(client, poll):
            if self._stopped.is_set():
                return
            if self._queue.knows([found[2]]):
                continue
            dataset = client.retrieve_instance(*found)
            path = self._queue.spool.incoming / secrets.token_hex(16)
            dataset.save_as(path, enforce_file_format=True)
            try:
                self._receive(path, f"poll:{poll.name}")
            except MalformedObject as error:
                log.warning("An object was refused: %s", error)
                self._metrics.refused("malformed")
            finally:
                path.unlink(missing_ok=True)

    def _take(self, folder: Folder) -> None:
        """Take files that have settled; the original is deleted only after it is in the queue."""
        for original in sorted(folder.path.iterdir()):
            if self._stopped.is_set():
                return
            if not original.is_file() or original.is_symlink() or original.name.startswith("."):
                continue
            if original.stat().st_mtime > time.time() - SETTLED_S:
                continue
            copy = self._queue.spool.incoming / secrets.token_hex(16)
            try:
                self._check_size(original)
                shutil.copyfile(original, copy)
                if self._receive(copy, f"folder:{folder.name}") == CHANGED:
                    raise MalformedObject("another object with its SOP instance UID is here")
                original.unlink()
            except MalformedObject as error:
                log.warning("A file of the folder %s was refused: %s", folder.name, error)
                self._metrics.refused("malformed")
                (folder.path / REFUSED).mkdir(exist_ok=True)
                os.replace(original, folder.path / REFUSED / original.name)  # noqa: PTH105 - over an earlier one
            finally:
                copy.unlink(missing_ok=True)

    def _check_size(self, path: Path) -> None:
        if path.stat().st_size > self._config.max_object_mb * 1024 * 1024:
            raise MalformedObject("it is over the limit")

    def _receive(self, path: Path, source: str) -> str:
        self._check_size(path)
        received, _ = inspect(path)
        outcome = self._queue.receive(path, received, source=source, quiet_s=self._config.quiet_s)
        self._metrics.received(outcome)
        if outcome == NEW:
            self._on_new()
        return outcome


def _instances(client: Any, poll: Poll) -> Iterator[tuple[str, str, str]]:
    """Yield study, series and SOP instance UIDs, newest studies first where the server sorts so."""
    first = (date.today() - timedelta(days=poll.days)).strftime("%Y%m%d")
    for modality in poll.modalities:
        offset = 0
        while True:
            filters = {"ModalitiesInStudy": modality, "StudyDate": f"{first}-"}
            studies = client.search_for_studies(search_filters=filters, limit=PAGE, offset=offset)
            for study in studies:
                study_uid = _value(study, "0020000D")
                for instance in client.search_for_instances(study_uid, search_filters={"Modality": modality}):
                    yield study_uid, _value(instance, "0020000E"), _value(instance, "00080018")
            if len(studies) < PAGE:
                break
            offset += PAGE


def _value(content: dict[str, Any], tag: str) -> str:
    return str(content[tag]["Value"][0])
