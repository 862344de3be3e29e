"""Detections of one image matched to its truth; whole data sets matched by each rule, laid out flat."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fracture_det.data.coco import to_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.image_level import confusion_counts, images_of
from fracture_det.evaluation.matching import MATCH_RULES, match_dataset, match_to_truth
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import dataset, found, random_study, record, result_rows, truth_as_detections
from tests.structures.test_detections import detections

A, B = [0, 0, 10, 10], [100, 0, 110, 10]
# name, detections (box, score, class), truth, truth classes, which truth each detection hits
MATCH_CASES = [
    ("nothing at all", [], [], [], []),
    ("no detection", [], [A], [0], []),
    ("no truth", [(*A, 0.9)], [], [], [-1]),
    ("IoU of exactly one half hits", [(0, 0, 10, 5, 0.9)], [A], [0], [0]),
    ("IoU of 49/100 misses", [(0, 0, 10, 4.9, 0.9)], [A], [0], [-1]),
    ("the surer of two takes the truth", [(0, 0, 10, 6, 0.9), (*A, 0.8)], [A], [0], [0, -1]),
    ("two truths, two hits", [(*B, 0.9), (*A, 0.8)], [A, B], [0, 0], [1, 0]),
    ("the class must agree", [(*A, 0.9, 1)], [A], [0], [-1]),
    ("the same box in two classes", [(*A, 0.9, 1), (*A, 0.8, 0)], [A, A], [0, 1], [1, 0]),
    # overlaps with truths 0..10 and 4..14: first 60/100 and 100/100, second 100/100 and 60/140
    ("greedy takes the highest overlap", [(4, 0, 14, 10, 0.9), (*A, 0.8)], [A, [4, 0, 14, 10]], [0, 0], [1, 0]),
]


@pytest.mark.parametrize(("name", "rows", "truth", "classes", "expected"), MATCH_CASES, ids=[c[0] for c in MATCH_CASES])
def test_matching(name, rows, truth, classes, expected):
    found = detections(*rows) if rows else Detections.empty()
    assert match_to_truth(found, truth, classes).tolist() == expected


def test_identical_boxes_match_at_iou_one():
    assert match_to_truth(detections((*A, 0.9)), [A], [0], iou=1.0).tolist() == [0]


def test_of_two_equal_overlaps_the_last_truth_is_hit():
    # 20/30 with both: intersection 20 x 10, union 30 x 10
    truth = [[0, 0, 20, 10], [10, 0, 30, 10]]
    assert match_to_truth(detections((0, 0, 30, 10, 0.9)), truth, [0, 0]).tolist() == [1]


# name, detections (box, score), truth, which truth each detection hits when its centre decides
CENTRE_CASES = [
    ("a small box inside a large truth", [(4, 4, 6, 6, 0.9)], [A], [0]),  # centre 5, 5; IoU 4/100
    ("a large box around a small truth", [(0, 0, 100, 100, 0.9)], [[49, 49, 51, 51]], [0]),  # centre 50, 50
    ("a large box beside its truth", [(0, 0, 100, 100, 0.9)], [[0, 0, 49, 49]], [-1]),
    ("the edge is inside", [(5, 0, 15, 10, 0.9)], [A], [0]),  # centre 10, 5
    ("IoU of 49/100 does not matter", [(0, 0, 10, 4.9, 0.9)], [A], [0]),
    ("a truth is hit once, by the surest", [(4, 4, 6, 6, 0.9), (*A, 0.8)], [A], [0, -1]),
    # the centre (5, 5) lies in both truths; IoU with 0..10 is 1, with 0..20 it is 100/200
    ("of two truths the one with the highest overlap", [(*A, 0.9)], [A, [0, 0, 20, 10]], [0]),
    ("then the other", [(*A, 0.9), (*A, 0.8)], [A, [0, 0, 20, 10]], [0, 1]),
    ("a box without area", [(5, 5, 5, 5, 0.9)], [A], [0]),
    ("no truth", [(*A, 0.9)], [], [-1]),
]


@pytest.mark.parametrize(("name", "rows", "truth", "expected"), CENTRE_CASES, ids=[c[0] for c in CENTRE_CASES])
def test_matching_by_the_centre(name, rows, truth, expected):
    assert match_to_truth(detections(*rows), truth, [0] * len(truth), iou=None).tolist() == expected


def test_the_class_must_agree_when_the_centre_decides():
    assert match_to_truth(detections((*A, 0.9, 1)), [A], [0], iou=None).tolist() == [-1]


# name, the one box shown on a truth box of 10 x 10 px at 0, 0: which rules take it for a hit
RULE_CASES = [
    ("1 half of it", [0, 0, 10, 5], "iou50 iou30 centre"),  # IoU 50/100, centre (5, 2.5)
    ("2 four tenths of it", [0, 0, 10, 4], "iou30 centre"),  # IoU 40/100
    ("3 three tenths of it", [0, 0, 10, 3], "iou30 centre"),  # IoU 30/100
    ("4 a small part", [4, 4, 6, 6], "centre"),  # IoU 4/100
    ("5 twice as wide", [0, 0, 20, 10], "iou50 iou30 centre"),  # IoU 100/200, centre (10, 5) on the edge
    ("6 a little wider", [0, 0, 21, 10], "iou30"),  # IoU 100/210, centre (10.5, 5)
    ("7 far wider", [0, 0, 40, 10], ""),  # IoU 100/400, centre (20, 5)
    ("8 all around", [-20, -20, 30, 30], "centre"),  # IoU 100/2500, centre (5, 5)
    ("9 a point", [3, 3, 3, 3], "centre"),  # IoU 0
    ("10 elsewhere", [50, 0, 60, 10], ""),
]


def one_image(truth, boxes, scores, labels=None):
    """Return one image with truth of class 0 and boxes, x0 y0 x1 y1."""
    classes = np.zeros(len(truth), np.int64)
    one = ImageRecord(1, "a.png", 50, 50, "a", None, np.array(truth, float).reshape(-1, 4), classes)
    return dataset(one), {1: Detections.from_unsorted(boxes, scores, labels or [0] * len(boxes))}


@pytest.mark.parametrize("rule", MATCH_RULES)
@pytest.mark.parametrize("case", RULE_CASES, ids=[case[0] for case in RULE_CASES])
def test_rules(case, rule):
    _, box, hit_by = case
    matches = match_dataset(*one_image([[0, 0, 10, 10]], [box], [0.9]), rule=rule)
    assert matches.hit.tolist() == [rule in hit_by.split()]


def test_the_rule_is_iou_one_half_unless_said():
    assert not match_dataset(*one_image([[0, 0, 10, 10]], [[0, 0, 10, 4]], [0.9])).hit.any()


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="iou50, iou30, centre, got 'iou75'"):
        match_dataset(dataset(), {}, rule="iou75")


@pytest.mark.parametrize("rule", MATCH_RULES)
class TestEveryRule:
    def test_the_truth_hits(self, rule):
        study, _ = random_study(0)
        matches = match_dataset(study, truth_as_detections(study), rule=rule)
        assert matches.hit.all()
        assert len(matches.hit) == matches.n_truth > 50

    def test_a_truth_box_is_hit_once_by_the_surest(self, rule):
        matches = match_dataset(dataset(record(1, (1,))), {1: found((1, 0.8), (1, 0.9))}, rule=rule)
        assert matches.score.tolist() == pytest.approx([0.9, 0.8])
        assert matches.hit.tolist() == [True, False]

    def test_the_class_must_agree(self, rule):
        study, predictions = one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]], [0.9], labels=[1])
        assert not match_dataset(study, predictions, rule=rule).hit.any()

    def test_no_box_no_truth_no_image(self, rule):
        silent = match_dataset(dataset(record(1, (1,))), {1: found()}, rule=rule)
        assert (len(silent.hit), silent.n_truth, silent.top_score.tolist()) == (0, 1, [0])
        healthy = match_dataset(dataset(record(1)), {1: found((1, 0.9))}, rule=rule)
        assert (healthy.hit.tolist(), healthy.n_truth) == ([False], 0)
        nothing = match_dataset(dataset(), {}, rule=rule)
        assert (nothing.n_images, nothing.n_truth, nothing.n_groups, nothing.truth.shape) == (0, 0, 0, (0, 1))

    def test_all_but_the_hits_is_the_same_by_every_rule(self, rule):
        study, predictions = random_study(1, ties=True)
        by_default, by_rule = match_dataset(study, predictions), match_dataset(study, predictions, rule=rule)
        for name in ("score", "image", "label", "truth", "group", "top_score"):
            np.testing.assert_array_equal(getattr(by_default, name), getattr(by_rule, name))


@pytest.mark.parametrize("rule", ["iou50", "iou30"])
@pytest.mark.parametrize("seed", range(4))
def test_each_hit_is_that_of_pycocotools(seed, rule):
    study, predictions = random_study(seed, ties=True)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(study)
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(result_rows(predictions)), "bbox")
        judge.params.iouThrs = np.array([{"iou50": 0.5, "iou30": 0.3}[rule]])
        judge.params.areaRng = judge.params.areaRng[:1]
        judge.evaluate()
    matches = match_dataset(study, predictions, rule=rule)
    for entry in filter(None, judge.evalImgs):
        ours = matches.hit[(matches.image == entry["image_id"]) & (matches.label == entry["category_id"] - 1)]
        assert ours.tolist() == (entry["dtMatches"][0] > 0).tolist()
    assert 50 < matches.hit.sum() < len(matches.hit) - 50


def test_detections_are_in_order_of_score_then_image_then_as_given():
    study = dataset(record(7), record(3))
    matches = match_dataset(study, {7: found((1, 0.5), (2, 0.9)), 3: found((4, 0.5), (5, 0.5))})
    assert matches.score.tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])
    assert matches.image.tolist() == [1, 0, 0, 1]  # image 3 is the first
    assert matches.tie_ends.tolist() == [0, 3]
    assert matches.top_score.tolist() == pytest.approx([0.5, 0.9])


def test_images_without_predictions_take_no_part():
    matches = match_dataset(dataset(record(1, (1,)), record(2, (1, 2))), {2: found(), 9: found((1, 0.9))})
    assert (matches.n_images, matches.n_truth, len(matches.hit)) == (1, 2, 0)


def test_images_of_one_group_share_its_index():
    study = dataset(record(1, group="b"), record(2, group="a"), record(3, group="b"))
    matches = match_dataset(study, {1: found(), 2: found(), 3: found()})
    assert matches.group.tolist() == [1, 0, 1]
    assert matches.n_groups == 2


def test_only_the_surest_hundred_of_a_class_are_kept():
    labels = [0, 1] * 75 + [0] * 70  # 145 of class 0, 75 of class 1
    many = Detections.from_unsorted([[0, 0, 1, 1]] * 220, np.linspace(1, 0, 220), labels)
    matches = match_dataset(dataset(record(0, (1,))), {0: many})
    assert np.bincount(matches.label).tolist() == [100, 75]
    assert matches.score.min() == many.scores[150 + 25 - 1]  # 75 of class 0 among the first 150, 25 after


def test_of_images_counts_as_if_only_these_were_there():
    study, predictions = random_study(5)
    whole = match_dataset(study, predictions)
    keep = np.arange(60) % 3 == 1
    part = whole.of_images(keep)
    few = type(study)(tuple(one for one, kept in zip(study, keep, strict=True) if kept), study.class_names)
    alone = match_dataset(few, {one.image_id: predictions[one.image_id] for one in few})
    for name in ("score", "hit", "image", "label", "truth", "group", "top_score"):
        np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))


REGION = [200, 0, 300, 100]
# name, detections (box, score, class), rule, counted hits in order of score, how many are ignored
CROWD_CASES = [
    ("a detection inside is ignored", [(210, 10, 220, 20, 0.9, 0)], "iou50", [], 1),
    ("half of it inside is enough", [(190, 0, 210, 10, 0.9, 0)], "iou50", [], 1),  # 100 of 200 square pixels
    ("less than half is a false positive", [(189, 0, 210, 10, 0.9, 0)], "iou50", [False], 0),
    ("less than half is enough at .3", [(189, 0, 210, 10, 0.9, 0)], "iou30", [], 1),
    ("its centre decides, on the edge", [(190, 0, 210, 10, 0.9, 0)], "centre", [], 1),
    ("its centre decides, outside", [(189, 0, 210, 10, 0.9, 0)], "centre", [False], 0),
    ("another class is a false positive", [(210, 10, 220, 20, 0.9, 1)], "iou50", [False], 0),
    ("a region takes any number", [(210, 10, 220, 20, s, 0) for s in (0.9, 0.8, 0.7)], "iou50", [], 3),
    ("truth in the region is hit, and the second ignored",
     [(240, 40, 260, 60, 0.9, 0), (240, 40, 260, 60, 0.8, 0)], "iou50", [True], 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "rule", "hits", "ignored"), CROWD_CASES, ids=[c[0] for c in CROWD_CASES])
def test_crowd_regions(name, rows, rule, hits, ignored):
    truth = np.array([[240, 40, 260, 60]], float)
    image = ImageRecord(
        1, "a.png", 400, 400, "a", boxes=truth, classes=np.zeros(1, int), crowd_boxes=np.array([REGION], float)
    )
    matches = match_dataset(Dataset((image,), ("a", "b")), {1: detections(*rows)}, rule=rule)
    assert matches.hit.tolist() == hits
    assert matches.n_ignored.tolist() == [ignored]
    assert matches.n_crowd.tolist() == [1]


def test_an_image_with_crowd_regions_alone_is_fractured_and_found_by_a_box_in_one():
    region = np.array([REGION], float)
    images = [ImageRecord(n, f"{n}.png", 400, 400, f"{n}", crowd_boxes=region) for n in (1, 2)]
    healthy = ImageRecord(3, "3.png", 400, 400, "3")
    seen = {1: detections((210, 10, 220, 20, 0.9)), 2: Detections.empty(), 3: Detections.empty()}
    matches = match_dataset(dataset(*images, healthy), seen)
    assert (matches.n_truth, len(matches.score)) == (0, 0)
    assert matches.fractured.tolist() == [True, True, False]
    counts = confusion_counts(images_of(matches), 0.5)
    assert (counts.true_positives, counts.false_negatives, counts.true_negatives) == (1, 1, 1)
    assert matches.of_images(np.array([True, False, True])).has_box.tolist() == [True, False]
