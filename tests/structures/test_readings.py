"""What several readers say of one radiograph: where they disagree, and the truth that follows."""

import numpy as np
import pytest

from fracture_det.structures.boxes import match_boxes
from fracture_det.structures.readings import Reading, ReadRadiograph

FIRST, SECOND = (10.0, 10.0, 50.0, 50.0), (60.0, 60.0, 90.0, 90.0)
NEAR = (14.0, 10.0, 54.0, 50.0)  # IoU 36 / 44 with FIRST
FAR = (35.0, 10.0, 75.0, 50.0)  # IoU 15 / 65
RIGHT = {1: "right", 2: "wrong"}


def says(author="anna", verdicts=None, missed=(), no_fracture=False, **more):
    return Reading(verdicts or {}, tuple(missed), no_fracture, "", author, **more)


def read(*readings, settled=None, labels=("fracture", "fracture"), n_required=1):
    return ReadRadiograph([FIRST, SECOND], labels, n_required, readings, settled)


def marked(radiograph):
    return [(mark.box, mark.type) for mark in radiograph.truth]


UNREADABLE = says("ben", unreadable=True, reason="motion")


@pytest.mark.parametrize(
    ("readings", "disagreements"),
    [
        ([], ()),
        ([says(verdicts=RIGHT)], ()),
        ([says(verdicts=RIGHT), says("ben", RIGHT)], ()),
        ([says(verdicts=RIGHT), says("ben", {1: "right"}, moved={1: NEAR})], ()),
        ([says(verdicts=RIGHT), says("ben", {1: "wrong"}, [NEAR])], ()),  # drawn, not moved
        ([says(verdicts=RIGHT), says("ben", {1: "right"}, moved={1: FAR})], ("boxes",)),
        ([says(verdicts=RIGHT), says("ben", {1: "right", 2: "right"})], ("boxes",)),
        ([says(verdicts=RIGHT), says("ben", no_fracture=True)], ("fractured or not",)),
        ([says(verdicts={1: "wrong"}), says("ben", no_fracture=True)], ()),
        ([says(verdicts=RIGHT), UNREADABLE], ("readable or not",)),
        ([says(unreadable=True), UNREADABLE], ()),
        ([says(verdicts=RIGHT, types={1: "spiral"}), says("ben", RIGHT)], ()),
        ([says(verdicts=RIGHT, types={1: "spiral"}), says("ben", RIGHT, types={1: "oblique"})], ("types",)),
        (
            [says(verdicts={1: "right", 2: "right"}, types={1: "spiral"}), says("ben", RIGHT, types={1: "oblique"})],
            ("boxes", "types"),
        ),
        ([says(verdicts=RIGHT), says("ben")], ()),  # unfinished: it says nothing yet
        # Each of three matches the first, but two of them not each other.
        (
            [
                says(verdicts=RIGHT),
                says("ben", {1: "wrong"}, [(22.0, 10.0, 62.0, 50.0)]),
                says("eve", {1: "wrong"}, [(-2.0, 10.0, 38.0, 50.0)]),
            ],
            ("boxes",),
        ),
    ],
)
def test_what_readers_disagree_on(readings, disagreements):
    assert read(*readings).disagreements == disagreements


@pytest.mark.parametrize(
    ("readings", "problem"),
    [
        ([], "nobody has read it"),
        ([says()], "box 1 was not judged"),
        ([says(verdicts=RIGHT), says("ben")], "a reading is not finished: box 1 was not judged"),
        ([UNREADABLE], "its reader found it not readable"),
        ([says(unreadable=True), UNREADABLE], "all its readers found it not readable"),
        (
            [says(verdicts=RIGHT), says("ben", no_fracture=True), says("eve")],
            "its readers disagree, and nobody has settled it: fractured or not",
        ),
    ],
)
def test_without_agreement_there_is_no_truth_and_the_reason_names_nobody(readings, problem):
    radiograph = read(*readings)
    assert radiograph.problem == problem
    with pytest.raises(ValueError, match=problem):
        _ = radiograph.truth


def test_agreed_boxes_are_the_mean_of_all_and_have_the_type_that_somebody_stated():
    agreed = read(
        says(verdicts=RIGHT), says("ben", {1: "right"}, types={1: "spiral"}, moved={1: NEAR}), says("eve", RIGHT)
    )
    assert (agreed.problem, agreed.basis) == ("", "agreed")
    assert marked(agreed) == [((11.33, 10.0, 51.33, 50.0), "spiral")]
    same = read(says(verdicts=RIGHT), says("ben", RIGHT), says("eve", RIGHT))
    assert marked(same) == [(FIRST, None)]


def test_what_is_settled_is_the_truth_whatever_readers_say():
    readings = says(verdicts=RIGHT), says("ben", no_fracture=True)
    settled = read(*readings, settled=says("root", {1: "wrong", 2: "right"}, [NEAR], missed_types=("oblique",)))
    assert (settled.problem, settled.basis) == ("", "settled")
    assert marked(settled) == [(SECOND, None), (NEAR, "oblique")]
    assert settled.disagreements == ("fractured or not",)
    assert read(*readings, settled=UNREADABLE).problem == "an adjudicator found it not readable"


def test_one_reader_alone_is_the_truth():
    alone = read(says(verdicts=RIGHT, missed=[NEAR]))
    assert (alone.basis, marked(alone)) == ("one reader", [(FIRST, None), (NEAR, None)])
    assert read(says(no_fracture=True, verdicts={1: "right"})).truth == ()


def test_a_class_that_one_predicted_box_has_and_another_has_not_is_a_disagreement():
    first = says(verdicts={1: "right"})
    second = says("ben", {1: "wrong", 2: "right"}, moved={2: FIRST})
    assert read(first, second).disagreements == ()
    assert read(first, second, labels=("fracture", "implant")).disagreements == ("types",)


def test_boxes_are_matched_as_many_as_possible():
    boxes = [(0, 0, 10, 12), (0, 0, 10, 18)]
    others = [(0, 0, 10, 12), (0, 0, 10, 9)]
    # The first box is the first other, but has to leave it to the second box, which fits no other: IoU .67 and .5.
    assert match_boxes(boxes, others, iou=0.6) == [(0, 1), (1, 0)]
    assert match_boxes(boxes, others, iou=0.7) == [(0, 0)]
    assert match_boxes([], others, iou=0.5) == []
    assert match_boxes(boxes, np.zeros((0, 4)), iou=0.5) == []
