"""Types of fracture: numbered cases with the arithmetic beside them, scikit-learn, and a whole evaluation."""

from dataclasses import replace

import numpy as np
import pytest

from fracture_det.calibration.type_threshold import ACCURACY, COVERAGE, choose_type_threshold
from fracture_det.data.records import Dataset
from fracture_det.evaluation.evaluator import evaluate
from fracture_det.evaluation.report import Report
from fracture_det.evaluation.type_boxes import type_boxes
from fracture_det.evaluation.types import (
    TypeNameError,
    answers_of,
    evaluate_types,
    known_names,
    population_statistics,
    risk_coverage,
    true_types,
    type_threshold,
)
from fracture_det.structures.detections import Detections
from tests.evaluation.cases import box, dataset, record

NAMES = ("transverse", "spiral", "oblique")


def image(image_id, kind=None, *boxes, group=None, truth=(0,)):
    """Return an image with truth boxes whose type is `kind`, or those of the boxes."""
    one = record(image_id, truth, group=group)
    return replace(one, attributes={"type": kind} if kind else {}, types=boxes)


def said(*rows, score=0.5, boxes=None):
    """Return detections with these types, one box each, of falling score."""
    scores = [score / (index + 1) for index in range(len(rows))]
    return Detections([box(n) for n in boxes or range(len(rows))], scores, [0] * len(rows), np.array(rows))


def six():
    """Six images: 3 transverse, 2 spiral, 1 hairline, which the detector cannot tell; the last spiral has no box.

    Answers: transverse .9, transverse .6, spiral .5; spiral .8, none; oblique .7. Right: 3 of 5, of 6.
    """
    kinds = ("transverse", "transverse", "Transverse fracture", "spiral", "spiral", "hairline")
    rows = [[0.9, 0.1, 0], [0.6, 0.2, 0.2], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], None, [0.1, 0.2, 0.7]]
    found = {n: Detections.empty() if row is None else said(row) for n, row in enumerate(rows)}
    return dataset(*(image(n, kind, group=f"patient{n // 2}") for n, kind in enumerate(kinds))), found


def case():
    study, found = six()
    return answers_of(study.records, found, NAMES)


# --- the true type ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (image(0, "Spiral fracture"), {"spiral"}),
        (image(0, "linear"), {"longitudinal"}),
        (image(0, "spiral", "oblique"), {"oblique"}),  # that of a box comes first
        (image(0, "spiral", "oblique", None, truth=(0, 1)), {"oblique"}),
        (image(0, None, "oblique", "spiral", truth=(0, 1)), {"oblique", "spiral"}),
        (image(0, "no such type"), set()),
        (image(0), set()),
        (image(0, "spiral", truth=()), set()),  # a healthy image has none
    ],
)
def test_the_true_type_of_an_image(one, expected):
    assert true_types(one) == expected


def test_types_of_a_detector_are_those_of_the_list():
    assert known_names(["Spiral fracture", "linear"]) == ("spiral", "longitudinal")
    with pytest.raises(TypeNameError, match=r"type_names: 'buckle' is not in configs/fracture_types.yaml"):
        known_names(["spiral", "buckle"])
    with pytest.raises(TypeNameError, match="each type once, got linear, longitudinal"):
        known_names(["linear", "longitudinal"])


# --- images ----------------------------------------------------------------------------------------------------------


