"""Records and problems check themselves."""

from __future__ import annotations

import numpy as np
import pytest

from fracture_det.data.records import Dataset, ImageRecord, Problem


def test_a_problem_with_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="expected kept, repaired or excluded, got 'ignored'"):
        Problem("a", "b", "c", "ignored")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"boxes": np.zeros((2, 4))}, r"a\.png: expected boxes \(M, 4\) and classes \(M,\), got \(2, 4\) and \(0,\)"),
        ({"boxes": np.zeros((1, 5)), "classes": [0]}, r"got \(1, 5\)"),
        ({"height": 0}, "expected a positive size, got 0 x 9"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ImageRecord(**{"image_id": 1, "file_name": "a.png", "height": 9, "width": 9, "group_id": "g", **values})


def test_a_data_set_refuses_two_images_of_one_id_and_unknown_classes():
    one = ImageRecord(1, "a.png", 9, 9, "g", boxes=np.zeros((1, 4)), classes=np.ones(1, int))
    with pytest.raises(ValueError, match="two records share one image_id"):
        Dataset((one, one), ("fracture", "implant"))
    with pytest.raises(ValueError, match=r"a\.png"):
        Dataset((one,), ("fracture",))
