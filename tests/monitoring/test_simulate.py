"""The simulation itself: on drawn values, how often and how soon."""

import numpy as np
import pytest

from fracture_det.monitoring.drift import Rule
from fracture_det.monitoring.reference import make_reference
from fracture_det.monitoring.simulate import MOST_WINDOWS, Pool, delay, false_alarms
from tests.monitoring.cases import QUICK, drawn_values


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(drawn_values(np.random.default_rng(0), 300), ["hand"] * 200 + ["hip"] * 100)


@pytest.fixture(scope="module")
def reference(pool):
    return make_reference("simulated", "", pool.counts(pool.everything), rule=QUICK)


def changed(n: int = 200, **shifts: float) -> list:
    return drawn_values(np.random.default_rng(1), n, **shifts)


def test_refused_radiographs_are_in_no_counts():
    rows = changed(4)
    pool = Pool([rows[0], None, rows[2], None], ["hand", "hand", "hip", None])
    assert (len(pool), pool.refused) == (4, 0.5)
    assert pool.counts(pool.everything).images == 2
    assert {name: counts.images for name, counts in pool.strata().items()} == {"hand": 1, "hip": 1}


def test_visits_are_of_the_same_radiograph_or_of_neighbours(pool):
    rng = np.random.default_rng(0)
    alike = pool.visits(9, 3, rng, alike=True).reshape(3, 3)
    beside = pool.visits(8, 3, rng, alike=False)
    assert (alike == alike[:, :1]).all()
    assert len(beside) == 8
    assert ((beside[1:3] - beside[0]) % len(pool)).tolist() == [1, 2]


def test_a_change_is_found_within_two_windows(pool, reference):
    found = delay("noise", reference, pool, Pool(changed(noise=3)), per_visit=2, runs=40)
    assert found.found == 1
    assert 0 < found.median <= found.late <= 2 * QUICK.window
    assert found.leading == "Noise"


def test_no_change_is_hardly_ever_found(pool, reference):
    found = delay("none", reference, pool, Pool(changed()), per_visit=2, runs=10)
    assert found.median is None
    assert found.found <= 0.2  # of 20 windows each


def test_what_is_refused_counts_in_the_delay(pool, reference):
    rows = changed(noise=3)
    half = [row if index % 2 else None for index, row in enumerate(rows)]
    all_sent, half_seen = (
        delay("noise", reference, pool, Pool(sent), per_visit=1, runs=60).median for sent in (rows, half)
    )
    assert half_seen == pytest.approx(2 * all_sent, rel=0.25)
    never = delay("noise", reference, pool, Pool([None] * 9), per_visit=1, runs=3)
    assert (never.median, never.refused) == (None, 1)
    assert MOST_WINDOWS * QUICK.window > 2 * half_seen


@pytest.mark.slow
def test_at_most_one_window_in_a_hundred_is_a_false_alarm(pool):
    for per_visit in (1, 2):
        found = false_alarms(pool, Rule(draws=20_000), 100, per_visit, alike=True, size=150, references=40, windows=100)
        # Of 4,000 windows: 40 are expected at most; 60 are three standard deviations more.
        assert found.rate <= 0.015
    # Radiographs of which ten of a visit are the same are more than the rule allows for, and that shows.
    assert false_alarms(pool, Rule(), 100, 10, alike=True, size=150, references=5, windows=100).rate > 0.05