def test_the_confusion_table_has_a_column_for_no_answer_and_a_row_for_what_cannot_be_told():
    answers = case()
    assert answers.names == (*NAMES, "hairline")
    assert answers.confusion().tolist() == [[2, 1, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("name", "of", "detector", "chance"),
    [
        ("accuracy", "answered", 3 / 5, 3 / 5),
        ("accuracy", "fractured", 3 / 6, 3 / 6),
        # F1 of transverse 2*2/(3+2), of spiral 2*1/(1+2), of hairline 0; chance: 2*3/(3+5), 0, 0.
        ("macro_f1", "answered", (4 / 5 + 2 / 3 + 0) / 3, 6 / 8 / 3),
        # Of spiral 2*1/(2+2); chance: 2*3/(3+6).
        ("macro_f1", "fractured", (4 / 5 + 2 / 4 + 0) / 3, 6 / 9 / 3),
        # The first two: right, right, second, right, -, wrong; chance: transverse and spiral.
        ("top2", "answered", 4 / 5, 4 / 5),
        ("top2", "fractured", 4 / 6, 5 / 6),
        # .1^2+.1^2, .4^2+.2^2+.2^2, .6^2+.5^2+.1^2, .1^2+.2^2+.1^2, .1^2+.2^2+.7^2+1; chance: 1 - (3^2+1+1)/5^2.
        ("brier", "answered", (0.02 + 0.24 + 0.62 + 0.06 + 1.54) / 5, 1 - 11 / 25),
    ],
)
def test_figures_beside_chance(name, of, detector, chance):
    answers = case()
    types = evaluate_types(answers, None, n_bootstrap=0, seed=0)
    figure = getattr(types, of)[name]
    assert figure.detector.value == pytest.approx(detector)
    assert figure.chance.value == pytest.approx(chance)
    assert figure.difference.value == pytest.approx(detector - chance)
    assert figure.detector.n == {"answered": 5, "fractured": 6}[of]


def test_precision_recall_and_f1_of_each_type():
    rows = {row.name: row for row in evaluate_types(case(), None, n_bootstrap=0, seed=0).rows}
    figures = {name: [(one.value, one.count, one.n) for one in row.figures.values()][:2] for name, row in rows.items()}
    assert figures["transverse"] == [(1.0, 2, 2), (pytest.approx(2 / 3), 2, 3)]
    assert figures["spiral"] == [(0.5, 1, 2), (1.0, 1, 1)]  # the one without an answer is in neither
    assert rows["spiral"].n == 2
    assert figures["oblique"] == [(0.0, 0, 1), (None, None, 0)]
    assert rows["hairline"].figures["precision"].reason == "no answer is hairline"
    assert rows["transverse"].figures["f1"].value == pytest.approx(4 / 5)


def test_coverage_and_accuracy_above_a_confidence():
    # Surest first: .9 right, .8 right, .7 wrong, .6 right, .5 wrong, of six images.
    assert risk_coverage(case()) == {
        "confidence": pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5]),
        "coverage": pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6]),
        "accuracy": pytest.approx([1, 1, 2 / 3, 3 / 4, 3 / 5]),
    }
    rows = {row.confidence: row for row in evaluate_types(case(), None, n_bootstrap=0, seed=0).above}
    assert (rows[0.7].coverage.count, rows[0.7].coverage.n) == (3, 6)
    assert (rows[0.7].accuracy.count, rows[0.7].accuracy.n) == (2, 3)
    assert rows[0.0].coverage.count == 5


