"""Thresholds: chosen on validation data by hand-made cases, frozen, and never on the data that they are judged on."""

from __future__ import annotations

import numpy as np
import pytest

from fracture_det.calibration.operating_points import (
    PAPER_OPERATING_SCORE,
    OperatingPointError,
    OperatingPoints,
    check_apart,
    check_fitted_apart,
    choose_operating_points,
    fitted_images,
)
from fracture_det.evaluation.image_level import confusion_counts, images_of
from fracture_det.evaluation.lesion_level import lesion_counts
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.validation import choose
from tests.evaluation.cases import dataset, found, random_study, record

# Validation: fractured images score .9 .8 .6 .3, healthy ones .7 .2 .1 (a box each).
#   threshold   sensitivity  specificity  Youden
#   .9          1/4          3/3          .25
#   .8          2/4          3/3          .50
#   .7          2/4          2/3          .17
#   .6          3/4          2/3          .42
#   .3          4/4          2/3          .67  <- the highest
#   .2          4/4          1/3          .33
#   .1          4/4          0/3          .00
FRACTURED, HEALTHY = (0.9, 0.8, 0.6, 0.3), (0.7, 0.2, 0.1)


def matches_of(fractured=FRACTURED, healthy=HEALTHY, *, boxless=0):
    records, predictions = [], {}
    for score in fractured:
        records.append(record(len(records), [1]))
        predictions[len(records) - 1] = found((1, score))
    for score in healthy:
        records.append(record(len(records)))
        predictions[len(records) - 1] = found((5, score))
    for _ in range(boxless):
        records.append(record(len(records), [1]))
        predictions[len(records) - 1] = found()
    return match_dataset(dataset(*records), predictions)


def test_thresholds_lie_midway_between_the_scores_that_they_part():
    frozen = choose(matches_of(), fp_target=1 / 7)
    assert frozen.not_reached == {}
    assert frozen.scores["youden"] == pytest.approx((0.3 + 0.2) / 2)  # parts .3, called, from .2
    assert frozen.scores["sensitivity"] == pytest.approx((0.3 + 0.2) / 2)  # .95 of 4 is all 4
    assert frozen.scores["specificity"] == pytest.approx((0.8 + 0.7) / 2)  # .95 of 3 is all 3: above .7
    # 1/7 of 7 images is one false box: the one of .7 may be shown, the next, of .2, not; hits down to .3 come free
    assert frozen.scores["fp target"] == pytest.approx((0.3 + 0.2) / 2)


def test_they_are_chosen_from_plain_arrays():
    # The same study: thresholds of the images above, and its FROC curve, on which .7 is the first false positive.
    points = choose_operating_points(
        np.array([*FRACTURED, *HEALTHY]),
        np.repeat([True, False], [4, 3]),
        np.ones(7, bool),
        froc_scores=np.array([np.inf, 0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1]),
        froc_fp_per_image=np.array([0, 0, 0, 1, 1, 1, 2, 3]) / 7,
        fp_target=1 / 7,
    )
    assert points == OperatingPoints(
        {"youden": 0.25, "sensitivity": 0.25, "specificity": 0.75, "fp target": 0.25}, not_reached={}
    )


def test_the_papers_score_stands_once_and_a_config_starts_from_it():
    from fracture_det.modeling.config import default_config  # it needs Detectron2

    assert PAPER_OPERATING_SCORE == 0.5
    assert default_config().TEST.OPERATING_SCORE == PAPER_OPERATING_SCORE


def test_of_equal_youden_values_the_strictest_threshold_is_taken():
    # at .8: 1/2 + 2/2 - 1 = .5; at .4: 2/2 + 1/2 - 1 = .5
    frozen = choose(matches_of((0.8, 0.4), (0.6, 0.2)))
    assert frozen.scores["youden"] == pytest.approx((0.8 + 0.6) / 2)


def test_a_threshold_between_neighbours_of_float32_still_parts_them():
    upper = np.float32(0.5)
    lower = np.nextafter(upper, np.float32(0))
    matches = matches_of((float(upper),), (float(lower),))
    units = images_of(matches)
    calls = confusion_counts(units, choose(matches).scores["youden"])
    assert (calls.true_positives, calls.false_positives) == (1, 0)


NOT_REACHED = [
    # 1 of 5 fractured images has no box: at most .8
    ("sensitivity", matches_of(boxless=1), "only 0.800 of the fractured"),
    # every healthy image has the highest score of all
    ("specificity", matches_of((0.5, 0.9), (0.9, 0.9)), "only by predicting no image fractured"),
    ("youden", matches_of((), HEALTHY), "validation has no fractured image"),
    ("specificity", matches_of(FRACTURED, ()), "validation has no healthy image"),
    ("sensitivity", matches_of((), (), boxless=2), "no healthy image"),
    ("fp target", matches_of((), (), boxless=2), "no validation image has a box"),
    # 2 false boxes of the highest score on 2 images are 1 per image, over the target of .5
    ("fp target", matches_of((), (0.9, 0.9)), "the highest scores alone are more than 0.5"),
]


@pytest.mark.parametrize(("rule", "matches", "reason"), NOT_REACHED, ids=[f"{r}: {t}" for r, _, t in NOT_REACHED])
def test_a_rule_that_validation_cannot_reach_says_why(rule, matches, reason):
    frozen = choose(matches, fp_target=0.5)
    assert rule not in frozen.scores
    assert reason in frozen.not_reached[rule]


@pytest.mark.parametrize("seed", range(20))
def test_frozen_thresholds_do_on_validation_what_they_promise(seed):
    study, predictions = random_study(seed, n_images=80, ties=seed % 2 == 0)
    matches = match_dataset(study, predictions)
    frozen = choose(matches, fp_target=0.7)
    units = images_of(matches)
    if "sensitivity" in frozen.scores:
        assert confusion_counts(units, frozen.scores["sensitivity"]).sensitivity >= 0.95
    if "specificity" in frozen.scores:
        assert confusion_counts(units, frozen.scores["specificity"]).specificity >= 0.95
    assert lesion_counts(matches, frozen.scores["fp target"]).false_positives <= 0.7 * 80
    best = max(
        calls.sensitivity + calls.specificity
        for calls in (confusion_counts(units, float(score)) for score in np.unique(units.score))
    )
    youden = confusion_counts(units, frozen.scores["youden"])
    assert youden.sensitivity + youden.specificity == pytest.approx(best)


def test_validation_and_test_may_share_no_image_and_no_group():
    val = dataset(record(1, [1]), record(2, group="patient 7"))
    check_apart(val, dataset(record(3), record(4, group="patient 8")))
    with pytest.raises(OperatingPointError, match=r"share 1 image, the first is image1\.png"):
        check_apart(val, dataset(record(1)))
    with pytest.raises(OperatingPointError, match="share 1 group, the first is 'patient 7'"):
        check_apart(val, dataset(record(9, group="patient 7")))


def test_a_calibration_is_refused_on_the_images_that_it_was_fitted_on():
    val = dataset(record(1, [1]), record(2))
    kept = {"images": fitted_images(val)}
    check_fitted_apart(kept, dataset(record(3)))
    with pytest.raises(OperatingPointError, match="does not say on which images"):
        check_fitted_apart({"data": "val.json"}, dataset(record(3)))
    with pytest.raises(OperatingPointError, match=r"1 image of this data set, the first is image2\.png"):
        check_fitted_apart(kept, dataset(record(2), record(3)))
