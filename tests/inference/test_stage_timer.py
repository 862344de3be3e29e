"""Stages and their seconds, told by a clock that only moves when it is told to."""

import resource
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fracture_det.inference import batch
from fracture_det.inference import prediction_folder as folders
from fracture_det.inference import stage_timer as clock
from fracture_det.inference.base import DetectorInfo
from fracture_det.inference.batch import predict_files, predict_to_file
from fracture_det.inference.prediction_folder import overlay_timer
from fracture_det.inference.stage_timer import STAGES, StageTimer, machine_name, peak_memory_mb, stage, timing_of
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import read_radiograph
from tests.inference.toys import BrightDetector


class FakeTime:
    """A clock that stands still until it is told to move."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    """A fake time for every StageTimer; reading takes .1 s, drawing .3 s."""
    time = FakeTime()

    def reading(path):
        time.passes(0.1)
        return read_radiograph(path)

    def drawing(pixels, *arguments, **options):
        time.passes(0.3)
        return Image.fromarray(pixels)

    monkeypatch.setattr(clock, "perf_counter", time)
    monkeypatch.setattr(batch, "read_radiograph", reading)
    monkeypatch.setattr(folders, "draw_overlay", drawing)
    return time


@pytest.fixture
def files(tmp_path):
    """Five images, the pixels of number n all n, and one file that is no image."""
    for number in range(5):
        Image.fromarray(np.full((10, 12, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return [(path.name, path) for path in sorted(tmp_path.iterdir())]


class SlowDetector:
    """Takes, for a batch: .5 s untold, 1 s to preprocess, 2 s in the model, .5 s to postprocess.

    It fails on any batch with an image of only 4s, after its preprocessing.
    """

    info = DetectorInfo("slow", ("fracture",), device="an abacus")

    def __init__(self, time):
        self.time = time
        self.seen = []

    def predict(self, images):
        self.seen.append([int(image[0, 0, 0]) for image in images])
        self.time.passes(0.5)
        with stage("preprocess"):
            self.time.passes(1)
        if any(image[0, 0, 0] == 4 for image in images):
            raise RuntimeError("four")
        with stage("model"):
            self.time.passes(2)
        with stage("postprocess"):
            self.time.passes(0.5)
        return [Detections.empty() for _ in images]


class TestStageClock:
    def test_seconds_add_up_by_stage(self):
        time = FakeTime()
        with StageTimer(time) as running:
            for _ in range(2):
                with stage("read"):
                    time.passes(1)
                time.passes(5)  # outside of any stage
            with stage("model"):
                time.passes(3)
        assert running.seconds == {"read": 2, "model": 3}

    def test_a_stage_within_a_stage_interrupts_it(self):
        time = FakeTime()
        with StageTimer(time) as running, stage("model"):
            time.passes(1)
            with stage("preprocess"):
                time.passes(2)
                with stage("model"):
                    time.passes(4)
            time.passes(8)
        assert running.seconds == {"model": 13, "preprocess": 2}

    def test_a_clock_within_a_clock_is_its_own(self):
        time = FakeTime()
        with StageTimer(time) as outer:
            with StageTimer(time) as inner, stage("draw"):
                time.passes(1)
            with stage("read"):
                time.passes(2)
        assert (outer.seconds, inner.seconds) == ({"read": 2}, {"draw": 1})

    def test_an_error_ends_the_stage_and_the_clock(self):
        time = FakeTime()
        running = StageTimer(time)

        def fail():
            with running, stage("model"):
                time.passes(1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with stage("model"):
            time.passes(1)
        assert running.seconds == {"model": 1}

    def test_another_thread_has_another_clock(self):
        time = FakeTime()

        def work():
            with stage("model"):
                time.passes(1)

        with StageTimer(time) as running:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert running.seconds == {}


class TestTiming:
    def test_median_95th_percentile_and_images_per_second(self):
        # 0, 1, ... 100 ms in the model: median 50, p95 95; 5.05 s in all, and 101 * .01 s of reading: 101 / 6.06 s
        timing = timing_of([{"read": 0.01, "model": n / 1000, "draw": 9.0} for n in range(101)], batch_size=4)
        assert (timing.images, timing.batch_size) == (101, 4)
        assert (timing.stages["model"].median_ms, timing.stages["model"].p95_ms) == (50, 95)
        assert timing.images_per_second == 16.667
        assert list(timing.stages) == ["read", "model", "draw"]

    def test_a_stage_that_some_images_pass_is_of_those(self):
        timing = timing_of([{"model": 1.0}, {"model": 1.0, "draw": 0.2}], batch_size=1)
        assert timing.stages["draw"].median_ms == 200

    def test_no_image_no_speed(self):
        timing = timing_of([], batch_size=1)
        assert (timing.images, timing.images_per_second, timing.stages) == (0, None, {})

    def test_the_machine_is_named(self):
        assert "cores" in machine_name()
        assert timing_of([], batch_size=1, device="GPU 7").machine == f"{machine_name()}, model on GPU 7"

    @pytest.mark.parametrize(("system", "peak_mb"), [("linux", 2048.0), ("darwin", 2.0)])
    def test_peak_memory_in_the_unit_of_the_system(self, monkeypatch, system, peak_mb):
        monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2_000_000))
        monkeypatch.setattr(sys, "platform", system)
        assert peak_memory_mb() == peak_mb

    def test_peak_memory_is_unknown_on_windows(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "resource", None)
        assert peak_memory_mb() is None
        assert timing_of([], batch_size=1).peak_memory_mb is None

    @pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
    def test_peak_memory_is_what_the_kernel_says(self):
        lines = Path("/proc/self/status").read_text().splitlines()
        high_water_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        assert peak_memory_mb() >= 0.99 * high_water_kb * 1024 / 1e6


class TestPredicting:
    def test_a_batch_shares_its_seconds(self, time, files):
        # 2 images: 1 / 2 preprocess, (.5 + 2) / 2 model, .5 / 2 postprocess
        for one in predict_files(SlowDetector(time), files[:2], batch_size=2):
            assert one.seconds == pytest.approx({"read": 0.1, "preprocess": 0.5, "model": 1.25, "postprocess": 0.25})

    def test_a_detector_that_tells_nothing_is_all_model(self, time, files):
        (one,) = predict_files(BrightDetector(), files[:1])
        assert one.seconds == pytest.approx({"read": 0.1, "model": 0})

    def test_a_batch_that_failed_costs_its_images_nothing(self, time, files):
        # 3 and 4 fail together; 3 alone takes .5 + 1 + 2 + .5
        three, four = predict_files(SlowDetector(time), files[3:5], batch_size=2)
        assert three.seconds == pytest.approx({"read": 0.1, "preprocess": 1, "model": 2.5, "postprocess": 0.5})
        assert four.prediction.error == "the detector failed: RuntimeError: four"

    def test_a_run_becomes_a_timing_without_what_failed(self, time, files, tmp_path):
        run = predict_to_file(SlowDetector(time), files, tmp_path / "p.jsonl", progress=False)
        timing = run.as_timing()
        assert (run.predicted, run.failed, timing.images) == (4, 2, 4)
        medians = {name: one.median_ms for name, one in timing.stages.items()}
        assert medians == {"read": 100, "preprocess": 1000, "model": 2500, "postprocess": 500}
        assert timing.images_per_second == 0.244  # 1 / 4.1 s
        assert timing.machine.endswith(", model on an abacus")

    def test_drawing_is_timed_where_overlays_are_written(self, time, files, tmp_path):
        detector = SlowDetector(time)
        drawn = folders.Overlays(tmp_path / "out", detector.info.class_names, 0.5)
        run = predict_to_file(detector, files[:2], tmp_path / "p.jsonl", on_file=drawn, progress=False)
        assert run.as_timing().stages["draw"].median_ms == 300
        assert len(list((tmp_path / "out/overlays").iterdir())) == 2

    def test_drawing_alone_for_its_time(self, time, files, tmp_path):
        detector = SlowDetector(time)
        run = predict_to_file(detector, files, tmp_path / "p.jsonl", on_file=overlay_timer(detector), progress=False)
        assert list(run.as_timing().stages) == list(STAGES)
        assert run.as_timing().stages["draw"].p95_ms == 300
