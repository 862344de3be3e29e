"""The numbers of a data set report, with their arithmetic."""

import numpy as np
import pytest

from fracture_det.data.dataset_report import anchor_sets, box_sides, letterboxed, size_against_label
from fracture_det.data.records import ImageRecord


def record(number, size, *, fractured, box=(0, 0, 10, 10)):
    boxes = np.array([box] * fractured, float).reshape(-1, 4)
    return ImageRecord(number, f"{number}.png", *size, "g", boxes=boxes, classes=np.zeros(len(boxes), int))


# long sides of fractured, long sides of healthy -> AUC: the share of pairs in which the fractured one is longer
AUC_CASES = [
    ([300, 300], [300, 300, 300], 0.5),  # all of one size: every pair counts half
    ([500, 600], [300, 400], 1.0),
    ([300], [500, 600], 0.0),
    ([500, 300], [400, 300], (1 + 1 + 0 + 0.5) / 4),  # 500 > 400, 500 > 300, 300 < 400, 300 = 300
    ([500], [], None),
    ([], [500], None),
    ([], [], None),
]


@pytest.mark.parametrize(("fractured", "healthy", "auc"), AUC_CASES)
def test_an_auc_of_size_worked_out_by_hand(fractured, healthy, auc):
    sides = [(side, True) for side in fractured] + [(side, False) for side in healthy]
    records = [record(number, (side, 100), fractured=label) for number, (side, label) in enumerate(sides)]
    assert size_against_label(records)["auc"] == auc


def test_images_are_counted_by_the_range_of_their_long_side():
    records = [
        record(1, (255, 90), fractured=True),
        record(2, (90, 256), fractured=False),
        record(3, (383, 90), fractured=True),
        record(4, (4000, 5000), fractured=False),
    ]
    assert size_against_label(records)["bins"] == [
        {"long_side_px": "0-255", "images": 1, "fractured": 1},
        {"long_side_px": "256-383", "images": 2, "fractured": 1},
        {"long_side_px": "3072+", "images": 1, "fractured": 0},
    ]


def test_boxes_are_measured_in_the_letterbox():
    # an image of 400 x 200 doubles; a box of 9 x 4 becomes 18 x 8, its square has the side sqrt(144) = 12
    boxes = letterboxed(
        [record(1, (400, 200), fractured=True, box=(10, 10, 19, 14)), record(2, (9, 9), fractured=False)]
    )
    assert boxes.tolist() == [[20, 20, 38, 28]]
    assert box_sides(boxes).tolist() == [12]
    assert letterboxed([]).shape == (0, 4)


def test_too_few_boxes_are_not_fitted():
    assert list(anchor_sets(np.array([[0.0, 0, 9, 9]]))) == ["paper", "FPN default"]
