"""Geometry of boxes, as tables with their arithmetic."""

import numpy as np
import pytest

from fracture_det.structures.boxes import box_area, box_iou, box_share_inside, centre_inside, rotate_boxes

# two boxes -> IoU
IOU_CASES = [
    ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
    ([0, 0, 10, 10], [0, 0, 10, 5], 50 / 100),
    ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175),  # 100 + 100 - 25
    ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # they touch
    ([0, 0, 10, 10], [20, 20, 30, 30], 0.0),
    ([0, 0, 4, 4], [1, 1, 3, 3], 4 / 16),  # one inside the other
    ([3, 3, 3, 3], [3, 3, 3, 3], 0.0),  # no area
]


@pytest.mark.parametrize(("one", "other", "expected"), IOU_CASES)
def test_iou(one, other, expected):
    assert box_iou([one], [other])[0, 0] == pytest.approx(expected, abs=1e-12)


def test_iou_agrees_with_pycocotools():
    from pycocotools import mask

    random = np.random.default_rng(0)
    corners = random.uniform(0, 50, (2, 30, 2))
    boxes, others = (np.concatenate([c, c + random.uniform(1, 30, c.shape)], axis=1) for c in corners)
    as_xywh = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in (boxes, others)]
    np.testing.assert_allclose(box_iou(boxes, others), mask.iou(*as_xywh, [0] * 30), atol=1e-12)


def test_no_boxes_give_an_empty_table():
    assert box_iou(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
    assert box_area([]).shape == (0,)


A, B = [0, 0, 10, 10], [100, 0, 110, 10]


def test_centres_inside_is_a_table():
    assert centre_inside([A, B], [A, B, [0, 0, 200, 10]]).tolist() == [[True, False, True], [False, True, True]]
    assert centre_inside([], [A]).shape == (0, 1)


# box, degrees -> width and height of the upright box around the rotated ellipse
ROTATION_CASES = [
    ([0, 0, 40, 10], 0, (40, 10)),
    ([0, 0, 40, 10], 90, (10, 40)),
    ([0, 0, 30, 30], 10, (30, 30)),  # a disc stays as it is
    ([0, 0, 6, 8], 45, (50**0.5, 50**0.5)),  # half axes 3 and 4: 2 * sqrt((9 + 16) / 2) = sqrt(50) both ways
    ([0, 0, 40, 10], -30, (2 * (300 + 6.25) ** 0.5, 2 * (100 + 18.75) ** 0.5)),  # cos^2 = 3/4, sin^2 = 1/4
]


@pytest.mark.parametrize(("box", "degrees", "extent"), ROTATION_CASES)
def test_a_rotated_box_is_the_frame_of_the_rotated_ellipse(box, degrees, extent):
    ((x0, y0, x1, y1),) = rotate_boxes([box], np.deg2rad(degrees), [(70, 80)])
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((70, 80))
    assert (x1 - x0, y1 - y0) == pytest.approx(extent)


def test_no_boxes_stay_none_when_rotated():
    assert rotate_boxes([], 0.3, []).shape == (0, 4)


def test_the_share_inside_agrees_with_pycocotools_for_crowds():
    from pycocotools import mask

    random = np.random.default_rng(3)
    corners = random.uniform(0, 50, (2, 20, 2))
    boxes, others = np.concatenate([corners, corners + random.uniform(0, 60, (2, 20, 2))], axis=2)
    as_coco = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in (boxes, others)]
    expected = mask.iou(*as_coco, [1] * 20)
    np.testing.assert_allclose(box_share_inside(boxes, others), expected, atol=1e-12)
    assert box_share_inside([[1, 1, 1, 9]], [[0, 0, 9, 9]]).tolist() == [[0]]
