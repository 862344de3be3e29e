"""DeLong and McNemar against hand arithmetic, published figures, brute force, scikit-learn and scipy."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from fracture_det.evaluation.significance import delong, mcnemar

# 113 patients with aneurysmal subarachnoid haemorrhage, 41 with a poor and 72 with a good outcome (Turck et al. 2010,
# Intensive Care Medicine 36, 107-115; the data set aSAH of R's package pROC): the WFNS grade from 1 to 5, and the ranks
# (equal values share one) of S100B and NDKA in blood, patient by patient.
WFNS_POOR = "3 2 4 5 5 5 5 2 5 2 1 2 5 4 4 2 5 5 5 2 5 2 5 2 4 5 4 4 1 4 4 2 2 5 5 2 2 5 5 5 5"
WFNS_GOOD = (
    "1 1 1 1 5 1 2 2 1 2 2 1 1 1 2 1 2 1 1 3 4 1 4 1 5 5 1 1 2 4 1 1 2 2 1 2 1 2 2 1 1 1 1 2 1 2 1 1 3 2 4 2 "
    "1 4 1 1 5 4 2 2 1 1 1 3 1 2 2 4 4 1 1 1"
)
S100B_POOR = (
    "9 6 12 8 26 31 29 3 20 5 3 24 22 28 31 16 31 31 31 3 31 18 1 5 14 31 16 31 4 16 9 6 7 14 31 10 31 19 31 31 26"
)
S100B_GOOD = (
    "9 10 6 2 27 13 6 6 2 4 2 5 7 3 13 3 7 9 13 2 12 10 21 5 30 27 12 3 25 27 7 4 5 4 2 9 6 10 11 2 2 5 2 5 4 "
    "12 5 4 20 7 17 3 6 19 3 2 15 23 6 11 4 10 6 3 2 13 11 27 13 11 30 28"
)
NDKA_POOR = (
    "38 25 29 36 4 10 19 44 48 44 44 15 33 40 6 8 31 2 52 40 17 19 23 31 42 27 40 8 50 35 4 13 40 4 12 44 21 "
    "33 46 19 36"
)
NDKA_GOOD = (
    "1 9 7 18 5 35 5 39 30 39 37 47 11 5 24 5 5 51 26 14 14 39 3 7 5 13 28 7 34 45 7 5 24 11 7 28 43 41 16 22 "
    "49 5 37 14 18 18 34 3 37 24 11 18 39 18 22 7 14 18 43 9 24 27 45 20 24 11 43 16 32 41 5 30"
)


def asah(marker):
    poor, good = {"wfns": (WFNS_POOR, WFNS_GOOD), "s100b": (S100B_POOR, S100B_GOOD), "ndka": (NDKA_POOR, NDKA_GOOD)}[
        marker
    ]
    return np.array([int(rank) for rank in f"{poor} {good}".split()])


POOR = np.arange(113) < 41

# What pROC's own tests expect of roc.test(paired, DeLong): A, B, area A, area B, z, p, low, high
PUBLISHED = [
    ("wfns", "s100b", 0.823678861788618, 0.731368563685637, 2.20898359144091, 0.0271757822291882,
     0.0104061769564846, 0.174214419249478),
    ("wfns", "ndka", 0.823678861788618, 0.611957994579946, 2.79777591868904, 0.00514557970691098,
     0.0634011709339876, 0.3600405634833566),
    ("ndka", "s100b", 0.611957994579946, 0.731368563685637, -1.39077002573558, 0.164295175223054,
     -0.2876917446341914, 0.0488706064228094),
]  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED, ids=[f"{case[0]} {case[1]}" for case in PUBLISHED])
def test_delong_gives_the_published_figures(case):
    a, b, *expected = case
    result = delong(asah(a), asah(b), POOR)
    found = (result.auc_a, result.auc_b, result.z, result.p, result.low, result.high)
    assert found == pytest.approx(expected, abs=1e-12)
    assert (result.n_positive, result.n_negative, result.reason) == (41, 72, None)


def test_delong_by_hand():
    # positives 3, 1; negatives 2, 0. A as they are; B swaps 1 and 2.
    # A: placements of positives 1, 1/2; of negatives 1/2, 1: area 3/4. B: 1, 1 and 1, 1: area 1.
    # A - B: positives 0, -1/2, negatives -1/2, 0: mean -1/4, sample variance 1/8 each: 1/8 / 2 + 1/8 / 2 = 1/8
    # z = -.25 / sqrt(.125) = -.70711, p = 2 Phi(-.70711) = .47950
    result = delong([3, 1, 2, 0], [3, 2, 1, 0], [True, True, False, False])
    assert (result.auc_a, result.auc_b, result.difference) == (0.75, 1.0, -0.25)
    assert (result.z, result.p) == pytest.approx((-math.sqrt(0.5), 0.47950), abs=1e-5)
    half = 1.959964 * math.sqrt(0.125)
    assert (result.low, result.high) == pytest.approx((-0.25 - half, -0.25 + half), abs=1e-6)


def brute_force(scores_a, scores_b, positive):
    """Return areas, and variance of their difference, by comparing every pair (DeLong et al. 1988, eq. 4 to 8)."""
    placements = []
    for scores in (scores_a, scores_b):
        above = scores[positive][:, None], scores[~positive][None, :]
        placements.append(np.where(above[0] > above[1], 1.0, np.where(above[0] == above[1], 0.5, 0.0)))
    covariance = np.cov([one.mean(axis=1) for one in placements]) / positive.sum()
    covariance = covariance + np.cov([one.mean(axis=0) for one in placements]) / (~positive).sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return [one.mean() for one in placements], variance


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(6))
def test_delong_is_brute_force_over_all_pairs(seed, decimals):
    random = np.random.default_rng(seed)
    positive = random.random(70) < 0.4
    scores_a = (random.random(70) + 0.3 * positive).round(decimals)
    scores_b = (0.5 * scores_a + 0.5 * random.random(70)).round(decimals)
    (auc_a, auc_b), variance = brute_force(scores_a, scores_b, positive)
    result = delong(scores_a, scores_b, positive)
    assert (result.auc_a, result.auc_b) == pytest.approx((auc_a, auc_b))
    assert result.z == pytest.approx((auc_a - auc_b) / math.sqrt(variance))
    assert auc_a == pytest.approx(roc_auc_score(positive, scores_a))


def test_delong_turned_round():
    one, turned = delong(asah("wfns"), asah("s100b"), POOR), delong(asah("s100b"), asah("wfns"), POOR)
    assert (turned.difference, turned.low, turned.high) == pytest.approx((-one.difference, -one.high, -one.low))
    assert (turned.z, turned.p) == pytest.approx((-one.z, one.p))


# name, scores A, scores B, positives; areas, difference, interval, p, what the reason says
DEGENERATE = [
    ("1 no image", [], [], [], (None, None), None, (None, None), None, "no image"),
    ("2 all fractured", [1, 2], [2, 1], [1, 1], (None, None), None, (None, None), None, "no healthy image"),
    ("3 all healthy", [1, 2], [2, 1], [0, 0], (None, None), None, (None, None), None, "no fractured image"),
    ("4 the same scores", [1, 3, 2], [1, 3, 2], [0, 1, 1], (1, 1), 0, (0, 0), 1, "the same order"),
    ("5 the same order", [1, 3, 2, 0], [5, 9, 8, 5], [0, 1, 1, 0], (1, 1), 0, (0, 0), 1, "the same order"),
    ("6 one fractured", [1, 3, 2], [3, 1, 2], [1, 0, 0], (0, 1), -1, (None, None), None, "only one fractured image"),
    ("7 one healthy", [1, 3, 2], [3, 1, 2], [1, 1, 0], (0.5, 0.5), 0, (None, None), None, "only one healthy image"),
    ("8 best against worst", [3, 4, 1, 2], [1, 2, 3, 4], [1, 1, 0, 0], (1, 0), 1, (None, None), None, "variance"),
    ("9 all tied", [1, 1, 1, 1], [3, 4, 1, 2], [1, 1, 0, 0], (0.5, 1), -0.5, (None, None), None, "variance"),
]


@pytest.mark.parametrize("case", DEGENERATE, ids=[case[0] for case in DEGENERATE])
def test_delong_of_too_little_says_why(case):
    _, a, b, positive, areas, difference, interval, p, reason = case
    result = delong(a, b, positive)
    assert (result.auc_a, result.auc_b) == areas
    assert result.difference == difference
    assert (result.low, result.high) == interval
    assert result.p == p
    assert reason in result.reason


def correct(both, only_a, only_b, neither):
    """Return which of two detectors is correct on each image."""
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    return a, [True] * both + [False] * only_a + [True] * only_b + [False] * neither


# name, (both, only A, only B, neither), p, difference, low, high
MCNEMAR_CASES = [
    # 2 P(X <= 2), X binomial (14, 1/2): 2 (1 + 14 + 91) / 16384; interval: Newcombe 1998, method 10
    ("1 Newcombe", (36, 12, 2, 0), 212 / 16384, 0.2, 0.0569, 0.3404),
    ("2 Newcombe", (18, 12, 2, 18), 212 / 16384, 0.2, 0.0562, 0.3290),
    # 2 P(X <= 0) = 2 / 2^30
    ("3 all to one side", (0, 30, 0, 0), 2 / 2**30, 1.0, 0.8395, 1.0),
    # one to each side: 2 P(X <= 1) = 2 * 3/4 > 1
    ("4 even", (1, 1, 1, 1), 1.0, 0.0, -0.49492, 0.49492),
    # one image in all: 2 * 1/2
    ("5 one discordant image", (0, 0, 1, 0), 1.0, -1.0, -1.0, None),
]


@pytest.mark.parametrize("case", MCNEMAR_CASES, ids=[case[0] for case in MCNEMAR_CASES])
def test_mcnemar(case):
    _, table, p, difference, low, high = case
    result = mcnemar(*correct(*table))
    assert (result.both, result.only_a, result.only_b, result.neither) == table
    assert result.n == sum(table)
    assert result.p == pytest.approx(p)
    assert result.difference == pytest.approx(difference)
    assert result.low == pytest.approx(low, abs=5e-5)
    assert high is None or result.high == pytest.approx(high, abs=5e-5)
    assert result.reason is None


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 9), (100, 70), (700, 655), (40_000, 39_500), (5000, 0)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b).pvalue
    assert mcnemar(*correct(5, only_a, only_b, 5)).p == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_mcnemar_without_a_discordant_image():
    result = mcnemar(*correct(53, 0, 0, 1))
    assert (result.difference, result.p) == (0.0, 1.0)
    assert (result.low, result.high) == pytest.approx((-0.0729, 0.0729), abs=5e-5)  # Newcombe 1998
    assert result.reason == "both are correct on the same images"


def test_mcnemar_without_an_image():
    result = mcnemar([], [])
    assert (result.n, result.difference, result.low, result.high, result.p) == (0, None, None, None, None)
    assert result.reason == "no image to compare on"
