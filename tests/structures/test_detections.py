import numpy as np
import pytest

from fracture_det.evaluation.matching_rule import match_to_truth
from fracture_det.structures.boxes import box_area, box_iou, centre_inside
from fracture_det.structures.detections import Detections


def detections(*rows):
    boxes, scores = [row[:4] for row in rows], [row[4] for row in rows]
    return Detections.from_unsorted(boxes, scores, [row[5] if len(row) > 5 else 0 for row in rows])


class TestDetections:
    def test_empty_has_shapes(self):
        empty = Detections.empty()
        assert (empty.boxes.shape, empty.scores.shape, empty.classes.shape, len(empty)) == ((0, 4), (0,), (0,), 0)

    def test_from_unsorted_orders_by_score_and_keeps_ties_in_order(self):
        found = detections((0, 0, 1, 1, 0.2), (0, 0, 2, 2, 0.9), (0, 0, 3, 3, 0.2))
        assert found.boxes[:, 2].tolist() == [2, 1, 3]

    def test_arrays_cannot_be_changed_and_the_argument_stays_free(self):
        scores = np.array([0.5], np.float32)
        found = Detections(np.zeros((1, 4), np.float32), scores, np.zeros(1, np.int64))
        scores[0] = 0.1
        assert found.scores[0] == 0.5
        with pytest.raises(ValueError, match="read-only"):
            found.scores[0] = 0.2

    @pytest.mark.parametrize(
        ("boxes", "scores", "message"),
        [
            ([[0, 0, 1]], [0.5], "shape"),
            ([[0, 0, 1, 1]], [0.5, 0.4], "scores"),
            ([[5, 0, 1, 1]], [0.5], "ends before it begins"),
            ([[0, 0, np.nan, 1]], [0.5], "not finite"),
            ([[0, 0, 1, 1]], [1.5], "0..1"),
            ([[0, 0, 1, 1]], [np.nan], "0..1"),
            ([[0, 0, 1, 1]] * 2, [0.1, 0.2], "descending"),
        ],
    )
    def test_refuses_what_is_not_as_stated(self, boxes, scores, message):
        with pytest.raises(ValueError, match=message):
            Detections(np.array(boxes), np.array(scores), np.zeros(len(boxes), np.int64))

    def test_above_keeps_the_score_itself(self):
        found = detections((0, 0, 1, 1, 0.5), (0, 0, 1, 1, 0.49))
        assert len(found.above(0.5)) == 1
        assert len(found.above(0.1)) == 2
        assert len(detections((0, 0, 1, 1, 0.1)).above(0.1)) == 1  # .1 is not the same number in float32


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
# name, detections (box, score, class), truth, truth classes, which truth each detection hits
MATCH_CASES = [
    ("nothing at all", [], [], [], []),
    ("no detection", [], [A], [0], []),
    ("no truth", [(*A, 0.9)], [], [], [-1]),
    ("IoU of exactly one half hits", [(0, 0, 10, 5, 0.9)], [A], [0], [0]),
    ("IoU of 49/100 misses", [(0, 0, 10, 4.9, 0.9)], [A], [0], [-1]),
    ("the surer of two takes the truth", [(0, 0, 10, 6, 0.9), (*A, 0.8)], [A], [0], [0, -1]),
    ("two truths, two hits", [(*B, 0.9), (*A, 0.8)], [A, B], [0, 0], [1, 0]),
    ("the class must agree", [(*A, 0.9, 1)], [A], [0], [-1]),
    ("the same box in two classes", [(*A, 0.9, 1), (*A, 0.8, 0)], [A, A], [0, 1], [1, 0]),
    # overlaps with truths 0..10 and 4..14: first 60/100 and 100/100, second 100/100 and 60/140
    ("greedy takes the highest overlap", [(4, 0, 14, 10, 0.9), (*A, 0.8)], [A, [4, 0, 14, 10]], [0, 0], [1, 0]),
]


@pytest.mark.parametrize(("name", "rows", "truth", "classes", "expected"), MATCH_CASES, ids=[c[0] for c in MATCH_CASES])
def test_matching(name, rows, truth, classes, expected):
    found = detections(*rows) if rows else Detections.empty()
    assert match_to_truth(found, truth, classes).tolist() == expected


def test_identical_boxes_match_at_iou_one():
    assert match_to_truth(detections((*A, 0.9)), [A], [0], iou=1.0).tolist() == [0]


def test_of_two_equal_overlaps_the_last_truth_is_hit():
    # 20/30 with both: intersection 20 x 10, union 30 x 10
    truth = [[0, 0, 20, 10], [10, 0, 30, 10]]
    assert match_to_truth(detections((0, 0, 30, 10, 0.9)), truth, [0, 0]).tolist() == [1]


# name, detections (box, score), truth, which truth each detection hits when its centre decides
CENTRE_CASES = [
    ("a small box inside a large truth", [(4, 4, 6, 6, 0.9)], [A], [0]),  # centre 5, 5; IoU 4/100
    ("a large box around a small truth", [(0, 0, 100, 100, 0.9)], [[49, 49, 51, 51]], [0]),  # centre 50, 50
    ("a large box beside its truth", [(0, 0, 100, 100, 0.9)], [[0, 0, 49, 49]], [-1]),
    ("the edge is inside", [(5, 0, 15, 10, 0.9)], [A], [0]),  # centre 10, 5
    ("IoU of 49/100 does not matter", [(0, 0, 10, 4.9, 0.9)], [A], [0]),
    ("a truth is hit once, by the surest", [(4, 4, 6, 6, 0.9), (*A, 0.8)], [A], [0, -1]),
    # the centre (5, 5) lies in both truths; IoU with 0..10 is 1, with 0..20 it is 100/200
    ("of two truths the one with the highest overlap", [(*A, 0.9)], [A, [0, 0, 20, 10]], [0]),
    ("then the other", [(*A, 0.9), (*A, 0.8)], [A, [0, 0, 20, 10]], [0, 1]),
    ("a box without area", [(5, 5, 5, 5, 0.9)], [A], [0]),
    ("no truth", [(*A, 0.9)], [], [-1]),
]


@pytest.mark.parametrize(("name", "rows", "truth", "expected"), CENTRE_CASES, ids=[c[0] for c in CENTRE_CASES])
def test_matching_by_the_centre(name, rows, truth, expected):
    assert match_to_truth(detections(*rows), truth, [0] * len(truth), iou=None).tolist() == expected


def test_the_class_must_agree_when_the_centre_decides():
    assert match_to_truth(detections((*A, 0.9, 1)), [A], [0], iou=None).tolist() == [-1]


def test_centres_inside_is_a_table():
    assert centre_inside([A, B], [A, B, [0, 0, 200, 10]]).tolist() == [[True, False, True], [False, True, True]]
    assert centre_inside([], [A]).shape == (0, 1)
