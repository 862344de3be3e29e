"""One detector shared by many threads: a bounded queue in front, micro-batches behind."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fracture_det.inference.base import Detector, DetectorInfo
from fracture_det.inference.calls import call_detector, warm_up_images
from fracture_det.inference.memory import MemoryBudget, return_freed_memory
from fracture_det.inference.png import encode_png, encode_samples, overlay_png
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import (
    MAX_PIXELS,
    DamagedImage,
    DicomFile,
    GreySamples,
    ImageTooLarge,
    Pixels,
    Radiograph,
    UnreadableImage,
    UnsupportedImage,
    decoding_bytes,
    read_radiograph,
)
from fracture_det.suitability.assess import CAPTION, HEADLINE, NOTES, REASONS, Suitability, assess

# What the web page needs too, which knows nothing of fracture_det but its inference.
__all__ = [
    "CAPTION",
    "HEADLINE",
    "NOTES",
    "REASONS",
    "DamagedImage",
    "Detections",
    "DetectorFailed",
    "DetectorInfo",
    "GreySamples",
    "ImageTooLarge",
    "Prediction",
    "PredictionService",
    "ServiceBusy",
    "ServiceClosed",
    "Suitability",
    "UnreadableImage",
    "UnsuitableImage",
    "UnsupportedImage",
    "assess",
    "encode_png",
    "encode_samples",
    "overlay_png",
    "return_freed_memory",
]

UPLOAD_FORMATS = ("JPEG", "PNG", "DICOM")
# Room for the largest radiograph that is read, or for dozens of the usual size.
MAX_MEMORY = 1_300_000_000
Assess = Callable[[Radiograph], Suitability]

log = logging.getLogger(__name__)


class ServiceBusy(RuntimeError):
    """Every place in the queue is taken; the same request may succeed a little later."""


class ServiceClosed(RuntimeError):
    """The service has been closed and takes no more requests."""


class DetectorFailed(RuntimeError):
    """The detector raised, returned nonsense or did not return in time: nothing is known about the radiograph."""


class UnsuitableImage(ValueError):
    """A picture that does not look like a radiograph of a limb, and was not given to the detector."""

    def __init__(self, suitability: Suitability) -> None:
        super().__init__(f"{HEADLINE}. {suitability.sentence}")
        self.suitability = suitability


@dataclass(frozen=True, eq=False)
class Prediction:
    """One radiograph and its detections.

    pixels: (H, W, 3) uint8 RGB, upright; the detections' boxes are in its pixels.
    confidence: calibrated probability (0..1) that the radiograph shows a fracture; None from a detector without one.
    latency_ms: duration of the stages `read` (with the wait for a place in memory), `wait` (in the queue) and
    `detect` (the whole micro-batch), and `total`.
    suitability: whether it looks like a radiograph of a limb; not `ok` where it was analysed anyway, None where a
    service does not assess.
    spacing_mm, samples: those of the `Radiograph`.
    dicom: what the header of a DICOM file says of it; None of other files.
    """

    pixels: Pixels
    detections: Detections
    detector: DetectorInfo
    latency_ms: Mapping[str, float]
    confidence: float | None = None
    suitability: Suitability | None = None
    spacing_mm: tuple[float, float] | None = None
    samples: GreySamples | None = None
    dicom: DicomFile | None = None

    @property
    def may_be_kept(self) -> bool:
        """False where the file says that writing, such as a name, is burned into its pixels."""
        return self.dicom is None or not self.dicom.burned_in

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def labels(self) -> tuple[str, ...]:
        """The class name of each detection, in their order."""
        return tuple(self.detector.class_names[index] for index in self.detections.classes)


@dataclass(frozen=True, eq=False)
class _Detected:
    detections: Detections
    detector: DetectorInfo
    started: float
    ended: float


@dataclass(eq=False)
class _Request:
    radiograph: Radiograph
    entered: float
    suitability: Suitability | None = None
    future: Future[_Detected] = field(default_factory=Future)


class PredictionService:
    """Shares one detector among the threads of a server, or serves a single caller.

    At most `queue_size` requests are inside at a time; one more is refused at once with ServiceBusy. Those that are
    read, wait for the detector or are stored share `max_memory` bytes, by their depth and channels; the others wait. A
    radiograph that needs more is read alone. One thread feeds the detector with up to `max_batch` radiographs that
    arrive within `max_wait_ms`. A caller that waits longer than `timeout_s`, for a place in memory and for the
    detector, gets DetectorFailed. A detector that is silent for longer than that is not called again before it has
    returned: until then every caller gets DetectorFailed at once.

    assess: what must find that a picture is a radiograph of a limb before the detector sees it; None accepts any.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        max_batch: int = 4,
        max_wait_ms: float = 10.0,
        queue_size: int = 64,
        formats: tuple[str, ...] = UPLOAD_FORMATS,
        max_pixels: int = MAX_PIXELS,
        max_memory: int = MAX_MEMORY,
        timeout_s: float = 300.0,
        assess: Assess | None = None,
    ) -> None:
        sizes = {"max_batch": max_batch, "queue_size": queue_size, "max_pixels": max_pixels, "max_memory": max_memory}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"PredictionService.{name}: expected at least 1, got {value}")
        self._detector = detector
        self._max_batch, self._max_wait_s, self._timeout_s = max_batch, max_wait_ms / 1000, timeout_s
        self._formats, self._max_pixels, self._queue_size = formats, max_pixels, queue_size
        self._assess = assess
        self._places = threading.BoundedSemaphore(queue_size)
        self._memory = MemoryBudget(max_memory)
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._entrance = threading.Lock()
        self._asked_at: float | None = None  # when the detector was given the batch that it works on
        self._closed = self._drained = self._warm = False
        self._worker = threading.Thread(target=self._work, name="detector", daemon=True)
        self._worker.start()

    @property
    def info(self) -> DetectorInfo:
        """What the detector that takes the next batch states about itself."""
        return self._detector.info

    @property
    def ready(self) -> bool:
        """True after a warm-up prediction, until the service is closed, unless the detector is silent."""
        return self._warm and not self._closed and self._worker.is_alive() and not self.silent

    @property
    def silent_s(self) -> float:
        """For how many seconds the detector has been at its batch; 0 while it has none."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    @property
    def silent(self) -> bool:
        """True while the detector has been at one batch for longer than `timeout_s`."""
        return self.silent_s > self._timeout_s

    @property
    def full(self) -> bool:
        """True while one more request would be refused with ServiceBusy."""
        return self._places._value < 1  # trying for a place would take it from another request for a moment

    @property
    def waiting(self) -> int:
        """How many radiographs wait for the detector, decoded."""
        return self._queue.qsize()

    def warm_up(self) -> None:
        """Predict a grey ramp of the usual shape, upright and lying: the first user need not wait for what loads late.

        Raises DetectorFailed when the detector cannot do its work.
        """
        for pixels in warm_up_images():
            self.predict(encode_png(pixels), force=True)
        self._warm = True

    def swap(self, detector: Detector) -> Detector:
        """Let another detector take every batch from the next one on; return the former, which finishes its own.

        It should be warm (`warm_up` of calls.py). Every `Prediction` says whose it is.
        """
        former, self._detector = self._detector, detector
        return former

    def predict(self, source: Path | bytes, *, force: bool = False) -> Prediction:
        """Read the radiograph in `source` and return what the detector finds on it.

        force: analyse also what does not look like a radiograph of a limb; its `suitability` says so.
        Raises UnreadableImage (or its kinds UnsupportedImage, ImageTooLarge), UnsuitableImage, ServiceBusy,
        ServiceClosed or DetectorFailed.
        """
        with self.predicting(source, force=force) as prediction:
            return prediction

    @contextmanager
    def predicting(self, source: Path | bytes, *, force: bool = False) -> Iterator[Prediction]:
        """Give what `predict` returns; until the block ends, its pixels count among those that memory has room for."""
        if self.silent:
            raise DetectorFailed(f"the detector has been silent for more than {self._timeout_s:g} s")
        if not self._places.acquire(blocking=False):
            raise ServiceBusy(f"all {self._queue_size} places in the queue are taken")
        try:
            begun = time.perf_counter()
            with self._room_for(source):
                if self._closed:  # while this waited
                    raise ServiceClosed("the service is closed")
                yield self._predict(source, begun, force=force)
        finally:
            self._places.release()

    @contextmanager
    def _room_for(self, source: Path | bytes) -> Iterator[None]:
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
            count = decoding_bytes(data, self._formats)
        except OSError:
            count = 0  # reading it will say why
        if not self._memory.take(count, self._timeout_s):
            raise DetectorFailed(f"the detector was not free within {self._timeout_s:g} s")
        try:
            yield
        finally:
            self._memory.give_back(count)

    def close(self, timeout_s: float = 30.0) -> None:
        """Take no more requests, finish those that are inside, and end the worker thread."""
        with self._entrance:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._worker.join(timeout_s)

    def turn_away(self) -> None:
        """Take no more requests and refuse those that wait with ServiceClosed; the detector finishes what it has."""
        with self._entrance:
            self._closed = True
            while True:
                try:
                    waiting = self._queue.get_nowait()
                except queue.Empty:
                    break
                if waiting is not None and waiting.future.set_running_or_notify_cancel():
                    waiting.future.set_exception(ServiceClosed("the service is closed"))
            self._queue.put(None)

    def __enter__(self) -> PredictionService:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _predict(self, source: Path | bytes, begun: float, *, force: bool) -> Prediction:
        request = self._enter(source, force=force)
        try:
            detected = request.future.result(max(0.0, begun + self._timeout_s - time.perf_counter()))
        except FutureTimeout as error:
            if request.future.cancel():  # it stays in the queue until the detector comes back; its pixels need not
                request.radiograph = Radiograph(np.empty((0, 0, 3), np.uint8))
            raise DetectorFailed(f"the detector did not return within {self._timeout_s:g} s") from error
        latency_ms = {
            "read": 1000 * (request.entered - begun),
            "wait": 1000 * (detected.started - request.entered),
            "detect": 1000 * (detected.ended - detected.started),
            "total": 1000 * (time.perf_counter() - begun),
        }
        radiograph, calibration = request.radiograph, detected.detector.calibration
        confidence = None if calibration is None else calibration.image_probability(detected.detections)
        return Prediction(
            radiograph.pixels,
            detected.detections,
            detected.detector,
            latency_ms,
            confidence,
            request.suitability,
            radiograph.spacing_mm,
            radiograph.samples,
            radiograph.dicom,
        )

    def _enter(self, source: Path | bytes, *, force: bool) -> _Request:
        radiograph = self._read(source)
        suitability = None if self._assess is None else self._assess(radiograph)
        if suitability is not None and not suitability.ok and not force:
            raise UnsuitableImage(suitability)
        request = _Request(radiograph, time.perf_counter(), suitability)
        with self._entrance:
            if self._closed:
                raise ServiceClosed("the service is closed")
            self._queue.put(request)
        return request

    def _read(self, source: Path | bytes) -> Radiograph:
        return read_radiograph(source, formats=self._formats, max_pixels=self._max_pixels)

    def _work(self) -> None:
        while batch := self._next_batch():
            self._detect([request for request in batch if request.future.set_running_or_notify_cancel()])
            batch.clear()  # its pixels would stay in memory until the next one comes

    def _next_batch(self) -> list[_Request]:
        """Wait for a request and for those that follow it closely; an empty list means that the service is closed."""
        batch: list[_Request] = []
        deadline = 0.0
        while not self._drained and len(batch) < self._max_batch:
            try:
                request = self._queue.get(timeout=max(0.0, deadline - time.monotonic()) if batch else None)
            except queue.Empty:
                break
            if request is None:
                self._drained = True
                break
            deadline = deadline if batch else time.monotonic() + self._max_wait_s
            batch.append(request)
        return batch

    def _detect(self, batch: list[_Request]) -> None:
        if not batch:
            return
        started, detector = time.perf_counter(), self._detector
        self._asked_at = time.monotonic()
        try:
            predictions = call_detector(detector, [request.radiograph.pixels for request in batch])
        except BaseException as error:  # SystemExit, too, would end nothing but this thread
            log.exception("The detector failed on a batch of %d", len(batch))
            for request in batch:
                failure = DetectorFailed(f"the detector failed: {error}")
                failure.__cause__ = error
                request.future.set_exception(failure)
            return
        finally:
            self._asked_at = None
        ended = time.perf_counter()
        for request, detections in zip(batch, predictions, strict=True):
            request.future.set_result(_Detected(detections, detector.info, started, ended))
