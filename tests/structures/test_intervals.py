"""Intervals of proportions against hand arithmetic, published figures and a root finder."""

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import binom, t

from fracture_det.structures.intervals import paired_difference, quantile, t_quantile, wilson

Z = 1.959963984540054  # standard normal, 97.5 %

# name, count, n, low, high
WILSON_CASES = [
    # (2 n p + z^2 -+ z sqrt(z^2 + 4 n p q)) / (2 (n + z^2)), z^2 = 3.8415
    ("1 half of four", 2, 4, 0.1500, 0.8500),  # (4 + 3.8415 -+ 1.96 sqrt(7.8415)) / 15.683 = .5 -+ .34996
    ("2 none of four", 0, 4, 0.0, 0.4899),  # z^2 / (n + z^2) = 3.8415 / 7.8415
    ("3 all of four", 4, 4, 0.5101, 1.0),  # n / (n + z^2) = 4 / 7.8415
    ("4 one of one", 1, 1, 0.2065, 1.0),  # 1 / 4.8415
    # Newcombe 1998, Statistics in Medicine 17, 857-872, method 3
    ("5 Newcombe 81 of 263", 81, 263, 0.2553, 0.3662),
    ("6 Newcombe 15 of 148", 15, 148, 0.0624, 0.1605),
    ("7 Newcombe 0 of 20", 0, 20, 0.0, 0.1611),
    ("8 Newcombe 1 of 29", 1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize("case", WILSON_CASES, ids=[case[0] for case in WILSON_CASES])
def test_wilson(case):
    _, count, n, low, high = case
    assert wilson(count, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_without_a_case_is_none():
    assert wilson(0, 0) == (None, None)


@pytest.mark.parametrize(("count", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(count, n):
    with pytest.raises(ValueError, match=f"expected 0 to n = 3, got {count}"):
        wilson(count, n)


@pytest.mark.parametrize("n", [1, 7, 40, 3000])
def test_wilson_never_leaves_zero_to_one_nor_the_proportion(n):
    for count in range(0, n + 1, max(1, n // 50)):
        low, high = wilson(count, n)
        assert 0 <= low <= count / n <= high <= 1
    assert wilson(0, n)[0] == 0
    assert wilson(n, n)[1] == 1


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_wilson_limits_are_where_the_score_test_just_rejects(level):
    # the definition, solved by another means: |p^ - p| = z sqrt(p (1 - p) / n)
    low, high = wilson(37, 120, level)

    def score(p):
        return (37 / 120 - p) / math.sqrt(p * (1 - p) / 120)

    z = quantile(level)
    assert low == pytest.approx(brentq(lambda p: score(p) - z, 1e-6, 37 / 120))
    assert high == pytest.approx(brentq(lambda p: score(p) + z, 37 / 120, 1 - 1e-6))


def test_wilson_covers_about_as_often_as_it_says():
    # exact cover at n = 80, mean over p = .05 to .95: sum of the binomial probabilities whose interval holds p
    limits = [wilson(count, 80) for count in range(81)]
    cover = [
        sum(binom.pmf(count, 80, p) for count, (low, high) in enumerate(limits) if low <= p <= high)
        for p in [0.05 + 0.01 * step for step in range(91)]
    ]
    assert sum(cover) / len(cover) == pytest.approx(0.95, abs=0.005)


def test_the_quantile_is_the_usual_one():
    assert quantile() == pytest.approx(Z, abs=1e-12)


@pytest.mark.parametrize("degrees", [3, 4, 9, 29, 500, 10**6])
def test_the_quantile_of_student_s_t(degrees):
    assert t_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=0.0005 if degrees > 3 else 0.002)


def test_the_quantile_of_very_few_degrees_of_freedom_is_too_small_but_large():
    assert 6 < t_quantile(1) < t.ppf(0.975, 1)
    assert 4 < t_quantile(2) < t.ppf(0.975, 2)


# name, (both, only A, only B, neither), low, high
PAIRED_CASES = [
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650, his examples of method 10
    ("1 Newcombe", (36, 12, 2, 0), 0.0569, 0.3404),
    ("2 Newcombe", (18, 12, 2, 18), 0.0562, 0.3290),
    ("3 Newcombe, no discordant case", (53, 0, 0, 1), -0.0729, 0.0729),
    ("4 Newcombe, all discordant", (0, 30, 0, 0), 0.8395, 1.0),
    # By hand: 2 of 4 each, Wilson .5 -+ .34996; phi = (1 - 1) / 4 = 0: 0 -+ sqrt(2) .34996
    ("5 no correlation", (1, 1, 1, 1), -0.49492, 0.49492),
    # phi = (0 - 2 * 2) / sqrt(2^4) = -1: 0 -+ 2 * .34996
    ("6 always opposed", (0, 2, 2, 0), -0.69992, 0.69992),
    # phi numerator 2 * 2 - 0 - 4 / 2 = 2, over sqrt(2^4) = .5: 0 -+ sqrt(2 - 2 * .5) .34996
    ("7 always agreed", (2, 0, 0, 2), -0.34996, 0.34996),
]


@pytest.mark.parametrize("case", PAIRED_CASES, ids=[case[0] for case in PAIRED_CASES])
def test_difference_of_paired_proportions(case):
    _, table, low, high = case
    assert paired_difference(*table) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("table", [(36, 12, 2, 0), (5, 0, 9, 3), (1, 7, 0, 0)])
def test_the_other_way_round_the_difference_is_turned(table):
    both, only_a, only_b, neither = table
    low, high = paired_difference(both, only_a, only_b, neither)
    assert paired_difference(both, only_b, only_a, neither) == pytest.approx((-high, -low))


def test_no_difference_without_a_case():
    assert paired_difference(0, 0, 0, 0) == (None, None)
