"""The head that tells types: its losses, what it leaves alone, and its keys in the configuration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from fracture_det.inference.detectron2 import D2Detector
from fracture_det.modeling.checkpoints import FractureCheckpointer, build_model_for, load_checkpoint
from fracture_det.modeling.config import ConfigError, load_config
from fracture_det.modeling.type_head import TYPE_KEYS, box_loss, freeze_all_but_types, image_loss
from fracture_det.structures.detections import Detections
from tests.builders import draw_radiograph
from tests.detectors import write_random_detector
from tests.paths import QUICK_CONFIG

NAMES = ("MODEL.TYPE_HEAD.NAMES", "('spiral', 'oblique', 'transverse')")


def sampled(classes, **fields):
    """Return sampled proposals of the classes (1 is background) with fields of the truth."""
    proposals = Instances((10, 10))
    proposals.gt_classes = torch.tensor(classes)
    for name, values in fields.items():
        proposals.set(name, torch.tensor(values))
    return proposals


def test_the_loss_of_boxes_is_the_cross_entropy_of_those_of_a_known_type():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [9.0, 0.0], [0.0, 9.0]])
    # The third is background, although matched with a typed box; the fourth is a fracture of an unknown type.
    proposals = [sampled([0, 0, 1], gt_types=[0, 1, 1]), sampled([0], gt_types=[-1])]

    expected = (np.log(1 + np.exp(-2.0)) + np.log(1 + np.exp(-1.0))) / 2
    assert box_loss(logits, proposals, 1).item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_a_radiograph_is_that_of_the_pooled_type_of_detections():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [9.0, 0.0]])
    scores = torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5]])
    proposals = [sampled([0, 0, 1], gt_image_types=[1, 1, 1])]
    boxes = np.tile([0.0, 0.0, 5.0, 5.0], (2, 1))
    pooled = Detections(boxes, [0.8, 0.2], [0, 0], logits[:2].softmax(1).numpy()).image_types()

    assert image_loss(logits, scores, proposals, 1).item() == pytest.approx(-np.log(pooled[1]), rel=1e-5)


@pytest.mark.parametrize("fields", [{}, {"gt_types": [-1, -1], "gt_image_types": [-1, -1]}])
def test_without_a_known_type_both_losses_are_0_and_connected(fields):
    logits = torch.ones(2, 3, requires_grad=True)
    proposals = [sampled([0, 1], **fields)]
    loss = box_loss(logits, proposals, 1) + image_loss(logits, torch.ones(2, 2), proposals, 1)
    loss.backward()

    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    return write_random_detector(tmp_path_factory.mktemp("typed"), overrides=NAMES)


@pytest.fixture(scope="module")
def plain(typed, tmp_path_factory):
    """The same network, its very weights, without the head."""
    folder = write_random_detector(tmp_path_factory.mktemp("plain"))
    state = load_checkpoint(typed / "model.safetensors")["model"]
    torch.save({key: value for key, value in state.items() if key not in TYPE_KEYS}, folder / "model_best.pth")
    (folder / "model.safetensors").unlink()
    return folder


def test_boxes_and_scores_are_bit_for_bit_those_of_the_network_without_the_head(typed, plain):
    images = [draw_radiograph(np.random.default_rng(n), fractured=True, size=(160, 128 + n))[0] for n in range(3)]
    with_types, without = D2Detector.open(str(typed)), D2Detector.open(str(plain))

    assert with_types.info.type_names == ("spiral", "oblique", "transverse")
    assert without.info.type_names == ()
    for found, expected in zip(with_types.predict(images), without.predict(images), strict=True):
        assert len(found) > 10
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert found.types.shape == (len(found), 3)
        assert len(np.unique(found.types[:, 0])) > 1
        assert expected.types is None


def test_a_type_is_told_from_the_features_of_its_own_box(typed):
    image = draw_radiograph(np.random.default_rng(0), fractured=True, size=(128, 128))[0]
    predictor = D2Detector.open(str(typed)).predictor
    seen = {}
    heads = predictor.model.roi_heads
    heads.box_head.register_forward_hook(lambda _module, _inputs, output: seen.update(features=output))
    heads.box_predictor.register_forward_hook(lambda _module, _inputs, output: seen.update(scores=output[0]))
    found = predictor.predict_batch([image])[0]["instances"]
    with torch.no_grad():
        scores, types = seen["scores"].softmax(1)[:, 0], heads.type_predictor(seen["features"]).softmax(1)
    row = [int((scores == score).nonzero()[0, 0]) for score in found.scores]

    torch.testing.assert_close(found.pred_types, types[row])


def test_a_network_trained_without_types_starts_with_a_new_head_and_says_so(plain, caplog):
    model = build_model_for(load_config(QUICK_CONFIG, ["MODEL.DEVICE", "cpu", "INPUT.LETTERBOX", "128", *NAMES]), "")
    with caplog.at_level("WARNING"):
        FractureCheckpointer(model).load(str(plain / "model_best.pth"))

    assert "model_best.pth: trained without types of fracture; the head that tells them" in caplog.text
    state = load_checkpoint(plain / "model_best.pth")["model"]
    assert torch.equal(
        model.state_dict()["roi_heads.box_predictor.cls_score.weight"],
        state["roi_heads.box_predictor.cls_score.weight"],
    )


def test_nothing_but_the_head_learns_when_all_else_is_frozen():
    model = build_model_for(load_config(QUICK_CONFIG, ["MODEL.DEVICE", "cpu", *NAMES]), "")
    freeze_all_but_types(model)

    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == set(TYPE_KEYS)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (
            ["MODEL.TYPE_HEAD.NAMES", "('spiral', 'torsion')"],
            r"NAMES: 'torsion' is not in configs/fracture_types\.yaml",
        ),
        (
            ["MODEL.TYPE_HEAD.NAMES", "('spiral',)"],
            r"NAMES: expected \(\) or several different names, got \['spiral'\]",
        ),
        (["MODEL.TYPE_HEAD.NAMES", "('spiral', 'spiral')"], "several different names"),
        ([*NAMES, "MODEL.TYPE_HEAD.LOSS_WEIGHT", "-1.0"], "LOSS_WEIGHT: expected 0 or more, got -1.0"),
        ([*NAMES, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads"], "only Faster R-CNN with StandardROIHeads"),
        ([*NAMES, "MODEL.TYPE_HEAD.ONLY", "True", "MODEL.FPN.NORM", "BN"], "MODEL.FPN.NORM BN would change"),
        (["MODEL.TYPE_HEAD.ONLY", "True"], "there is no head to train"),
    ],
)
def test_a_wrong_key_of_the_head_is_refused(overrides, match):
    with pytest.raises(ConfigError, match=match):
        load_config(QUICK_CONFIG, ["MODEL.DEVICE", "cpu", *overrides])


def test_the_heads_with_types_are_chosen_and_unchosen_by_themselves(typed):
    assert "NAME: TypedROIHeads" in (typed / "config.yaml").read_text()
    without = load_config(typed / "config.yaml", ["MODEL.TYPE_HEAD.NAMES", "()"])
    assert without.MODEL.ROI_HEADS.NAME == "StandardROIHeads"
