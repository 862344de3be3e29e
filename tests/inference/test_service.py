"""The service shares one detector among threads and never turns a failure into an answer."""

import gc
import io
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_det.inference.base import Detector
from fracture_det.inference.service import (
    DetectorFailed,
    Prediction,
    PredictionService,
    ServiceBusy,
    ServiceClosed,
    encode_png,
    overlay_png,
)
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import (
    DamagedImage,
    ImageTooLarge,
    UnreadableImage,
    UnsupportedImage,
    decoding_bytes,
)
from tests.webapp.bright import BrightRectangles, dark_plate

LIKELY = (20, 30, 60, 50, 230)


def png(plate: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(plate).save(buffer, "PNG")
    return buffer.getvalue()


def in_threads(count: int, call):
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(call, index) for index in range(count)]
    return [future.exception() or future.result() for future in futures]


def wait_for(condition, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.005)


def test_the_test_detector_follows_the_protocol():
    assert isinstance(BrightRectangles(), Detector)


@pytest.mark.parametrize("as_path", [False, True])
def test_a_prediction_has_boxes_in_pixels_of_the_upright_image(tmp_path: Path, as_path: bool):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: shown turned by 90 degrees
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(dark_plate(LIKELY))).save(buffer, "PNG", exif=exif)
    source: bytes | Path = buffer.getvalue()
    if as_path:
        source = tmp_path / "größe.png"
        source.write_bytes(buffer.getvalue())
    with PredictionService(BrightRectangles()) as service:
        prediction = service.predict(source)
    assert (prediction.height, prediction.width) == (120, 160)
    assert prediction.detections.boxes.tolist() == [[20, 30, 60, 50]]
    assert prediction.labels == ("fracture",)
    assert prediction.detector.name == "bright rectangles"
    assert set(prediction.latency_ms) == {"read", "wait", "detect", "total"}
    assert 0 < prediction.latency_ms["total"] < 10_000


def test_many_threads_get_their_own_prediction_from_few_batches():
    detector = BrightRectangles(delay_s=0.02)
    plates = [png(dark_plate((index, 30, index + 20, 50, 230))) for index in range(50)]
    with PredictionService(detector, max_batch=8, max_wait_ms=20) as service:
        answers = in_threads(50, lambda index: service.predict(plates[index]))
    assert [answer.detections.boxes[0, 0] for answer in answers] == list(range(50))
    assert sum(detector.batches) == 50
    assert max(detector.batches) <= 8
    assert len(detector.batches) <= 25


def test_a_full_queue_refuses_at_once_and_is_open_again_afterwards():
    detector = BrightRectangles(delay_s=0.3)
    plate = png(dark_plate(LIKELY))
    with PredictionService(detector, max_batch=1, max_wait_ms=0, queue_size=2) as service:
        answers = in_threads(6, lambda _: service.predict(plate))
        busy = [answer for answer in answers if isinstance(answer, ServiceBusy)]
        assert len(busy) == 4
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(service.predict, plate) for _ in range(2)]
            wait_for(lambda: service._places._value == 0)
            begun = time.perf_counter()
            with pytest.raises(ServiceBusy):
                service.predict(plate)
            assert time.perf_counter() - begun < 0.2
        assert all(len(future.result().detections) == 1 for future in both)
        assert len(service.predict(plate).detections) == 1


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"", UnreadableImage),
        (b"GIF89a" + bytes(40), UnsupportedImage),
        (b"\xff\xd8\xff\xe0 header is gone", DamagedImage),
        (png(dark_plate(LIKELY))[:-40], DamagedImage),
        (png(dark_plate(size=(400, 400))), ImageTooLarge),
        (Path("missing.png"), UnreadableImage),
    ],
)
def test_what_cannot_be_read_is_an_error_and_takes_no_place(source: bytes | Path, error: type[Exception]):
    with PredictionService(BrightRectangles(), max_batch=1, queue_size=1, max_pixels=100_000) as service:
        for _ in range(5):
            with pytest.raises(error) as caught:
                service.predict(source)
            assert type(caught.value) is error
        assert len(service.predict(png(dark_plate(LIKELY))).detections) == 1


def test_a_detector_that_raises_fails_its_batch_and_lives_on(caplog: pytest.LogCaptureFixture):
    bad = np.zeros((50, 50, 3), np.uint8)
    bad[0, 0] = (255, 0, 0)
    with caplog.at_level(logging.ERROR), PredictionService(BrightRectangles(), max_batch=1) as service:
        for _ in range(12):  # more often than there is room in memory
            with pytest.raises(DetectorFailed, match="cannot be done"):
                service.predict(png(bad))
        assert len(service.predict(png(dark_plate(LIKELY))).detections) == 1
    assert "The detector failed on a batch of 1" in caplog.text


