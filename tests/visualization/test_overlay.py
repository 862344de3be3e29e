import numpy as np
import pytest

from fracture_det.structures.detections import Detections
from fracture_det.visualization import overlay as overlay_module
from fracture_det.visualization.overlay import BOX_COLOURS, draw_overlay

AMBER = BOX_COLOURS[0]


def radiograph(height, width, value=90):
    return np.full((height, width, 3), value, np.uint8)


def detections(*rows):
    return Detections.from_unsorted([row[:4] for row in rows], [row[4] for row in rows], [0] * len(rows))


def changed(pixels, overlay):
    return (np.asarray(overlay) != pixels).any(axis=2)


def amber(overlay):
    return (np.asarray(overlay) == AMBER).all(axis=2)


class TestOverlay:
    @pytest.mark.parametrize("size", [(300, 240), (900, 900), (2400, 3000)])
    def test_the_box_is_around_the_finding_and_leaves_it_free(self, size):
        pixels = radiograph(*size)
        height, width = size
        box = (width // 3, height // 2, width // 3 + width // 10, height // 2 + height // 10)
        overlay = draw_overlay(pixels, detections((*box, 0.9)), ["fracture"])
        x0, y0, x1, y1 = box
        line = max(2, round(max(size) * 0.0028))
        assert amber(overlay)[(y0 + y1) // 2, x0 - line : x0].all()
        assert amber(overlay)[y1 : y1 + line, (x0 + x1) // 2].all()
        halo = max(1, line // 2)
        assert not changed(pixels, overlay)[y0 + halo : y1 - halo, x0 + halo : x1 - halo].any()

    def test_lines_and_letters_grow_with_the_image(self):
        shares = []
        for side in (1000, 3000):
            box = (side * 0.4, side * 0.4, side * 0.6, side * 0.6)
            overlay = draw_overlay(radiograph(side, side), detections((*box, 0.9)), ["fracture"])
            shares.append(amber(overlay).mean())
        assert shares[0] == pytest.approx(shares[1], rel=0.15)

    def test_the_minimum_score_leaves_boxes_out(self):
        pixels, found = radiograph(300, 300), detections((50, 50, 90, 90, 0.9), (200, 200, 240, 240, 0.3))
        overlay = draw_overlay(pixels, found, ["fracture"], minimum_score=0.5)
        assert not changed(pixels, overlay)[150:, 150:].any()
        assert changed(pixels, overlay)[:100, :100].any()
        assert not changed(pixels, draw_overlay(pixels, found, ["fracture"], minimum_score=0.95)).any()

    def test_it_draws_on_a_copy(self):
        pixels = radiograph(100, 100)
        pixels.flags.writeable = False
        overlay = draw_overlay(pixels, detections((10, 40, 60, 90, 0.9)), ["fracture"])
        assert (overlay.size, overlay.mode) == ((100, 100), "RGB")
        assert (pixels == 90).all()

    @pytest.mark.parametrize(
        "box", [(0, 0, 300, 200), (-20, -20, 10, 10), (290, 190, 320, 240), (150, 100, 150, 100), (400, 400, 500, 500)]
    )
    def test_boxes_at_and_over_the_edge_and_of_no_size(self, box):
        overlay = draw_overlay(radiograph(200, 300), detections((*box, 0.9)), ["fracture"])
        assert amber(overlay).sum() > 100  # at least the tag is seen

    def test_tags_of_neighbours_do_not_cover_each_other(self):
        found = detections(*((60 + 3 * i, 60 + 3 * i, 90 + 3 * i, 90 + 3 * i, 0.9 - i / 10) for i in range(6)))
        taken = []
        original = overlay_module._draw_tag

        def record(*arguments):
            taken.append(original(*arguments))
            return taken[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(overlay_module, "_draw_tag", record)
            draw_overlay(radiograph(400, 400), found, ["fracture"])
        assert len(taken) == 6
        for i, one in enumerate(taken):
            assert 0 <= one[0] < one[2] < 400
            assert 0 <= one[1] < one[3] < 400
            assert not any(overlay_module._overlap(one, other) for other in taken[:i])
