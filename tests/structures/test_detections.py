import numpy as np
import pytest

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
