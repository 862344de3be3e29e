import math
import warnings

import numpy as np
import pytest

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation import lesion_level
from fracture_det.evaluation.coco_eval import coco_matches
from fracture_det.evaluation.lesion_level import lesion_counts
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.tide import KINDS, TYPES, image_errors, tide
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import random_study, repeated

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its plotting is older than its plotting library
    tidecv = pytest.importorskip("tidecv")

A, B, C = "abc"  # classes


def box(number, shift=0.0):
    """Return box number n, 10 x 10 px, moved to the right: by 1 px its IoU with itself is 9/11, by 5 px 1/3."""
    return [20.0 * number + shift, 0.0, 20.0 * number + shift + 10, 10.0]


def record(image_id, truth, group=None, anatomy=None):
    boxes = np.array([corners for corners, _ in truth]).reshape(-1, 4)
    labels = np.array([ord(label) - ord("a") for _, label in truth], dtype=np.int64)
    return ImageRecord(image_id, f"{image_id}.png", 400, 400, group or f"{image_id}.png", anatomy, boxes, labels)


def found(rows):
    return Detections.from_unsorted(
        [corners for corners, _, _ in rows],
        [score for _, _, score in rows],
        [ord(label) - ord("a") for _, label, _ in rows],
    )


def study(*images):
    """Return a study of (truth, detections) per image: (box, class) and (box, class, score)."""
    dataset = Dataset(tuple(record(number, truth) for number, (truth, _) in enumerate(images)), ("a", "b", "c"))
    return dataset, {number: found(rows) for number, (_, rows) in enumerate(images)}


CLS, LOC, BOTH, DUPE, BKG = KINDS[:5]
MISS, FP, FN = "missed", "false positive", "false negative"
# COCO reads precision at recall 0, .01, ... 1: 101 points, of which 51 lie at or below a recall of one half.
HALF = 51 / 101