class WrongCount(BrightRectangles):
    def predict(self, images):
        return []


class WrongType(BrightRectangles):
    def predict(self, images):
        return [None for _ in images]


class WrongClass(BrightRectangles):
    def predict(self, images):
        return [Detections(np.zeros((1, 4)), np.ones(1), np.array([7])) for _ in images]


@pytest.mark.parametrize("kind", [WrongCount, WrongType, WrongClass])
def test_nonsense_from_a_detector_is_a_failure_and_not_an_empty_prediction(kind):
    with PredictionService(kind()) as service, pytest.raises(DetectorFailed):
        service.predict(png(dark_plate(LIKELY)))


def test_a_detector_that_hangs_is_given_up():
    detector = BrightRectangles(delay_s=0.5)
    with (
        PredictionService(detector, timeout_s=0.05) as service,
        pytest.raises(DetectorFailed, match=r"did not return within 0\.05 s"),
    ):
        service.predict(png(dark_plate(LIKELY)))


class Hanging(BrightRectangles):
    """Answers nobody until `free` is set."""

    def __init__(self):
        super().__init__()
        self.free, self.asked = threading.Event(), 0

    def predict(self, images):
        self.asked += 1
        assert self.free.wait(30)
        return super().predict(images)


def test_a_silent_detector_refuses_at_once_and_is_called_again_when_it_has_returned():
    detector = Hanging()
    plate = png(dark_plate(LIKELY))
    detector.free.set()
    with PredictionService(detector, max_batch=1, timeout_s=0.5) as service:
        service.warm_up()
        detector.free.clear()
        answers = in_threads(6, lambda _: service.predict(plate))  # more than have room in memory
        assert all(isinstance(answer, DetectorFailed) for answer in answers)
        assert service.silent
        assert not service.ready
        with pytest.raises(DetectorFailed, match=r"silent for more than 0\.5 s"):
            service.predict(plate)
        assert detector.asked == 3  # the warm-up, upright and lying, and the batch it hangs on
        detector.free.set()
        wait_for(lambda: not service.silent)
        assert service.ready
        assert len(service.predict(plate).detections) == 1


def test_a_silent_detector_keeps_no_pixels_of_those_who_left():
    detector = Hanging()
    plate = png(dark_plate(LIKELY))
    with PredictionService(detector, max_batch=1, timeout_s=0.3) as service:
        for _ in range(3):
            assert all(isinstance(answer, DetectorFailed) for answer in in_threads(6, lambda _: service.predict(plate)))
            service._asked_at = None if service._asked_at is None else time.monotonic()  # not yet known to be silent
        left = [service._queue.get_nowait() for _ in range(service.waiting)]
        assert len(left) > 3
        assert sum(request.radiograph.pixels.size for request in left) == 0
        detector.free.set()


def test_the_waits_for_memory_and_for_the_detector_share_one_time_limit():
    detector = BrightRectangles(delay_s=1.5)
    plate = png(dark_plate(LIKELY))
    with PredictionService(detector, max_batch=1, max_wait_ms=0, timeout_s=2.0) as service:
        begun = time.perf_counter()
        answers = in_threads(4, lambda _: service.predict(plate))
        # The fourth gets into memory after 1.5 s and would wait until 3.5 s.
        assert time.perf_counter() - begun < 3.2
    assert sorted(type(answer).__name__ for answer in answers) == ["DetectorFailed"] * 3 + ["Prediction"]


def test_whoever_keeps_a_radiograph_takes_room_in_memory():
    plate = png(dark_plate(LIKELY))
    room = 3 * decoding_bytes(plate)
    with PredictionService(BrightRectangles(), max_memory=room, timeout_s=0.5) as service:
        with ExitStack() as kept:
            for _ in range(3):
                assert len(kept.enter_context(service.predicting(plate)).detections) == 1
            with pytest.raises(DetectorFailed, match=r"not free within 0\.5 s"):
                service.predict(plate)
        assert len(service.predict(plate).detections) == 1


def test_a_radiograph_larger_than_the_memory_is_read_alone():
    plate = png(dark_plate(LIKELY))
    with PredictionService(BrightRectangles(), max_memory=1, timeout_s=0.5) as service:
        with service.predicting(plate), pytest.raises(DetectorFailed, match="not free"):
            service.predict(plate)
        assert len(service.predict(plate).detections) == 1
        with pytest.raises(UnreadableImage):
            service.predict(Path("missing.png"))
        assert service._memory.taken == 0


