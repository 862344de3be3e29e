"""An export must answer as its source; what it may not do is named with file and amount."""

import numpy as np
import pytest
from PIL import Image

from fracture_det.export.verify import ComparisonResult, ExportError, compare_detectors
from fracture_det.inference.base import DetectorInfo
from fracture_det.structures.detections import Detections

BOXES = np.array([[index, 0, index + 10, 10] for index in range(0, 2000, 20)], np.float32)
SCORES = np.linspace(0.9, 0.1, 100).astype(np.float32)


class Fixed:
    """Finds the same on every image."""

    info = DetectorInfo("fixed", ("fracture",))

    def __init__(self, boxes=BOXES, scores=SCORES):
        self.found = Detections.from_unsorted(boxes, scores, np.zeros(len(scores), np.int64))

    def predict(self, images):
        return [self.found for _ in images]


def moved(n_boxes, by_px):
    boxes = BOXES.copy()
    boxes[:n_boxes] += by_px
    return Fixed(boxes)


@pytest.fixture
def images(tmp_path):
    Image.new("L", (20, 10)).save(tmp_path / "a.png")
    return [tmp_path / "a.png"]


def test_small_shifts_are_measured(images):
    assert compare_detectors(Fixed(), Fixed(BOXES + 0.5, SCORES - 0.004), images) == ComparisonResult(
        200, 0, pytest.approx(0.004, abs=1e-6)
    )


def test_a_few_boxes_may_lose_their_partner_to_suppression(images):
    # Two of 100 boxes, each counted from both sides: 4 of 200 are 2 %.
    agreement = compare_detectors(Fixed(), moved(2, 3.0), images)
    assert (agreement.n_boxes, agreement.n_moved, agreement.largest_shift) == (200, 4, 0.0)


@pytest.mark.parametrize(
    ("export", "message"),
    [
        (moved(3, 3.0), r"6 of 200 boxes differ, such as .*a\.png: a box of score 0\.900 moved by 3\.00 px"),
        (Fixed(BOXES, SCORES - 0.02), "200 of 200 boxes differ, .* its score by 0.02"),
        (Fixed(BOXES[:0], SCORES[:0]), "100 of 100 boxes differ, .* moved by inf px"),
        (Fixed(BOXES[:90], SCORES[:90]), "10 of 190 boxes differ"),
    ],
)
def test_more_than_that_is_an_error(images, export, message):
    with pytest.raises(ExportError, match=message):
        compare_detectors(Fixed(), export, images)


class Typed(Fixed):
    """Tells of every box that it is spiral with a probability."""

    info = DetectorInfo("typed", ("fracture",), type_names=("spiral", "oblique"))

    def __init__(self, spiral):
        types = np.tile([spiral, 1 - spiral], (len(BOXES), 1))
        self.found = Detections(BOXES, SCORES, np.zeros(len(SCORES), np.int64), types)


def test_types_are_compared_too(images):
    agreement = compare_detectors(Typed(0.7), Typed(0.69), images)
    assert (agreement.n_moved, agreement.largest_type_shift) == (0, pytest.approx(0.01, abs=1e-6))
    assert str(agreement).endswith("scores within 0.00000 and types within 0.01000")
    with pytest.raises(ExportError, match=r"200 of 200 boxes differ, .* its types by 0\.1000"):
        compare_detectors(Typed(0.7), Typed(0.6), images)


def test_an_export_that_lost_its_types_is_an_error(images):
    with pytest.raises(ExportError, match=r"the types are \(\), those of the source \('spiral', 'oblique'\)"):
        compare_detectors(Typed(0.7), Fixed(), images)


def test_boxes_below_the_compared_scores_do_not_count(images):
    assert (
        compare_detectors(Fixed(), Fixed(np.vstack([BOXES, [[5, 50, 9, 60]]]), [*SCORES, 0.03]), images).n_boxes == 200
    )


def test_two_detectors_that_find_nothing_agree(images):
    nothing = Fixed(BOXES[:0], SCORES[:0])
    assert compare_detectors(nothing, nothing, images) == ComparisonResult(0, 0, 0.0)
