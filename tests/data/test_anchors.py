"""Anchor fit against numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fracture_det.data.anchors import anchor_fit, best_ious, detectron2_yaml, fit_anchors
from fracture_det.structures.boxes import box_iou


@pytest.mark.parametrize(
    ("box", "sizes", "ratios", "expected"),
    [
        ((0, 0, 64, 64), [64], [1], 1.0),
        ((0, 0, 64, 64), [128], [1], 0.25),  # 64 * 64 / (128 * 128)
        ((0, 0, 64, 64), [32, 128], [1], 0.25),  # both a quarter
        ((0, 0, 20, 40), [math.sqrt(800)], [2], 1.0),  # ratio is height / width
        ((0, 0, 40, 20), [math.sqrt(800)], [2], 400 / 1200),  # overlap 20 x 20 of 800 + 800 - 400
    ],
)
def test_best_iou_of_shapes(box, sizes, ratios, expected):
    assert best_ious([box], sizes, ratios) == pytest.approx([expected])


@pytest.mark.parametrize("stride", [4, 16, 64])
def test_on_the_grid_it_is_the_best_over_all_anchors_of_the_image(stride):
    rng = np.random.default_rng(stride)
    starts = rng.uniform(0, 300, (20, 2))
    boxes = np.hstack([starts, starts + rng.uniform(10, 120, (20, 2))])
    sizes, ratios = [50.0], [0.5, 1.0, 2.0]
    centres = np.stack(np.meshgrid(np.arange(-64, 512, stride), np.arange(-64, 512, stride)), -1).reshape(-1, 2)
    anchors = []
    for ratio in ratios:  # as Detectron2's DefaultAnchorGenerator makes them
        half = np.array([50 / math.sqrt(ratio), 50 * math.sqrt(ratio)]) / 2
        anchors.append(np.hstack([centres - half, centres + half]))
    expected = box_iou(boxes, np.concatenate(anchors)).max(1)
    np.testing.assert_allclose(best_ious(boxes, sizes, ratios, strides=[stride]), expected, atol=1e-9)


def test_the_shares_count_what_they_say():
    boxes = [(0, 0, 64, 64), (0, 0, 64, 51.2), (0, 0, 64, 32), (0, 0, 64, 12.8)]  # IoU 1, .8, .5, .2
    fit = anchor_fit(boxes, [64], [1])
    assert fit.mean_best_iou == pytest.approx((1 + 0.8 + 0.5 + 0.2) / 4)
    assert (fit.above_70, fit.above_50, fit.under_30, fit.n_boxes) == (0.5, 0.75, 0.25, 4)


def test_no_boxes_have_no_fit():
    fit = anchor_fit(np.zeros((0, 4)), [32])
    assert fit.n_boxes == 0
    assert math.isnan(fit.mean_best_iou)
    with pytest.raises(ValueError, match="at least 3 boxes of different size"):
        fit_anchors(np.zeros((0, 4)), 3)
    with pytest.raises(ValueError, match="strides: expected one per size"):
        best_ious([(0, 0, 1, 1)], [32, 64], strides=[4])


def test_fitted_sizes_find_the_clusters_and_are_the_same_every_time():
    rng = np.random.default_rng(0)
    sides = np.concatenate([rng.normal(size, 1, 100) for size in (30, 60, 200)])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], 1)
    sizes = fit_anchors(boxes, 3, [1.0])
    assert sizes == pytest.approx([30, 60, 200], abs=2)
    assert fit_anchors(boxes[::-1], 3, [1.0]) == sizes


def test_fitting_never_loses_against_the_default_on_the_same_grid():
    rng = np.random.default_rng(1)
    starts = rng.uniform(0, 600, (300, 2))
    boxes = np.hstack([starts, starts + rng.lognormal(3.9, 0.5, (300, 2))])
    strides = (4, 8, 16, 32, 64)
    fitted = fit_anchors(boxes, 5, strides=strides)
    assert fitted == sorted(fitted)
    default = anchor_fit(boxes, (32, 64, 128, 256, 512), strides=strides).mean_best_iou
    assert anchor_fit(boxes, fitted, strides=strides).mean_best_iou > default


def test_the_yaml_is_a_detectron2_config():
    text = detectron2_yaml([31.0, 46.0, 70.5], strides=(8, 8, 16))
    assert text.splitlines()[2:] == ["    SIZES: [[31, 46], [70.5]]", "    ASPECT_RATIOS: [[0.5, 1, 2]]"]
