import math

import numpy as np
import pytest

from fracture_det.evaluation.bootstrap import measure


def share(positive):
    return lambda weights: {"share": float(weights @ positive / weights.sum())}


def test_groups_that_agree_have_no_width():
    # each of four groups holds one positive of two
    result = measure(share(np.array([1, 0] * 4)), np.repeat(np.arange(4), 2), n_bootstrap=200, seed=0)["share"]
    assert (result.value, result.low, result.high) == (0.5, 0.5, 0.5)


def test_two_groups_that_differ_span_everything():
    # AA, AB, BA, BB come with 1/4 each, so that 0 and 1 both lie inside 95 %
    result = measure(share(np.array([1, 1, 0, 0])), np.array([0, 0, 1, 1]), n_bootstrap=400, seed=0)["share"]
    assert (result.value, result.low, result.high) == (0.5, 0.0, 1.0)


def test_the_width_is_that_of_the_normal_approximation():
    positive = (np.arange(400) % 10 < 3).astype(float)  # p = .3, n = 400
    result = measure(share(positive), np.arange(400), n_bootstrap=2000, seed=3)["share"]
    expected = 2 * 1.96 * math.sqrt(0.3 * 0.7 / 400)  # .0898
    assert result.high - result.low == pytest.approx(expected, rel=0.1)


def test_images_of_one_group_widen_the_interval():
    positive = np.repeat(np.arange(40) % 10 < 3, 10).astype(float)
    together = measure(share(positive), np.repeat(np.arange(40), 10), n_bootstrap=1000, seed=3)["share"]
    apart = measure(share(positive), np.arange(400), n_bootstrap=1000, seed=3)["share"]
    # ten equal images say no more than one: sqrt(10) = 3.2 times as wide
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(math.sqrt(10), rel=0.15)


def test_the_seed_decides():
    positive = np.arange(50) % 3 == 0
    one, same, other = (measure(share(positive), np.arange(50), n_bootstrap=50, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_resamples_without_a_value_are_counted_and_left_out():
    def precision_of_first(weights):
        return {"x": 1.0 if weights[0] else math.nan}

    result = measure(precision_of_first, np.arange(2), n_bootstrap=1000, seed=0)["x"]
    assert (result.low, result.high) == (1.0, 1.0)
    assert result.undefined == pytest.approx(250, abs=60)  # the first of two groups is drawn in 3 of 4


@pytest.mark.parametrize(("n_groups", "n_bootstrap"), [(1, 100), (0, 100), (5, 0)])
def test_no_interval_from_one_group_or_no_resample(n_groups, n_bootstrap):
    result = measure(lambda weights: {"n": weights.sum()}, np.arange(n_groups), n_bootstrap=n_bootstrap, seed=0)["n"]
    assert result.value == n_groups
    assert math.isnan(result.low)
    assert math.isnan(result.high)
