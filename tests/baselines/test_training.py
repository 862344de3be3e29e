"""The paper's detectors, trained by the same tool as ours and opened by their own schemes; a few real iterations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from fracture_det.data.coco import read_coco, write_coco
from fracture_det.export import verify
from fracture_det.export.exporter import ExportOptions, run_export
from fracture_det.inference.base import DetectorError
from fracture_det.inference.registry import open_detector
from fracture_det.modeling.checkpoints import load_checkpoint
from fracture_det.modeling.config import load_config
from fracture_det.structures.radiograph import read_radiograph
from fracture_det.training.trainer import train
from tests.builders import build_dataset
from tests.paths import ROOT

pytestmark = pytest.mark.usefixtures("forget_data_sets")

# scheme -> its small configuration, and the package that its network comes from.
SCHEMES = {
    "efficientdet": ("efficientdet_lite2", "effdet"),
    "yolov3": ("yolov3_lite2", "timm"),
    "detr": ("detr_lite2", "transformers"),
}
# 64 px, 8 training images in batches of 4: two iterations are an epoch.
TOY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0",
    "INPUT.LETTERBOX": "64",
    "INPUT.CROP.ENABLED": "False",
    "DATALOADER.NUM_WORKERS": "0",
    "SOLVER.EPOCHS": "2",
    "SOLVER.STEP_EPOCHS": "(1,)",
    "SOLVER.WARMUP_ITERS": "1",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with images/, train.json and val.json of tiny synthetic radiographs."""
    folder = tmp_path_factory.mktemp("data")
    for split, count, seed in (("train", 4, 1), ("val", 2, 2)):
        dataset = build_dataset(folder, n_fractured=count, n_healthy=count, seed=seed, size=(96, 80))
        write_coco(dataset, folder / f"{split}.json")
    return folder


def keys(data, output):
    sets = {"TRAIN": "train.json", "TEST": "val.json"}
    names = {f"DATASETS.{key}": f"('{data / file}@{data / 'images'}',)" for key, file in sets.items()}
    return [part for pair in {**TOY, **names, "OUTPUT_DIR": str(output)}.items() for part in pair]


def config_file(scheme):
    name, package = SCHEMES[scheme]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed; make setup brings it")
    return ROOT / "configs" / "baselines" / f"{name}.yaml"


@pytest.fixture(scope="module", params=SCHEMES)
def trained(request, data, tmp_path_factory):
    """A scheme, and the folder of a finished training of two epochs."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    cfg = load_config(config_file(request.param), keys(data, folder))
    train(cfg)
    (folder / "config.yaml").write_text(cfg.dump())  # as the tool does
    return request.param, folder


def test_training_leaves_what_every_training_leaves(trained):
    _, folder = trained
    names = {path.name for path in folder.iterdir()}
    assert {"model_final.pth", "last_checkpoint", "metrics.json", "loss_curves.png", "ap_curve.png"} <= names
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "validation_loss" in line] == [1, 4]
    last = lines[-1]
    parts = [key for key in last if key.startswith("validation_loss_")]
    assert last["validation_loss"] == pytest.approx(sum(last[key] for key in parts))


def test_it_opens_by_its_scheme_and_predicts_in_the_images_frame(trained, data):
    scheme, folder = trained
    detector = open_detector(f"{scheme}:{folder}")
    assert detector.info.class_names == ("fracture",)
    assert len(detector.info.sha256) == 64
    records = read_coco(data / "val.json").records
    images = [read_radiograph(data / "images" / record.file_name).pixels for record in records]
    together = detector.predict(images)
    assert sum(map(len, together)) > 0
    for found, image in zip(together, images, strict=True):
        alone = detector.predict([image])[0]
        assert found.scores == pytest.approx(alone.scores, abs=1e-4)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [image.shape[1], image.shape[0]] * 2).all()


def test_another_scheme_says_what_the_folder_is(trained):
    scheme, folder = trained
    other = "yolov3" if scheme != "yolov3" else "detr"
    with pytest.raises(DetectorError, match=rf"^detector {other}:.*says MODEL.META_ARCHITECTURE .*, expected"):
        open_detector(f"{other}:{folder}")


def test_its_half_precision_export_predicts_alike(trained, data, tmp_path, monkeypatch):
    # Of the few boxes after three iterations rounding may change which of two alike survives NMS.
    monkeypatch.setattr(verify, "MAX_SHARE_MOVED", 0.5)
    scheme, folder = trained
    options = ExportOptions(
        f"{scheme}:{folder}", "safetensors", tmp_path / "small", str(data / "images"), check_count=2
    )
    said = []
    run_export(options, say=said.append)
    assert open_detector(f"{scheme}:{tmp_path / 'small'}").info.name
    assert (tmp_path / "small" / "SHA256SUMS").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["openvino", "onnx", "torchscript"])
def test_its_export_as_a_graph_predicts_alike(trained, to, data, tmp_path):
    scheme, folder = trained
    run_export(ExportOptions(f"{scheme}:{folder}", to, tmp_path / to, str(data / "images"), check_count=4), say=str)
    exported, source = open_detector(f"{to}:{tmp_path / to}"), open_detector(f"{scheme}:{folder}")
    record = read_coco(data / "val.json").records[0]
    image = read_radiograph(data / "images" / record.file_name).pixels
    (found,), (expected,) = exported.predict([image]), source.predict([image])
    assert len(expected) > 0  # of DETR one: its untrained queries all say the same
    assert found.scores[:4] == pytest.approx(expected.scores[:4], abs=0.01)
    assert found.boxes[:4] == pytest.approx(expected.boxes[:4], abs=1.0)


def test_a_training_goes_on_where_it_was(data, tmp_path):
    path, folder = config_file("efficientdet"), tmp_path / "run"
    train(load_config(path, [*keys(data, folder), "SOLVER.EPOCHS", "1"]))
    train(load_config(path, keys(data, folder)), resume=True)
    assert load_checkpoint(folder / "model_final.pth")["iteration"] == 3
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "validation_loss" in line][-1] == 4


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_processes_train_on_one_machine_without_a_gpu(scheme, data, tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", str(config_file(scheme))]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--num-gpus", "2", *keys(data, tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Rank of current process: 0. World size: 2" in done.stdout
    assert load_checkpoint(tmp_path / "model_final.pth")["iteration"] == 3
