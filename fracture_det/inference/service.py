"""One detector shared by many threads: a bounded queue in front, micro-batches behind."""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fracture_det.inference.base import Detector, DetectorInfo
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import (
    MAX_PIXELS,
    ImageTooLarge,
    Pixels,
    UnreadableImage,
    UnsupportedImage,
    read_radiograph,
)
from fracture_det.visualization.overlay import draw_overlay

# Also the door for the web page, which knows nothing of fracture_det but its inference.
__all__ = [
    "Detections",
    "DetectorFailed",
    "DetectorInfo",
    "ImageTooLarge",
    "Prediction",
    "PredictionService",
    "ServiceBusy",
    "ServiceClosed",
    "UnreadableImage",
    "UnsupportedImage",
    "encode_png",
    "overlay_png",
]

UPLOAD_FORMATS = ("JPEG", "PNG")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")

log = logging.getLogger(__name__)


class ServiceBusy(RuntimeError):
    """Every place in the queue is taken; the same request may succeed a little later."""


class ServiceClosed(RuntimeError):
    """The service has been closed and takes no more requests."""


class DetectorFailed(RuntimeError):
    """The detector raised, answered nonsense or did not answer in time: nothing is known about the radiograph."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One radiograph and what the detector found on it.

    pixels: (H, W, 3) uint8 RGB, upright; the detections' boxes are in its pixels.
    confidence: calibrated probability (0..1) that the radiograph shows a fracture; None from a detector without one.
    latency_ms: duration of the stages `read` (with the wait for a place in memory), `wait` (in the queue) and
    `detect` (the whole micro-batch), and `total`.
    """

    pixels: Pixels
    detections: Detections
    detector: DetectorInfo
    latency_ms: Mapping[str, float]
    confidence: float | None = None

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.pixels.shape[1]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class name of each detection, in their order."""
        return tuple(self.detector.class_names[index] for index in self.detections.classes)

    def overlay_png(self, minimum_score: float = 0.0) -> bytes:
        """Return a PNG of the radiograph with the boxes of at least `minimum_score` (0..1) drawn on it."""
        return overlay_png(self.pixels, self.detections, self.detector.class_names, minimum_score=minimum_score)


# Radiographs are smooth: differences to the row above, by run lengths alone, take a third of the time of the usual
# search among five kinds of differences and for repeats, for files that are no larger.
FAST_PNG = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
)


def encode_png(pixels: Pixels) -> bytes:
    """Return pixels (H, W, 3) uint8 RGB as a PNG without metadata; grey ones are stored as grey, without loss."""
    is_grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 0] == pixels[:, :, 2]).all())
    image = np.ascontiguousarray(pixels[:, :, 0]) if is_grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded, png = cv2.imencode(".png", image, FAST_PNG)
    if not encoded:
        raise ValueError(f"OpenCV cannot encode {image.shape} pixels as PNG")
    return png.tobytes()


def overlay_png(
    source: Pixels | Path,
    detections: Detections,
    class_names: Sequence[str],
    *,
    minimum_score: float = 0.0,
    longest_px: int | None = None,
) -> bytes:
    """Return a PNG of `source` (pixels or an image file) with numbered boxes of at least `minimum_score` (0..1).

    longest_px: its longer side is made that short, if it is longer.
    """
    pixels = read_radiograph(source).pixels if isinstance(source, Path) else source
    drawn = draw_overlay(pixels, detections, class_names, minimum_score=minimum_score)
    if longest_px is not None:
        drawn.thumbnail((longest_px, longest_px))
    return _save_png(drawn)


def _save_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Level 1: a fifth of the time of the default for files a tenth larger.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class _Answer:
    detections: Detections
    started: float
    ended: float


@dataclass(eq=False)
class _Request:
    pixels: Pixels
    entered: float
    future: Future[_Answer] = field(default_factory=Future)


class PredictionService:
    """The one door to a detector, for threads of a server as for a single caller.

    At most `queue_size` requests are inside at a time; one more is refused at once with ServiceBusy. At most
    `3 * max_batch` of them hold decoded pixels, so memory stays bounded: one batch is read, one is with the detector,
    one with those who keep what was found. One thread feeds the detector with up to `max_batch` radiographs that arrive
    within `max_wait_ms`. Who waits longer than `timeout_s`, for a place in memory and for the detector, gets
    DetectorFailed. A detector that is silent for longer than that is not asked again before it has answered: until then
    everybody gets DetectorFailed at once.
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
        timeout_s: float = 300.0,
    ) -> None:
        for name, value in (("max_batch", max_batch), ("queue_size", queue_size), ("max_pixels", max_pixels)):
            if value < 1:
                raise ValueError(f"PredictionService.{name}: expected at least 1, got {value}")
        self.info = detector.info
        self._detector = detector
        self._max_batch, self._max_wait_s, self._timeout_s = max_batch, max_wait_ms / 1000, timeout_s
        self._formats, self._max_pixels, self._queue_size = formats, max_pixels, queue_size
        self._places = threading.BoundedSemaphore(queue_size)
        self._in_memory = threading.BoundedSemaphore(3 * max_batch)
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._entrance = threading.Lock()
        self._asked_at: float | None = None  # when the detector got the batch it works on
        self._closed = self._drained = self._warm = False
        self._worker = threading.Thread(target=self._work, name="detector", daemon=True)
        self._worker.start()

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
        return self._places._value < 1  # to try for a place would take it from somebody for a moment

    @property
    def waiting(self) -> int:
        """How many radiographs wait for the detector, decoded."""
        return self._queue.qsize()

    def warm_up(self) -> None:
        """Predict a grey ramp of the usual shape, upright and lying: the first user need not wait for what loads late.

        Raises DetectorFailed when the detector cannot do its work.
        """
        ramp = np.linspace(0, 200, 256, dtype=np.uint8)
        upright = np.ascontiguousarray(np.broadcast_to(ramp[:, None], (320, 256, 3)))
        for pixels in (upright, np.ascontiguousarray(upright.transpose(1, 0, 2))):
            self.predict(encode_png(pixels))
        self._warm = True

    def predict(self, source: Path | bytes) -> Prediction:
        """Read the radiograph in `source` and return what the detector finds on it.

        Raises UnreadableImage (or its kinds UnsupportedImage, ImageTooLarge), ServiceBusy, ServiceClosed or
        DetectorFailed.
        """
        with self.predicting(source) as prediction:
            return prediction

    @contextmanager
    def predicting(self, source: Path | bytes) -> Iterator[Prediction]:
        """Give what `predict` returns; until the block ends, its pixels count among those that memory has room for."""
        if self.silent:
            raise DetectorFailed(f"the detector has been silent for more than {self._timeout_s:g} s")
        if not self._places.acquire(blocking=False):
            raise ServiceBusy(f"all {self._queue_size} places in the queue are taken")
        try:
            begun = time.perf_counter()
            if not self._in_memory.acquire(timeout=self._timeout_s):
                raise DetectorFailed(f"the detector was not free within {self._timeout_s:g} s")
            try:
                if self._closed:  # while this waited
                    raise ServiceClosed("the service is closed")
                yield self._predict(source, begun)
            finally:
                self._in_memory.release()
        finally:
            self._places.release()

    def close(self, timeout_s: float = 30.0) -> None:
        """Take no more requests, answer those that are inside, and end the worker thread."""
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

    def _predict(self, source: Path | bytes, begun: float) -> Prediction:
        request = self._enter(source)
        try:
            answer = request.future.result(max(0.0, begun + self._timeout_s - time.perf_counter()))
        except FutureTimeout as error:
            if request.future.cancel():  # it stays in the queue until the detector comes back; its pixels need not
                request.pixels = np.empty((0, 0, 3), np.uint8)
            raise DetectorFailed(f"the detector gave no answer within {self._timeout_s:g} s") from error
        latency_ms = {
            "read": 1000 * (request.entered - begun),
            "wait": 1000 * (answer.started - request.entered),
            "detect": 1000 * (answer.ended - answer.started),
            "total": 1000 * (time.perf_counter() - begun),
        }
        calibration = self.info.calibration
        confidence = None if calibration is None else calibration.image_probability(answer.detections)
        return Prediction(request.pixels, answer.detections, self.info, latency_ms, confidence)

    def _enter(self, source: Path | bytes) -> _Request:
        request = _Request(self._read(source), time.perf_counter())
        with self._entrance:
            if self._closed:
                raise ServiceClosed("the service is closed")
            self._queue.put(request)
        return request

    def _read(self, source: Path | bytes) -> Pixels:
        try:
            return read_radiograph(source, formats=self._formats, max_pixels=self._max_pixels).pixels
        except UnsupportedImage as error:
            # Pillow does not recognise a JPEG or PNG whose header is broken; it is broken, not of another kind.
            if isinstance(source, bytes) and source.startswith(SIGNATURES):
                raise UnreadableImage(f"upload: broken header ({error})") from error
            raise

    def _work(self) -> None:
        while batch := self._next_batch():
            self._answer([request for request in batch if request.future.set_running_or_notify_cancel()])

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

    def _answer(self, batch: list[_Request]) -> None:
        if not batch:
            return
        started = time.perf_counter()
        self._asked_at = time.monotonic()
        try:
            found = self._ask_detector([request.pixels for request in batch])
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
        for request, detections in zip(batch, found, strict=True):
            request.future.set_result(_Answer(detections, started, ended))

    def _ask_detector(self, images: list[Pixels]) -> list[Detections]:
        found = list(self._detector.predict(images))
        if len(found) != len(images):
            raise ValueError(f"{self.info.name} gave {len(found)} answers for {len(images)} radiographs")
        for detections in found:
            if not isinstance(detections, Detections):
                raise TypeError(f"{self.info.name} answered with {type(detections).__name__}, not Detections")
            if len(detections) and not 0 <= detections.classes.min() <= detections.classes.max() < len(
                self.info.class_names
            ):
                raise ValueError(f"{self.info.name} answered with a class that is not in {self.info.class_names}")
        return found
