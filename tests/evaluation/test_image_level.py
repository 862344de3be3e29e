"""Image-level figures: numbered cases with the arithmetic beside them, and scikit-learn as the judge."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fracture_det.evaluation.image_level import auroc, call_counts, images_of, roc_curve
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
    result = call_counts(units_of(*images), score)
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
