"""The loops of the node: analyse what was received, answer studies, deliver outputs, and try again what failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fracture_det.inference.service import DetectorFailed, ServiceBusy, ServiceClosed

from ..private_logs import where
from ..store import StoreUnavailable
from ..store.pacs import DueStudy, PacsQueue, QueuedObject
from .analysis import Analyser
from .composing import answer_of, outputs_of
from .config import PacsConfig
from .metrics import PacsMetrics
from .senders import Sender, Undelivered

# As many objects at a time as the detector takes in a batch.
ANALYSES = 4
# How often the queue is looked at where nothing wakes a loop.
POLL_S = 0.5
FEEDBACK_S, SWEEP_S = 2.0, 600.0
BATCH = 50
# An analysis, an answer or a refused output is tried so often; what cannot be reached, for `give_up_hours`.
MAX_ATTEMPTS, MAX_REFUSALS = 4, 5
PAUSE_FACTOR = 3.0

log = logging.getLogger(__name__)


class Worker:
    """Works on the queue until it is stopped. `senders`: by the name of their destination."""

    def __init__(
        self,
        config: PacsConfig,
        queue: PacsQueue,
        analyser: Analyser,
        senders: dict[str, Sender],
        metrics: PacsMetrics,
    ) -> None:
        self._config, self._queue, self._analyser, self._senders = config, queue, analyser, senders
        self._metrics = metrics
        self._stopped = threading.Event()
        self._wakes: list[threading.Event] = []
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._analyses = ThreadPoolExecutor(ANALYSES, thread_name_prefix="analysis")
        self._threads: list[threading.Thread] = []
        self._next_feedback = self._next_sweep = 0.0

    def start(self) -> None:
        """Start one thread for analyses, one for answers and one for each destination."""
        self._run("objects", self._start_analyses)
        self._run("answers", self._answer_studies)
        for name, sender in self._senders.items():
            self._run(name, lambda name=name, sender=sender: self._deliver(name, sender))  # type: ignore[misc]

    def wake(self) -> None:
        """Look at the queue now: something came."""
        for wake in self._wakes:
            wake.set()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish what is in progress and stop; the rest stays in the queue."""
        self._stopped.set()
        self.wake()
        for thread in self._threads:
            thread.join(timeout_s)
        self._analyses.shutdown(wait=True, cancel_futures=True)

    @property
    def is_alive(self) -> bool:
        """Whether every loop runs."""
        return all(thread.is_alive() for thread in self._threads)

    def _run(self, name: str, step: Callable[[], None]) -> None:
        wake = threading.Event()
        self._wakes.append(wake)

        def loop() -> None:
            while not self._stopped.is_set():
                try:
                    step()
                except StoreUnavailable as error:
                    log.error("The queue cannot be used for now: %s", error)
                    self._metrics.failure("store")
                except Exception as error:  # the loop must go on; the message may quote an object
                    log.error("The loop of %s failed: %s", name, where(error))
                    self._metrics.failure("loop")
                wake.wait(POLL_S)
                wake.clear()

        thread = threading.Thread(target=loop, name=f"pacs {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # Objects

    def _start_analyses(self) -> None:
        with self._lock:
            busy = set(self._busy)
        for known in self._queue.waiting_objects(max(0, 2 * ANALYSES - len(busy)), but=busy):
            with self._lock:
                self._busy.add(known.id)
            self._analyses.submit(self._analyse, known)

    def _analyse(self, known: QueuedObject) -> None:
        try:
            if not self._stopped.is_set():
                self._try_analysis(known)
        except StoreUnavailable as error:  # it waits as before
            log.error("A result could not be kept: %s", error)
            self._metrics.failure("store")
        finally:
            with self._lock:
                self._busy.discard(known.id)
            self.wake()

    def _try_analysis(self, known: QueuedObject) -> None:
        try:
            result, prediction_id = self._analyser.analyse(known)
        except (ServiceBusy, ServiceClosed):
            return  # nothing is wrong with it
        except StoreUnavailable:
            raise
        except Exception as error:
            problem = "the detector failed" if isinstance(error, DetectorFailed) else type(error).__name__
            log.error("An analysis failed: %s", where(error))
            self._metrics.failure("analysis")
            self._queue.fail_object(known.id, problem, pause_s=self._pause(known.attempts, MAX_ATTEMPTS))
            return
        self._queue.finish_object(known.id, result.to_json(), prediction_id)
        self._metrics.result(result.finding or result.reason or result.status)

    # Studies

    def _answer_studies(self) -> None:
        if time.monotonic() >= self._next_feedback:
            self._next_feedback = time.monotonic() + FEEDBACK_S
            self._queue.call_for_feedback()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_S
            self._queue.sweep(self._config.keep_days)
            self._analyser.store.results.sweep_if_due()  # no page need run beside the node
        for study in self._queue.due_studies(BATCH):
            if self._stopped.is_set():
                return
            try:
                self._answer(study)
            except StoreUnavailable:
                raise
            except Exception as error:
                log.error("An answer failed: %s", where(error))
                self._metrics.failure("answer")
                self._queue.fail_study(
                    study.id, type(error).__name__, pause_s=self._pause(study.attempts, MAX_ATTEMPTS)
                )

    def _answer(self, study: DueStudy) -> None:
        answer = answer_of(study, self._config, self._analyser.service.info)
        content = study.content_sha256 or "" if answer is None else answer.content_sha256
        outputs = []
        if answer is not None and content != study.content_sha256:
            outputs = outputs_of(answer, self._config.answer_to(study.source))
        if self._queue.answer(study, content, outputs) and outputs:
            self.wake()

    # Deliveries

    def _deliver(self, name: str, sender: Sender) -> None:
        while not self._stopped.is_set():
            deliveries = self._queue.waiting_deliveries(name, BATCH)
            if not deliveries:
                return
            for delivery, failure in sender.send(deliveries):
                if failure is None:
                    self._queue.delivered(delivery.id)
                    self._metrics.delay(time.time() - delivery.created_at)
                else:
                    self._fail(delivery.id, delivery.attempts, delivery.refusals, delivery.created_at, failure)
                if self._stopped.is_set():
                    return

    def _fail(self, identifier: str, attempts: int, refusals: int, created_at: float, failure: Undelivered) -> None:
        self._metrics.failure("delivery")
        is_over = time.time() - created_at > self._config.give_up_hours * 3600
        is_over = is_over or (failure.refused and refusals + 1 >= MAX_REFUSALS)
        pause_s = None if is_over else self._pause(attempts, None)
        self._queue.fail_delivery(identifier, str(failure), pause_s=pause_s, refused=failure.refused)

    def _pause(self, attempts: int, at_most: int | None) -> float | None:
        """Return the pause after one more failed attempt, which grows, or None where that was the last."""
        if at_most is not None and attempts + 1 >= at_most:
            return None
        longest = self._config.longest_pause_s
        return min(longest, self._config.first_pause_s * PAUSE_FACTOR ** min(attempts, 20))
