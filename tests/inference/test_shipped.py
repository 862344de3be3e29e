"""The detector that the repository carries: small, whole, the same everywhere, and it sees a fracture."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fracture_det.detections import box_iou
from fracture_det.images import read_radiograph
from fracture_det.inference.detector import SHIPPED, open_detector

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped():
    return open_detector("shipped")


def test_it_is_small_and_safe():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".yaml", ".md", ".png", ""}


def test_every_member_has_its_configuration_log_and_hash(shipped):
    assert len(shipped.members) == len(shipped.fusion.members) == 2
    for uri, member in zip(shipped.fusion.members, shipped.members, strict=True):
        folder = SHIPPED / uri.removeprefix("d2:")
        assert member.sha256 in (folder / "SHA256SUMS").read_text()
        assert "bbox/AP50" in (folder / "training_log.jsonl").read_text()
        assert member.predictor.cfg.MODEL.TITLE in member.name


def test_the_split_manifest_keeps_test_images_out_of_training():
    split = json.loads((SHIPPED / "split.json").read_text())
    files = split["files"].values()
    parts = {name: {file["sha256"] for file in files if file["split"] == name} for name in ("train", "val", "test")}
    assert sum(file["split"] == "test" for file in files) == 332
    assert not parts["test"] & (parts["train"] | parts["val"])


def test_its_card_names_data_licence_and_use(shipped):
    text = shipped.card.read_text()
    for words in ("Research use only", "FracAtlas", "CC BY 4.0", "AUROC", "95 % interval"):
        assert words in text


def test_a_black_image_has_no_finding(shipped):
    (found,) = shipped.predict([np.zeros((400, 300, 3), np.uint8)])
    assert len(found.above(0.3)) == 0


@pytest.mark.real
def test_it_sees_a_fracture_that_it_was_not_trained_on(shipped):
    # A test image of FracAtlas, CC BY 4.0, and the box of its XML.
    folder = Path(os.environ.get("FRACATLAS_DIR", ROOT.parent / "shared/fracatlas"))
    path = folder / "images/Fractured/IMG0003943.jpg"
    if not path.is_file():
        pytest.skip(f"no {path}; set FRACATLAS_DIR")
    (found,) = shipped.predict([read_radiograph(path).pixels])
    assert box_iou(found.boxes[:1], [[167, 141, 193, 165]]).max() > 0.3
