"""Reliability: ECE and Brier with the arithmetic beside them, scikit-learn as judge, and what is not defined."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import METHODS, CalibrationError, ScoreMap
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation import reliability as reliability_module
from fracture_det.evaluation.bootstrap import BootstrapResult
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.reliability import bin_of, reliability
from fracture_det.evaluation.validation import fit_calibration
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import box, dataset, found, random_study, record

NOTHING = found()


def matched(*images, groups=None):
    """Match images given as (truth numbers, detections); each is a group of its own unless `groups` says so."""
    records = [record(n, truth, group=groups[n] if groups else None) for n, (truth, _) in enumerate(images)]
    return match_dataset(dataset(*records), dict(enumerate(one for _, one in images)))


def judged(matches, calibration=None, n_bootstrap=0, **more):
    """Return reliability by (of, scores)."""
    rows = reliability(matches, calibration=calibration, n_bootstrap=n_bootstrap, seed=0, **more)
    return {(row.of, row.scores): row for row in rows}


def values(row):
    return {name: one.value for name, one in row.figures.items()}


# name, images, bins, ECE, Brier, Brier of the base rate. Numbers are box numbers; box 1 hits truth 1.
IMAGE_CASES = [
    # .8 is true: gap .2; 0 (no box) is false: gap 0. (1 * .2 + 1 * 0) / 2; (.2^2 + 0) / 2; 1/2 * 1/2
    ("1 one called, one silent", [((1,), found((1, 0.8))), ((), NOTHING)], 10, 0.1, 0.02, 0.25),
    # a box in the wrong place still makes the image's score: the same
    ("2 the wrong place", [((1,), found((2, 0.8))), ((), NOTHING)], 10, 0.1, 0.02, 0.25),
    # bin (.8, .9]: one, true: |1 - .9| = .1; bin (.6, .7]: two, one true: |1 - 1.4| = .4; (.1 + .4) / 3
    # Brier (.01 + .09 + .49) / 3; base rate 2/3: 2/9
    (
        "3 two in one bin",
        [((1,), found((1, 0.9))), ((1,), found((1, 0.7))), ((), found((1, 0.7)))],
        10,
        0.5 / 3,
        0.59 / 3,
        2 / 9,
    ),
    # the same with one bin: shown .9 + .7 + .7 = 2.3, true 2: .3 / 3
    ("4 one bin", [((1,), found((1, 0.9))), ((1,), found((1, 0.7))), ((), found((1, 0.7)))], 1, 0.1, 0.59 / 3, 2 / 9),
    # .6 of five: three fractured. 5 * |3/5 - .6| = 0; Brier (3 * .16 + 2 * .36) / 5 = .24 = 3/5 * 2/5
    ("5 a guess at the base rate", [((1,), found((1, 0.6)))] * 3 + [((), found((1, 0.6)))] * 2, 10, 0.0, 0.24, 0.24),
    # sure and wrong twice
    ("6 the wrong way round", [((1,), NOTHING), ((), found((1, 1.0)))], 10, 1.0, 1.0, 0.25),
    ("7 all healthy and silent", [((), NOTHING)] * 2, 10, 0.0, 0.0, 0.0),
    ("8 all fractured and sure", [((1,), found((1, 1.0)))] * 2, 10, 0.0, 0.0, 0.0),
    ("9 no image", [], 10, None, None, None),
]


@pytest.mark.parametrize("case", IMAGE_CASES, ids=[case[0] for case in IMAGE_CASES])
def test_images(case):
    _, images, bins, *expected = case
    row = judged(matched(*images), bins=bins)["image", "raw"]
    for name, wanted in zip(("ECE", "Brier", "Brier of the base rate"), expected, strict=True):
        one = row.figures[name]
        assert one.value == (None if wanted is None else pytest.approx(wanted, abs=1e-7))  # scores are float32
        assert one.reason == ("no image" if wanted is None else None)
        assert one.n == len(images)


# name, images, ECE of boxes, recall
BOX_CASES = [
    # .9 hits: |1 - .9|; .8 misses: |0 - .8|; (.1 + .8) / 2. One truth, hit.
    ("1 a hit and a miss", [((1,), found((1, 0.9), (2, 0.8)))], 0.45, (1, 1)),
    # bin (.4, .5]: four boxes of .5, two hit: 0
    ("2 half of the .5 hit", [((1, 2), found((1, 0.5), (2, 0.5), (8, 0.5), (9, 0.5)))], 0.0, (2, 2)),
    # the best ECE there is, and two of three fractures without a box: hence the recall beside it
    ("3 sure of one, silent on two", [((1, 2, 3), found((1, 1.0)))], 0.0, (1, 3)),
    ("4 false on a healthy image", [((1,), found((1, 1.0))), ((), found((1, 0.6)))], 0.3, (1, 1)),
    ("5 no truth", [((), found((1, 0.4)))], 0.4, (0, 0)),
    ("6 no box", [((1,), NOTHING)], None, (0, 1)),
    ("7 neither", [((), NOTHING)], None, (0, 0)),
]


@pytest.mark.parametrize("case", BOX_CASES, ids=[case[0] for case in BOX_CASES])
def test_boxes(case):
    _, images, ece, (count, n) = case
    row = judged(matched(*images))["box", "raw"]
    assert row.figures["ECE"].value == (None if ece is None else pytest.approx(ece, abs=1e-7))
    assert row.figures["ECE"].reason == ("no box" if ece is None else None)
    recall = row.figures["recall"]
    assert recall.value == (pytest.approx(count / n) if n else None)
    assert (recall.count, recall.n) == ((count, n) if n else (None, 0))
    assert recall.reason == (None if n else "no annotated fracture")
    assert list(row.figures) == ["ECE", "ECE by chance", "recall"]


class TestBins:
    @pytest.mark.parametrize(
        ("probability", "index"),
        [(0, 0), (0.1, 0), (0.1001, 1), (0.3, 2), (0.5, 4), (0.7, 6), (0.70001, 7), (0.9, 8), (0.999, 9), (1, 9)],
    )
    def test_an_edge_belongs_to_the_bin_below_in_float32_too(self, probability, index):
        assert bin_of([probability, np.float32(probability)], 10).tolist() == [index, index]

    def test_each_states_its_n_mean_and_share(self):
        images = [((1,), found((1, 0.9))), ((1,), found((1, 0.65))), ((), found((1, 0.7)))]
        bins = judged(matched(*images), bins=5)["image", "raw"].bins
        assert [(one.low, one.high, one.n) for one in bins] == [
            (0.0, 0.2, 0), (0.2, 0.4, 0), (0.4, 0.6, 0), (0.6, 0.8, 2), (0.8, 1.0, 1),
        ]  # fmt: skip
        assert bins[3].mean_score == pytest.approx(0.675)
        assert (bins[3].rate.value, bins[3].rate.count, bins[3].rate.n) == (0.5, 1, 2)
        assert bins[3].rate.wilson_low < 0.5 < bins[3].rate.wilson_high
        assert bins[0].mean_score is None
        assert (bins[0].rate.value, bins[0].rate.n, bins[0].rate.reason) == (
            None,
            0,
            "no image has a score in this bin",
        )

    def test_there_is_at_least_one(self):
        with pytest.raises(ValueError, match="bins: expected at least 1, got 0"):
            judged(matched(((1,), NOTHING)), bins=0)


class TestJudges:
    @pytest.mark.parametrize("ties", [False, True])
    @pytest.mark.parametrize("of", ["image", "box"])
    def test_bins_and_figures_are_those_of_scikit_learn(self, of, ties):
        matches = match_dataset(*random_study(3, n_images=200, ties=ties))
        row = judged(matches)[of, "raw"]
        scores, truth = {
            "image": (matches.top_score, matches.fractured),
            "box": (matches.score, matches.hit),
        }[of]
        # The judge knows no float32: .7 is to be .7.
        scores = scores.astype(float).round(6)
        rates, means = calibration_curve(truth, scores, n_bins=10)
        filled = [one for one in row.bins if one.n]
        assert [one.rate.value for one in filled] == pytest.approx(rates)
        assert [one.mean_score for one in filled] == pytest.approx(means, abs=1e-6)
        # ECE from the judge's curve, each bin weighed by its n
        n = np.array([one.n for one in filled])
        assert n.sum() == len(scores)
        assert row.figures["ECE"].value == pytest.approx(n @ abs(rates - means) / n.sum(), abs=1e-6)
        if of == "image":
            assert row.figures["Brier"].value == pytest.approx(brier_score_loss(truth, scores), abs=1e-6)
            base_rate = np.full(len(truth), truth.mean())
            assert row.figures["Brier of the base rate"].value == pytest.approx(brier_score_loss(truth, base_rate))

    def test_the_ece_by_chance_is_what_calibrated_scores_show(self):
        random = np.random.default_rng(7)
        scores = random.beta(1, 2, 400).astype(np.float32)
        matches = matched(*[((), found((1, score))) for score in scores])
        each = []
        for _ in range(300):
            truth = (random.random(400) < scores).astype(np.int64)[:, None]
            each.append(values(judged(replace(matches, truth=truth))["image", "raw"]))
        shown = np.array([one["ECE"] for one in each])
        # 300 simulations leave a standard error of about .0006; the normal approximation is good to a few percent
        assert each[0]["ECE by chance"] == pytest.approx(shown.mean(), rel=0.05)

    def test_the_arithmetic_of_the_ece_by_chance(self):
        # one bin, two scores of .5: sqrt(2 / pi * (1/4 + 1/4)) / 2
        row = judged(matched(((1,), found((1, 0.5))), ((), found((1, 0.5)))))["image", "raw"]
        assert row.figures["ECE by chance"].value == pytest.approx(math.sqrt(1 / math.pi) / 2)


def test_a_detector_that_knows_the_truth_is_reliable():
    images = [((1, 2), found((1, 1.0), (2, 1.0)))] * 5 + [((), NOTHING)] * 5
    rows = judged(matched(*images), n_bootstrap=50)
    assert values(rows["image", "raw"]) == {
        "ECE": 0, "ECE by chance": 0, "Brier": 0, "Brier of the base rate": 0.25,
    }  # fmt: skip
    assert values(rows["box", "raw"]) == {"ECE": 0, "ECE by chance": 0, "recall": 1}
    ece = rows["image", "raw"].figures["ECE"]
    assert (ece.low, ece.high) == (0, 0)


class TestIntervals:
    def test_an_image_of_weight_two_counts_like_two(self, monkeypatch):
        images = [((1,), found((1, 0.9), (2, 0.3))), ((), found((1, 0.7))), ((1, 2), found((1, 0.65))), ((), NOTHING)]
        weights = np.array([2.0, 0.0, 3.0, 1.0])
        repeated = [image for image, weight in zip(images, weights, strict=True) for _ in range(int(weight))]
        whole = judged(matched(*repeated))

        def weighed(statistics, group, **_):
            return {name: BootstrapResult(value) for name, value in statistics(weights).items()}

        monkeypatch.setattr(reliability_module, "bootstrap_intervals", weighed)
        part = judged(matched(*images))
        for key, row in whole.items():
            assert values(part[key]) == pytest.approx(values(row), nan_ok=True)
            shares = [one.rate.value for one in row.bins]
            assert [one.rate.value for one in part[key].bins] == pytest.approx(shares)

    def test_groups_are_drawn_whole(self):
        images = [((1,), found((1, 0.8)))] * 20 + [((), found((1, 0.2)))] * 20
        alone = judged(matched(*images), n_bootstrap=400)["image", "raw"].figures["Brier of the base rate"]
        paired = judged(matched(*images, groups=["ab"[n < 20] for n in range(40)]), n_bootstrap=400)
        together = paired["image", "raw"].figures["Brier of the base rate"]
        assert alone.value == together.value == 0.25
        assert together.low == 0  # both draws are the same group
        assert alone.low > 0.1

    def test_a_bin_that_is_empty_in_a_resample_is_counted(self):
        images = [((1,), found((1, 0.85)))] + [((), found((1, 0.2)))] * 9
        row = judged(matched(*images), n_bootstrap=200)["image", "raw"]
        # left out of a resample with (9/10)^10 = .35
        assert 0.25 * 200 < row.bins[8].rate.undefined < 0.45 * 200
        assert (row.bins[8].rate.low, row.bins[8].rate.high) == (1, 1)

    def test_one_group_has_none(self):
        row = judged(matched(((1,), found((1, 0.8))), groups=["a"]), n_bootstrap=50)["image", "raw"]
        assert (row.figures["ECE"].low, row.figures["ECE"].high) == (None, None)


DEGENERATE = {
    "no image": [],
    "no box": [((1,), NOTHING)] * 3,
    "no truth": [((), found((1, 0.5)))] * 3,
    "all healthy and silent": [((), NOTHING)] * 3,
    "ties": [((1,), found((1, 0.5))), ((), found((1, 0.5)))] * 3,
}


@pytest.mark.parametrize("images", DEGENERATE.values(), ids=DEGENERATE)
def test_what_is_not_defined_is_said(images):
    for row in judged(matched(*images), n_bootstrap=20).values():
        json.dumps(asdict(row), allow_nan=False)
        for one in [*row.figures.values(), *(each.rate for each in row.bins)]:
            assert (one.value is None) == (one.reason is not None)


ABOUT = {"detector": "toy"}


def distorted_study(seed, n_images, slope=0.45, offset=-0.9):
    """Return a study of one box per image; a box of score s hits with P = sigmoid(slope * logit(s) + offset).

    Half of the images whose box misses are fractured all the same.
    """
    random = np.random.default_rng(seed)
    logits = random.normal(0.5, 1.5, n_images)
    hits = random.random(n_images) < 1 / (1 + np.exp(-(slope * logits + offset)))
    fractured = hits | (random.random(n_images) < 0.5)
    records, detections = [], {}
    for number, (logit, hit, sick) in enumerate(zip(logits, hits, fractured, strict=True)):
        truth = [box(1 if hit else 5)] if sick else []
        name = f"{seed}/{number}.png"
        boxes, classes = np.array(truth).reshape(-1, 4), np.zeros(len(truth), np.int64)
        records.append(ImageRecord(number, name, 100, 400, name, None, boxes, classes))
        detections[number] = Detections.from_unsorted([box(1)], [1 / (1 + np.exp(-logit))], [0])
    return match_dataset(Dataset(tuple(records), ("fracture",)), detections)


class TestCalibrated:
    @pytest.mark.parametrize("method", ["platt", "isotonic"])
    def test_validation_makes_fresh_scores_mean_what_they_say(self, method):
        fitted = fit_calibration(distorted_study(1, 3000), method, fitted_on=ABOUT, operating_points={}, not_reached={})
        rows = judged(distorted_study(2, 3000), fitted, n_bootstrap=100)
        assert list(rows) == [("image", "raw"), ("box", "raw"), ("image", method), ("box", method)]
        for of in ("image", "box"):
            raw, after = rows[of, "raw"], rows[of, method]
            assert raw.figures["ECE"].low > 0.1
            # chance alone shows about .02 on 3,000 scores, and the map was fitted on as few
            assert after.figures["ECE"].value < 0.04
            assert after.figures["ECE by chance"].value < 0.03
        assert rows["image", method].figures["Brier"].value < rows["image", "raw"].figures["Brier"].value
        assert rows["box", method].figures["recall"] == rows["box", "raw"].figures["recall"]

    @pytest.mark.parametrize("method", ["platt", "isotonic"])
    def test_the_share_in_each_well_filled_bin_agrees_with_what_was_shown(self, method):
        fitted = fit_calibration(distorted_study(3, 6000), method, fitted_on=ABOUT, operating_points={}, not_reached={})
        rows = judged(distorted_study(4, 6000), fitted, n_bootstrap=200)
        for of, agreeing in (("raw", False), (method, True)):
            bins = [one for one in rows["box", of].bins if one.n >= 400]
            assert len(bins) >= 4
            # .03 for the map, which was fitted on 6,000 scores
            inside = [one.rate.low - 0.03 <= one.mean_score <= one.rate.high + 0.03 for one in bins]
            assert all(inside) is agreeing

    def test_the_file_carries_what_was_frozen(self):
        fitted = fit_calibration(
            distorted_study(1, 50),
            fitted_on={**ABOUT, "data": "val.json"},
            operating_points={"youden": 0.4},
            not_reached={"specificity": "never"},
        )
        assert fitted.method == "platt"
        assert fitted.operating_points == {"youden": 0.4}
        assert fitted.not_reached == {"specificity": "never"}
        assert fitted.fitted_on == {"detector": "toy", "data": "val.json"}
        assert fitted.not_fitted == {}

    def test_an_image_without_a_box_has_a_probability_of_its_own(self):
        images = [((1,), found((1, 0.8))), ((), found((1, 0.3)))] * 30 + [((1,), NOTHING)] + [((), NOTHING)] * 37
        fitted = fit_calibration(matched(*images), fitted_on=ABOUT, operating_points={}, not_reached={})
        # 38 images without a box, one of them fractured: (1 + 1) / (38 + 2), but no more than a box of .3 gives
        assert fitted.image_map.zero == pytest.approx(min(2 / 40, float(fitted.image(0.3))))
        assert fitted.box_map.zero is None

    # images, what is said of boxes, of images
    UNFIT = (
        ("no box", [((1,), NOTHING), ((), NOTHING)], "there is no score above 0", "there is no score above 0"),
        (
            "no box hits",
            [((1,), found((2, 0.9))), ((), found((1, 0.3)))],
            "of 2 scores above 0 none came true",
            None,
        ),
        (
            "a detector that knows the truth",
            [((1,), found((1, 1.0))), ((), NOTHING)],
            "of 1 scores above 0 every one came true",
            "of 1 scores above 0 every one came true",
        ),
    )

    @pytest.mark.parametrize("case", UNFIT, ids=[case[0] for case in UNFIT])
    @pytest.mark.parametrize("method", METHODS)
    def test_where_nothing_can_be_fitted_scores_stay_and_the_reason_is_kept(self, case, method):
        _, images, of_boxes, of_images = case
        fitted = fit_calibration(matched(*images), method, fitted_on=ABOUT, operating_points={}, not_reached={})
        expected = {name: why for name, why in (("box", of_boxes), ("image", of_images)) if why}
        assert fitted.not_fitted == expected
        assert fitted.box_map == ScoreMap("identity")
        rows = judged(matched(*images), fitted)
        assert ("box", method) not in rows
        assert (("image", method) in rows) is ("image" not in expected)

    def test_an_unknown_method_is_refused(self):
        with pytest.raises(CalibrationError, match="method: expected one of"):
            fit_calibration(distorted_study(1, 50), "beta", fitted_on=ABOUT, operating_points={}, not_reached={})

    def test_a_calibration_that_changes_nothing_changes_no_figure(self):
        same = Calibration("platt", ScoreMap("platt"), ScoreMap("platt", zero=0.0), fitted_on=ABOUT)
        rows = judged(match_dataset(*random_study(5)), same)
        for of in ("image", "box"):
            assert values(rows[of, "platt"]) == pytest.approx(values(rows[of, "raw"]), abs=1e-6)
