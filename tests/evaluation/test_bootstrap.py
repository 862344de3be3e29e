import math
import threading
import time
import weakref
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import bootstrap

from fracture_det.evaluation import bootstrap as module
from fracture_det.evaluation.bootstrap import bootstrap_intervals, paired_bootstrap
from fracture_det.structures.intervals import quantile


def share(positive):
    return lambda weights: {"share": float(weights @ positive / weights.sum())}


def test_groups_that_agree_have_no_width():
    # each of four groups holds one positive of two
    result = bootstrap_intervals(share(np.array([1, 0] * 4)), np.repeat(np.arange(4), 2), n_bootstrap=200, seed=0)[
        "share"
    ]
    assert (result.value, result.low, result.high) == (0.5, 0.5, 0.5)


def test_two_groups_that_differ_span_everything():
    # AA, AB, BA, BB come with 1/4 each, so that 0 and 1 both lie inside 95 %
    result = bootstrap_intervals(share(np.array([1, 1, 0, 0])), np.array([0, 0, 1, 1]), n_bootstrap=400, seed=0)[
        "share"
    ]
    assert (result.value, result.low, result.high) == (0.5, 0.0, 1.0)


def test_the_width_is_that_of_the_normal_approximation():
    positive = (np.arange(400) % 10 < 3).astype(float)  # p = .3, n = 400
    result = bootstrap_intervals(share(positive), np.arange(400), n_bootstrap=2000, seed=3)["share"]
    expected = 2 * 1.96 * math.sqrt(0.3 * 0.7 / 400)  # .0898
    assert result.high - result.low == pytest.approx(expected, rel=0.1)


def test_images_of_one_group_widen_the_interval():
    positive = np.repeat(np.arange(40) % 10 < 3, 10).astype(float)
    together = bootstrap_intervals(share(positive), np.repeat(np.arange(40), 10), n_bootstrap=1000, seed=3)["share"]
    apart = bootstrap_intervals(share(positive), np.arange(400), n_bootstrap=1000, seed=3)["share"]
    # ten equal images say no more than one: sqrt(10) = 3.2 times as wide
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(math.sqrt(10), rel=0.15)


