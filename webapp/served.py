"""The detector that is served: opened once, or followed in a registry, whose every change is taken over at run time."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.calls import warm_up
from fracture_det.inference.registry import open_detector, scheme_and_target
from fracture_det.inference.service import PredictionService, assess
from fracture_det.registry.errors import RegistryError
from fracture_det.registry.opening import SCHEME, open_version, parse_target
from fracture_det.registry.registry import Registry
from fracture_det.registry.states import States
from fracture_det.structures.fracture_types import FractureTypeError, fracture_types

from .settings import Settings

# How often the registry is looked at, and how soon a version is tried again that could not be served.
POLL_S, RETRY_S = 1.0, 30.0

log = logging.getLogger(__name__)


def open_service(settings: Settings) -> PredictionService:
    """Open the detector of `settings` and return a service that has passed its warm-up.

    Raises DetectorError or DetectorFailed.
    """
    try:
        fracture_types()
    except FractureTypeError as error:
        raise DetectorError(f"the types of fracture cannot be read: {error}") from error
    service = PredictionService(
        _open(settings),
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        queue_size=settings.queue_size,
        max_pixels=settings.max_pixels,
        timeout_s=settings.timeout_s,
        assess=assess if settings.suitability else None,
    )
    service.warm_up()
    return service


def followed_registry(settings: Settings) -> Registry | None:
    """Return the registry whose served version the settings ask for; None where they name one exact detector."""
    scheme, target = scheme_and_target(settings.detector)
    if scheme != SCHEME:
        return None
    registry, name = parse_target(target)
    return None if name is not None else registry


def detector_options(settings: Settings) -> dict[str, Any]:
    """Return what the settings change in a detector."""
    return {} if settings.nms_iou is None else {"nms_iou": settings.nms_iou}


def _open(settings: Settings) -> Detector:
    scheme, target = scheme_and_target(settings.detector)
    if scheme == SCHEME:
        registry, name = parse_target(target)
        try:
            return _open_from(registry, name or registry.served_name(), settings)
        except RegistryError as error:
            raise DetectorError(f"detector {settings.detector}: {error}") from error
    detector = open_detector(settings.detector, calibration=settings.calibration, **detector_options(settings))
    return _checked(detector, settings)


def _open_from(registry: Registry, name: str, settings: Settings) -> Detector:
    if settings.calibration is not None:
        raise DetectorError(
            f"detector {settings.detector}: a version brings its own calibration; unset FRACTURE_CALIBRATION, got "
            f"{settings.calibration}"
        )
    return _checked(open_version(registry, name, **detector_options(settings)), settings)


def _checked(detector: Detector, settings: Settings) -> Detector:
    actual, expected = detector.info.sha256, settings.model_sha256
    if expected is not None and actual != expected:
        raise DetectorError(f"detector {settings.detector}: FRACTURE_MODEL_SHA256 expects {expected}, got {actual}")
    return detector


class Follower:
    """Watches a registry, and swaps the detector of `service` when another version is served.

    The new one is verified, opened and warmed up beside the old one, which goes on answering; where that fails, it goes
    on for good, and `problem` says so. The old one then stays loaded for `former_minutes` of the settings: the way back
    is verified again, and needs no opening. on_swap: called with "done" or "failed". on_states: called with what the
    registry says, at the start and after each change; it must not raise.
    """

    def __init__(
        self,
        registry: Registry,
        service: PredictionService,
        settings: Settings,
        *,
        on_swap: Callable[[str], None] = lambda outcome: None,
        on_states: Callable[[States], None] = lambda states: None,
    ) -> None:
        self.registry, self._service, self._settings = registry, service, settings
        self._on_swap, self._on_states = on_swap, on_states
        self._states: States | None = None
        self._retry_at = self._former_until = 0.0
        self._former: Detector | None = None
        self._stopped = threading.Event()
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._watch, name="registry", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Watch no longer; a version that is being opened is left."""
        self._stopped.set()

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # whatever it is, the one that is served goes on, and so does the watch
                self.problem = "the registry of detectors cannot be followed"
                log.exception("The registry of detectors cannot be followed")
            if self._stopped.wait(POLL_S):
                return

    def look(self) -> None:
        """Read the registry once, and serve what it says."""
        if self._former is not None and time.monotonic() >= self._former_until:
            self._former = None
            gc.collect()  # its graphs are freed now, not at some later time
        try:
            states = self.registry.states
        except (RegistryError, OSError) as error:
            self._report(f"the registry cannot be read; {self._named} goes on", error)
            return
        if states != self._states:
            self._states, self._retry_at = states, 0.0
            self._on_states(states)
        name = states.served
        if name == self._service.info.version or name is None:
            self.problem = None if name else f"the registry serves no version; {self._named} goes on"
        elif time.monotonic() >= self._retry_at:
            self._swap(name)

    @property
    def _named(self) -> str:
        return str(self._service.info.version)

    def _swap(self, name: str) -> None:
        former, begun = self._named, time.monotonic()
        try:
            self._former = self._service.swap(self._opened(name))
        except Exception as error:  # whatever its detector fails with at the warm-up
            self._retry_at = time.monotonic() + RETRY_S
            self._on_swap("failed")
            self._report(f"version {name} cannot be served; {former} goes on", error)
            return
        self.problem = None
        self._former_until = time.monotonic() + 60 * self._settings.former_minutes
        self._on_swap("done")
        log.warning("Version %s is served in place of %s, after %.1f s", name, former, time.monotonic() - begun)

    def _opened(self, name: str) -> Detector:
        """Return the version verified, opened and warm, or the former one, verified, where it is that."""
        if self._former is not None and self._former.info.version == name:
            self.registry.verify(name)
            return self._former
        detector = _open_from(self.registry, name, self._settings)
        warm_up(detector)
        return detector

    def _report(self, problem: str, error: Exception) -> None:
        """Keep a problem, for probes that anybody may read; what is wrong exactly is for the log, once."""
        if self.problem != problem:
            log.error("%s: %s", problem, error)
        self.problem = problem
