"""The eight orientations: pixels, boxes and detections turn alike."""

import numpy as np
import pytest

from fracture_det.structures.detections import Detections
from fracture_det.structures.orientations import (
    EXIF_ORIENTATIONS,
    ORIENTATIONS,
    orient_boxes,
    orient_image,
    undo_orientation,
)
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

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_boxes_turn_as_the_pixels_do(self, orientation):
        pixels = np.zeros((30, 50, 3), np.uint8)
        pixels[4:9, 10:25] = 255
        oriented = orient_image(pixels, orientation)
        ((x0, y0, x1, y1),) = orient_boxes([(10, 4, 25, 9)], orientation, (30, 50)).tolist()
        assert oriented[y0:y1, x0:x1].min() == 255
        assert oriented.sum() == pixels.sum()

    def test_a_box_that_is_reversed_stays_so(self):
        # mirrored in a width of 50: x0 = 50 - 10 = 40, x1 = 50 - 25 = 25.
        assert orient_boxes([(25, 4, 10, 9)], "mirror", (30, 50)).tolist() == [[40, 4, 25, 9]]

    def test_exif_has_all_of_them(self):
        assert sorted(EXIF_ORIENTATIONS) == list(range(1, 9))
        assert set(EXIF_ORIENTATIONS.values()) == set(ORIENTATIONS)
