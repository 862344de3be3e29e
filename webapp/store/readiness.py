"""Whether results can be kept, found out by trying, at most every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from .database import StoreUnavailable

# How long a result holds: a failure is looked at again sooner, so that recovery is noticed.
READY_S, FAILED_S = 5.0, 1.0

log = logging.getLogger(__name__)


class Readiness:
    """The outcome of `checks`, each of which raises StoreUnavailable.

    One thread tries, the others see the last outcome: otherwise probes of a frozen database would hold a thread each.
    """

    def __init__(self, checks: Sequence[Callable[[], None]]) -> None:
        self._checks = checks
        self._checking = threading.Lock()
        self._problem: str | None = None
        self._holds_until = 0.0

    @property
    def problem(self) -> str | None:
        """The reason of the first check that fails, or None."""
        if time.monotonic() >= self._holds_until and self._checking.acquire(blocking=False):
            try:
                self._check()
            finally:
                self._checking.release()
        return self._problem

    def _check(self) -> None:
        problem = None
        try:
            for check in self._checks:
                check()
        except StoreUnavailable as error:
            problem = str(error)
            if problem != self._problem:
                log.error("Results cannot be kept: %s", error.__cause__ or error)
        if problem is None and self._problem is not None:
            log.warning("Results can be kept again")
        self._problem = problem
        self._holds_until = time.monotonic() + (READY_S if problem is None else FAILED_S)
