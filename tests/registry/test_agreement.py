"""How far two detectors agree: by hand, and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fracture_det.registry.agreement import Boxes, Said, agree, cohens_kappa, match_boxes

LEVELS = ("likely", "possible", "none seen")


def said(level, score=0.0, *boxes):
    return Said(level, score, np.array(boxes, dtype=float).reshape(-1, 4))


def test_kappa_is_that_of_scikit_learn():
    random = np.random.default_rng(3)
    first = random.choice(LEVELS, 200)
    second = np.where(random.random(200) < 0.6, first, random.choice(LEVELS, 200))
    counts = {}
    for pair in zip(first.tolist(), second.tolist(), strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    assert cohens_kappa(counts) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_kappa_of_one_level_alone_is_not_defined():
    assert cohens_kappa({("likely", "likely"): 7}) is None
    # Chance alone: po = .5, pe = .5.
    assert cohens_kappa({(a, b): 1 for a in "xy" for b in "xy"}) == 0


def test_boxes_are_matched_one_to_one_from_the_best_overlap_down():
    served = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]], float)
    # IoU with the first two: 1 and .8; the second finds its only partner taken. The last: 5 / 15.
    shadow = np.array([[0, 0, 10, 10], [55, 50, 65, 60]], float)
    assert match_boxes(served, shadow) == Boxes(both=1, served=2, shadow=1)
    assert match_boxes(served, np.empty((0, 4))) == Boxes(0, 3, 0)
    half = np.array([[0, 0, 10, 5]], float)
    assert match_boxes(served[:1], half) == Boxes(both=1)  # an IoU of exactly .5


def test_figures_by_hand():
    pairs = [
        (said("likely", 0.9, (0, 0, 10, 10)), said("likely", 0.7, (0, 0, 10, 10))),
        (said("possible", 0.3, (0, 0, 10, 10)), said("none seen", 0.1)),
        (said("none seen", 0.0), said("none seen", 0.0)),
        (said("none seen", 0.0), said("likely", 0.8, (5, 5, 9, 9), (20, 20, 30, 30))),
    ]
    found = agree("new", "old", pairs, calibrated=False)
    assert (found.n, found.agreement, found.boxes) == (4, 0.5, Boxes(both=1, served=1, shadow=2))
    # Shadow minus served: -.2, -.2, 0, .8.
    assert (found.score_mean, found.score_median) == (pytest.approx(0.1), pytest.approx(-0.1))
    # po = .5; pe = (1 x 2 + 1 x 0 + 2 x 2) / 16 = .375.
    assert found.kappa == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    text = "\n".join(found.lines())
    assert "new in the shadow of old: 4 radiographs" in text
    assert "same level: 50.0%; Cohen's kappa: 0.200" in text
    assert "(not both are probabilities)" in text
    assert "| none seen | 1 | 1 | 0 |" in text
