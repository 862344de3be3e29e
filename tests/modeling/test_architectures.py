"""YOLOv3, EfficientDet and DETR: what their losses ask for is what their boxes are decoded from."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances

from fracture_det.modeling.architectures import registry
from fracture_det.modeling.architectures.base import Truth
from fracture_det.modeling.architectures.registry import PACKAGES
from fracture_det.modeling.checkpoints import build_model_for
from fracture_det.modeling.config import ConfigError, load_config
from fracture_det.training.optimizer import build_optimizer
from fracture_det.training.validation_metrics import validation_losses
from tests.paths import ROOT

CONFIGS = {
    "EfficientDet": "efficientdet_lite2",
    "YOLOv3": "yolov3_lite2",
    "DETR": "detr_lite2",
}
BOXES = [[40.0, 60.0, 75.0, 100.0], [120.0, 30.0, 160.0, 90.0]]


def configuration(name, *overrides):
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed; make setup brings it")
    small = ["MODEL.DETR.WIDTH", "32", "MODEL.DETR.HEADS", "2", "MODEL.YOLOV3.WIDTHS", "(8,8,8)"]
    return load_config(
        ROOT / "configs" / "baselines" / f"{CONFIGS[name]}.yaml", ["MODEL.DEVICE", "cpu", *small, *overrides]
    )


def build(name, *overrides):
    torch.manual_seed(0)
    return build_model_for(configuration(name, *overrides), "")


def item(size=(128, 192), boxes=BOXES):
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return {"image": torch.full((3, *size), 90, dtype=torch.uint8), "instances": instances}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_healthy_and_a_fractured_image_give_finite_losses_that_reach_every_learning_weight(name):
    model = build(name).train()
    losses = model([item(), item(size=(96, 130), boxes=[])])
    assert all(key.startswith("loss") and torch.isfinite(value) for key, value in losses.items())
    sum(losses.values()).backward()
    untouched = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert untouched == []


@pytest.mark.parametrize("name", CONFIGS)
def test_an_image_without_fracture_has_no_loss_of_boxes(name):
    losses = {key: value.detach() for key, value in build(name).train()([item(boxes=[])]).items()}
    assert float(losses["loss_box_reg"]) == 0
    assert float(losses["loss_cls"] + losses.get("loss_objectness", 0)) > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_crop_has_left_of_a_box_may_have_no_width(name):
    losses = build(name).train()([item(boxes=[[192.0, 20.0, 192.0, 60.0]])])
    assert all(torch.isfinite(value) for value in losses.values())


def perfect(outputs):
    """Return the boxes (N, 4) whose score is above .5."""
    (found,) = outputs
    return found.boxes[found.scores > 0.5]


def assert_holds_each(boxes, wanted):
    distances = (boxes[:, None] - torch.tensor(wanted)[None]).abs().amax(dim=2)
    assert distances.min(dim=0).values.max() < 0.1, "a marked box is not found"
    assert distances.min(dim=1).values.max() < 0.1, "a box is found where none is marked"


def test_yolov3_decodes_the_outputs_that_its_targets_ask_for(monkeypatch):
    model = build("YOLOv3")
    images = ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)])
    truth = Truth(torch.tensor(BOXES), torch.zeros(2, dtype=torch.int64))
    levels = [torch.full_like(level, -9.0) for level in model.outputs(images.tensor)]
    targets = model._targets([torch.zeros_like(level) for level in levels], 0, truth)
    flat = torch.cat([level[0].flatten(0, 2) for level in levels])
    flat[targets.places, :2] = targets.offsets.logit(eps=1e-6)
    flat[targets.places, 2:4] = targets.logs
    flat[targets.places, 4:] = 9.0
    split = flat.split([level[0, ..., 0].numel() for level in levels])
    levels = [part.view_as(level) for part, level in zip(split, levels, strict=True)]
    monkeypatch.setattr(model, "outputs", lambda tensor: levels)
    assert_holds_each(perfect(model.candidates(images)), BOXES)
    losses = {key: value.detach() for key, value in model.losses(images, [truth]).items()}
    assert float(losses["loss_objectness"]) < 0.2
    assert float(losses["loss_cls"]) < 0.01


def test_yolov3_does_not_call_a_place_empty_that_overlaps_a_fracture():
    model = build("YOLOv3")
    truth = Truth(torch.tensor(BOXES[:1]), torch.zeros(1, dtype=torch.int64))
    targets = model._targets(model.outputs(torch.zeros(1, 3, 128, 192)), 0, truth)
    # The anchor of 36 x 51 px fits the box of 35 x 40 px best; beside it others of the same place overlap it, too.
    assert targets.counted[targets.places].all()
    assert 0 < (~targets.counted).sum() < 10


def test_efficientdet_decodes_the_outputs_that_its_targets_ask_for(monkeypatch):
    from effdet.anchors import AnchorLabeler

    model = build("EfficientDet")
    images = ImageList(torch.zeros(1, 3, 128, 192), [(128, 192)])
    truth = Truth(torch.tensor(BOXES), torch.zeros(2, dtype=torch.int64))
    labeler = AnchorLabeler(model._anchors_of(images.tensor), 1, match_threshold=0.5)
    corners = truth.boxes[:, [1, 0, 3, 2]]
    classes, boxes, positives = labeler.label_anchors(corners, truth.classes.float() + 1)
    assert positives > 2
    logits = [torch.where(level == 0, 9.0, -9.0).permute(2, 0, 1)[None] for level in classes]
    deltas = [level.permute(2, 0, 1)[None] for level in boxes]
    monkeypatch.setattr(model, "_outputs", lambda tensor: (logits, deltas))
    assert_holds_each(perfect(model.candidates(images)), BOXES)
    losses = {key: value.detach() for key, value in model.losses(images, [truth]).items()}
    assert float(losses["loss_box_reg"]) < 1e-6
    assert float(losses["loss_cls"]) < 0.01


@pytest.mark.parametrize("size", [(96, 96), (128, 224), (224, 64)])
def test_efficientdets_anchors_follow_the_size_of_the_batch(size):
    model = build("EfficientDet").eval()
    classes, _ = model._outputs(torch.zeros(1, 3, *size))
    per_level = [level.shape[2] * level.shape[3] * 9 for level in classes]
    assert sum(per_level) == len(model._anchors_of(torch.zeros(1, 3, *size)).boxes)


def test_detrs_boxes_are_shares_of_the_padded_batch(monkeypatch):
    model = build("DETR")
    # A batch of 128 x 192 px; one query right on a box of the first image, all others sure of "no object".
    logits = torch.full((1, 20, 2), -9.0)
    logits[..., 1] = 9.0
    logits[0, 3] = torch.tensor([9.0, -9.0])
    boxes = torch.full((1, 20, 4), 0.5)
    boxes[0, 3] = torch.tensor([57.5 / 192, 80 / 128, 35 / 192, 40 / 128])
    monkeypatch.setattr(model, "_outputs", lambda images: (logits, boxes, logits[None], boxes[None]))
    images = ImageList(torch.zeros(1, 3, 128, 192), [(100, 180)])
    assert_holds_each(perfect(model.candidates(images)), BOXES[:1])
    losses = model.losses(images, [Truth(torch.tensor(BOXES[:1]), torch.zeros(1, dtype=torch.int64))])
    assert max(float(value) for value in losses.values()) < 1e-3


def test_boxes_end_at_the_image_and_low_scores_and_doubles_go():
    model = build("YOLOv3")
    found = [[-5.0, -5.0, 40.0, 40.0], [-4.0, -5.0, 40.0, 40.0], [100.0, 100.0, 400.0, 400.0], [5.0, 60.0, 30.0, 90.0]]
    scores = [0.6, 0.9, 0.5, 0.01]
    kept = model.select(
        type(model.candidates(ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]))[0])(
            torch.tensor(found), torch.tensor(scores), torch.zeros(4, dtype=torch.int64)
        ),
        (120, 150),
    )
    assert kept.pred_boxes.tensor.tolist() == [[0, 0, 40, 40], [100, 100, 150, 120]]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])


def test_validation_losses_leave_the_statistics_of_batch_norm_alone():
    model = build("YOLOv3", "MODEL.YOLOV3.NORM", "BN")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = validation_losses(model.train(), [[item()]])
    assert losses["validation_loss"] > 0
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_backbone_learns_more_slowly_where_it_should():
    model = build("DETR")
    optimizer = build_optimizer(configuration("DETR"), model)
    assert isinstance(optimizer, torch.optim.AdamW)
    rate_of = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    rates: dict[bool, set[float]] = {True: set(), False: set()}
    for key, value in model.named_parameters():
        if value.requires_grad:
            rates["bottom_up" in key].add(round(rate_of[id(value)], 9))
    assert rates == {True: {0.00004}, False: {0.0002}}


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"META_ARCHITECTURE DETR: it needs transformers.*fracture_det\[baselines\]"):
        load_config(ROOT / "configs" / "baselines" / "detr_lite2.yaml", ["MODEL.DEVICE", "cpu"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.YOLOV3.WIDTHS", "(8,8)"], "expected ANCHORS and WIDTHS for each of 3 feature maps"),
        (["MODEL.YOLOV3.NORM", "LN"], "MODEL.YOLOV3.NORM: expected BN or GN, got 'LN'"),
        (["MODEL.TIMM.NORM", "BN"], "MODEL.TIMM.NORM: expected FrozenBN or GN, got 'BN'"),
        (["SOLVER.OPTIMIZER", "Adam"], "SOLVER.OPTIMIZER: expected SGD or AdamW, got 'Adam'"),
    ],
)
def test_contradicting_keys_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        configuration("YOLOv3", *overrides)