def random_answers(seed, n=400):
    random = np.random.default_rng(seed)
    kinds = random.choice(["transverse", "spiral", "oblique", "greenstick"], n, p=[0.5, 0.25, 0.15, 0.1])
    records, found = [], {}
    for number, kind in enumerate(kinds):
        records.append(image(number, str(kind), group=f"patient{number // 2}"))
        p = random.dirichlet(np.where(np.array(NAMES) == kind, 3, 1))
        found[number] = said(p) if random.random() < 0.9 else Detections.empty()
    return dataset(*records), found


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_those_of_scikit_learn_also_with_weights(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    study, found = random_answers(seed)
    answers = answers_of(study.records, found, NAMES)
    weights = np.random.default_rng(seed).integers(0, 4, len(answers.truth)).astype(float)
    values = {
        (key.name, key.of): value
        for key, value in population_statistics(answers, weights).items()
        if key.by == "detector"
    }
    for of, members in (("answered", answers.answered), ("fractured", np.ones_like(answers.answered))):
        truth, answer, weight = answers.truth[members], answers.answer[members], weights[members]
        assert values["accuracy", of] == pytest.approx(metrics.accuracy_score(truth, answer, sample_weight=weight))
        present = np.unique(truth[weight > 0])
        expected = metrics.f1_score(
            truth, answer, labels=present, average="macro", sample_weight=weight, zero_division=0
        )
        assert values["macro_f1", of] == pytest.approx(expected)
    members = answers.answered
    p, truth, weight = answers.probability[members], answers.truth[members], weights[members]
    p = p / p.sum(axis=1, keepdims=True)  # of float32
    expected = metrics.top_k_accuracy_score(truth, p, k=2, labels=range(4), sample_weight=weight)
    assert values["top2", "answered"] == pytest.approx(expected)
    expected = metrics.brier_score_loss(truth, p, labels=range(4), sample_weight=weight, scale_by_half=False)
    assert values["brier", "answered"] == pytest.approx(expected)
    confusion = metrics.confusion_matrix(answers.truth, answers.answer, sample_weight=weights, labels=range(5))
    assert answers.confusion(weights).tolist() == confusion[:4].tolist()
    types = evaluate_types(answers, None, n_bootstrap=0, seed=0)
    for index, row in enumerate(types.rows):
        expected = metrics.precision_recall_fscore_support(
            answers.truth[members], answers.answer[members], labels=[index], zero_division=np.nan
        )
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            got = row.figures[name].value
            assert np.isnan(value[0]) if got is None else got == pytest.approx(value[0])


def test_the_calibration_error_is_that_of_the_answers_confidence():
    reliability = evaluate_types(case(), None, n_bootstrap=0, seed=0).reliability
    # Bins of one answer each: |1-.9| + |1-.8| + |0-.7| + |1-.6| + |0-.5| over five; that without an answer is not in.
    assert reliability.figures["ECE"].value == pytest.approx((0.1 + 0.2 + 0.7 + 0.4 + 0.5) / 5)
    assert reliability.figures["Brier"].value == pytest.approx((0.01 + 0.04 + 0.49 + 0.16 + 0.25) / 5)
    assert sum(one.n for one in reliability.bins) == 5


def test_intervals_are_over_groups_and_contain_the_figure():
    study, found = random_answers(0)
    types = evaluate_types(answers_of(study.records, found, NAMES), None, n_bootstrap=200, seed=1)
    accuracy = types.answered["accuracy"]
    assert accuracy.detector.low < accuracy.detector.value < accuracy.detector.high
    assert accuracy.difference.low < accuracy.difference.value < accuracy.difference.high
    cell = types.confusion[0][0]
    assert cell.low < cell.value < cell.high
    alone = [replace(one, group_id=str(one.image_id)) for one in study]
    narrower = evaluate_types(answers_of(alone, found, NAMES), None, n_bootstrap=200, seed=1)
    assert narrower.answered["accuracy"].detector.low != accuracy.detector.low


# --- the frozen confidence -------------------------------------------------------------------------------------------

CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
RIGHT = np.array([True, True, False, True, False])


@pytest.mark.parametrize(
    ("rule", "target", "confidence", "accuracy", "coverage"),
    [
        (ACCURACY, 0.7, 0.55, 3 / 4, 4 / 6),  # .9, .8: 1; .7: 2/3; .6: 3/4, the most lenient that reaches .7
        (ACCURACY, 1.0, 0.75, 1.0, 2 / 6),
        (ACCURACY, 0.5, 0.5, 3 / 5, 5 / 6),
        (COVERAGE, 0.4, 0.65, 2 / 3, 3 / 6),  # the strictest that covers two fifths
        (COVERAGE, 5 / 6, 0.5, 3 / 5, 5 / 6),
    ],
)
def test_the_confidence_that_validation_gives(rule, target, confidence, accuracy, coverage):
    chosen = choose_type_threshold(CONFIDENCE, RIGHT, 6, rule=rule, target=target)
    assert (chosen.confidence, chosen.accuracy, chosen.coverage) == pytest.approx((confidence, accuracy, coverage))
    assert chosen.reason is None


@pytest.mark.parametrize(
    ("right", "rule", "target", "reason"),
    [
        (~RIGHT, ACCURACY, 0.8, "of 6 validation images of known type, at most the surest are right in 0.400"),
        (RIGHT, COVERAGE, 0.9, "of 6 validation images of known type, at most 0.833 have an answer"),
    ],
)
def test_a_target_that_is_not_reached_has_a_reason(right, rule, target, reason):
    chosen = choose_type_threshold(CONFIDENCE, right, 6, rule=rule, target=target)
    assert (chosen.confidence, chosen.reason) == (None, reason)


def test_the_confidence_is_applied_to_other_images():
    threshold = type_threshold(case(), rule=ACCURACY, target=0.7)
    study, found = random_answers(0)
    answers = answers_of(study.records, found, NAMES)
    row = evaluate_types(answers, threshold, n_bootstrap=0, seed=0, chosen_on="val.json").above[-1]
    assert (row.confidence, row.origin) == (pytest.approx(0.55), "accuracy 0.7 on val.json")
    sure = answers.answered & (answers.confidence >= 0.55)
    assert row.accuracy.value == pytest.approx(answers.right[sure].mean())
    unreached = type_threshold(case(), rule=COVERAGE, target=0.95)
    types = evaluate_types(answers, unreached, n_bootstrap=0, seed=0)
    assert "at most 0.833 have an answer" in types.not_reached
    assert [row.origin for row in types.above] == [""] * 5


# --- boxes -----------------------------------------------------------------------------------------------------------


def boxes_case():
    """Box 0 is spiral, box 1 oblique; the surer box is on 1. A box of each type's probability on each, one off both."""
    two = image(0, None, "spiral", "oblique", truth=(0, 1))
    detections = Detections(
        [box(1), box(0), box(2)], [0.9, 0.8, 0.4], [0] * 3, np.array([[0, 0.2, 0.8], [0, 0.9, 0.1], [0, 0.5, 0.5]])
    )
    return dataset(two, image(1, truth=())), {0: detections, 1: Detections.empty()}


def test_a_type_is_detected_by_score_times_its_probability():
    by_type = type_boxes(*boxes_case(), NAMES, n_bootstrap=0, seed=0)
    assert list(by_type) == ["spiral", "oblique"]
    # Spiral: .8 * .9 = .72 hits, .4 * .5 = .20 and .9 * .2 = .18 do not. By score alone .9 comes before the hit: 1/2.
    spiral = by_type["spiral"]
    assert spiral["AP50"].value == pytest.approx(1)
    assert spiral["AP50 by score alone"].value == pytest.approx(0.5)
    assert spiral["AP50 gained"].value == pytest.approx(0.5)
    assert (spiral["FROC@0.5"].value, spiral["FROC@0.5"].count, spiral["FROC@0.5"].n) == (1, 1, 1)
    assert by_type["oblique"]["AP50 gained"].value == 0


def test_images_with_a_box_of_unknown_type_are_left_out_and_types_that_cannot_be_told_are_missed():
    study, found = boxes_case()
    study = Dataset((*study, image(2, None, "hairline"), image(3, None, None, "spiral", truth=(0, 1))), ("fracture",))
    found |= {2: said([0, 1, 0]), 3: said([0, 1, 0], score=1.0)}
    by_type = type_boxes(study, found, NAMES, n_bootstrap=0, seed=0)
    assert by_type["spiral"]["AP50"].n == 1
    assert list(by_type) == ["spiral", "oblique", "hairline"]
    assert by_type["hairline"]["AP50"].value == 0
    assert by_type["hairline"]["AP50 by score alone"].value > 0


def test_where_no_box_has_a_type_there_is_no_figure_of_boxes():
    assert type_boxes(*six(), NAMES, n_bootstrap=0, seed=0) == {}


# --- a whole evaluation ----------------------------------------------------------------------------------------------


def test_a_report_has_the_types_and_says_who_is_not_asked(tmp_path):
    study, found = six()
    others = (image(6, "Buckle"), image(7, None, "spiral", "oblique", truth=(0, 1)), image(8, truth=()))
    study = Dataset((*study, *others), ("fracture",))
    found |= {6: said([1, 0, 0]), 7: said([1, 0, 0]), 8: Detections.empty()}
    report = evaluate(study, found, type_names=NAMES, n_bootstrap=20)
    assert report.types.fractured["accuracy"].detector.n == 6
    assert report.types.rows[1].boxes["AP50"].n == 1
    notes = " ".join(report.notes)
    for sentence in (
        "1 images show fractures of several types",
        "the type of 1 of 8 fractured images is not known",
        "not in configs/fracture_types.yaml, and taken as not known: 'Buckle' (1)",
        "the detector cannot tell hairline",
        "Types by box: 7 fractured images are left out",
    ):
        assert sentence in notes
    report.save(tmp_path)
    assert Report.load(tmp_path) == report
    assert report.to_json() == evaluate(study, found, type_names=NAMES, n_bootstrap=20).to_json()


def test_a_report_without_types_has_no_word_of_them():
    study, found = six()
    plain = {number: replace(one, types=None) for number, one in found.items()}
    report = evaluate(study, plain, n_bootstrap=0)
    assert report.types is None
    assert '\n "types"' not in report.to_json()
    assert not any("Types" in note for note in report.notes)


def test_a_data_set_without_types_gets_a_sentence():
    study = dataset(image(0), image(1, truth=()))
    report = evaluate(study, {0: said([1, 0, 0]), 1: Detections.empty()}, type_names=NAMES, n_bootstrap=0)
    assert report.types is None
    assert "no image has one known type, so there are no figures" in report.notes[-1]
