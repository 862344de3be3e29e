"""tools/export_model.py from the command line: single detectors and ensembles, INT8, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.records import Dataset
from fracture_det.export import verify
from fracture_det.export.verify import Accuracy, ExportError, check_drop, measure_accuracy
from fracture_det.inference.registry import open_detector
from fracture_det.structures.detections import Detections
from tests.builders import build_dataset
from tests.detectors import write_random_detector
from tests.inference.toys import BrightDetector
from tools.export_model import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """A folder of images/ with a COCO file beside it."""
    folder = tmp_path_factory.mktemp("radiographs")
    write_coco(build_dataset(folder, n_fractured=4, n_healthy=4, seed=1), folder / "val.json")
    return folder


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    for seed, name in enumerate(("one", "two")):
        write_random_detector(folder / name, seed=seed)
    (folder / "ensemble.json").write_text(
        json.dumps({"title": "Both", "members": ["d2:one", "d2:two"], "orientations": ["identity", "half_turn"]})
    )
    return folder


def export(*arguments, out, radiographs):
    return main(["--out", str(out), "--check-images", str(radiographs / "images"), "--check-count", "2", *arguments])


def test_every_member_of_an_ensemble_is_exported(detectors, radiographs, tmp_path, capsys):
    assert export("--detector", f"ensemble:{detectors}", "--to", "onnx", out=tmp_path, radiographs=radiographs) == 0
    fused = open_detector(f"ensemble:{tmp_path}")
    assert [member.info.about["runtime"].split()[0] for member in fused.members] == ["ONNX", "ONNX"]
    assert fused.config.orientations == ("identity", "half_turn")
    assert "ensemble.json: onnx:one and onnx:two, combined as before" in capsys.readouterr().out


@pytest.mark.slow
def test_int8_is_measured_on_annotated_images(detectors, radiographs, tmp_path, capsys, monkeypatch):
    # What 8 bits cost random weights on eight images is chance, and another one on each kind of processor; that too
    # much is refused is tested in test_int8.py.
    monkeypatch.setattr(verify, "MAX_AUROC_DROP", 1.0)
    images = radiographs / "images"
    arguments = ["--detector", f"d2:{detectors / 'one'}", "--to", "openvino", "--int8"]
    arguments += ["--calibration-images", str(images), "--data", str(radiographs / "val.json"), "--images", str(images)]
    assert export(*arguments, out=tmp_path, radiographs=radiographs) == 0
    assert "INT8 AP50 0.0" in capsys.readouterr().out
    export_, source = open_detector(f"openvino:{tmp_path}"), open_detector(f"d2:{detectors / 'one'}")
    assert export_.facts.precision == "int8"
    assert " int8 " in export_.info.name
    assert export_.facts.source_sha256 == source.info.sha256
    # The weights of the parts are bytes now: the file is much smaller than the source's float32.
    size = (detectors / "one" / "model.safetensors").stat().st_size
    assert (tmp_path / "model.bin").stat().st_size < 0.4 * size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "d2:nowhere", "--to", "onnx"], "nowhere: no such file or folder"),
        (["--detector", "openvino:x", "--to", "onnx"], "'openvino:x': expected d2:FOLDER, ensemble:FOLDER or shipped"),
        (["--detector", "d2:x", "--to", "onnx", "--int8"], "--int8 needs --to openvino, got onnx"),
        (["--detector", "d2:x", "--to", "openvino", "--int8"], "--int8 needs --calibration-images"),
        (["--detector", "d2:x", "--to", "onnx", "--title", "T"], "--title needs --to safetensors"),
        (["--detector", "d2:x", "--batch-size", "0"], "batch_size: expected at least 1, got 0"),
        (["--detector", "d2:x", "--check-images", ""], "--check-images: every export but a pruned start"),
        (["--detector", "shipped", "--prune", ".3"], "--prune needs --to safetensors and a d2: detector"),
        (["--detector", "d2:x", "--against", "d2:y"], "--against needs --data and --images"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, message, radiographs, tmp_path, capsys):
    assert export(*arguments, out=tmp_path / "out", radiographs=radiographs) == 2
    assert f"export: {'detector d2:' if 'nowhere' in message else ''}" in (error := capsys.readouterr().err)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_what_was_there(detectors, radiographs, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("an export of before")
    monkeypatch.setattr(verify, "MAX_BOX_SHIFT_PX", -1.0)  # no box can be near enough
    assert (
        export("--detector", f"d2:{detectors / 'one'}", "--to", "onnx", out=tmp_path / "out", radiographs=radiographs)
        == 2
    )
    assert "boxes differ, such as " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "an export of before"


def test_a_pruned_start_is_trained_on_and_held_to_its_source(detectors, radiographs, tmp_path, capsys):
    frozen = ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    source = write_random_detector(tmp_path / "source", overrides=frozen)
    images = radiographs / "images"
    pruned, trained = tmp_path / "pruned", tmp_path / "trained"
    assert main(["--detector", f"d2:{source}", "--prune", ".5", "--out", str(pruned)]) == 0
    assert "now train it on with tools/train_net.py" in capsys.readouterr().out
    keys = [
        "SOLVER.EPOCHS",
        "0",
        "SOLVER.MAX_ITER",
        "2",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "SOLVER.WARMUP_ITERS",
        "0",
        "TEST.EVAL_PERIOD_EPOCHS",
        "0",
    ]
    data = tmp_path / "data"
    data.mkdir()
    dataset = read_coco(radiographs / "val.json")
    for name, records in (("train.json", dataset.records[:4]), ("val.json", dataset.records[4:])):  # whole patients
        write_coco(Dataset(records, dataset.class_names), data / name)
    given = ["--config-file", pruned / "config.yaml", "--data", data, "--images", images, "OUTPUT_DIR", trained, *keys]
    tool = [sys.executable, str(ROOT / "tools" / "train_net.py"), *map(str, given)]
    done = subprocess.run(tool, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    against = ["--against", f"d2:{source}", "--data", str(data / "val.json"), "--images", str(images)]
    arguments = ["--detector", f"d2:{trained}", "--to", "onnx", *against]
    export(*arguments, out=tmp_path / "out", radiographs=radiographs)
    said = capsys.readouterr()
    # Two iterations teach nothing: whether the AUROC of random weights is held is chance; that it was compared is not.
    assert f"; d2:{source}: AP50 0.0" in said.out
    assert said.err == "" or "drops by" in said.err


def test_accuracy_is_that_of_the_evaluation(radiographs):
    # BrightDetector's box is never where the fracture is: AP50 0; it scores what is bright .8 and all else nothing.
    measured = measure_accuracy(BrightDetector(), read_coco(radiographs / "val.json"), radiographs / "images")
    assert (measured.n_images, measured.ap50) == (8, 0.0)
    assert 0 <= measured.auroc <= 1


def test_accuracy_on_pooled_sources_is_the_mean_over_those_with_a_box(radiographs):
    class Truth(BrightDetector):
        """Finds every fracture of the first source, and none of the others."""

        def predict(self, images):
            return [found.pop(0) for _ in images]

    dataset = read_coco(radiographs / "val.json")
    fractured = [record for record in dataset.records if len(record.boxes)]
    sources = {fractured[0].image_id: "a", fractured[1].image_id: "b"}
    records = tuple(
        replace(record, attributes={"source": sources.get(record.image_id, "b" if len(record.boxes) else "healthy")})
        for record in dataset.records
    )
    none = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    found = [
        Detections(record.boxes, np.full(len(record.boxes), 0.9), record.classes)
        if record.attributes["source"] == "a"
        else none
        for record in records
    ]
    measured = measure_accuracy(Truth(), replace(dataset, records=records), radiographs / "images")
    assert measured.by_source == {"a": pytest.approx(1.0), "b": 0.0}
    assert measured.ap50 == pytest.approx(0.5)
    assert "(mean of a 1.0000, b 0.0000)" in str(measured)


def test_a_drop_is_allowed_up_to_its_limit():
    before = Accuracy(0.50, 0.90, 10)
    check_drop(before, Accuracy(0.496, 0.896, 10), ap50=0.005)
    check_drop(before, Accuracy(0.60, 0.95, 10), ap50=0.005)
    with pytest.raises(ExportError, match=r"AP50 drops by 0\.0100, allowed are 0\.005"):
        check_drop(before, Accuracy(0.49, 0.90, 10), ap50=0.005)
    with pytest.raises(ExportError, match=r"AUROC drops by 0\.0100, allowed are 0\.005"):
        check_drop(before, Accuracy(0.50, 0.89, 10), ap50=0.01)