# name; truth; detections, surest first; what each is; counts of the truth's and the special types; AP50 before; AP50
# gained by mending each type (0 where not named). The mean is over the classes that have truth.
CASES = [
    ("1 a hit", [(box(0), A)], [(box(0, 1), A, 0.9)], ["hit"], {}, 1.0, {}),
    ("2 the wrong class: mended, it hits",
     [(box(0), A)], [(box(0), B, 0.9)], [CLS], {FP: 1, FN: 1}, 0.0, {CLS: 1.0}),
    ("3 the wrong place: mended, it hits",
     [(box(0), A)], [(box(0, 5), A, 0.9)], [LOC], {FP: 1, FN: 1}, 0.0, {LOC: 1.0}),
    # class a finds nothing: 0. Class b: its hit comes second, precision 1/2; alone 1. Means (0 + 1/2) / 2, (0 + 1) / 2
    ("4 wrong class and wrong place", [(box(0), A), (box(9), B)], [(box(0, 5), B, 0.9), (box(9), B, 0.8)],
     [BOTH, "hit"], {MISS: 1, FP: 1, FN: 1}, 1 / 4, {BOTH: 1 / 4, FP: 1 / 4}),
    # precision 1 up to recall 1/2, then 2/3: (51 + 50 * 2/3) / 101; without the duplicate 1
    ("5 a duplicate", [(box(0), A), (box(1), A)], [(box(0), A, 0.9), (box(0, 1), A, 0.8), (box(1), A, 0.7)],
     ["hit", DUPE, "hit"], {FP: 1}, (51 + 50 * 2 / 3) / 101, {DUPE: 50 / 3 / 101, FP: 50 / 3 / 101}),
    ("6 background before a hit: precision 1/2", [(box(0), A)], [(box(9), A, 0.9), (box(0), A, 0.8)],
     [BKG, "hit"], {FP: 1}, 1 / 2, {BKG: 1 / 2, FP: 1 / 2}),
    ("7 one of two is missed: recall ends at one half", [(box(0), A), (box(1), A)], [(box(0), A, 0.9)],
     ["hit"], {MISS: 1, FN: 1}, HALF, {MISS: 1 - HALF, FN: 1 - HALF}),
    ("8 a fracture that a badly placed box explains is not missed",
     [(box(0), A), (box(1), A)], [(box(0), A, 0.9), (box(1, 5), A, 0.8)],
     ["hit", LOC], {FP: 1, FN: 1}, HALF, {LOC: 1 - HALF, FN: 1 - HALF}),
    # mending hits with the surest and removes the other: precision 1
    ("9 two badly placed boxes on one fracture", [(box(0), A)], [(box(0, 5), A, 0.9), (box(0, -5), A, 0.8)],
     [LOC, LOC], {FP: 2, FN: 1}, 0.0, {LOC: 1.0}),
    ("10 a badly placed box on a found fracture goes: the hit came second, then comes first",
     [(box(0), A)], [(box(0, 5), A, 0.9), (box(0), A, 0.8)], [LOC, "hit"], {FP: 1}, 1 / 2, {LOC: 1 / 2, FP: 1 / 2}),
    # only the surest, of the wrong class, can be made a hit; mending places removes the other and gains nothing
    ("11 wrong class and wrong place in two boxes", [(box(0), A)], [(box(0), B, 0.9), (box(0, 5), A, 0.8)],
     [CLS, LOC], {FP: 2, FN: 1}, 0.0, {CLS: 1.0}),
    # 10 x 10 in 10 x 100 is an IoU of .1; in 10 x 20 of .5
    ("12 IoU .1 with its class is a wrong place", [([0, 0, 10, 100], A)], [(box(0), A, 0.9)],
     [LOC], {FP: 1, FN: 1}, 0.0, {LOC: 1.0}),
    ("13 IoU .1 with another class is background", [([0, 0, 10, 100], A)], [(box(0), B, 0.9)],
     [BKG], {MISS: 1, FP: 1, FN: 1}, 0.0, {}),
    ("14 IoU .5 hits", [([0, 0, 10, 20], A)], [(box(0), A, 0.9)], ["hit"], {}, 1.0, {}),
    ("15 IoU .5 with a found fracture is a wrong place, not a duplicate",
     [([0, 0, 10, 20], A)], [([0, 0, 10, 20], A, 0.9), (box(0), A, 0.8)], ["hit", LOC], {FP: 1}, 1.0, {}),
    ("16 IoU .5 with another class is the wrong class", [([0, 0, 10, 20], A)], [(box(0), B, 0.9)],
     [CLS], {FP: 1, FN: 1}, 0.0, {CLS: 1.0}),
    # classes a: 1, b: 0; the second box made a hit of b: both 1
    ("17 the wrong class comes before a duplicate", [(box(0), A), (box(0), B)], [(box(0), A, 0.9), (box(0), A, 0.8)],
     ["hit", CLS], {FP: 1, FN: 1}, 1 / 2, {CLS: 1 / 2}),
    # class c has no truth: its false box is in no mean
    ("18 a box of a class without truth", [(box(0), A)], [(box(9), C, 0.9), (box(0), A, 0.8)],
     [BKG, "hit"], {FP: 1}, 1.0, {}),
    # class b, never hit, stays 0 and keeps its half of the mean
    ("19 a class is missed altogether", [(box(0), A), (box(1), B)], [(box(0), A, 0.9)],
     ["hit"], {MISS: 1, FN: 1}, 1 / 2, {}),
    ("20 no box", [(box(0), A)], [], [], {MISS: 1, FN: 1}, 0.0, {}),
    ("21 no truth", [], [(box(0), A, 0.9)], [BKG], {FP: 1}, None, None),
    ("22 neither", [], [], [], {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_error_types(case):
    _, truth, rows, kinds, others, ap50, gained = case
    errors = tide(*study((truth, rows)))
    assert [KINDS[kind] for kind in errors.kind] == kinds
    expected = {name: kinds.count(name) for name in KINDS[:5]} | {MISS: 0, FP: 0, FN: 0} | others
    assert errors.counts(0.0) == expected
    if ap50 is None:
        assert math.isnan(errors.ap50)
        assert all(math.isnan(errors.corrected_ap50(name)) for name in TYPES)
        return
    assert errors.ap50 == pytest.approx(ap50)
    mended = {name: errors.corrected_ap50(name) for name in TYPES}
    assert mended == pytest.approx({name: ap50 + gained.get(name, 0.0) for name in TYPES})


# box; index of the truth box that it is about (-1: none), and their IoU. Truth: a at 0, b at 0 and a at 3.
ABOUT_CASES = [
    ((box(3, 1), A, 0.9), "hit", 2, 9 / 11),
    ((box(3, 5), A, 0.9), LOC, 2, 1 / 3),
    ((box(3), B, 0.9), CLS, 2, 1.0),
    ((box(3, 5), B, 0.9), BOTH, 2, 1 / 3),
    ((box(3, 9), B, 0.9), BKG, 2, 1 / 19),
    ((box(9), B, 0.9), BKG, -1, 0.0),
]


@pytest.mark.parametrize("case", ABOUT_CASES)
def test_the_truth_box_that_a_detection_is_about(case):
    row, kind, index, iou = case
    said = image_errors(found([row]), record(0, [(box(0), A), (box(0), B), (box(3), A)]))
    assert (KINDS[said.kind[0]], said.truth[0]) == (kind, index)
    assert said.iou[0] == pytest.approx(iou)


def test_counts_at_an_operating_score_leave_out_what_is_below():
    # truth 0 hit at .9, its duplicate at .4; truth 1 badly placed at .8; truth 2 hit at .3 only
    truth = [(box(0), A), (box(1), A), (box(2), A)]
    rows = [(box(0), A, 0.9), (box(1, 5), A, 0.8), (box(0, 1), A, 0.4), (box(2), A, 0.3)]
    errors = tide(*study((truth, rows)))
    none = dict.fromkeys(TYPES, 0)
    assert errors.counts(0.0) == none | {LOC: 1, DUPE: 1, FP: 2, FN: 1}
    assert errors.counts(0.5) == none | {LOC: 1, MISS: 1, FP: 1, FN: 2}
    assert errors.counts(0.85) == none | {MISS: 2, FN: 2}
    assert errors.counts(1.0) == none | {MISS: 3, FN: 3}


def test_no_image_at_all():
    errors = tide(Dataset((), ("a",)), {})
    assert errors.counts(0.5) == dict.fromkeys(TYPES, 0)
    assert math.isnan(errors.ap50)


# --- against other judges ------------------------------------------------------------------------------------------


def varied_study(seed, n_classes=3, n_images=60, ties=False):
    """Return random truth, and detections with every kind of error: moved, relabelled, doubled, invented, left out."""
    random = np.random.default_rng(seed)
    records, predictions = [], {}
    for image_id in range(n_images):
        n_truth = int(random.integers(0, 5))
        corners = random.uniform(0, 200, (n_truth, 2))
        truth = np.hstack([corners, corners + random.uniform(20, 120, (n_truth, 2))])
        labels = random.integers(0, n_classes, n_truth)
        again = random.integers(0, 4, n_truth)  # no, one, two or three boxes near each truth box
        boxes = np.repeat(truth, again, axis=0)
        boxes += random.normal(0, random.choice([2, 15, 40], len(boxes))[:, None], boxes.shape)
        classes = np.repeat(labels, again)
        relabelled = random.random(len(boxes)) < 0.25
        classes[relabelled] = random.integers(0, n_classes, relabelled.sum())
        corners = random.uniform(0, 400, (int(random.integers(0, 3)), 2))
        boxes = np.vstack([boxes, np.hstack([corners, corners + 30])])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = np.append(classes, random.integers(0, n_classes, len(corners)))
        scores = random.uniform(0, 1, len(boxes))
        scores = scores.round(1) if ties else scores
        records.append(
            ImageRecord(image_id, f"{image_id}.png", 500, 500, f"patient{image_id // 3}", None, truth, labels)
        )
        predictions[image_id] = Detections.from_unsorted(boxes, scores, classes)
    return Dataset(tuple(records), tuple("abcdef"[:n_classes])), predictions


NAMES = {"Cls": CLS, "Loc": LOC, "Both": BOTH, "Dupe": DUPE, "Bkg": BKG, "Miss": MISS, "FalsePos": FP, "FalseNeg": FN}


def judged(dataset, predictions):
    """Return tidecv's AP50, its gains and its counts (which it gives for the main types only), as 0..1."""
    truth, rows = tidecv.Data("truth"), tidecv.Data("found")
    for one in dataset:
        truth.add_image(one.image_id, one.file_name)
        for corners, label in zip(one.boxes.tolist(), one.classes.tolist(), strict=True):
            truth.add_ground_truth(one.image_id, label, sized(corners))
        boxes = predictions[one.image_id]
        columns = (boxes.boxes.tolist(), boxes.classes.tolist(), boxes.scores.tolist())
        for corners, label, score in zip(*columns, strict=True):
            rows.add_detection(one.image_id, label, score, sized(corners))
    run = tidecv.TIDE(pos_threshold=0.5, background_threshold=0.1, mode=tidecv.TIDE.BOX).evaluate(truth, rows)
    gains = run.fix_main_errors() | run.fix_special_errors()
    counts = {NAMES[kind.short_name]: count for kind, count in run.count_errors().items()}
    return run.ap / 100, {NAMES[kind.short_name]: gain / 100 for kind, gain in gains.items()}, counts


def sized(corners):
    x0, y0, x1, y1 = corners
    return [x0, y0, x1 - x0, y1 - y0]


def gained(errors):
    return {name: errors.corrected_ap50(name) - errors.ap50 for name in TYPES}


@pytest.mark.parametrize("n_classes", [1, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_types_counts_and_gains_are_those_of_tidecv(seed, n_classes, monkeypatch):
    dataset, predictions = varied_study(seed, n_classes)
    # tidecv reads precision at recall i / 100, COCOeval at linspace's multiples of .01: 10 of 101 differ in the last
    # bit, so that a recall of exactly .35 counts in one and not in the other.
    monkeypatch.setattr(lesion_level, "RECALL_GRID", np.arange(101) / 100)
    errors = tide(dataset, predictions)
    ap50, gains, counts = judged(dataset, predictions)
    assert errors.ap50 == pytest.approx(ap50, abs=1e-9)
    assert gained(errors) == pytest.approx(gains, abs=1e-9)
    own = errors.counts(0.0)
    assert {name: own[name] for name in counts} == counts
    assert min(own.values()) > 0 or n_classes == 1  # the study has every kind of error


@pytest.mark.parametrize("score", [0.3, 0.7])
def test_counts_at_a_score_are_those_of_tidecv_on_the_boxes_from_there_on(score):
    dataset, predictions = varied_study(7)
    own = tide(dataset, predictions).counts(score)
    _, _, counts = judged(dataset, {image_id: boxes.above(score) for image_id, boxes in predictions.items()})
    assert {name: own[name] for name in counts} == counts


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_coco_and_mending_never_costs(seed, ties):
    dataset, predictions = varied_study(seed, ties=ties)
    errors = tide(dataset, predictions)
    assert errors.ap50 == pytest.approx(coco_matches(dataset, predictions).figures()["AP50"], abs=1e-9)
    assert min(gained(errors).values()) > -1e-12


@pytest.mark.parametrize("score", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_counts_add_up_to_those_of_the_operating_point(score):
    dataset, predictions = varied_study(11, ties=True)
    counts = tide(dataset, predictions).counts(score)
    lesions = lesion_counts(match_dataset(dataset, predictions), score)
    assert counts[FP] == lesions.false_positives == sum(counts[name] for name in KINDS[:5])
    assert counts[FN] == lesions.truth - lesions.true_positives
    assert counts[MISS] <= counts[FN]


class TestWhereTidecvDiffers:
    def test_a_class_without_truth_is_in_its_mean_with_0(self):
        # case 18: COCO has no AP for such a class; tidecv's mean is (1 + 0) / 2
        images = study(([(box(0), A)], [(box(9), C, 0.9), (box(0), A, 0.8)]))
        assert tide(*images).ap50 == pytest.approx(1)
        assert judged(*images)[0] == 1 / 2

    def test_a_class_that_is_missed_altogether_leaves_its_mean(self):
        # case 19: without its truth the class has neither truth nor box, and the mean of one class is 1
        images = study(([(box(0), A), (box(1), B)], [(box(0), A, 0.9)]))
        assert gained(tide(*images))[MISS] == 0
        assert judged(*images)[1][MISS] == pytest.approx(1 / 2)

    def test_of_equal_scores_it_puts_false_boxes_before_hits_once_something_is_mended(self):
        # a hit and a false box of one score, one fracture never found. Without it AP50 is 1, the hit being first;
        # tidecv counts the false box first from then on: 1/2, less than the 51/101 before
        images = study(([(box(0), A), (box(1), A)], [(box(0), A, 0.9)]), ([], [(box(9), A, 0.9)]))
        assert gained(tide(*images))[FN] == pytest.approx(1 - HALF)
        assert judged(*images)[1][FN] == pytest.approx(1 / 2 - HALF)

    def test_it_takes_the_surest_hundred_of_an_image_and_not_of_each_class(self):
        # a hundred surer boxes of class b push the hit of class a out of tidecv's hundred
        false = [(box(9 + number), B, 0.9) for number in range(100)]
        images = study(([(box(0), A)], [*false, (box(0), A, 0.5)]))
        assert tide(*images).counts(0.0)[FN] == 0
        assert judged(*images)[2][MISS] == 1

    def test_without_any_truth_or_box_it_divides_by_zero(self):
        with pytest.raises(ZeroDivisionError):
            judged(*study(([], [])))


def test_beyond_the_surest_hundred_of_a_class_nothing_counts():
    rows = [(box(9), A, 0.9 - number / 1000) for number in range(100)]
    dataset, predictions = study(([(box(0), A)], [*rows, (box(0), A, 0.1)]))
    said = image_errors(predictions[0], dataset.records[0])
    assert said.counted.tolist() == [True] * 100 + [False]
    assert tide(dataset, predictions).counts(0.0)[FN] == 1


@pytest.mark.parametrize("seed", range(4))
def test_an_image_of_weight_two_counts_as_two_images(seed):
    study, predictions = random_study(seed, n_images=40)
    weights = np.random.default_rng(seed).integers(0, 3, len(study))
    found_errors, again = tide(study, predictions), tide(*repeated(study, predictions, weights))
    for error in (None, *TYPES):
        expected = again.corrected_ap50(error)
        assert found_errors.corrected_ap50(error, weights.astype(float)) == pytest.approx(expected, abs=1e-9), error