def test_nothing_is_kept_of_a_radiograph_that_was_answered():
    with PredictionService(BrightRectangles()) as service:
        kept = weakref.ref(service.predict(png(dark_plate(LIKELY))).pixels)
        gc.collect()
        wait_for(lambda: kept() is None)


class Leaving(BrightRectangles):
    def predict(self, images):
        self.batches.append(len(images))
        if len(self.batches) == 1:
            raise SystemExit(1)
        return super().predict(images)


def test_a_detector_that_wants_to_leave_the_process_fails_its_batch_and_no_other():
    plate = png(dark_plate(LIKELY))
    with PredictionService(Leaving(), timeout_s=5) as service:
        with pytest.raises(DetectorFailed, match="the detector failed: 1"):
            service.predict(plate)
        assert len(service.predict(plate).detections) == 1


def test_it_says_when_it_is_full():
    with PredictionService(BrightRectangles(), queue_size=1) as service:
        assert not service.full
        service._places.acquire()
        assert service.full
        service._places.release()
        assert not service.full


def test_closing_finishes_what_is_inside_and_refuses_the_rest():
    service = PredictionService(BrightRectangles(delay_s=0.1), max_batch=1, max_wait_ms=0)
    plate = png(dark_plate(LIKELY))
    with ThreadPoolExecutor(4) as pool:
        inside = [pool.submit(service.predict, plate) for _ in range(4)]
        wait_for(lambda: service._queue.qsize() >= 1)
        service.close()
        answers = [future.exception() or future.result() for future in inside]
    assert all(isinstance(answer, ServiceClosed) or len(answer.detections) == 1 for answer in answers)
    assert any(not isinstance(answer, ServiceClosed) for answer in answers)
    with pytest.raises(ServiceClosed):
        service.predict(plate)
    assert "detector" not in [thread.name for thread in threading.enumerate() if thread is service._worker]


def test_turning_away_refuses_who_waits_and_finishes_what_the_detector_has():
    service = PredictionService(BrightRectangles(delay_s=0.5), max_batch=1, max_wait_ms=0)
    plate = png(dark_plate(LIKELY))
    service._memory.total = 3 * decoding_bytes(plate)
    with ThreadPoolExecutor(6) as pool:  # one with the detector, two in the queue, three without room in memory
        inside = [pool.submit(service.predict, plate) for _ in range(6)]
        wait_for(lambda: service._queue.qsize() == 2 and service._asked_at is not None)
        service.turn_away()
        answers = [future.exception() or future.result() for future in inside]
    assert sum(isinstance(answer, ServiceClosed) for answer in answers) == 5
    assert sum(isinstance(answer, Prediction) for answer in answers) == 1
    service.close()
    assert not service._worker.is_alive()


def test_it_is_ready_after_a_warm_up_and_until_it_is_closed():
    detector = BrightRectangles()
    seen = []
    detector.predict, answer = (
        lambda images: seen.extend(one.shape for one in images) or answer(images),
        detector.predict,
    )
    service = PredictionService(detector)
    assert not service.ready
    service.warm_up()
    assert service.ready
    assert seen == [(320, 256, 3), (256, 320, 3)]
    service.close()
    assert not service.ready


def test_encoding_loses_nothing_and_stores_grey_as_grey():
    rng = np.random.default_rng(3)
    colour = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = np.repeat(colour[:, :, :1], 3, axis=2)
    for pixels, mode in ((colour, "RGB"), (grey, "L")):
        image = Image.open(io.BytesIO(encode_png(pixels)))
        assert image.mode == mode
        assert not image.info
        assert (np.asarray(image.convert("RGB")) == pixels).all()


def test_the_overlay_is_drawn_around_the_boxes_above_the_threshold():
    with PredictionService(BrightRectangles()) as service:
        prediction = service.predict(png(dark_plate(LIKELY, (90, 60, 120, 100, 80))))
    plain = prediction.pixels

    def drawn(score):
        return overlay_png(plain, prediction.detections, prediction.detector.class_names, minimum_score=score)

    changed = [
        (np.asarray(Image.open(io.BytesIO(drawn(score)))) != plain).any(axis=2).sum() for score in (0.0, 0.5, 0.95)
    ]
    assert changed[0] > changed[1] > changed[2] == 0


@pytest.mark.parametrize("name", ["max_batch", "queue_size", "max_pixels", "max_memory"])
def test_sizes_below_one_are_refused(name: str):
    with pytest.raises(ValueError, match=rf"{name}: expected at least 1, got 0"):
        PredictionService(BrightRectangles(), **{name: 0})
