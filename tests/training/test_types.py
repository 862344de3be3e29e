"""Types of fracture from annotations over training and export to predictions, on drawn radiographs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fracture_det.data.coco import read_coco, write_coco
from fracture_det.export.exporter import ExportOptions, run_export
from fracture_det.inference.registry import open_detector
from fracture_det.modeling.checkpoints import load_checkpoint
from fracture_det.modeling.config import load_config
from fracture_det.modeling.type_head import TYPE_KEYS
from fracture_det.structures.radiograph import read_radiograph
from fracture_det.training.datasets import CatalogError, register_training_data, training_images
from fracture_det.training.mapper import FractureMapper
from fracture_det.training.trainer import train
from tests.builders import build_dataset
from tests.paths import QUICK_CONFIG
from tools.prepare_dataset import main as prepare

pytestmark = pytest.mark.usefixtures("forget_data_sets")

NAMES = ("MODEL.TYPE_HEAD.NAMES", "('spiral', 'transverse')")
TOY = [
    *(
        "MODEL.DEVICE",
        "cpu",
        "INPUT.LETTERBOX",
        "64",
        "MODEL.FPN.OUT_CHANNELS",
        "32",
        "MODEL.ROI_BOX_HEAD.FC_DIM",
        "16",
    ),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "50", "SOLVER.EPOCHS", "2", "SOLVER.STEP_EPOCHS", "(1,)", "SOLVER.WARMUP_ITERS"),
    *("2", "SOLVER.BASE_LR", "0.01", "TEST.EVAL_PERIOD_EPOCHS", "1", *NAMES),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Prepared data: of three fractured radiographs one is spiral and one transverse by its class, one of neither."""
    folder = tmp_path_factory.mktemp("typed")
    dataset = build_dataset(folder, n_fractured=18, n_healthy=9, seed=1, size=(96, 80))
    for number, record in enumerate(record for record in dataset if record.fractured):
        name = ("spiral", "Transverse fracture", "fracture")[number % 3]
        xml = (folder / "annotations" / record.file_name).with_suffix(".xml")
        xml.write_text(xml.read_text().replace("<name>fracture</name>", f"<name>{name}</name>"))
    words = ["--images", folder / "images", "--annotations", folder / "annotations", "--out", folder / "data"]
    options = ["--types-from-classes", "--fractions", ".6", ".3", ".1", "--workers", "1", "--seed", "3"]
    assert prepare([*map(str, words), *options]) == 0
    return folder


def configuration(data, output, *overrides):
    cfg = load_config(QUICK_CONFIG, [*TOY, "OUTPUT_DIR", str(output), *overrides])
    cfg.DATASETS.TRAIN = (f"{data / 'data' / 'train.json'}@{data / 'images'}",)
    cfg.DATASETS.TEST = (f"{data / 'data' / 'val.json'}@{data / 'images'}",)
    output.mkdir(exist_ok=True)
    return cfg


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    cfg = configuration(data, folder, "SOLVER.EPOCHS", "1", "SOLVER.STEP_EPOCHS", "()")
    train(cfg)
    (folder / "config.yaml").write_text(cfg.dump())  # as the tool does
    return folder


