"""Counts add up, have quantiles, and come back from JSON."""

import json

import numpy as np
import pytest

from fracture_det.monitoring.counts import Counts, WatchError, count, total
from tests.monitoring.cases import drawn_counts


def test_radiographs_are_counted_by_bin_and_missing_values_are_not():
    counts = count([{"score": 0.12}, {"score": 0.0}, {}], ["likely", "none seen", "likely"], judged=2, corrected=1)
    assert (counts.images, counts.n("score"), counts.n("grey")) == (3, 2, 0)
    assert counts.bins["score"][:4].tolist() == [1, 0, 1, 0]
    assert counts.findings == {"likely": 2, "none seen": 1}


def test_a_sum_is_of_all_its_parts():
    rng = np.random.default_rng(0)
    parts = [drawn_counts(rng, n, judged=n, corrected=1) for n in (3, 4, 5)]
    whole = total(parts)
    assert (whole.images, whole.judged, whole.corrected) == (12, 12, 3)
    assert whole.bins["grey"].tolist() == sum(part.bins["grey"] for part in parts).tolist()
    assert sum(whole.findings.values()) == 12


def test_quantiles_lie_within_bins_by_a_straight_line():
    # Four in .10 to .15, of which the median is the second: half of the bin; three quarters of it for the third.
    counts = count([{"score": 0.12}] * 4)
    assert counts.quantile("score", 0.5) == pytest.approx(0.125)
    assert counts.quantile("score", 0.75) == pytest.approx(0.1375)
    # Two below .05, whose bin is open and counts as its edge, and two in .90 to .95.
    counts = count([{"score": 0.0}] * 2 + [{"score": 0.92}] * 2)
    assert counts.quantile("score", 0.25) == pytest.approx(0.05)
    assert counts.quantile("score", 0.75) == pytest.approx(0.925)
    assert Counts().quantile("score", 0.5) is None


def test_the_quantiles_of_many_are_those_of_their_values():
    values = np.random.default_rng(0).normal(100, 20, 2000)
    counts = count([{"grey": value} for value in values])
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert counts.quantile("grey", share) == pytest.approx(np.quantile(values, share), abs=2)  # bins are 8 wide


def test_json_gives_the_same_counts():
    counts = drawn_counts(np.random.default_rng(1), 20, judged=7, corrected=2)
    again = Counts.from_json(json.loads(json.dumps(counts.to_json())))
    assert again.to_json() == counts.to_json()
    assert (again.images, again.judged, again.corrected) == (20, 7, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "expected images, bins"),
        ({"bins": {}}, "'grey'"),
        ({"judged": 1, "corrected": 2}, "no more corrected than judged"),
        ({"images": -1}, "numbers from 0"),
    ],
)
def test_broken_counts_are_refused(change, message):
    with pytest.raises(WatchError, match=message):
        Counts.from_json(Counts().to_json() | change)


def test_other_bins_are_refused():
    content = Counts().to_json()
    content["bins"]["score"] = [1, 2]
    with pytest.raises(WatchError, match=r"bins\.score: expected 20 counts, got \[1, 2\]"):
        Counts.from_json(content)
