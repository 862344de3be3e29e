"""The statistic, its thresholds, windows of days, and what an alarm is about."""

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwobign

from fracture_det.monitoring.counts import Counts, count, total
from fracture_det.monitoring.drift import UNKNOWN, Rule, distance, fitted_mix, statistic, thresholds_of
from fracture_det.monitoring.features import FEATURES, INPUTS, bins_of
from fracture_det.monitoring.reference import Reference, make_reference
from fracture_det.monitoring.windows import windows_of
from tests.monitoring.cases import OTHER_SHA, QUICK, SHA, drawn_counts, drawn_days, drawn_reference


@pytest.fixture(scope="module")
def reference() -> Reference:
    return drawn_reference()


def test_the_distance_is_that_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.normal(100, 20, 80), rng.normal(110, 20, 300)
    bins = [count([{"grey": value} for value in values]).bins["grey"] for values in (first, second)]
    expected = ks_2samp(bins_of("grey", first), bins_of("grey", second)).statistic
    assert distance(*bins) == pytest.approx(expected, abs=1e-12)
    assert statistic(*bins) == pytest.approx(expected * math.sqrt(80 * 300 / 380))


def test_without_radiographs_nothing_differs():
    empty, some = Counts().bins["grey"], count([{"grey": 50}]).bins["grey"]
    assert statistic(empty, some) == statistic(some, empty) == 0


@pytest.fixture(scope="module")
def even() -> Counts:
    """Counts of one feature alone, whose bins are all alike."""
    return count([{"grey": value} for value in np.linspace(0, 256, 640, endpoint=False)])


def test_thresholds_of_single_images_are_kolmogorovs(even):
    """A little lower: the largest distance may lie within a bin, and samples are finite."""
    found = thresholds_of(even, Rule(rate=0.05, images_per_visit=1, draws=4000))["grey"]
    limit = kstwobign.isf(0.05 / len(FEATURES))
    assert 0.9 * limit < found < 1.03 * limit


def test_images_that_are_wholly_alike_need_a_higher_threshold(even):
    one, two = (thresholds_of(even, Rule(images_per_visit=n, draws=4000))["grey"] for n in (1, 2))
    assert two == pytest.approx(math.sqrt(2) * one, rel=0.1)


def test_a_feature_that_the_reference_does_not_know_is_no_alarm():
    known = count([{"grey": float(value)} for value in np.random.default_rng(0).normal(100, 20, 200)])
    made = make_reference(SHA, "", known, rule=QUICK)
    assert made.thresholds["noise"] == UNKNOWN
    [window], _ = windows_of(drawn_days(np.random.default_rng(0), [120]), made)
    assert "noise" not in window.alarms


def test_a_rare_value_of_a_constant_is_no_alarm():
    constant = make_reference(SHA, "", count([{"size": 0.1}] * 300), rule=QUICK)
    few = count([{"size": 0.1}] * 97 + [{"size": 3.0}] * 3)
    many = count([{"size": 0.1}] * 50 + [{"size": 3.0}] * 50)
    assert statistic(few.bins["size"], constant.counts.bins["size"]) < constant.thresholds["size"]
    assert statistic(many.bins["size"], constant.counts.bins["size"]) > constant.thresholds["size"]


class TestWindows:
    def test_a_window_is_the_fewest_whole_days_with_enough(self, reference):
        days = drawn_days(np.random.default_rng(1), [40, 40, 40, 150, 60])
        windows, waiting = windows_of(days, reference)
        assert [(window.first, window.last, window.counts.images) for window in windows] == [
            ("2026-01-05", "2026-01-07", 120),
            ("2026-01-08", "2026-01-08", 150),
        ]
        assert waiting.images == 60

    def test_no_window_has_two_detectors(self, reference):
        rng = np.random.default_rng(1)
        days = drawn_days(rng, [60, 40]) + drawn_days(rng, [60, 60], sha256=OTHER_SHA, start="2026-01-06")
        windows, waiting = windows_of(days, reference)
        found = [({day.model_sha256 for day in window.days}, window.first, window.last) for window in windows]
        assert found == [({SHA}, "2026-01-05", "2026-01-06"), ({OTHER_SHA}, "2026-01-06", "2026-01-07")]
        assert waiting.images == 0

    def test_outputs_are_compared_with_those_of_the_same_detector_alone(self, reference):
        rng = np.random.default_rng(1)
        [same], _ = windows_of(drawn_days(rng, [120]), reference)
        [other], _ = windows_of(drawn_days(rng, [120], sha256=OTHER_SHA), reference)
        assert set(same.statistics) == set(FEATURES)
        assert set(other.statistics) == set(INPUTS)


class TestAlarms:
    def test_none_without_a_change(self, reference):
        windows, _ = windows_of(drawn_days(np.random.default_rng(2), [120] * 8), reference)
        assert [window.kinds for window in windows] == [()] * 8

    @pytest.mark.parametrize(("feature", "kind"), [("noise", "input"), ("grey", "input"), ("score", "output")])
    def test_a_shift_is_an_alarm_that_names_it(self, reference, feature, kind):
        [window], _ = windows_of(drawn_days(np.random.default_rng(2), [120], **{feature: 2}), reference)
        assert window.kinds == (kind,)
        assert feature in window.alarms
        assert window.ratio(reference) > 1

    @pytest.mark.parametrize(("corrected", "kinds"), [(9, ()), (30, ("readers",))])
    def test_readers_who_correct_more_than_before(self, reference, corrected, kinds):
        # Of 100, 20 before: 11.7 to 32.1 % at the level .99. Of 40 now, 9: 10.2 to 42.6 %; 30: 54.6 to 88.2 %.
        days = drawn_days(np.random.default_rng(2), [120], judged=40, corrected=corrected)
        [window], _ = windows_of(days, reference)
        assert window.kinds == kinds


@pytest.fixture(scope="module")
def parted() -> Reference:
    rng = np.random.default_rng(0)
    parts = {"hand": drawn_counts(rng, 300), "hip": drawn_counts(rng, 150, grey=4, size=3, border=2)}
    return make_reference(SHA, "", total(parts.values()), parts, QUICK)


class TestMix:
    def test_the_shares_of_a_mixture_are_found(self, parted):
        rng = np.random.default_rng(1)
        window = drawn_counts(rng, 80) + drawn_counts(rng, 320, grey=4, size=3, border=2)
        shares = fitted_mix(window, parted.strata, INPUTS)
        assert shares["hip"] == pytest.approx(0.8, abs=0.05)
        assert sum(shares.values()) == pytest.approx(1)

    def test_more_hips_are_another_mix_and_no_other_scanner(self, parted):
        [window], _ = windows_of(drawn_days(np.random.default_rng(1), [150], grey=4, size=3, border=2), parted)
        assert window.kinds == ("mix",)
        assert window.mix["hip"] > 0.95

    def test_noise_is_explained_by_no_mix(self, parted):
        [window], _ = windows_of(drawn_days(np.random.default_rng(1), [150], noise=3), parted)
        assert window.kinds == ("input",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.0}, "rule.rate: expected above 0"),
        ({"images_per_visit": 0}, "rule.images_per_visit: expected a whole number from 1, got 0"),
        ({"window": 5}, "rule.window: expected a whole number from 20, got 5"),
    ],
)
def test_a_rule_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        Rule(**values)
