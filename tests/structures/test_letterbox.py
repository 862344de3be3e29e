"""Into the letterbox and back."""

import numpy as np
import pytest

from fracture_det.structures.letterbox import Letterbox, detections_on_image, group_by_letterbox_size


class TestLetterbox:
    # (height, width) -> inner size at 800 px
    @pytest.mark.parametrize(
        ("size", "inner"),
        [((800, 800), (800, 800)), ((1600, 800), (800, 400)), ((373, 454), (657, 800)), ((1, 4000), (1, 800))],
    )
    def test_keeps_the_aspect(self, size, inner):
        assert Letterbox().inner_size(size) == inner

    def test_pads_with_zeros_to_the_right_and_below(self):
        square = Letterbox(100).apply_image(np.full((50, 25, 3), 200, np.uint8))
        assert square.shape == (100, 100, 3)
        assert (square[:, :50] == 200).all()
        assert (square[:, 50:] == 0).all()

    # (height, width) -> size of the letterbox at 800 px in steps of 224
    @pytest.mark.parametrize(
        ("size", "outer"),
        [
            ((454, 373), (800, 672)),
            ((2304, 2880), (672, 800)),
            ((800, 800), (800, 800)),
            ((700, 800), (800, 800)),
            ((1, 4000), (224, 800)),
        ],
    )
    def test_with_a_step_each_side_ends_for_itself(self, size, outer):
        letterbox = Letterbox(800, step=224)
        assert letterbox.outer_size(size) == outer
        assert Letterbox(800).outer_size(size) == (800, 800)
        boxed = letterbox.apply_image(np.full((*size, 3), 200, np.uint8))
        height, width = letterbox.inner_size(size)
        assert boxed.shape == (*outer, 3)
        assert (boxed[:height, :width] == 200).all()
        assert boxed.sum() == 200 * 3 * height * width
        # Boxes go to the same place as in the square.
        box = [[1, 2, 3, 4]]
        assert letterbox.apply_boxes(box, size).tolist() == Letterbox(800).apply_boxes(box, size).tolist()

    def test_undo_brings_boxes_back(self):
        random = np.random.default_rng(0)
        for _ in range(50):
            size = tuple(random.integers(10, 4000, 2).tolist())
            corners = random.uniform(0, 1, (20, 2, 2)) * [size[1], size[0]]
            boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
            letterbox = Letterbox(int(random.integers(100, 1200)))
            inside = letterbox.apply_boxes(boxes, size)
            assert inside.min() >= 0
            assert inside.max() <= letterbox.size + 1e-9
            np.testing.assert_allclose(letterbox.undo_boxes(inside, size), boxes, atol=1e-3)

    def test_boxes_go_where_the_pixels_go(self):
        pixels = np.zeros((300, 200, 3), np.uint8)
        pixels[60:120, 40:80] = 255
        square = Letterbox(600).apply_image(pixels)
        rows, columns = np.nonzero(square[..., 0] > 127)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(Letterbox(600).apply_boxes([[40, 60, 80, 120]], (300, 200))[0], seen, atol=1)

    def test_refuses_no_size(self):
        with pytest.raises(ValueError, match=r"Letterbox\.size: expected at least 1"):
            Letterbox(0)
        with pytest.raises(ValueError, match=r"Letterbox\.step: expected at least 1"):
            Letterbox(100, step=0)


class TestBatches:
    def test_images_of_one_letterbox_size_make_a_batch(self):
        images = [np.zeros((*size, 3), np.uint8) for size in ((100, 50), (50, 100), (90, 45), (200, 100), (60, 120))]
        letterbox = Letterbox(100, step=50)
        assert group_by_letterbox_size(images, letterbox) == [[0, 2, 3], [1, 4]]
        assert group_by_letterbox_size(images, letterbox, max_batch=2) == [[0, 2], [3], [1, 4]]
        assert group_by_letterbox_size([], letterbox) == []


class TestDetectionsOnImage:
    def test_boxes_are_clipped_to_the_image_and_those_in_the_padding_dropped(self):
        # an image of 50 x 100 fills the upper half of a letterbox of 200: scale 2, padding below y = 100
        boxes = np.array([[20, 20, 60, 140], [10, 110, 50, 150], [0, 0, 20, 20]], float)
        found = detections_on_image(boxes, np.array([0.5, 0.9, 0.7]), np.array([0, 0, 1]), Letterbox(200), (50, 100))
        assert found.boxes.tolist() == [[0, 0, 10, 10], [10, 10, 30, 50]]
        assert found.classes.tolist() == [1, 0]
