"""Weighted boxes fusion, as tables with their arithmetic."""

import pytest

from fracture_det.inference.ensemble import weighted_boxes_fusion
from fracture_det.structures.detections import Detections
from tests.structures.test_detections import detections


class TestFuse:
    def test_one_prediction_without_overlaps_is_unchanged(self):
        found = detections((0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.4))
        fused = weighted_boxes_fusion([found])
        assert fused.boxes.tolist() == found.boxes.tolist()
        assert fused.scores == pytest.approx(found.scores)

    def test_two_predictions_of_one_place(self):
        # IoU of [0, 10] and [2, 12]: 8 / 12 = .67. Left edge: (.6 * 0 + .2 * 2) / .8 = .5; score: (.6 + .2) / 2 = .4.
        fused = weighted_boxes_fusion([detections((0, 0, 10, 10, 0.6)), detections((2, 0, 12, 10, 0.2))])
        assert fused.boxes.tolist() == [pytest.approx([0.5, 0, 10.5, 10])]
        assert fused.scores == pytest.approx([0.4])

    def test_what_only_one_of_three_sees_counts_a_third(self):
        fused = weighted_boxes_fusion([detections((0, 0, 10, 10, 0.9)), Detections.empty(), Detections.empty()])
        assert fused.scores == pytest.approx([0.3])

    def test_of_one_prediction_only_the_best_box_at_a_place_counts(self):
        # (.8 + .6) / 2 = .7 and not (.8 + .7 + .6) / 2.
        fused = weighted_boxes_fusion(
            [detections((0, 0, 10, 10, 0.8), (0, 0, 10, 9, 0.7)), detections((0, 0, 10, 10, 0.6))]
        )
        assert fused.scores == pytest.approx([0.7])

    def test_boxes_apart_or_of_other_classes_stay_apart(self):
        # IoU of [0, 10] and [5, 15]: 5 / 15 = .33, not above .5.
        fused = weighted_boxes_fusion([detections((0, 0, 10, 10, 0.8), (5, 0, 15, 10, 0.4), (0, 0, 10, 10, 0.2, 1))])
        assert fused.classes.tolist() == [0, 0, 1]

    def test_iou_is_the_callers(self):
        assert len(weighted_boxes_fusion([detections((0, 0, 10, 10, 0.8), (5, 0, 15, 10, 0.4))], iou=0.3)) == 1

    def test_nothing_at_all(self):
        assert len(weighted_boxes_fusion([Detections.empty(), Detections.empty()])) == 0
