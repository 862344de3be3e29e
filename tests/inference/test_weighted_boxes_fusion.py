"""Orientations and weighted boxes fusion, as tables with their arithmetic."""

import numpy as np
import pytest

from fracture_det.inference.ensemble import weighted_boxes_fusion
from fracture_det.structures.detections import Detections
from fracture_det.structures.orientations import ORIENTATIONS, orient_image, undo_orientation
from tests.structures.test_detections import detections


class TestOrientations:
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_a_box_found_on_the_turned_image_is_where_it_was(self, orientation):
        pixels = np.zeros((30, 50, 3), np.uint8)
        pixels[4:9, 10:25] = 255  # box 10 4 25 9
        turned = orient_image(pixels, orientation)
        rows, columns = np.nonzero(turned[:, :, 0])
        seen = detections((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.7))
        assert undo_orientation(seen, orientation, (30, 50)).boxes.tolist() == [[10, 4, 25, 9]]

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_every_pixel_goes_where_its_name_says(self, orientation):
        pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        exchanged, mirrored, flipped = ORIENTATIONS[orientation]
        expected = pixels.transpose(1, 0, 2) if exchanged else pixels
        expected = expected[:, ::-1] if mirrored else expected
        expected = expected[::-1] if flipped else expected
        for given in (pixels, pixels[::-1].copy()[::-1]):  # a view turned over, too
            turned = orient_image(given, orientation)
            np.testing.assert_array_equal(turned, expected)
            assert turned.flags.c_contiguous

    def test_they_are_the_eight_symmetries_of_the_square(self):
        pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
        assert len({orient_image(pixels, name).tobytes() for name in ORIENTATIONS}) == 8

    def test_nothing_found_stays_nothing(self):
        assert len(undo_orientation(Detections.empty(), "transpose", (30, 50))) == 0


class TestFuse:
    def test_one_answer_without_overlaps_comes_back(self):
        found = detections((0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.4))
        fused = weighted_boxes_fusion([found])
        assert fused.boxes.tolist() == found.boxes.tolist()
        assert fused.scores == pytest.approx(found.scores)

    def test_two_answers_about_one_place(self):
        # IoU of [0, 10] and [2, 12]: 8 / 12 = .67. Left edge: (.6 * 0 + .2 * 2) / .8 = .5; score: (.6 + .2) / 2 = .4.
        fused = weighted_boxes_fusion([detections((0, 0, 10, 10, 0.6)), detections((2, 0, 12, 10, 0.2))])
        assert fused.boxes.tolist() == [pytest.approx([0.5, 0, 10.5, 10])]
        assert fused.scores == pytest.approx([0.4])

    def test_what_only_one_of_three_sees_counts_a_third(self):
        fused = weighted_boxes_fusion([detections((0, 0, 10, 10, 0.9)), Detections.empty(), Detections.empty()])
        assert fused.scores == pytest.approx([0.3])

    def test_of_one_answer_only_the_best_box_at_a_place_counts(self):
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
