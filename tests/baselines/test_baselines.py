"""The baselines behind the Detector protocol; built for real, with random weights."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fracture_det.baselines import yolov3
from fracture_det.baselines.baseline import Baseline, BaselineDetector, ShortestSide
from fracture_det.baselines.openvino_export import export_baseline, quantize_baseline
from fracture_det.baselines.zoo import BASELINES
from fracture_det.inference.base import Detector, DetectorError
from fracture_det.inference.registry import open_detector
from fracture_det.structures.letterbox import Letterbox

PACKAGES = {"yolov3": "timm", "efficientdet": "effdet", "detr": "transformers", "torchvision": "torchvision"}
IMAGE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def needs(package):
    """Skip where `package` is missing; importing it here would do to all tests what its room undoes."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed; make setup brings it")


@pytest.mark.parametrize("scheme", BASELINES)
def test_each_is_a_detector_and_predicts_in_the_images_frame(scheme):
    needs(PACKAGES[scheme])
    detector = open_detector(f"{scheme}:random")
    assert isinstance(detector, Detector)
    assert detector.info.name == f"{BASELINES[scheme].title} random weights"
    (found,) = detector.predict([IMAGE])
    assert not len(found) or (
        found.boxes.min() >= 0 and found.boxes[:, 2].max() <= 300 and found.boxes[:, 3].max() <= 200
    )


class Fixed(torch.nn.Module):
    """Answers with one box over the left upper quarter of a square of 100 px, as YOLOv3 lays it out."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        box = torch.tensor([0.0, 0.0, 50.0, 50.0])
        scores = torch.tensor([[0.9], [0.009]]) * self.scale
        return torch.stack([box, box])[None] + 0 * batch.mean(), scores[None] + 0 * batch.mean()


@pytest.fixture
def toy(monkeypatch):
    baseline = Baseline(
        "yolov3", "Toy", Letterbox(100), Fixed, BASELINES["yolov3"].decode, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    monkeypatch.setattr(yolov3, "YOLOV3", baseline)
    return baseline


def test_boxes_come_back_to_the_image_and_low_scores_go(toy):
    # 200 x 100 px in a square of 100 px: half the size.
    (found,) = open_detector("yolov3:random").predict([np.zeros((100, 200, 3), np.uint8)])
    assert found.boxes.tolist() == [[0, 0, 100, 100]]
    assert found.scores == pytest.approx([0.9])


def test_the_network_sees_what_its_authors_meant(toy):
    seen = []

    def run(batches):
        seen.extend(batches)
        with torch.no_grad():
            return [Fixed()(torch.from_numpy(batch)) for batch in batches]

    BaselineDetector(toy, run, name="x").predict([np.full((50, 100, 3), 255, np.uint8)])
    assert seen[0].shape == (1, 3, 100, 100)
    assert seen[0][0, :, 0, 0] == pytest.approx([2, 2, 2])  # (1 - .5) / .25
    assert seen[0][0, :, 99, 0] == pytest.approx([-2, -2, -2])  # padding is black


def test_an_export_to_openvino_predicts_alike(toy, tmp_path):
    export_baseline(toy, "random", tmp_path / "toy" / "model.xml")
    (found,) = open_detector(f"yolov3:{tmp_path / 'toy' / 'model.xml'}").predict([np.zeros((100, 200, 3), np.uint8)])
    assert found.boxes.tolist() == [[0, 0, 100, 100]]
    assert [path.name for path in sorted((tmp_path / "toy").iterdir())] == ["model.bin", "model.xml"]


def test_weights_come_from_safetensors_and_must_fit(toy, tmp_path):
    save_file({"scale": torch.tensor(0.5)}, tmp_path / "half.safetensors")
    detector = open_detector(f"yolov3:{tmp_path / 'half.safetensors'}")
    assert detector.predict([np.zeros((100, 100, 3), np.uint8)])[0].scores == pytest.approx([0.45])
    save_file({"other": torch.tensor(0.5)}, tmp_path / "other.safetensors")
    with pytest.raises(DetectorError, match=r"other\.safetensors: not weights of Toy: "):
        open_detector(f"yolov3:{tmp_path / 'other.safetensors'}")
    for target in ("missing.safetensors", "weights.pt"):
        with pytest.raises(
            DetectorError, match=f"Toy: expected a training folder, 'random' or a .safetensors file, got '{target}'"
        ):
            open_detector(f"yolov3:{target}")


def test_their_packages_are_imported_only_when_one_is_built():
    code = "import sys, fracture_det.baselines.zoo; print([n for n in ('transformers', 'effdet') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# (height, width) -> what DETR's and torchvision's own rule gives for 800 and at most 1333 px, by hand
SCALED = [
    ((454, 373), (974, 800)),  # 800 / 373 * 454 = 973.7
    ((2880, 2304), (1000, 800)),
    ((400, 1000), (533, 1333)),  # 800 / 400 * 1000 = 2000 is too long: 1333 / 1000 * 400 = 533.2
]


@pytest.mark.parametrize(("size", "expected"), SCALED)
def test_the_shortest_side_is_scaled_without_padding_and_boxes_come_back(size, expected):
    frame = ShortestSide(800)
    assert frame.apply_image(np.full((*size, 3), 9, np.uint8)).shape == (*expected, 3)
    assert frame.apply_image(np.full((*size, 3), 9, np.uint8)).min() == 9
    box = [[10.0, 20.0, 300.0, 350.0]]
    assert frame.undo_boxes(frame.apply_boxes(box, size), size) == pytest.approx(np.array(box))


@pytest.mark.parametrize("scheme", ["detr", "torchvision"])
def test_those_that_scale_the_shortest_side_are_fed_what_their_own_library_feeds(scheme):
    assert BASELINES[scheme].preprocess(np.zeros((454, 373, 3), np.uint8)).shape == (1, 3, 974, 800)


def test_detrs_boxes_are_shares_of_width_and_height():
    # One query, two logits: fracture and nothing. Centre (.5, .5), as wide as half, as high as all of 40 x 80 px.
    outputs = (torch.tensor([[[5.0, 0.0]]]), torch.tensor([[[0.5, 0.5, 0.5, 1.0]]]))
    boxes, scores, classes = BASELINES["detr"].decode(outputs, (40, 80))
    assert boxes.tolist() == [[20, 0, 60, 40]]
    assert scores.tolist() == pytest.approx([1 / (1 + np.exp(-5))])
    assert classes.tolist() == [0]


@pytest.mark.slow
def test_an_export_takes_radiographs_of_any_shape(tmp_path):
    export_baseline(BASELINES["torchvision"], "random", tmp_path / "fp32" / "model.xml")
    exported, source = open_detector(f"torchvision:{tmp_path / 'fp32/model.xml'}"), open_detector("torchvision:random")
    for image in (IMAGE, IMAGE.transpose(1, 0, 2)):
        (found,), (expected,) = exported.predict([image]), source.predict([image])
        assert found.scores[:5] == pytest.approx(expected.scores[:5], abs=0.01)


def test_int8_predicts_and_is_smaller(toy, tmp_path):
    needs("nncf")
    export_baseline(toy, "random", tmp_path / "fp32" / "model.xml")
    quantize_baseline(toy, tmp_path / "fp32/model.xml", tmp_path / "int8/model.xml", [IMAGE])
    (found,) = open_detector(f"yolov3:{tmp_path / 'int8/model.xml'}").predict([np.zeros((100, 200, 3), np.uint8)])
    assert found.boxes.tolist() == [[0, 0, 100, 100]]
