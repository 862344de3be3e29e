"""Proposals of exported graphs: the same as Detectron2's, by another way."""

import warnings

import pytest
import torch
from detectron2.structures import ImageList

from fracture_det.export.proposals import grouped_topk, predict_proposals
from fracture_det.inference.detectron2 import D2Detector
from tests.detectors import write_random_detector


@pytest.mark.parametrize("length", [500, 503, 1124, 1125, 1875, 7501, 120_000])
def test_the_largest_are_those_of_topk(length):
    scores = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    best, index = grouped_topk(scores, 500)
    expected, where = scores.topk(500, 1)
    assert torch.equal(best, expected)
    assert torch.equal(index, where)


@pytest.mark.parametrize("length", [1, 30, 39])
def test_all_where_there_are_fewer(length):
    scores = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    best, index = grouped_topk(scores, 40)
    expected, where = scores.topk(length, 1)
    assert torch.equal(best, expected)
    assert torch.equal(index, where)


@pytest.mark.parametrize("length", [1, 39, 500, 50_000])
def test_what_was_traced_on_one_length_is_right_on_others(length):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda scores: grouped_topk(scores, 40), torch.randn(1, 5000), check_trace=False)
    scores = torch.randn(1, length, generator=torch.Generator().manual_seed(length))
    best, index = traced(scores)
    expected, where = scores.topk(min(40, length), 1)
    assert torch.equal(best, expected)
    assert torch.equal(index, where)


def test_the_largest_among_equals():
    scores = torch.zeros(1, 4000)
    scores[0, 3000:3700] = 1
    best, index = grouped_topk(scores, 500)
    assert best.eq(1).all()
    assert len(index.unique()) == 500
    assert scores.gather(1, index).eq(1).all()


def test_proposals_are_those_of_detectron2(tmp_path):
    # 3 anchors on each of 32 x 32 places: 3,072, of which 40 are chosen in groups.
    overrides = (
        "MODEL.RPN.PRE_NMS_TOPK_TEST",
        "40",
        "MODEL.RPN.POST_NMS_TOPK_TEST",
        "70",
        "MODEL.RPN.NMS_THRESH",
        ".6",
    )
    model = D2Detector.open(str(write_random_detector(tmp_path, overrides=overrides))).predictor.model
    planes = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    images = ImageList(planes, [(128, 128), (128, 128)])
    with torch.no_grad():
        features = model.backbone(planes)
        expected, _ = model.proposal_generator(images, features, None)
        found = predict_proposals(model.proposal_generator, images, features)
    for one, other in zip(found, expected, strict=True):
        assert 10 < len(one) <= 70
        assert torch.equal(one.objectness_logits, other.objectness_logits)
        assert torch.equal(one.proposal_boxes.tensor, other.proposal_boxes.tensor)