def history(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_the_input_of_a_model_has_the_types_of_its_boxes_and_of_the_radiograph(data, tmp_path):
    cfg = configuration(data, tmp_path)
    register_training_data(cfg)
    mapper = FractureMapper(cfg, is_train=False)
    truth = {record.image_id: record for record in read_coco(data / "data" / "train.json")}
    seen = set()
    for item in training_images(cfg):
        types = truth[item["image_id"]].types
        instances = mapper(item | {"type": "transverse"})["instances"]
        assert instances.gt_types.tolist() == [{"spiral": 0, "transverse": 1, None: -1}[kind] for kind in types]
        assert instances.gt_image_types.tolist() == [1] * len(types)
        seen |= set(types)
    assert seen == {"spiral", "transverse", None}


def test_boxes_and_types_are_trained_together(trained):
    lines = history(trained)
    last = next(line for line in reversed(lines) if "validation_loss" in line)
    assert last["validation_loss_type"] > 0
    assert last["validation_loss_image_type"] == 0  # of no radiograph is the type known as a whole
    assert any("loss_type" in line for line in lines)


@pytest.mark.slow
def test_the_head_alone_leaves_every_other_weight_and_keeps_the_lowest_loss(data, trained, tmp_path):
    start = trained / "model_final.pth"
    alone = ("MODEL.TYPE_HEAD.ONLY", "True", "MODEL.WEIGHTS", str(start))
    train(configuration(data, tmp_path / "run", *alone))
    before = load_checkpoint(start)["model"]
    for name in ("model_best.pth", "model_final.pth"):
        after = load_checkpoint(tmp_path / "run" / name)["model"]
        assert {key for key in before if not torch.equal(before[key], after[key])} == set(TYPE_KEYS)
    losses = {
        line["iteration"]: line["validation_loss"] for line in history(tmp_path / "run") if "validation_loss" in line
    }
    assert load_checkpoint(tmp_path / "run" / "model_best.pth")["iteration"] == min(losses, key=losses.get), losses
    assert len(set(losses.values())) == len(losses) > 1


def test_radiographs_of_a_known_type_teach_boxes_without_one(data, tmp_path):
    file = data / "data" / "train.json"
    dataset = read_coco(file)
    records = [
        replace(record, types=(), attributes={"type": record.types[0]} if any(record.types) else {})
        for record in dataset
    ]
    write_coco(replace(dataset, records=tuple(records)), tmp_path / "train.json")
    cfg = configuration(data, tmp_path / "run", "SOLVER.EPOCHS", "1", "SOLVER.STEP_EPOCHS", "()")
    cfg.DATASETS.TRAIN = (f"{tmp_path / 'train.json'}@{data / 'images'}",)
    cfg.DATASETS.TEST = ()
    train(cfg)

    line = next(line for line in history(tmp_path / "run") if "loss_type" in line)
    assert line["loss_type"] == 0
    assert line["loss_image_type"] > 0


def test_training_of_types_that_nothing_has_is_refused(data, tmp_path):
    cfg = configuration(data, tmp_path, "MODEL.TYPE_HEAD.NAMES", "('greenstick', 'avulsion')")
    with pytest.raises(CatalogError, match=r"train\.json: no box and no radiograph has one of the types.*greenstick"):
        register_training_data(cfg)


def test_validation_without_types_cannot_choose_the_best_head(data, tmp_path):
    dataset = read_coco(data / "data" / "val.json")
    write_coco(replace(dataset, records=tuple(replace(r, types=()) for r in dataset)), tmp_path / "val.json")
    cfg = configuration(data, tmp_path, "MODEL.TYPE_HEAD.ONLY", "True")
    cfg.DATASETS.TEST = (f"{tmp_path / 'val.json'}@{data / 'images'}",)
    with pytest.raises(CatalogError, match=r"val\.json.*no box and no radiograph has one of the types"):
        register_training_data(cfg)


def test_absent_and_further_types_are_told(data, tmp_path, caplog):
    cfg = configuration(data, tmp_path, "MODEL.TYPE_HEAD.NAMES", "('spiral', 'avulsion')")
    with caplog.at_level("WARNING"):
        register_training_data(cfg)
    assert "no box and no radiograph is of type avulsion" in caplog.text
    assert "count as unknown: {'transverse':" in caplog.text


@pytest.mark.parametrize("to", ["openvino", "onnx", "torchscript", "safetensors"])
def test_every_export_tells_the_types_that_its_source_tells(to, data, trained, tmp_path):
    said: list[str] = []
    options = ExportOptions(f"d2:{trained}", to, tmp_path / to, check_images=str(data / "images"), check_count=3)
    run_export(options, say=said.append)
    assert "types within 0.0" in " ".join(said)
    scheme = "d2" if to == "safetensors" else to
    source, export = open_detector(f"d2:{trained}"), open_detector(f"{scheme}:{tmp_path / to}")
    assert export.info.type_names == source.info.type_names == ("spiral", "transverse")
    images = [read_radiograph(path).pixels for path in sorted((data / "images").iterdir())[:3]]
    for found, expected in zip(export.predict(images), source.predict(images), strict=True):
        assert len(found) > 0
        np.testing.assert_allclose(found.types.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(found.image_types(), expected.image_types(), atol=5e-3)
