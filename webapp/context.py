"""What the routes share: settings, service, store, metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flask import current_app

from fracture_det.inference.service import PredictionService

from .errors import RETRY_AFTER_S, RequestError
from .metrics import Metrics
from .settings import Settings
from .store import Store

UNDER_WAY = "An upload with the same Idempotency-Key is being analysed; please ask again in a few seconds."


class IdempotencyKeys:
    """The idempotency keys of uploads that are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, owner: str, key: str | None) -> Iterator[None]:
        """Hold the key of `owner`; None is nobody's. Raises RequestError while another upload has it."""
        if key is None:
            yield
            return
        with self._lock:
            if (owner, key) in self._held:
                raise RequestError(503, UNDER_WAY, reason="key", retry_after_s=RETRY_AFTER_S)
            self._held.add((owner, key))
        try:
            yield
        finally:
            with self._lock:
                self._held.discard((owner, key))


@dataclass(frozen=True)
class AppContext:
    """What the views of one app share."""

    settings: Settings
    service: PredictionService
    store: Store
    metrics: Metrics
    keys: IdempotencyKeys
    drawing: threading.BoundedSemaphore

    @property
    def operating_score(self) -> float:
        """The score (0..1) from which a box counts: the setting, else the detector's own."""
        return self.service.info.score_threshold if self.settings.score is None else self.settings.score

    @property
    def possible_score(self) -> float:
        """The score (0..1) from which a box is worth a look: the setting, else the detector's own, else half the point.

        "The point" is the operating point, which a setting may have moved below the detector's own possible score.
        """
        if self.settings.possible_score is not None:
            return self.settings.possible_score
        own = self.service.info.possible_score
        return self.operating_score / 2 if own is None or own > self.operating_score else own


def app_context() -> AppContext:
    """Return the app_context of the current app."""
    found: AppContext = current_app.extensions["fracture"]
    return found
