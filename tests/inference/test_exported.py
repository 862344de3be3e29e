"""Exported graphs behind the Detector protocol, without torch or Detectron2."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fracture_det.inference import openvino as openvino_runtime
from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.exported import ExportedDetector, GraphFacts
from fracture_det.inference.openvino import COMPILED_KEPT, openvino_engine, quiet_openvino
from fracture_det.inference.registry import open_detector

FACTS = GraphFacts("Toy", ("fracture",), 100, 2, 0.4, "fp32", "a" * 64, {"NMS IoU": "0.5"})


class Recorder:
    """An engine that finds one box per image, in the left half, and keeps what it was given."""

    def __init__(self, batch_size):
        self.batch_size, self.batches = batch_size, []

    def __call__(self, batches):
        self.batches += [batch.copy() for batch in batches]
        rows = np.arange(self.batch_size)
        boxes = np.tile(np.array([[0, 0, 50, 50]], np.float32), (self.batch_size, 1))
        return [(boxes, rows.astype(np.float32) / 10, np.zeros(self.batch_size, np.int64), rows) for _ in batches]


@pytest.fixture
def engine():
    return Recorder(2)


@pytest.fixture
def toy(engine):
    return ExportedDetector(engine, FACTS, runtime="Toy 1", sha256="b" * 64)


class TestPredict:
    def test_boxes_are_in_the_pixels_of_each_image(self, toy):
        # Letterboxes of 100 px: an image of 200 x 100 shrinks by 2, one of 50 x 50 grows by 2.
        first, second = toy.predict([np.zeros((100, 200, 3), np.uint8), np.zeros((50, 50, 3), np.uint8)])
        assert first.boxes.tolist() == [[0, 0, 100, 100]]
        assert second.boxes.tolist() == [[0, 0, 25, 25]]
        assert [first.scores[0], second.scores[0]] == pytest.approx([0.0, 0.1])

    def test_types_are_those_of_the_boxes_of_each_image(self):
        types = np.array([[0.9, 0.1], [0.3, 0.7]], np.float32)

        def engine(batches):
            return [(*outputs, types) for outputs in Recorder(2)(batches)]

        facts = replace(FACTS, type_names=("spiral", "oblique"))
        toy = ExportedDetector(engine, facts, runtime="Toy 1", sha256="b" * 64)
        first, second = toy.predict([np.zeros((100, 100, 3), np.uint8)] * 2)
        assert toy.info.type_names == ("spiral", "oblique")
        np.testing.assert_array_equal(np.concatenate([first.types, second.types]), types)

    @pytest.mark.parametrize("names", [("spiral", "oblique"), ()])
    def test_outputs_that_the_metadata_do_not_describe_are_refused(self, names):
        def engine(batches):
            more = () if names else (np.ones((2, 1), np.float32),)
            return [(*outputs, *more) for outputs in Recorder(2)(batches)]

        toy = ExportedDetector(engine, replace(FACTS, type_names=names), runtime="Toy 1", sha256="b" * 64)
        with pytest.raises(DetectorError, match="for the types"):
            toy.predict([np.zeros((100, 100, 3), np.uint8)])

    def test_the_last_batch_is_filled_with_black_and_its_boxes_left_out(self, toy, engine):
        found = toy.predict([np.full((10, 10, 3), 200, np.uint8)] * 3)
        assert len(found) == 3
        assert [batch.shape for batch in engine.batches] == [(2, 100, 100, 3)] * 2
        assert engine.batches[1][0].max() == 200
        assert engine.batches[1][1].max() == 0

    def test_with_a_step_images_of_one_letterbox_size_go_together(self, engine):
        toy = ExportedDetector(engine, replace(FACTS, letterbox_step=32), runtime="Toy 1", sha256="b" * 64)
        shapes = [(100, 200), (200, 100), (50, 100), (100, 200), (10, 10)]
        found = toy.predict([np.full((*shape, 3), 200, np.uint8) for shape in shapes])
        # Three lie, of which two fill a batch; one stands; one is a square.
        assert [batch.shape for batch in engine.batches] == [(2, 64, 100, 3)] * 2 + [(2, 100, 64, 3), (2, 100, 100, 3)]
        assert engine.batches[1][1].max() == 0
        # Boxes of 50 px in letterboxes of 100 px, and the place in the batch as score.
        assert [one.boxes[0, 2] for one in found] == [100, 100, 50, 100, 5]
        assert [one.scores[0] for one in found] == pytest.approx([0, 0, 0.1, 0, 0])

    def test_no_image_no_call(self, toy, engine):
        assert toy.predict([]) == []
        assert engine.batches == []

    def test_it_says_what_it_is(self, toy):
        assert isinstance(toy, Detector)
        assert toy.info.name == f"Toy Toy 1 fp32 {'b' * 8}"
        assert toy.info.operating_score == 0.4
        assert toy.info.provenance == {
            "weights SHA-256": "b" * 64,
            "exported from SHA-256": "a" * 64,
            "runtime": "Toy 1",
            "precision": "fp32",
            "NMS IoU": "0.5",
        }


def summing_model():
    """Of an input (1, H, W, 3): its sum, and its shape."""
    ops = quiet_openvino().opset13
    images = ops.parameter([1, -1, -1, 3], np.uint8, "images")
    wide = ops.convert(images, "f32")
    return quiet_openvino().Model([ops.reduce_sum(wide, ops.constant([1, 2, 3])), ops.shape_of(images)], [images])


@pytest.mark.parametrize("side_by_side", [True, False])
def test_openvino_runs_inputs_of_many_sizes_in_their_order(side_by_side):
    run = openvino_engine(summing_model(), side_by_side=side_by_side)
    # More than are kept, the first anew; some sizes come several times.
    shapes = [(1, 4, width, 3) for width in (2, 3, 2, 2, *range(4, 4 + COMPILED_KEPT), 2, 3)]
    for _ in range(2):
        answers = run([np.full(shape, index, np.uint8) for index, shape in enumerate(shapes)])
        for index, (shape, (total, seen)) in enumerate(zip(shapes, answers, strict=True)):
            assert tuple(seen) == shape
            assert float(total[0]) == index * np.prod(shape)
    assert run([]) == []


@pytest.mark.parametrize(
    ("inputs", "cpus", "streams"), [(1, 16, 1), (2, 16, 2), (3, 16, 2), (8, 2, 2), (8, 6, 4), (64, 64, 4), (5, 1, 1)]
)
def test_so_many_are_worked_on_side_by_side(inputs, cpus, streams, monkeypatch):
    monkeypatch.setattr("fracture_det.inference.openvino.available_cpus", lambda: cpus)
    openvino = openvino_runtime.quiet_openvino()
    seen = []
    queue = openvino.AsyncInferQueue
    monkeypatch.setattr(openvino, "AsyncInferQueue", lambda model, jobs: seen.append(jobs) or queue(model, jobs))
    squares = [np.ones((1, 4, 4, 3), np.uint8)] * inputs
    for side_by_side in (True, False):
        openvino_engine(summing_model(), side_by_side=side_by_side)(squares)
    assert seen == [streams, 1]


class TestFacts:
    def test_they_come_back_from_a_file(self):
        assert GraphFacts.from_json(FACTS.to_json(), Path("x")) == FACTS

    def test_a_file_of_before_there_were_types_has_none(self):
        content = json.loads(FACTS.to_json())
        del content["type_names"]
        assert GraphFacts.from_json(json.dumps(content), Path("x")).type_names == ()

    def test_what_a_later_version_adds_is_passed_over(self):
        text = json.dumps({**json.loads(FACTS.to_json()), "colour": "red"})
        assert GraphFacts.from_json(text, Path("x")) == FACTS

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, r"m\.onnx: no 'fracture_det' in its metadata"),
            ("{", r"m\.onnx, metadata 'fracture_det': "),
            (json.dumps({"title": "x"}), r"m\.onnx, metadata 'fracture_det': class_names: missing"),
            ("[]", r"metadata 'fracture_det': the file: expected an object, got \[\]"),
            (
                FACTS.to_json().replace('"batch_size": 2', '"batch_size": "2"'),
                "batch_size: expected a whole number, got '2'",
            ),
            (
                FACTS.to_json().replace('"batch_size": 2', '"batch_size": true'),
                "batch_size: expected a whole number, got T",
            ),
            (FACTS.to_json().replace('"batch_size": 2', '"batch_size": 0'), "batch_size: expected a whole number .* 0"),
            (FACTS.to_json().replace('_step": null', '_step": 0'), "letterbox_step: expected a whole number .* 0"),
            (FACTS.to_json().replace("0.4", "4"), r"operating_score: expected 0\.\.1, got 4"),
        ],
    )
    def test_wrong_ones_are_named(self, text, message):
        with pytest.raises(DetectorError, match=message):
            GraphFacts.from_json(text, Path("m.onnx"))


class TestOpen:
    @pytest.mark.parametrize("scheme", ["openvino", "onnx", "torchscript"])
    def test_a_missing_file_is_named(self, scheme, tmp_path):
        with pytest.raises(DetectorError, match=r"model\.\w+: no such file; make one with tools/export_model\.py"):
            open_detector(f"{scheme}:{tmp_path}")

    @pytest.mark.parametrize(("scheme", "name"), [("openvino", "m.xml"), ("onnx", "m.onnx"), ("torchscript", "m.pt")])
    def test_a_broken_file_is_named(self, scheme, name, tmp_path):
        (tmp_path / name).write_bytes(b"nonsense")
        (tmp_path / "m.bin").write_bytes(b"")
        with pytest.raises(DetectorError, match=rf"{name}: \w+.* cannot read it: "):
            open_detector(f"{scheme}:{tmp_path / name}")

    def test_openvino_wants_both_files(self, tmp_path):
        (tmp_path / "m.xml").write_bytes(b"")
        with pytest.raises(DetectorError, match=r"no m\.bin beside it"):
            open_detector(f"openvino:{tmp_path / 'm.xml'}")

    @pytest.mark.parametrize("scheme", ["openvino", "onnx", "torchscript"])
    def test_nms_is_inside_and_cannot_be_set(self, scheme, tmp_path):
        with pytest.raises(
            DetectorError, match=rf"^detector '{scheme}:.*': has no setting nms_iou, got 0\.3; an exported graph holds"
        ):
            open_detector(f"{scheme}:{tmp_path}", nms_iou=0.3)

    def test_a_gpu_that_the_environment_names_and_torch_does_not_find_is_said(self, monkeypatch, caplog):
        import fracture_det.inference.torchscript as torchscript

        monkeypatch.setattr(torchscript.torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert torchscript._device() == "cpu"
        assert not caplog.records
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        assert torchscript._device() == "cpu"
        assert caplog.messages == ["CUDA_VISIBLE_DEVICES=0,1, but PyTorch finds no GPU; the model runs on the CPU"]

    def test_onnx_runtime_that_leaves_its_gpu_says_so(self, tmp_path, monkeypatch, caplog):
        import onnxruntime

        session = SimpleNamespace(
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map={"fracture_det": FACTS.to_json()}),
            get_inputs=lambda: [SimpleNamespace(name="images")],
            get_providers=lambda: ["CPUExecutionProvider"],
        )
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *arguments, **options: session)
        (tmp_path / "model.onnx").write_bytes(b"x")
        detector = open_detector(f"onnx:{tmp_path}")
        assert detector.info.device == f"cpu (ONNX Runtime {onnxruntime.__version__})"
        assert caplog.messages == [
            f"{tmp_path}/model.onnx: ONNX Runtime was built for CUDAExecutionProvider, but runs on CPUExecutionProvider"
        ]

    def test_a_runtime_that_is_not_installed_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "model.onnx").write_bytes(b"x")
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(DetectorError, match=r"needs onnxruntime, which is not installed: `pip install .*\[train\]"):
            open_detector(f"onnx:{tmp_path}")

    def test_a_changed_file_is_refused(self, tmp_path):
        (tmp_path / "model.onnx").write_bytes(b"changed")
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.onnx\n")
        with pytest.raises(DetectorError, match=r"model\.onnx: SHA-256 is \w{64}, SHA256SUMS says 0{64}"):
            open_detector(f"onnx:{tmp_path}")


def test_the_runtimes_need_no_torch_and_openvino_reports_to_no_one():
    code = (
        "import sys; import fracture_det.inference.openvino as r; ov = r.quiet_openvino(); ov.Core()\n"
        "import fracture_det.inference.service, fracture_det.inference.ensemble\n"
        "loaded = {'torch', 'detectron2', 'timm'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry.')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
