"""A candidate beside the served detector: it sees the same uploads, and no reader sees its answers."""

from __future__ import annotations

import logging
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from fracture_det.inference.base import DetectorInfo
from fracture_det.registry.registry import Registry
from fracture_det.registry.shadow_process import (
    Options,
    ShadowBoxes,
    ShadowEnded,
    ShadowFailed,
    ShadowInfo,
    ShadowProcess,
)
from fracture_det.structures.radiograph import Pixels

from .context import thresholds_of
from .metrics import Metrics
from .presentation import finding_level, floor_score
from .served import detector_options
from .settings import Settings
from .store import ShadowAnswer, Store, StoredPrediction, StoreUnavailable

# What waits for the shadow at most; what comes then is dropped, and counted.
PLACES, MAX_BYTES = 8, 200_000_000
# How soon a process that failed is started again.
RETRY_S = 30.0
ANSWERED, DROPPED, FAILED, DELETED = "answered", "dropped", "failed", "deleted"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Waiting:
    stored: StoredPrediction
    pixels: Pixels


class Shadow:
    """Runs the version that the registry names as the shadow, on what `offer` hands over. Nothing here ever raises."""

    def __init__(self, registry: Registry, store: Store, metrics: Metrics, settings: Settings) -> None:
        self._registry, self._store, self._metrics, self._settings = registry, store, metrics, settings
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(PLACES)  # None wakes the thread
        self._bytes, self._counting = 0, threading.Lock()
        self._version: str | None = None
        self._process: ShadowProcess | None = None
        self._running: str | None = None
        self._retry_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def use(self, version: str | None) -> None:
        """Run another version from now on, or none."""
        self._version, self._retry_at = version, 0.0

    def offer(self, stored: StoredPrediction, pixels: Pixels) -> None:
        """Let the shadow see a radiograph whose result is stored, unless it is behind."""
        if self._version is None:
            return
        if time.monotonic() < self._retry_at:
            self._metrics.shadow(DROPPED)
            return
        with self._counting:
            fits = not self._bytes or self._bytes + pixels.nbytes <= MAX_BYTES
            try:
                if not fits:
                    raise queue.Full
                self._waiting.put_nowait(_Waiting(stored, pixels))
                self._bytes += pixels.nbytes
            except queue.Full:
                self._metrics.shadow(DROPPED)

    def close(self) -> None:
        """End the process."""
        self._stopped.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        if (process := self._process) is not None:
            process.kill()
        self._thread.join(5)
        self._end()

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                waiting = self._waiting.get(timeout=1)
            except queue.Empty:
                waiting = None
            if self._running != self._version:
                self._end()
            if waiting is not None:
                self._metrics.shadow(self._outcome(waiting))
                with self._counting:
                    self._bytes -= waiting.pixels.nbytes
            del waiting  # its pixels would stay until the next one comes

    def _outcome(self, waiting: _Waiting) -> str:
        version = self._version
        if version is None or time.monotonic() < self._retry_at:
            return DROPPED
        try:
            return self._see(waiting, version)
        except Exception as error:  # of whatever kind: no reader's result depends on it
            self._retry_at = time.monotonic() + RETRY_S
            self._end()
            if not self._stopped.is_set():
                log.warning("The shadow %s failed; it is started again in %g s: %s", version, RETRY_S, error)
            return FAILED

    def _see(self, waiting: _Waiting, version: str) -> str:
        if self._process is None or self._running != version:  # changed since the last look
            self._end()
            options = Options(self._registry, version, detector_options(self._settings))
            self._process, self._running = ShadowProcess(options), version
        try:
            found = self._process.predict(waiting.pixels, self._settings.timeout_s)
        except ShadowEnded:
            raise
        except ShadowFailed as error:
            log.warning("The shadow %s failed on a radiograph: %s", version, error)
            return FAILED
        answer = _answer_of(version, self._process.info, found, self._settings)
        try:
            if not self._store.shadow.add(waiting.stored.id, answer):
                return DELETED
        except StoreUnavailable as error:
            log.warning("An answer of the shadow could not be stored: %s", error)
            return FAILED
        self._metrics.shadow_pair(waiting.stored, answer)
        return ANSWERED

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = self._running = None


def _answer_of(version: str, info: ShadowInfo, found: ShadowBoxes, settings: Settings) -> ShadowAnswer:
    """Return an answer with the level that it would have on the page, by the same thresholds."""
    facts = DetectorInfo(
        info.name, info.class_names, operating_score=info.operating_score, possible_score=info.possible_score
    )
    operating, possible = thresholds_of(settings, facts)
    rows = zip(found.boxes, found.scores, found.labels, strict=True)
    boxes = [(*box, score, label) for box, score, label in rows if np.float32(score) >= floor_score(possible)]
    return ShadowAnswer(
        version=version,
        model=info.name,
        model_sha256=info.sha256,
        finding=finding_level(boxes[0][4] if boxes else None, operating, possible),
        confidence=found.confidence,
        operating_score=operating,
        possible_score=possible,
        calibrated=info.calibrated,
        boxes=boxes,
    )
