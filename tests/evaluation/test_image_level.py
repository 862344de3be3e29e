"""Image-level figures: numbered cases with the arithmetic beside them, and scikit-learn as the judge."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fracture_det.evaluation.image_level import (
    ConfusionCounts,
    auprc,
    auroc,
    confusion_counts,
    groups_of,
    images_of,
    precision_recall_curve,
    roc_curve,
)
from fracture_det.evaluation.matching import match_dataset
from tests.evaluation.cases import dataset, found, random_study, record

NOTHING = found()


def units_of(*images):
    """Return images given as (truth numbers, detections) as units."""
    records = [record(index, truth) for index, (truth, _) in enumerate(images)]
    return images_of(match_dataset(dataset(*records), dict(enumerate(one for _, one in images))))


# name, images, score, (TP, FN, FP, TN), sensitivity, specificity, accuracy
CALL_CASES = [
    ("1 both right", [((1,), found((1, 0.9))), ((), NOTHING)], 0.5, (1, 0, 0, 1), 1.0, 1.0, 1.0),
    ("2 both wrong", [((1,), NOTHING), ((), found((1, 0.9)))], 0.5, (0, 1, 1, 0), 0.0, 0.0, 0.0),
    ("3 a box in the wrong place still calls the image", [((1,), found((2, 0.9)))], 0.5, (1, 0, 0, 0), 1.0, None, 1.0),
    ("4 all healthy", [((), found((1, 0.4)))] * 2, 0.5, (0, 0, 0, 2), None, 1.0, 1.0),
    ("5 a score of 0 calls no image without boxes", [((), NOTHING)], 0.0, (0, 0, 0, 1), None, 1.0, 1.0),
    ("6 no image", [], 0.5, (0, 0, 0, 0), None, None, None),
]


@pytest.mark.parametrize("case", CALL_CASES, ids=[case[0] for case in CALL_CASES])
def test_images_at_an_operating_point(case):
    _, images, score, counts, *expected = case
    result = confusion_counts(units_of(*images), score)
    cells = (result.true_positives, result.false_negatives, result.false_positives, result.true_negatives)
    assert cells == counts
    for value, wanted in zip((result.sensitivity, result.specificity, result.accuracy), expected, strict=True):
        assert np.isnan(value) if wanted is None else value == pytest.approx(wanted)


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
    units = images_of(match_dataset(*random_study(2, ties=True)))
    false_share, true_share = roc_curve(units)
    area = np.sum(np.diff(false_share) * (true_share[1:] + true_share[:-1]) / 2)
    assert area == pytest.approx(auroc(units.score, units.positive))
    assert (false_share[[0, -1]] == [0, 1]).all()


# --- groups, PPV and NPV, AUPRC ---------------------------------------------------------------------------------------


def test_a_group_is_fractured_when_one_of_its_images_is_and_scores_like_its_highest():
    # patient a: fractured .3 and healthy .8; patient b: healthy, no box; patient c: fractured, no box
    records = [record(0, [1], group="a"), record(1, group="a"), record(2, group="b"), record(3, [1], group="c")]
    predictions = {0: found((1, 0.3)), 1: found((5, 0.8)), 2: found(), 3: found()}
    groups = groups_of(match_dataset(dataset(*records), predictions))
    np.testing.assert_allclose(groups.score, [0.8, 0.0, 0.0], rtol=1e-6)
    assert groups.positive.tolist() == [True, False, True]
    calls = confusion_counts(groups, 0.0)  # a group without a box is never called
    assert (calls.true_positives, calls.false_negatives, calls.false_positives, calls.true_negatives) == (1, 1, 0, 1)


def test_the_weight_of_a_group_is_that_of_its_images():
    records = [record(0, [1], group="a"), record(1, group="b"), record(2, group="a")]
    predictions = {0: found((1, 0.9)), 1: found((5, 0.8)), 2: found()}
    groups = groups_of(match_dataset(dataset(*records), predictions))
    calls = confusion_counts(groups, 0.5, np.array([2.0, 3.0, 2.0])[groups.image])
    assert (calls.true_positives, calls.false_positives) == (2, 3)


# (TP, FN, FP, TN), prevalence, PPV, NPV
PREDICTIVE = [
    # Se .9, Sp .8 at 10 %: .09 / (.09 + .18) and .72 / (.72 + .01)
    ((90, 10, 20, 80), 0.1, 1 / 3, 72 / 73),
    # at the data's own prevalence of 1/2 Bayes gives the plain shares: 90/110 and 80/90
    ((90, 10, 20, 80), 0.5, 90 / 110, 80 / 90),
    # nothing is called: PPV is not defined, NPV is 1 - prevalence
    ((0, 10, 0, 10), 0.2, None, 0.8),
    # everything is called: PPV is the prevalence
    ((10, 0, 10, 0), 0.2, 0.2, None),
    ((10, 0, 0, 0), 0.2, None, None),  # no healthy image: no specificity
]


@pytest.mark.parametrize(("cells", "prevalence", "ppv", "npv"), PREDICTIVE)
def test_predictive_values_at_a_stated_prevalence(cells, prevalence, ppv, npv):
    for value, wanted in zip(ConfusionCounts(*cells).predictive_values(prevalence), (ppv, npv), strict=True):
        assert np.isnan(value) if wanted is None else value == pytest.approx(wanted)


def test_plain_predictive_values_and_f1():
    calls = ConfusionCounts(3, 1, 2, 4)
    assert (calls.ppv, calls.npv, calls.f1) == (3 / 5, 4 / 5, 6 / 9)
    nothing = ConfusionCounts(0, 0, 0, 0)
    assert all(np.isnan(value) for value in (nothing.ppv, nothing.npv, nothing.f1, nothing.accuracy))


# scores of positives, scores of negatives, sum of (R_k - R_k-1) P_k
AUPRC_CASES = [
    ([0.9, 0.8], [0.1], 1.0),
    ([0.1], [0.9], 1 / 2),
    ([0.9, 0.3], [0.5], 1 / 2 * 1 + 1 / 2 * 2 / 3),
    ([0.5, 0.5], [0.5, 0.5], 1 / 2),  # one distinct score: the base rate
]


@pytest.mark.parametrize(("positives", "negatives", "expected"), AUPRC_CASES)
def test_auprc(positives, negatives, expected):
    truth = [True] * len(positives) + [False] * len(negatives)
    assert auprc(positives + negatives, truth) == pytest.approx(expected)
    assert np.isnan(auprc([0.5], [False]))


@pytest.mark.parametrize("seed", range(5))
def test_auprc_agrees_with_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth, scores = random.random(200) < 0.3, random.integers(0, 30, 200) / 30
    weights = random.integers(0, 4, 200).astype(float)
    assert auprc(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    assert auprc(scores, truth, weights) == pytest.approx(average_precision_score(truth, scores, sample_weight=weights))


def test_the_curve_of_precision_over_recall_ends_at_the_base_rate():
    units = units_of(((1,), found((1, 0.9))), ((), found((1, 0.4))), ((1,), NOTHING), ((), NOTHING))
    recall, precision = precision_recall_curve(units)
    np.testing.assert_allclose(recall, [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 4])
    assert [len(part) for part in precision_recall_curve(units_of(((), NOTHING)))] == [0, 0]
