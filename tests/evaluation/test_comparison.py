"""Detectors compared: numbered cases by hand, and against the functions for single detectors."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from fracture_det.evaluation.bootstrap import bootstrap_intervals
from fracture_det.evaluation.coco_eval import coco_matches
from fracture_det.evaluation.comparison import Comparison, ComparisonError, Difference, compare
from fracture_det.evaluation.matching import match_dataset
from fracture_det.evaluation.report import ReportError
from fracture_det.evaluation.significance import delong, mcnemar
from fracture_det.reporting.comparison_report import TITLES, comparison_markdown, p_value
from fracture_det.reporting.formatting import DASH
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import dataset, found, random_study, record

FIGURES = ["AP", "AP50", "AUROC", "FROC@0.5", "FROC@1", "FROC@2", "FROC mean", "precision", "recall", "sensitivity",
           "specificity"]  # fmt: skip
NOTHING = found()

# Four fractured images (box 1) and four healthy ones.
STUDY = dataset(*(record(index, (1,) if index < 4 else ()) for index in range(8)))
# "sharp" finds 3 of 4 and calls 1 of 4 healthy; "blunt" finds 2 of 4, puts 1 box beside and calls 3 of 4 healthy.
SHARP = {
    0: found((1, 0.9)), 1: found((1, 0.8)), 2: found((1, 0.7)), 3: NOTHING,
    4: found((2, 0.6)), 5: found((2, 0.2)), 6: NOTHING, 7: NOTHING,
}  # fmt: skip
BLUNT = {
    0: found((1, 0.9)), 1: found((2, 0.8)), 2: NOTHING, 3: found((1, 0.55)),
    4: found((2, 0.7)), 5: found((2, 0.6)), 6: found((2, 0.5)), 7: NOTHING,
}  # fmt: skip


def compared(first=SHARP, other=BLUNT, data=STUDY, scores=(0.5, 0.5), **options):
    options = {"n_bootstrap": 50, **options}
    return compare(
        data, {"sharp": first, "blunt": other}, dict(zip(("sharp", "blunt"), scores, strict=True)), **options
    )


# figure, sharp, blunt; by hand
VALUES = [
    # sharp: hits at .9 .8 .7, then false .6 .2: precision 1 up to recall 3/4; 76 of 101 recall points (0 to .75)
    # blunt: .9 hit (1/1), .8 .7 .6 false, .55 hit (2/5), .5 false: 1 up to recall 1/4 (26 points), .4 up to 1/2 (25)
    ("AP50", 76 / 101, (26 + 25 * 0.4) / 101),
    # pairs (fractured, healthy); sharp .9 .8 .7 - above all of .6 .2 - -: 12; - ties with 2 of 4: 1; 13/16
    # blunt .9 .8 - .55 against .7 .6 .5 -: 4 + 4 + 0.5 + 2
    ("AUROC", 13 / 16, 10.5 / 16),
    # 8 images: at most 4, 8, 16 false boxes; both have fewer than 8. sharp: all 3; blunt at 4: all 2
    ("FROC@0.5", 3 / 4, 2 / 4),
    ("FROC@1", 3 / 4, 2 / 4),
    ("FROC@2", 3 / 4, 2 / 4),
    # at 1/8 one false box: sharp 3/4, blunt 1/4 (0.8 is the first false one); at 1/4 two: 3/4, 1/4; then 3/4, 2/4
    ("FROC mean", 3 / 4, (1 / 4 + 1 / 4 + 5 * 2 / 4) / 7),
    ("precision", 3 / 4, 2 / 6),  # of the boxes of at least .5
    ("recall", 3 / 4, 2 / 4),
    ("sensitivity", 3 / 4, 3 / 4),
    ("specificity", 3 / 4, 1 / 4),
]


@pytest.mark.parametrize("case", VALUES, ids=[case[0] for case in VALUES])
def test_figures_and_differences_by_hand(case):
    name, sharp, blunt = case
    result = compared()
    assert [list(one.figures) for one in result.detectors] == [FIGURES, FIGURES]
    assert [one.figures[name].value for one in result.detectors] == pytest.approx([sharp, blunt])
    (pair,) = result.pairs
    assert list(pair.differences) == FIGURES
    assert pair.differences[name].value == pytest.approx(sharp - blunt)


def test_who_detects_what():
    (pair,) = compared().pairs
    # fractured: predicted by sharp 0 1 2, by blunt 0 1 3; healthy, not predicted: sharp 5 6 7, blunt 7
    table = (pair.sensitivity.both, pair.sensitivity.only_a, pair.sensitivity.only_b, pair.sensitivity.neither)
    assert table == (2, 1, 1, 0)
    table = (pair.specificity.both, pair.specificity.only_a, pair.specificity.only_b, pair.specificity.neither)
    assert table == (1, 2, 0, 1)
    assert (pair.sensitivity.p, pair.specificity.p) == (1.0, 0.5)  # 2 P(X <= 1 of 2) > 1; 2 P(X <= 0 of 2) = 1/2
    assert (pair.auroc.auc_a, pair.auroc.auc_b) == (13 / 16, 10.5 / 16)


def test_each_detector_has_its_own_operating_score():
    result = compared(scores=(0.75, 0.5))
    assert [one.score for one in result.detectors] == [0.75, 0.5]
    # sharp at .75: images 0 and 1
    assert [one.figures["sensitivity"].value for one in result.detectors] == [0.5, 0.75]
    assert [one.figures["sensitivity"].count for one in result.detectors] == [2, 3]


def test_a_score_of_exactly_the_operating_score_counts_in_single_precision():
    # .7 as float32 is below .7 as float64
    (pair,) = compared(scores=(0.7, 0.7)).pairs
    assert pair.sensitivity.both + pair.sensitivity.only_a == 3


def test_an_image_without_a_box_is_never_predicted_fractured():
    (pair,) = compared(scores=(0.0, 0.0)).pairs
    # sharp has no box on 3, blunt none on 2
    assert (pair.sensitivity.both, pair.sensitivity.only_a, pair.sensitivity.only_b) == (2, 1, 1)


def test_counts_and_settings():
    result = compared(seed=7)
    assert result.counts == {
        "images_asked": 8, "images_compared": 8, "images_left_out": 0, "images_left_out_fractured": 0,
        "images_fractured": 4, "images_healthy": 4, "groups": 8, "boxes_truth": 4,
    }  # fmt: skip
    assert result.settings == {"match_rule": "iou50", "level": 0.95, "n_bootstrap": 50, "seed": 7}
    assert result.left_out == {}


def test_images_that_one_detector_failed_on_are_in_no_figure():
    sharp = {key: value for key, value in SHARP.items() if key not in (3, 7)}
    blunt = {key: value for key, value in BLUNT.items() if key != 7}
    result = compared(sharp, blunt)
    assert result.left_out == {"image3.png": ["sharp"], "image7.png": ["sharp", "blunt"]}
    assert [one.failed for one in result.detectors] == [2, 1]
    counts = result.counts
    assert (counts["images_compared"], counts["images_left_out"], counts["images_left_out_fractured"]) == (6, 2, 1)
    sensitivity = [one.figures["sensitivity"] for one in result.detectors]
    assert [(one.count, one.n) for one in sensitivity] == [(3, 3), (2, 3)]  # image 3 is not counted as missed
    assert any("2 of 8 images are left out, 1 of them fractured" in note for note in result.notes)


# name, detections, scores, what the message says
REFUSED = [
    ("1 one detector", {"a": SHARP}, {"a": 0.5}, "two detectors or more, got 1: a"),
    ("2 no score", {"a": SHARP, "b": BLUNT}, {"a": 0.5}, "b: no operating score"),
    ("3 a score above 1", {"a": SHARP, "b": BLUNT}, {"a": 0.5, "b": 1.5}, "b: operating score: expected 0..1, got 1.5"),
    ("4 NaN", {"a": SHARP, "b": BLUNT}, {"a": math.nan, "b": 0.5}, "a: operating score: expected 0..1, got nan"),
    ("5 another data set", {"a": SHARP, "b": {**BLUNT, 99: NOTHING}}, {"a": 0.5, "b": 0.5}, "b: image id 99"),
]


@pytest.mark.parametrize("case", REFUSED, ids=[case[0] for case in REFUSED])
def test_what_cannot_be_compared_is_refused(case):
    _, detections, scores, message = case
    with pytest.raises(ComparisonError, match=message):
        compare(STUDY, detections, scores)


HEALTHY = dataset(*(record(index) for index in range(4)))
FRACTURED = dataset(*(record(index, (1,)) for index in range(4)))
ONE_GROUP = dataset(*(record(index, (1,) if index < 4 else (), group="one") for index in range(8)))


def of(data, *detections):
    return compared(*(dict(enumerate(one)) for one in detections), data)


# name, data and detections, figure -> reason of the difference, McNemar on fractured, on healthy, DeLong
DEGENERATE = [
    ("1 all healthy", (HEALTHY, [NOTHING, found((1, 0.9))] * 2, [NOTHING] * 4),
     {"AP": "no annotated fracture", "AUROC": "no fractured image", "sensitivity": "no fractured image",
      "precision": "blunt: no box reaches the score 0.5"},
     "no fractured image", None, "no fractured image"),
    ("2 all fractured", (FRACTURED, [NOTHING, found((1, 0.9))] * 2, [found((1, 0.9))] * 4),
     {"AUROC": "no healthy image", "specificity": "no healthy image"},
     None, "no healthy image", "no healthy image"),
    ("3 no box at all", (STUDY, [NOTHING] * 8, [NOTHING] * 8),
     {"precision": "no box reaches the score 0.5"},
     "both are correct on the same images", "both are correct on the same images",
     "both rank the fractured and healthy images in the same order"),
    ("4 no image", (dataset(), [], []),
     dict.fromkeys(("AP50", "FROC@1", "recall"), "no annotated fracture"),
     "no fractured image", "no healthy image", "no image"),
]  # fmt: skip


@pytest.mark.parametrize("case", DEGENERATE, ids=[case[0] for case in DEGENERATE])
def test_what_is_not_defined_says_why(case):
    _, study, reasons, sensitivity, specificity, auroc = case
    result = of(*study)
    (pair,) = result.pairs
    assert {name: pair.differences[name].reason for name in reasons} == reasons
    assert all(pair.differences[name].value is None for name in reasons)
    assert (pair.sensitivity.reason, pair.specificity.reason) == (sensitivity, specificity)
    assert pair.auroc.reason == auroc
    assert "NaN" not in result.to_json()
    assert "nan" not in comparison_markdown(result)


def test_one_group_gives_values_without_intervals():
    result = of(ONE_GROUP, [SHARP[index] for index in range(8)], [BLUNT[index] for index in range(8)])
    difference = result.pairs[0].differences["AP50"]
    assert difference.value == pytest.approx(76 / 101 - 36 / 101)
    assert (difference.low, difference.high, difference.p) == (None, None, None)
    assert "No bootstrap confidence intervals: it needs at least 2 groups, got 1." in result.notes
    assert "The 8 images come from 1 groups" in " ".join(result.notes)


def test_without_resamples_only_the_closed_forms_have_intervals():
    result = compared(n_bootstrap=0)
    assert result.pairs[0].differences["AP50"].low is None
    assert result.pairs[0].specificity.low is not None
    assert "No bootstrap confidence intervals: no resamples were drawn." in result.notes


def noisy(predictions, seed):
    random = np.random.default_rng(seed)
    return {
        key: Detections.from_unsorted(
            one.boxes, np.clip(one.scores + random.normal(0, 0.2, len(one)), 0, 1), one.classes
        )
        for key, one in predictions.items()
    }


@pytest.fixture(scope="module")
def study():
    data, predictions = random_study(3, n_images=80, n_classes=1)
    return data, {"a": predictions, "b": noisy(predictions, 1), "c": noisy(predictions, 2)}


@pytest.fixture(scope="module")
def three(study):
    data, detections = study
    return compare(data, detections, {"a": 0.5, "b": 0.4, "c": 0.6}, n_bootstrap=60, seed=2, about={"data": "random"})


def test_every_pair_has_the_first_detector(three):
    assert [(pair.first, pair.other) for pair in three.pairs] == [("a", "b"), ("a", "c")]
    for pair in three.pairs:
        by_name = {one.name: one.figures for one in three.detectors}
        for name, one in pair.differences.items():
            assert one.value == pytest.approx(by_name[pair.first][name].value - by_name[pair.other][name].value)
            assert one.low <= one.high
            assert 2 / 61 - 1e-9 <= one.p <= 1


def test_the_figures_of_each_are_those_of_its_own_evaluation(study, three):
    data, detections = study
    n_fractured = sum(record.fractured for record in data)
    for one in three.detectors:
        assert one.figures["AUROC"].n == min(n_fractured, 80 - n_fractured) == 80 - n_fractured
        coco = coco_matches(data, detections[one.name])
        alone = bootstrap_intervals(
            coco.figures, match_dataset(data, detections[one.name]).group, n_bootstrap=60, seed=2
        )
        for name in ("AP", "AP50"):
            assert one.figures[name].value == pytest.approx(alone[name].value)
            assert (one.figures[name].low, one.figures[name].high) == pytest.approx((alone[name].low, alone[name].high))


def test_the_tests_are_delong_and_mcnemar_of_the_highest_scores(study, three):
    data, detections = study
    highest = {
        name: np.array([one[record.image_id].scores.max(initial=0) for record in data])
        for name, one in detections.items()
    }
    positive = np.array([record.fractured for record in data])
    area = delong(highest["a"], highest["c"], positive)
    calls = mcnemar((highest["a"] >= 0.5)[positive], (highest["c"] >= 0.6)[positive])
    pair = three.pairs[1]
    assert (pair.auroc.z, pair.auroc.p) == pytest.approx((area.z, area.p))
    assert pair.sensitivity.p == pytest.approx(calls.p)
    assert (pair.sensitivity.only_a, pair.sensitivity.only_b) == (calls.only_a, calls.only_b)


def test_equal_inputs_give_equal_bytes(study):
    data, detections = study
    one, two = (
        compare(data, detections, dict.fromkeys("abc", 0.5), n_bootstrap=20, seed=1).to_json() for _ in range(2)
    )
    assert one == two


def test_it_is_read_back(three, tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(three.to_json(), encoding="utf-8")
    assert Comparison.load(path) == Comparison.load(tmp_path) == three
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["format"], content["version"]) == ("fracture_det comparison", 1)


def test_another_file_is_refused(three, tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(three.to_json().replace("fracture_det comparison", "fracture_det report"), encoding="utf-8")
    with pytest.raises(ReportError, match="expected format 'fracture_det comparison', version 1"):
        Comparison.load(path)


def test_the_number_of_p_values_is_said(three):
    # 2 pairs of 11 differences, 2 tests of McNemar and 1 of DeLong
    assert any(note.startswith("28 p values are reported without adjustment") for note in three.notes)


def test_undefined_resamples_are_said():
    # two groups, of which only one has truth: without it AP50 is not defined, in about a quarter of the resamples
    data = dataset(record(0, (1,), group="a"), record(1, (), group="b"))
    result = of(data, [found((1, 0.9)), NOTHING], [found((1, 0.8)), NOTHING])
    undefined = result.pairs[0].differences["AP50"].undefined
    assert 5 <= undefined <= 20
    assert any("not defined in some resamples" in note for note in result.notes)


# --- Markdown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "text"), [(None, DASH), (0.0004, "<.001"), (0.001, ".001"), (0.0274, ".027"), (1.0, "1.000")]
)
def test_p_values_as_they_are_printed(p, text):
    assert p_value(p) == text


def test_markdown_says_who_detects_what():
    text = comparison_markdown(compared())
    # as in test_who_detects_what; false positives among healthy images: sharp 4, blunt 4 5 6
    assert (
        "Of 4 fractured radiographs, sharp and blunt both detected 2, only sharp 1, only blunt 1, and neither 0. "
        "Of 4 healthy radiographs, 1 were false positives of both, 0 of sharp only and 2 of blunt only."
    ) in text
    assert "| Fractured images (sensitivity) | 2 | 1 | 1 | 0 | .000 |" in text
    assert "| Healthy images (specificity) | 1 | 2 | 0 | 1 | +.500 |" in text


@pytest.mark.parametrize(
    ("intervals", "sentence"),
    [
        (
            [(0.1, 0.3), (-0.1, 0.2)],
            "Differences whose interval excludes 0: AP (+.200). All other intervals include 0.",
        ),
        ([(0.1, 0.3), (-0.3, -0.1)], "Differences whose interval excludes 0: AP (+.200); AP50 (+.200)."),
        (
            [(0.0, 0.3), (-0.1, 0.0)],
            "The interval of every difference includes 0: these radiographs show no difference",
        ),
    ],
)
def test_markdown_says_which_differences_are_shown(intervals, sentence):
    result = compared()
    differences = {
        name: Difference(0.2, low, high, 0.05) for name, (low, high) in zip(("AP", "AP50"), intervals, strict=True)
    }
    pair = dataclasses.replace(result.pairs[0], differences=differences)
    assert sentence in comparison_markdown(dataclasses.replace(result, pairs=[pair]))


def test_markdown_has_every_figure_and_difference(three):
    text = comparison_markdown(three)
    assert text.startswith("# Comparison of fracture detectors")
    assert "a, b and c were compared on the same 80 radiographs" in text
    assert "## a versus b" in text
    assert "## a versus c" in text
    assert list(TITLES) == [*FIGURES, "type accuracy", "type macro F1"]  # the last two of detectors that tell types
    for title in (TITLES[name] for name in FIGURES):
        assert text.count(f"| {title} |") == 3  # under Performance, and in each pair
    for note in three.notes:
        assert note.split(":")[0] in text.replace("\\", "")


def test_every_row_of_a_table_has_as_many_cells(three):
    lines = comparison_markdown(three).splitlines()
    for before, line in itertools.pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|")


def test_names_cannot_break_the_markdown(three):
    evil = "a|b <script> `x`"
    detectors = [dataclasses.replace(three.detectors[0], name=evil), *three.detectors[1:]]
    pairs = [dataclasses.replace(pair, first=evil) for pair in three.pairs]
    text = comparison_markdown(dataclasses.replace(three, detectors=detectors, pairs=pairs))
    assert "<script>" not in text
    assert "a|b" not in text
