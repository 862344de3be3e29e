"""Numbered cases with the arithmetic beside them. Boxes of cases.py never overlap: number n hits number n only."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fracture_det.detections import Detections
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.metrics import (
    auroc,
    average_precision,
    froc_curve,
    image_counts,
    lesion_counts,
    roc_curve,
)
from tests.evaluation.cases import dataset, found, random_study, record

NOTHING = found()


def matched(*images):
    """Match images given as (truth numbers, detections)."""
    records = [record(index, truth) for index, (truth, _) in enumerate(images)]
    return match_dataset(dataset(*records), dict(enumerate(one for _, one in images)))


# name, images, score, (TP, FP, truth), precision, recall, F1
LESION_CASES = [
    ("1 one hit", [((1,), found((1, 0.9)))], 0.5, (1, 0, 1), 1.0, 1.0, 1.0),
    ("2 one miss", [((1,), found((2, 0.9)))], 0.5, (0, 1, 1), 0.0, 0.0, 0.0),
    ("3 hit and false", [((1,), found((1, 0.9), (2, 0.8)))], 0.5, (1, 1, 1), 1 / 2, 1.0, 2 / 3),
    ("4 hit below the score", [((1,), found((1, 0.4)))], 0.5, (0, 0, 1), None, 0.0, 0.0),
    ("5 a score of exactly .5 counts", [((1,), found((1, 0.5)))], 0.5, (1, 0, 1), 1.0, 1.0, 1.0),
    ("6 two of three found", [((1, 2, 3), found((1, 0.9), (2, 0.6)))], 0.5, (2, 0, 3), 1.0, 2 / 3, 4 / 5),
    ("7 the same box twice", [((1,), found((1, 0.9), (1, 0.8)))], 0.5, (1, 1, 1), 1 / 2, 1.0, 2 / 3),
    ("8 false on a healthy image", [((1,), found((1, 0.9))), ((), found((1, 0.9)))], 0.5, (1, 1, 1), 0.5, 1.0, 2 / 3),
    ("9 healthy and silent", [((), NOTHING)], 0.5, (0, 0, 0), None, None, None),
    ("10 healthy and loud", [((), found((1, 0.9)))], 0.5, (0, 1, 0), 0.0, None, 0.0),
    ("11 fractured and silent", [((1,), NOTHING)], 0.5, (0, 0, 1), None, 0.0, 0.0),
    ("12 no image", [], 0.5, (0, 0, 0), None, None, None),
]


@pytest.mark.parametrize("case", LESION_CASES, ids=[case[0] for case in LESION_CASES])
def test_boxes_at_an_operating_point(case):
    _, images, score, counts, precision, recall, f1 = case
    result = lesion_counts(matched(*images), score)
    assert (result.true_positives, result.false_positives, result.truth) == counts
    for value, expected in ((result.precision, precision), (result.recall, recall), (result.f1, f1)):
        assert np.isnan(value) if expected is None else value == pytest.approx(expected)


# name, images, score, (TP, FN, FP, TN), sensitivity, specificity, accuracy
IMAGE_CASES = [
    ("1 both right", [((1,), found((1, 0.9))), ((), NOTHING)], 0.5, (1, 0, 0, 1), 1.0, 1.0, 1.0),
    ("2 both wrong", [((1,), NOTHING), ((), found((1, 0.9)))], 0.5, (0, 1, 1, 0), 0.0, 0.0, 0.0),
    ("3 a box in the wrong place still calls the image", [((1,), found((2, 0.9)))], 0.5, (1, 0, 0, 0), 1.0, None, 1.0),
    ("4 all healthy", [((), found((1, 0.4)))] * 2, 0.5, (0, 0, 0, 2), None, 1.0, 1.0),
    ("5 a score of 0 calls no image without boxes", [((), NOTHING)], 0.0, (0, 0, 0, 1), None, 1.0, 1.0),
    ("6 no image", [], 0.5, (0, 0, 0, 0), None, None, None),
]


@pytest.mark.parametrize("case", IMAGE_CASES, ids=[case[0] for case in IMAGE_CASES])
def test_images_at_an_operating_point(case):
    _, images, score, counts, *expected = case
    result = image_counts(matched(*images), score)
    cells = (result.true_positives, result.false_negatives, result.false_positives, result.true_negatives)
    assert cells == counts
    for value, wanted in zip((result.sensitivity, result.specificity, result.accuracy), expected, strict=True):
        assert np.isnan(value) if wanted is None else value == pytest.approx(wanted)


# name, images, AP50. COCO reads precision at recall 0, .01, ... 1: 101 points.
AP_CASES = [
    ("1 all found", [((1, 2), found((1, 0.9), (2, 0.8)))], 1.0),
    ("2 none found", [((1,), found((2, 0.9)))], 0.0),
    ("3 no detection", [((1,), NOTHING)], 0.0),
    ("4 no truth", [((), found((1, 0.9)))], None),
    # recall .5 at precision 1 (points 0 to .5: 51); recall 1 at precision 2/3 (points .51 to 1: 50)
    ("5 hit, false, hit", [((1, 2), found((1, 0.9), (9, 0.8), (2, 0.7)))], (51 + 50 * 2 / 3) / 101),
    # false first: precision 1/2 at recall 1/2, then 2/3 at recall 1; the envelope lifts all 101 points to 2/3
    ("6 false, hit, hit", [((1, 2), found((9, 0.9), (1, 0.8), (2, 0.7)))], 2 / 3),
    # half of the truth is never found: 51 points of 1, 50 of 0
    ("7 one of two", [((1, 2), found((1, 0.9)))], 51 / 101),
    # the false box on the healthy image comes between
    ("8 a healthy image counts", [((1,), found((1, 0.5))), ((), found((1, 0.9)))], 1 / 2),
]


@pytest.mark.parametrize("case", AP_CASES, ids=[case[0] for case in AP_CASES])
def test_average_precision(case):
    _, images, expected = case
    value = average_precision(matched(*images))
    assert np.isnan(value) if expected is None else value == pytest.approx(expected)


class TestFroc:
    # two images, three truth boxes; boxes in order: hit .9, false .8, hit .7, false .6, false .6, hit .6
    STUDY = (
        ((1, 2), found((1, 0.9), (9, 0.8), (2, 0.7), (8, 0.6))),
        ((3,), found((7, 0.6), (3, 0.6))),
    )

    def test_points(self):
        curve = froc_curve(matched(*self.STUDY))
        assert curve.score[1:] == pytest.approx([0.9, 0.8, 0.7, 0.6])
        # false positives over 2 images; the three boxes of score .6 enter together
        assert curve.fp_per_image == pytest.approx([0, 0, 1 / 2, 1 / 2, 3 / 2])
        assert curve.sensitivity == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])

    # no interpolation: below 1/2 only the first hit, from 1/2 to below 3/2 two, then all
    @pytest.mark.parametrize(
        ("target", "expected"), [(1 / 8, 1 / 3), (0.49, 1 / 3), (1 / 2, 2 / 3), (1, 2 / 3), (3 / 2, 1), (8, 1)]
    )
    def test_sensitivity_at_a_target(self, target, expected):
        assert froc_curve(matched(*self.STUDY)).at([target])[0] == pytest.approx(expected)

    def test_no_box_finds_nothing(self):
        assert froc_curve(matched(((1,), NOTHING))).at([1.0])[0] == 0

    def test_no_truth_is_not_defined(self):
        assert np.isnan(froc_curve(matched(((), found((1, 0.9))))).at([1.0])[0])

    def test_it_agrees_with_counting_at_each_threshold(self):
        matches = match_dataset(*random_study(4, ties=True))
        curve = froc_curve(matches)
        for score, fp_per_image, sensitivity in zip(curve.score, curve.fp_per_image, curve.sensitivity, strict=True):
            counts = lesion_counts(matches, score)
            assert counts.recall == pytest.approx(sensitivity)
            assert counts.false_positives / matches.n_images == pytest.approx(fp_per_image)


# scores of positives, scores of negatives, pairs won / pairs
AUROC_CASES = [
    ([0.9, 0.8], [0.1, 0.2], 1.0),
    ([0.1], [0.9], 0.0),
    ([0.5], [0.5], 0.5),
    ([0.9, 0.5], [0.5, 0.1], 3.5 / 4),  # .9 wins both; .5 draws one and wins one
    ([0.0, 0.0, 0.7], [0.0], 2 / 3),  # two draws and one win of three
]


@pytest.mark.parametrize(("positives", "negatives", "expected"), AUROC_CASES)
def test_auroc(positives, negatives, expected):
    truth = [True] * len(positives) + [False] * len(negatives)
    assert auroc(positives + negatives, truth) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_agrees_with_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth, scores = random.random(200) < 0.3, random.integers(0, 30, 200) / 30
    weights = random.integers(0, 4, 200).astype(float)
    assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    expected = roc_auc_score(truth, scores, sample_weight=weights)
    assert auroc(scores, truth, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_auroc_of_one_class_is_not_defined(truth):
    assert np.isnan(auroc([0.5] * len(truth), np.array(truth, dtype=bool)))


def test_the_area_under_the_roc_curve_is_the_auroc():
    matches = match_dataset(*random_study(2, ties=True))
    false_share, true_share = roc_curve(matches)
    area = np.sum(np.diff(false_share) * (true_share[1:] + true_share[:-1]) / 2)
    assert area == pytest.approx(auroc(matches.top_score, matches.fractured))
    assert (false_share[[0, -1]] == [0, 1]).all()


def test_matches_keep_only_the_surest_hundred_of_a_class():
    many = Detections.from_unsorted([[0, 0, 1, 1]] * 150, np.linspace(0, 1, 150), [0] * 150)
    matches = match_dataset(dataset(record(0, (1,))), {0: many})
    assert len(matches.score) == 100
    assert matches.score.min() == many.scores[99]


def test_of_images_counts_as_if_only_these_were_there():
    study, predictions = random_study(5)
    whole = match_dataset(study, predictions)
    keep = np.arange(60) % 3 == 1
    part = whole.of_images(keep)
    few = dataset_of(study, keep)
    alone = match_dataset(few, {record.image_id: predictions[record.image_id] for record in few})
    for name in ("score", "hit", "image", "label", "truth", "group", "top_score"):
        np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))


def dataset_of(study, keep):
    return type(study)(tuple(record for record, kept in zip(study, keep, strict=True) if kept), study.class_names)
