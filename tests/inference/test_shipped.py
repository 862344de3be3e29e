"""The detector that the repository carries: small, whole, the same everywhere, and it sees a fracture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fracture_det.inference.base import DetectorError
from fracture_det.inference.ensemble import EnsembleConfig
from fracture_det.inference.registry import FLOAT, SHIPPED, open_detector
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.radiograph import read_radiograph
from tests.paths import FRACATLAS, present

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped():
    return open_detector("shipped")


def test_it_is_small_and_safe():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    served = [path for path in files if path.parent.parent.name == "int8" or path.parent.name == "types"]
    assert sum(path.stat().st_size for path in served) <= 35e6
    assert sum(path.stat().st_size for path in files) <= 75e6
    kinds = {".safetensors", ".json", ".jsonl", ".yaml", ".md", ".png", ".xml", ".bin", ""}
    assert {path.suffix for path in files} <= kinds


def test_every_member_is_int8_made_from_the_weights_beside_it(shipped):
    source = EnsembleConfig.load(FLOAT)
    served = shipped.detector
    assert len(served.members) == len(served.config.members) == len(source.members) == 2
    for uri, float_uri, member in zip(served.config.members, source.members, served.members, strict=True):
        assert uri == f"openvino:int8/{float_uri.removeprefix('d2:')}"
        assert member.facts.precision == "int8"
        folder = SHIPPED / float_uri.removeprefix("d2:")
        assert member.facts.source_sha256 in (folder / "SHA256SUMS").read_text()
        assert "bbox/AP50" in (folder / "training_log.jsonl").read_text()
    assert (served.config.orientations, served.config.iou) == (source.orientations, source.iou)


def test_another_nms_iou_is_refused_by_what_is_served_with_the_detectors_that_take_it():
    with pytest.raises(DetectorError) as caught:
        open_detector("shipped", nms_iou=0.3)
    member = f"openvino:{SHIPPED}/int8/resnet"
    assert str(caught.value) == (
        f"{SHIPPED}/ensemble.json, members: detector {member!r}: has no setting nms_iou, got 0.3; "
        "an exported graph holds its non-maximum suppression, with the IoU of its source; "
        "detectors that take it: d2:PATH, and ensemble:PATH where all members are d2:"
    )


def test_its_float_source_takes_another_nms_iou_and_says_so():
    black = np.zeros((400, 300, 3), np.uint8)
    changed, plain = open_detector(f"ensemble:{FLOAT}", nms_iou=0.3), open_detector(f"ensemble:{FLOAT}")
    assert changed.info.provenance == {**plain.info.provenance, "NMS IoU": "0.3"}
    for member in changed.members:
        assert member.predictor.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST == 0.3
    assert len(changed.predict([black])) == 1


def test_it_needs_no_torch():
    code = (
        "import sys; from fracture_det.inference.registry import open_detector; open_detector('shipped')\n"
        "print([name for name in ('torch', 'detectron2', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.real
def test_it_finds_nearly_what_its_source_finds(shipped):
    path = radiograph()
    (found,), (expected,) = (one.predict([path]) for one in (shipped, open_detector(f"ensemble:{FLOAT}")))
    best = expected.boxes[:1]
    assert box_iou(best, found.boxes).max() > 0.6
    assert found.scores[0] == pytest.approx(expected.scores[0], abs=0.15)


def test_the_split_manifest_keeps_test_images_out_of_training():
    split = json.loads((SHIPPED / "split.json").read_text())
    files = split["files"].values()
    parts = {name: {file["sha256"] for file in files if file["split"] == name} for name in ("train", "val", "test")}
    assert sum(file["split"] == "test" for file in files) == 332
    assert not parts["test"] & (parts["train"] | parts["val"])


def test_its_card_names_data_licence_and_use(shipped):
    text = shipped.info.card.read_text()
    for words in ("Research use only", "FracAtlas", "CC BY 4.0", "AUROC", "95 % interval"):
        assert words in text


def test_a_black_image_has_no_finding(shipped):
    (found,) = shipped.predict([np.zeros((400, 300, 3), np.uint8)])
    assert len(found.above(0.3)) == 0


def radiograph():
    """Return a test image of FracAtlas, CC BY 4.0."""
    return read_radiograph(present(FRACATLAS / "images/Fractured/IMG0003943.jpg")).pixels


@pytest.mark.real
def test_it_sees_a_fracture_that_it_was_not_trained_on(shipped):
    (found,) = shipped.predict([radiograph()])
    assert box_iou(found.boxes[:1], [[167, 141, 193, 165]]).max() > 0.3  # the box of its XML
