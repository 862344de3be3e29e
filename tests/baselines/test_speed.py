"""tools/benchmark.py: rounds, ratios and files; small forms of the real thing, and no time is asserted."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_det.baselines.speed.candidates import (
    Candidate,
    Candidates,
    kind_of_detector,
    model_files,
    prepare_candidate,
)
from fracture_det.baselines.speed.measurement import Measurement, MeasurementError, MissingPackage, measure_apart
from fracture_det.baselines.speed.profiling import STAGES, profile
from fracture_det.baselines.speed.rounds import benchmark, save, speed_ratios
from tests.detectors import write_random_detector
from tools.benchmark import main

FROZEN = ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")


def candidate(name, kind="ours"):
    return Candidate(name, f"uri:{name}", kind, "unknown")


def candidates(*names):
    return Candidates(tuple(candidate(name) for name in names))


class Scripted:
    """Returns the next of the speeds that were given for a name; None fails."""

    def __init__(self, **speeds):
        self.speeds, self.asked = {name: list(values) for name, values in speeds.items()}, []

    def __call__(self, uri, images):
        name = uri.removeprefix("uri:")
        self.asked.append(name)
        speed = self.speeds[name].pop(0)
        if speed is None:
            raise MeasurementError(f"{name} broke")
        if speed == "missing":
            raise MissingPackage(f"{name} needs a package")
        return Measurement(2.0, (1000 / speed,) * len(images), speed, 100.0 * speed)


class TestRounds:
    def test_they_go_through_all_and_compare_within_the_round(self):
        # The machine is twice as fast in the second round; b is three times a in both.
        script = Scripted(a=[1.0, 2.0, 1.0], b=[3.0, 6.0, 3.0])
        result = benchmark(candidates("a", "b"), ["x"] * 4, repeats=3, progress=False, measure=script)
        assert script.asked == ["a", "b"] * 3
        a, b = result.rows
        assert (a["times_reference"], b["times_reference"]) == (1.0, 3.0)
        assert b["times_reference_range"] == [3.0, 3.0]
        assert b["images_per_s"] == 3.0
        assert b["images_per_s_range"] == [3.0, 6.0]
        assert b["median_ms"] == pytest.approx(1000 / 3)
        # Twelve latencies: four of 1000/6 ms, eight of 1000/3.
        assert b["p95_ms"] == pytest.approx(1000 / 3)
        assert b["peak_mb"] == 600.0
        assert result.about["rounds"] == "3"

    def test_one_that_fails_is_named_and_left_alone(self):
        script = Scripted(a=[1.0, 1.0], b=[None])
        result = benchmark(candidates("a", "b"), ["x"], repeats=2, progress=False, measure=script)
        assert [row["name"] for row in result.rows] == ["a"]
        assert result.failed == {"b": "b broke"}
        assert script.asked == ["a", "b", "a"]

    def test_one_whose_package_is_missing_is_skipped_and_has_not_failed(self):
        script = Scripted(a=[1.0], b=["missing"])
        result = benchmark(candidates("a", "b"), ["x"], repeats=1, progress=False, measure=script)
        assert (result.skipped, result.failed) == ({"b": "b needs a package"}, {})

    def test_names_must_differ(self):
        with pytest.raises(ValueError, match=r"--candidate: names must differ, got ..a., .a..$"):
            benchmark(candidates("a", "a"), ["x"], repeats=1, progress=False, measure=Scripted(a=[1.0, 1.0]))


def test_speed_ratios_compare_the_best_of_ours_with_the_best_of_each():
    rows = [
        {"name": name, "kind": kind, "images_per_s": speed}
        for name, kind, speed in [
            ("D2", "detectron2", 1.0),
            ("slow", "ours", 2.0),
            ("fast", "ours", 6.0),
            ("Y torch", "yolo", 1.0),
            ("Y exported", "yolo", 4.0),
        ]
    ]
    assert speed_ratios(rows) == ["fast: 6.0 times D2", "fast: 1.5 times Y exported"]
    assert speed_ratios(rows[:1]) == []
    rows[1]["shipped"] = True  # what is shipped must hold, not what is fastest
    assert speed_ratios(rows) == ["slow: 2.0 times D2", "slow: 0.5 times Y exported"]


def test_what_is_written_can_be_read_and_seen(tmp_path):
    script = Scripted(a=[1.0], b=[3.0])
    save(
        benchmark(
            Candidates((candidate("a"), candidate("b", "yolo"))), ["x"], repeats=1, progress=False, measure=script
        ),
        tmp_path,
    )
    content = json.loads((tmp_path / "benchmark.json").read_text())
    keys = {"name", "median_ms", "p95_ms", "images_per_s", "peak_mb", "size_mb"}
    assert all(keys <= set(row) for row in content["rows"])
    assert "machine" in content["about"]
    assert (
        "| b | 333 (333 to 333) | 333 | 3.00 (3.00 to 3.00) | 3.00 (3.00 to 3.00) | 2.0 | 300 |  | unknown |"
        in (tmp_path / "benchmark.md").read_text()
    )
    with Image.open(tmp_path / "benchmark.png") as image:
        assert image.size[0] > 1000


@pytest.mark.slow
def test_a_candidate_is_measured_in_a_process_of_its_own(tmp_path):
    write_random_detector(tmp_path / "detector")
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "a.png")
    measured = measure_apart(f"d2:{tmp_path / 'detector'}", [tmp_path / "a.png"] * 2)
    assert len(measured.latency_ms) == 2
    assert min(measured.cold_start_s, measured.images_per_s, *measured.latency_ms) > 0
    assert measured.peak_mb > 50
    with pytest.raises(MeasurementError, match=r"d2:nowhere: .*no such file or folder"):
        measure_apart("d2:nowhere", [tmp_path / "a.png"])


def test_the_profile_sums_up_the_stages(tmp_path):
    write_random_detector(tmp_path / "detector", overrides=FROZEN)
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "a.png")
    found = profile(f"d2:{tmp_path / 'detector'}", [tmp_path / "a.png"] * 3)
    assert tuple(found.stages_ms) == STAGES
    assert all(value > 0 for value in found.stages_ms.values())
    assert found.backbone_gflop > 0
    assert found.as_dict()["backbone_share"] == pytest.approx(
        found.backbone_gflop / found.stages_ms["backbone"] * 1000 / found.machine_gflops
    )


@pytest.mark.slow
def test_the_tool_from_export_to_picture(tmp_path):
    write_random_detector(tmp_path / "one")
    (tmp_path / "ensemble_float.json").write_text(
        json.dumps({"title": "Toy", "members": ["d2:one"], "orientations": ["identity"]})
    )
    arguments = [
        "--quick",
        "--no-baselines",
        "--detector",
        str(tmp_path / "ensemble_float.json"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "DefaultPredictor, 1 views",
        "DefaultPredictor, one view",
        "Detectron2, batched",
        "OpenVINO FP32",
        "ONNX Runtime",
        "TorchScript",
    ]
    assert all(row["size_mb"] > 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count: expected at least 1, got 0"),
        (["--candidate", "x"], "--candidate: expected NAME=URI, got 'x'"),
        (["--contender=x", "--no-rivals"], "--contender is now --candidate"),
        (["--contender", "x", "--no-rivals"], "--candidate: expected NAME=URI, got 'x'"),
        (["--detector", "nowhere.json", "--quick"], "nowhere.json"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_candidate_is_exported_or_it_is_said_why_not():
    one = candidate("a")

    def missing():
        raise ValueError("needs x") from ModuleNotFoundError("No module named 'x'", name="x")

    def broken():
        raise RuntimeError("no such operator\nand a long trace")

    assert prepare_candidate(one, lambda: None).measurable == (one,)
    assert prepare_candidate(one, missing).skipped == {"a": "needs x"}
    assert prepare_candidate(one, broken).failed == {"a": "RuntimeError: no such operator"}


def test_whose_a_candidate_is_and_which_files_it_needs(tmp_path):
    assert [kind_of_detector(uri) for uri in ("yolov3:random", "defaultpredictor:x", "openvino:x", "shipped")] == [
        "yolov3", "detectron2", "ours", "ours",
    ]  # fmt: skip
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "ensemble.json").write_text(json.dumps({"title": "T", "members": ["openvino:.", "openvino:model.xml"]}))
    assert len(model_files(f"openvino:{tmp_path}")) == 2
    assert len(model_files(f"ensemble:{tmp_path}")) == 4
    assert model_files("yolov3:random") == ()


@pytest.mark.slow
def test_relative_paths_and_memory_are_those_of_the_new_process(tmp_path, monkeypatch):
    write_random_detector(tmp_path / "detector")
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    ballast = np.ones(250_000_000)  # 2 GB, which getrusage would count for the child
    assert measure_apart("d2:detector", [Path("a.png")]).peak_mb < ballast.nbytes / 1e6
