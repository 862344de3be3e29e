"""What the views share: settings, prediction service, store and metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from fracture_det.inference.service import DetectorInfo, PredictionService

from .errors import RETRY_AFTER_S, RequestError
from .metrics import Metrics
from .settings import Settings
from .store import Store
from .watch import Watch

if TYPE_CHECKING:
    from .served import Follower
    from .shadow import Shadow

IN_PROGRESS = "An upload with the same Idempotency-Key is being analysed; please try again in a few seconds."


class IdempotencyKeys:
    """The idempotency keys of uploads in progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, owner: str, key: str | None) -> Iterator[None]:
        """Hold the key of `owner`, if there is one. Raises RequestError with 503 while another upload holds it."""
        if key is None:
            yield
            return
        with self._lock:
            if (owner, key) in self._held:
                raise RequestError(503, IN_PROGRESS, reason="key", retry_after_s=RETRY_AFTER_S)
            self._held.add((owner, key))
        try:
            yield
        finally:
            with self._lock:
                self._held.discard((owner, key))


@dataclass(frozen=True)
class AppContext:
    """What the views of one app share. `drawing` limits how many images are drawn at a time.

    follower, shadow: of a detector from a registry, else None.
    """

    settings: Settings
    service: PredictionService
    store: Store
    metrics: Metrics
    keys: IdempotencyKeys
    drawing: threading.BoundedSemaphore
    watch: Watch
    follower: Follower | None = None
    shadow: Shadow | None = None

    @property
    def problem(self) -> str | None:
        """Why the version that the registry says is not the one that answers, or None."""
        return None if self.follower is None else self.follower.problem

    def close(self) -> None:
        """Follow the registry no longer, and close detector and store."""
        for part in (self.follower, self.shadow, self.service, self.store):
            if part is not None:
                part.close()

    @property
    def operating_score(self) -> float:
        """The score (0..1) from which a box is likely."""
        return thresholds_of(self.settings, self.service.info)[0]

    @property
    def possible_score(self) -> float:
        """The score (0..1) from which a box is possible."""
        return thresholds_of(self.settings, self.service.info)[1]


def thresholds_of(settings: Settings, info: DetectorInfo) -> tuple[float, float]:
    """Return the scores (0..1) from which a box is likely, and possible.

    They are the settings, else the detector's own, else half the operating score for a possible one. The detector's
    own possible score is ignored where a setting has moved the operating score below it.
    """
    operating = info.score_threshold if settings.score is None else settings.score
    if settings.possible_score is not None:
        return operating, settings.possible_score
    own = info.possible_score
    return operating, operating / 2 if own is None or own > operating else own


def app_context() -> AppContext:
    """Return the context of the current app."""
    context: AppContext = current_app.extensions["fracture"]
    return context
