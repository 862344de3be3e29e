"""How readers agree, against other implementations and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fracture_det.evaluation.reader_agreement import box_agreement, cohen_kappa, fleiss_kappa, reader_agreement

BOX, NEAR, FAR = (10, 10, 50, 50), (14, 10, 54, 50), (35, 10, 75, 50)


@pytest.mark.parametrize("counts", [(20, 5, 10, 15), (1, 0, 0, 99), (0, 3, 4, 0), (7, 7, 7, 7)])
def test_cohens_kappa_is_that_of_scikit_learn(counts):
    first = np.repeat([1, 1, 0, 0], counts)
    second = np.repeat([1, 0, 1, 0], counts)
    assert cohen_kappa(counts) == pytest.approx(cohen_kappa_score(first, second))


def test_cohens_kappa_by_hand():
    # 50 images: po = 35 / 50; the first finds 25 fractured, the second 30: pe = .5 x .6 + .5 x .4 = .5; (.7 - .5) / .5
    assert cohen_kappa((20, 5, 10, 15)) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa((9, 0, 0, 0)))
    assert math.isnan(cohen_kappa((0, 0, 0, 0)))


def test_fleiss_kappa_with_equal_numbers_is_the_formula_of_1971():
    positive, m = np.array([0.0, 1, 2, 3, 3, 0, 2]), 3.0
    table = np.stack([positive, m - positive], axis=1)
    agreement = ((table**2).sum(axis=1) - m) / (m * (m - 1))
    share = table.sum(axis=0) / table.sum()
    expected = (agreement.mean() - (share**2).sum()) / (1 - (share**2).sum())
    assert fleiss_kappa(positive, np.full(7, m)) == pytest.approx(expected)


def test_fleiss_kappa_with_unequal_numbers_by_hand():
    # x / m: 2/2, 0/2, 2/4; n = 3, mean m = 8/3, p = q = 1/2; within = 0 + 0 + 2 x 2 / 4 = 1
    # 1 - 1 / (3 x 5/3 x 1/4) = .2
    assert fleiss_kappa(np.array([2.0, 0, 2]), np.array([2.0, 2, 4])) == pytest.approx(0.2)
    assert math.isnan(fleiss_kappa(np.array([2.0, 3]), np.array([2.0, 3])))


def test_boxes_agree_by_twice_the_pairs_over_all_boxes():
    assert box_agreement(3, 10) == 0.6
    assert math.isnan(box_agreement(0, 0))


def test_readers_are_compared_in_pairs_and_all_together_on_the_images_that_they_share():
    images = [
        {"anna": [BOX], "ben": [NEAR]},
        {"anna": [BOX], "ben": [FAR], "eve": [BOX]},
        {"anna": [], "ben": [], "eve": [BOX]},
        {"anna": [], "ben": [BOX]},
        {"anna": [BOX]},  # nobody to compare with
    ]
    found = reader_agreement(images, n_bootstrap=200)
    assert found.n_images == 4
    pairs = {pair.readers: pair for pair in found.pairs}
    assert pairs["anna", "ben"].counts == (2, 0, 1, 1)
    assert pairs["anna", "ben"].n_boxes == 5
    assert pairs["anna", "ben"].boxes.value == pytest.approx(2 / 5)
    assert pairs["anna", "ben"].kappa.value == pytest.approx(0.5)  # po = 3/4, pe = 1/2 x 3/4 + 1/2 x 1/4
    assert pairs["anna", "eve"].counts == (1, 0, 1, 0)
    assert pairs["ben", "eve"].n_boxes == 3
    # anna, ben: 1 pair of 5 boxes; anna, eve: 1 of 3; ben, eve: 0 of 3
    assert found.boxes.value == pytest.approx(2 * 2 / 11)
    assert found.fleiss.value == pytest.approx(fleiss_kappa(np.array([2.0, 3, 1, 1]), np.array([2.0, 3, 3, 2])))
    assert found.boxes.low <= found.boxes.value <= found.boxes.high


def test_an_interval_covers_more_with_more_images():
    def width(copies):
        rng = np.random.default_rng(0)
        images = [{"a": [BOX] * int(rng.random() < 0.5), "b": [BOX] * int(rng.random() < 0.5)} for _ in range(copies)]
        kappa = reader_agreement(images, n_bootstrap=200).pairs[0].kappa
        return kappa.high - kappa.low

    assert width(40) > 1.5 * width(400)


@pytest.mark.parametrize("images", [[], [{}], [{"anna": [BOX]}]])
def test_without_two_readers_nothing_is_defined(images):
    found = reader_agreement(images)
    assert (found.n_images, found.pairs) == (0, ())
    assert math.isnan(found.fleiss.value)
    assert math.isnan(found.boxes.value)


def test_one_image_has_no_interval():
    found = reader_agreement([{"anna": [BOX], "ben": [BOX]}])
    assert found.boxes.value == 1.0
    assert math.isnan(found.boxes.low)