def test_the_seed_decides():
    positive = np.arange(50) % 3 == 0
    one, same, other = (
        bootstrap_intervals(share(positive), np.arange(50), n_bootstrap=50, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_resamples_without_a_value_are_counted_and_left_out():
    def precision_of_first(weights):
        return {"x": 1.0 if weights[0] else math.nan}

    result = bootstrap_intervals(precision_of_first, np.arange(2), n_bootstrap=1000, seed=0)["x"]
    assert (result.low, result.high) == (1.0, 1.0)
    assert result.undefined == pytest.approx(250, abs=60)  # the first of two groups is drawn in 3 of 4


@pytest.mark.parametrize(("n_groups", "n_bootstrap"), [(1, 100), (0, 100), (5, 0)])
def test_no_interval_from_one_group_or_no_resample(n_groups, n_bootstrap):
    result = bootstrap_intervals(
        lambda weights: {"n": weights.sum()}, np.arange(n_groups), n_bootstrap=n_bootstrap, seed=0
    )["n"]
    assert result.value == n_groups
    assert math.isnan(result.low)
    assert math.isnan(result.high)


SKEWED = np.random.default_rng(5).exponential(size=30)
FOUND = np.arange(30) < 26


def weighted_mean(values, weights):
    return float(weights @ values / weights.sum())


def weighted_spread(values, weights):
    return math.sqrt(weighted_mean((values - weighted_mean(values, weights)) ** 2, weights))


# figure: weighted, plain, values, tolerance as a share of the width (two sets of resamples)
JUDGED = {
    "skewed": (weighted_mean, np.mean, SKEWED, 0.015),
    "leaning and skewed": (weighted_spread, np.std, SKEWED, 0.015),
    "tied": (weighted_mean, np.mean, FOUND.astype(float), 0.015),
}


@pytest.mark.parametrize("name", JUDGED)
def test_limits_are_those_of_scipy(name):
    # scipy does not widen for few groups: t_29 = 2.0452 for z = 1.9600, times sqrt(30 / 29), is its z = 2.0802,
    # which is its level 2 Phi(2.0802) - 1 = .96249
    weighted, plain, values, tolerance = JUDGED[name]
    options = {"n_resamples": 40_000, "method": "BCa", "confidence_level": 0.96249}
    judge = bootstrap((values,), plain, rng=np.random.default_rng(1), **options)
    mine = bootstrap_intervals(
        lambda weights: {"x": weighted(values, weights)}, np.arange(30), n_bootstrap=40_000, seed=2
    )["x"]
    low, high = judge.confidence_interval
    width = high - low
    assert (mine.low, mine.high) == pytest.approx((low, high), abs=tolerance * width)
    plain_low, plain_high = np.percentile(judge.bootstrap_distribution, (1.8755, 98.1245))
    assert abs(low - plain_low) + abs(high - plain_high) > 0.05 * width  # the plain percentile interval is another one


# G groups: t with G - 1 degrees of freedom (tables, 97.5 %) / 1.95996 * sqrt(G / (G - 1))
@pytest.mark.parametrize(("n_groups", "factor"), [(10, 1.2166), (30, 1.0613), (1000, 1.0017)])
def test_few_groups_widen_the_interval(n_groups, factor, monkeypatch):
    values = np.random.default_rng(8).normal(size=n_groups)

    def mean(weights):
        return {"mean": float(weights @ values / weights.sum())}

    wide = bootstrap_intervals(mean, np.arange(n_groups), n_bootstrap=20_000, seed=2)["mean"]
    monkeypatch.setattr(
        module, "t_quantile", lambda degrees, level: quantile(level) * math.sqrt(degrees / (degrees + 1))
    )
    plain = bootstrap_intervals(mean, np.arange(n_groups), n_bootstrap=20_000, seed=2)["mean"]
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(factor, rel=0.02)


def test_blocks_of_many_groups_give_about_the_interval_of_single_groups(monkeypatch):
    values = np.random.default_rng(5).exponential(size=400)

    def mean(weights):
        return {"mean": float(weights @ values / weights.sum())}

    blocks = bootstrap_intervals(mean, np.arange(400), n_bootstrap=4000, seed=2)["mean"]
    monkeypatch.setattr(module, "MAX_BLOCKS", 400)
    single = bootstrap_intervals(mean, np.arange(400), n_bootstrap=4000, seed=2)["mean"]
    assert (blocks.low, blocks.high) == pytest.approx((single.low, single.high), abs=0.03 * (single.high - single.low))


def test_a_figure_at_its_end_has_no_width():
    # every image is found in every resample: the bootstrap cannot know more, Wilson's interval can
    result = bootstrap_intervals(share(np.ones(20)), np.arange(20), n_bootstrap=100, seed=0)["share"]
    assert (result.value, result.low, result.high, result.undefined) == (1.0, 1.0, 1.0, 0)


def test_a_figure_that_is_not_defined_has_no_interval():
    result = bootstrap_intervals(lambda weights: {"x": math.nan}, np.arange(5), n_bootstrap=20, seed=0)["x"]
    assert math.isnan(result.value)
    assert math.isnan(result.low)


@pytest.mark.parametrize(("n_threads", "most_kept"), [(1, 2), (3, 2 * 3 + 2 + 3)])
def test_few_sets_of_weights_are_kept(n_threads, most_kept, monkeypatch):
    monkeypatch.setattr(module, "THREADS_FROM", 0)
    monkeypatch.setattr(module, "available_cpus", lambda: n_threads)
    seen, most, lock = [], [], threading.Lock()

    def count(weights):
        with lock:
            seen.append(weakref.ref(weights))
            most.append(sum(one() is not None for one in seen))
        return {"n": float(weights.sum())}

    bootstrap_intervals(count, np.arange(30), n_bootstrap=50, seed=0)
    assert len(most) == 1 + 50 + 30  # the data, the resamples, and without each group
    assert max(most) <= most_kept  # in one thread: the last and this; in threads: waiting and just done


def test_threads_change_nothing(monkeypatch):
    positive, group = np.arange(90) % 7 < 4, np.arange(90) // 2

    def slow_when_even(weights):
        time.sleep(0.002 if weights[0] % 2 == 0 else 0)  # so that threads overtake each other
        return share(positive)(weights)

    alone = bootstrap_intervals(slow_when_even, group, n_bootstrap=60, seed=0)
    used = set()
    monkeypatch.setattr(module, "THREADS_FROM", 90)
    monkeypatch.setattr(module, "available_cpus", lambda: 3)

    def noted(weights):
        used.add(threading.get_ident())
        return slow_when_even(weights)

    assert bootstrap_intervals(noted, group, n_bootstrap=60, seed=0) == alone
    assert len(used) == 1 + 3  # the first call is made by the caller


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(module, "THREADS_FROM", 0)
    monkeypatch.setattr(module, "available_cpus", lambda: 2)

    def broken(weights):
        if weights.max() > 1:
            raise ValueError("an image came twice")
        return {"x": 1.0}

    with pytest.raises(ValueError, match="an image came twice"):
        bootstrap_intervals(broken, np.arange(30), n_bootstrap=50, seed=0)


# --- two detectors on the same images --------------------------------------------------------------------------------


def paired(first, other, group, **options):
    return paired_bootstrap(
        {"first": share(first), "other": share(other)}, group, **{"n_bootstrap": 400, "seed": 4, **options}
    )


def test_each_detector_is_measured_as_if_alone():
    random = np.random.default_rng(0)
    first, other, group = random.random(60) < 0.8, random.random(60) < 0.6, np.arange(60) // 2
    result = paired(first, other, group)
    for name, positive in (("first", first), ("other", other)):
        assert result.results[name] == bootstrap_intervals(share(positive), group, n_bootstrap=400, seed=4)
    assert list(result.differences) == ["other"]


def test_a_detector_does_not_differ_from_itself():
    positive = np.arange(60) % 3 == 0
    result = paired(positive, positive, np.arange(60)).differences["other"]["share"]
    assert (result.value, result.low, result.high, result.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_difference_that_every_resample_shows():
    # the first is right on all, the other on one of two images in each group: 1 - .5 in every resample
    result = paired(np.ones(40), np.arange(40) % 2, np.arange(40) // 2).differences["other"]["share"]
    assert (result.value, result.low, result.high) == (0.5, 0.5, 0.5)
    # none of 400 resamples is beyond 0: Phi^-1(1 / 401) = -2.8074; 20 groups widen by 2.0930 / 1.95996 sqrt(20 / 19)
    # = 1.0956: 2 Phi(-2.5624) = .01039
    assert result.p == pytest.approx(0.01039, abs=2e-5)


def test_the_difference_of_agreeing_detectors_is_sharper_than_each():
    random = np.random.default_rng(1)
    first = random.random(300) < 0.6
    other = np.where(random.random(300) < 0.05, ~first, first)
    result = paired(first, other, np.arange(300))
    one, difference = result.results["first"]["share"], result.differences["other"]["share"]
    # Var(d) = share that disagree - d^2 = .05 against .24 + .24 if unpaired
    assert difference.high - difference.low < 0.6 * (one.high - one.low)


def test_p_is_below_a_twentieth_exactly_when_the_interval_leaves_out_zero():
    # with 399 resamples p changes in steps of .005: none of the 150 studies lies nearer to .05
    agreed, small = 0, 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        first, other = random.random((2, 60)) < 0.5
        one = paired(first, other, np.arange(60), n_bootstrap=399, seed=seed).differences["other"]["share"]
        agreed += (one.p < 0.05) == (one.low > 0 or one.high < 0) or abs(one.p - 0.05) < 0.01
        small += one.p < 0.05
    assert agreed == 150
    assert 1 <= small <= 18  # expected 7.5; binomial: P(0) = .0005, P(> 18) = .0003


def test_turned_round_the_difference_is_turned_and_p_is_the_same():
    random = np.random.default_rng(3)
    first, other = random.random(80) < 0.7, random.random(80) < 0.6
    one = paired(first, other, np.arange(80)).differences["other"]["share"]
    turned = paired(other, first, np.arange(80)).differences["other"]["share"]
    assert (turned.value, turned.low, turned.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert turned.p == pytest.approx(one.p)


def test_a_resample_counts_only_where_both_are_defined():
    def of(image):
        return lambda weights: {"x": 1.0 if weights[image] else math.nan}

    result = paired_bootstrap({"a": of(0), "b": of(1)}, np.arange(2), n_bootstrap=1000, seed=0)
    # two draws of two groups: both come in 2 of 4
    assert result.differences["b"]["x"].undefined == pytest.approx(500, abs=70)
    assert result.results["a"]["x"].undefined == pytest.approx(250, abs=60)


@pytest.mark.parametrize(("group", "n_bootstrap"), [(np.zeros(4, int), 100), (np.arange(4), 0)])
def test_no_p_from_one_group_or_no_resample(group, n_bootstrap):
    result = paired(np.ones(4), np.zeros(4), group, n_bootstrap=n_bootstrap).differences["other"]["share"]
    assert result.value == 1.0
    assert math.isnan(result.low)
    assert math.isnan(result.p)


def test_one_sided_bounds_are_the_ends_of_the_two_sided_interval_of_90_percent():
    random = np.random.default_rng(5)
    values = random.normal(0.1, 1, 400)
    zero = np.zeros(400)
    detectors = {
        name: lambda weights, one=one: {"mean": float(weights @ one / weights.sum())}
        for name, one in (("first", values), ("other", zero))
    }
    found = paired_bootstrap(detectors, np.arange(400), n_bootstrap=4000, seed=0).differences["other"]["mean"]
    error = values.std() / 20
    # A normal mean of 400: 1.645 standard errors on each side; p is that of its distance from 0.
    assert found.lower == pytest.approx(values.mean() - 1.645 * error, abs=0.1 * error)
    assert found.upper == pytest.approx(values.mean() + 1.645 * error, abs=0.1 * error)
    assert found.low < found.lower
    assert found.p_above == pytest.approx(1 - NormalDist().cdf(values.mean() / error), abs=0.01)


def test_one_that_does_not_differ_is_not_above():
    detectors = dict.fromkeys(("first", "other"), share(np.arange(50) % 3 == 0))
    found = paired_bootstrap(detectors, np.arange(50), n_bootstrap=100, seed=0).differences["other"]["share"]
    assert (found.lower, found.upper, found.p_above) == (0.0, 0.0, 1.0)
