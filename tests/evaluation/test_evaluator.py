"""From truth and predictions to a Report: what is in it, what it refuses, and what it says of degenerate input."""

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fracture_det.calibration.operating_points import OperatingPointError
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.data.predictions import ImagePrediction, Predictions, PredictionsError
from fracture_det.evaluation.coco_eval import coco_matches
from fracture_det.evaluation.evaluator import EvaluationError, evaluate, evaluate_predictions
from fracture_det.evaluation.report import Estimate, Report, ReportError
from fracture_det.evaluation.validation import freeze
from fracture_det.structures.detections import Detections
from fracture_det.structures.timing import Timing
from tests.evaluation.cases import dataset, found, random_study, record

# A detector that knows the truth is as good as can be when these are 0, and the rest 1.
LOWER_IS_BETTER = ("fp_per_image", "ECE", "Brier", "false_positive_rate", "base rate")


def figures_of(value, path=""):
    """Yield (path, Estimate) of everything in a report."""
    if isinstance(value, Estimate):
        yield path, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from figures_of(getattr(value, field.name), f"{path}/{field.name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from figures_of(one, f"{path}/{key}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from figures_of(one, f"{path}/{index}")


def test_a_detector_that_knows_the_truth_scores_one_everywhere():
    # sizes for small (< 32^2), medium and large (> 96^2 px), one box per image, so that AR@1 is 1, too
    records = [record(index, (), anatomy="wrist", group=f"p{index // 2}") for index in range(12)]
    boxes = {index: [[0, 0, side, side]] for index, side in enumerate([20, 60, 99] * 3)}
    fractured = [replace(one, boxes=np.array(boxes[i], float), classes=[0]) for i, one in enumerate(records[:9])]
    study = dataset(*fractured, *records[9:])
    known = {one.image_id: Detections.from_unsorted(one.boxes, [0.9] * len(one.boxes), one.classes) for one in study}
    report = evaluate(study, known, n_bootstrap=50)
    for path, figure in figures_of(report):
        if figure.value is not None and "strata" not in path and "calibration" not in path:
            best = 0 if any(word in path for word in LOWER_IS_BETTER) else 1
            assert figure.value == pytest.approx(best), path
    for figure in (report.coco["AP50"], report.image["AUROC"], report.group["AUROC"], report.froc["centre"].mean):
        assert (figure.low, figure.high) == (1, 1)
    assert all(one.count == 0 for one in report.errors.types.values())
    assert report.operating_points[0].counts.images_tn == 3


def test_a_detector_that_guesses_scores_its_expected_value_within_the_interval():
    random = np.random.default_rng(1)
    study = dataset(*(record(index, (1,) if index % 2 else ()) for index in range(400)))
    guesses = {index: found((1, float(random.random()))) for index in range(400)}
    report = evaluate(study, guesses, n_bootstrap=300)
    lesion, image = report.operating_points[0].lesion, report.operating_points[0].image
    # the score says nothing: AUROC .5; half of the images reach .5; half of the boxes lie on a fracture
    halves = (report.image["AUROC"], image["sensitivity"], image["specificity"], lesion["precision"], lesion["recall"])
    for figure in (*halves, report.image["AUPRC"]):
        assert figure.low < 0.5 < figure.high
    for predictive in report.operating_points[0].predictive:  # a call says nothing: PPV is the prevalence
        assert predictive.ppv.low < predictive.prevalence < predictive.ppv.high
        assert predictive.npv.low < 1 - predictive.prevalence < predictive.npv.high


def test_coco_figures_are_those_of_pycocotools_and_lie_in_their_interval():
    study, predictions = random_study(7)
    report = evaluate(study, predictions, n_bootstrap=100)
    expected = coco_matches(study, predictions).figures()
    assert {name: one.value for name, one in report.coco.items()} == pytest.approx(expected, abs=1e-9)
    assert report.coco["AP50"].low < report.coco["AP50"].value < report.coco["AP50"].high


def test_operating_points_stand_beside_the_papers():
    study, predictions = random_study(7)
    report = evaluate(study, predictions, operating_score=0.25, detector_score=0.4, n_bootstrap=0)
    assert [(point.rule, point.score) for point in report.operating_points] == [
        ("given", 0.25),
        ("detector", 0.4),
        ("paper", 0.5),
    ]
    recalls = [point.lesion["recall"].value for point in report.operating_points]
    assert recalls[0] > recalls[1] > recalls[2]
    # a detector that states the paper's score states nothing new
    assert len(evaluate(study, predictions, detector_score=0.5, n_bootstrap=0).operating_points) == 1


def as_predictions(study, found_by_id):
    images = [ImagePrediction(one.file_name, one.size, found_by_id[one.image_id]) for one in study]
    return Predictions("toy", study.class_names, tuple(images))


def renamed(study, prefix):
    records = [replace(one, file_name=prefix + one.file_name, group_id=prefix + one.group_id) for one in study]
    return type(study)(tuple(records), study.class_names)


class TestValidation:
    validation, found_there = random_study(1, n_images=120, n_classes=1)
    test, found_here = random_study(2, n_classes=1)
    test = renamed(test, "test ")

    def frozen(self, **options):
        predictions = as_predictions(self.validation, self.found_there)
        return freeze(
            self.validation,
            predictions,
            test=options.pop("test", self.test),
            method="platt",
            about={"data": "val.json"},
        )

    def test_thresholds_are_chosen_there_and_applied_here(self):
        calibration = self.frozen()
        report = evaluate(self.test, self.found_here, calibration=calibration, n_bootstrap=20)
        assert report.operating_points[0].rule == "specificity"
        assert report.operating_points[-1].rule == "paper"
        for point in report.operating_points[:-1]:
            assert point.score == calibration.operating_points[point.rule]
            assert point.origin == "chosen on val.json"
        assert {one.scores for one in report.calibration} == {"raw", "platt"}
        assert set(report.not_reached) == set(calibration.not_reached)

    def test_a_calibration_of_another_detector_is_refused(self):
        calibration = self.frozen()
        stranger = replace(as_predictions(self.test, self.found_here), detector="stranger")
        with pytest.raises(CalibrationError, match="stranger"):
            evaluate_predictions(self.test, stranger, calibration=calibration, n_bootstrap=0)

    def test_scores_that_cannot_be_calibrated_are_named(self):
        nothing = dict.fromkeys(self.found_there, found())
        calibration = freeze(self.validation, as_predictions(self.validation, nothing), test=self.test, method="platt")
        report = evaluate(self.test, self.found_here, calibration=calibration, n_bootstrap=0)
        assert report.not_reached["youden"] == "no validation image has a box"
        assert any(note.startswith("Scores at the box level are not calibrated: ") for note in report.notes)

    def test_the_same_images_on_both_sides_are_refused(self):
        with pytest.raises(OperatingPointError, match="share 120 images"):
            self.frozen(test=self.validation)
        with pytest.raises(OperatingPointError, match="120 images of this data set"):
            evaluate(self.validation, self.found_there, calibration=self.frozen(), n_bootstrap=0)


@pytest.mark.parametrize("score", [-0.1, 1.01, float("nan")])
def test_an_operating_score_is_a_share(score):
    with pytest.raises(EvaluationError, match=r"operating_score: expected 0\.\.1"):
        evaluate(dataset(record(0)), {0: found()}, operating_score=score)
    with pytest.raises(EvaluationError, match=r"prevalences: expected each above 0"):
        evaluate(dataset(record(0)), {0: found()}, prevalences=(score,))


def test_body_parts_have_their_own_rows():
    study = dataset(
        record(0, (1,), anatomy="wrist"), record(1, (1, 2), anatomy="hand"), record(2, anatomy="hand"), record(3, (1,))
    )
    predictions = {0: found((1, 0.9)), 1: found((1, 0.9), (9, 0.8)), 2: found((1, 0.6)), 3: found()}
    strata = evaluate(study, predictions, n_bootstrap=20).strata
    rows = {row.value: row for row in strata if row.column in ("all", "anatomy")}
    assert list(rows) == ["all", "hand", "unknown", "wrist"]
    hand = rows["hand"]
    assert (hand.n_images, hand.n_fractured, hand.n_boxes) == (2, 1, 2)
    # of three boxes one hits; of two fractures one is found
    precision, recall = hand.figures["precision"], hand.figures["recall"]
    assert (precision.count, precision.n, recall.count, recall.n) == (1, 3, 1, 2)
    assert hand.figures["AP50"].value == pytest.approx(51 / 101)
    assert (rows["unknown"].figures["recall"].value, rows["unknown"].figures["precision"].value) == (0, None)
    assert rows["all"].n_images == 4
    assert recall.small


class TestFailures:
    study = dataset(record(0, (1,)), record(1, (1,)), record(2), record(3), record(4, (1,)))

    def test_are_counted_and_in_no_figure(self):
        predictions = {0: found((1, 0.9)), 2: found()}
        failures = {1: "truncated", 3: "truncated", 4: "truncated"}
        report = evaluate(self.study, predictions, failures=failures, n_bootstrap=20)
        counts = report.counts
        assert (counts["images_asked"], counts["images_predicted"], counts["images_failed"]) == (5, 2, 3)
        assert counts["images_failed_fractured"] == 2
        assert list(report.failures) == ["image1.png", "image3.png", "image4.png"]
        assert report.operating_points[0].image["sensitivity"].n == 1
        assert report.coco["AP50"].value == pytest.approx(1)
        assert any("3 of 5 images could not be predicted, 2 of them fractured" in note for note in report.notes)

    def test_a_missing_prediction_is_an_error_that_names_the_image(self):
        with pytest.raises(EvaluationError, match=r"image3\.png.*no prediction"):
            evaluate(self.study, {0: found(), 1: found(), 2: found(), 4: found()})

    def test_predictions_must_be_about_the_data_set(self):
        everything = dict.fromkeys(range(5), found())
        with pytest.raises(EvaluationError, match="image id 9"):
            evaluate(self.study, {**everything, 9: found()})
        with pytest.raises(EvaluationError, match="both"):
            evaluate(self.study, everything, failures={2: "broken"})
        wrong_class = Detections.from_unsorted([[0, 0, 1, 1]], [0.5], [1])
        with pytest.raises(EvaluationError, match=r"image2\.png: class index"):
            evaluate(self.study, {**everything, 2: wrong_class})


POINT = "/operating_points/0"
HIT = found((1, 0.9))
# name, records, predictions, figures that are not defined, a word of the notes
DEGENERATE = [
    ("no image", (), {}, {"/coco/AP50", f"{POINT}/lesion/precision", f"{POINT}/image/accuracy"}, "no image"),
    ("all healthy, no box", (record(0), record(1)), {0: found(), 1: found()}, {"/coco/AP50"}, "no annot"),
    ("all healthy, boxes", (record(0), record(1)), dict.fromkeys((0, 1), HIT), {"/image/AUPRC"}, "no fra"),
    ("no box", (record(0, (1,)), record(1)), {0: found(), 1: found()}, {f"{POINT}/lesion/precision"}, "no box"),
    ("all fractured", (record(0, (1,)), record(1, (1,))), dict.fromkeys((0, 1), HIT), {"/image/AUROC"}, "no hea"),
    ("one group", (record(0, (1,), group="p"), record(1, group="p")), {0: HIT, 1: found()}, set(), "got 1"),
    ("all scores equal", (record(0, (1,)), record(1)), dict.fromkeys((0, 1), found((1, 0.7))), set(), "its own group"),
]  # fmt: skip


@pytest.mark.parametrize("case", DEGENERATE, ids=[case[0] for case in DEGENERATE])
def test_degenerate_inputs_give_a_stated_result(case, tmp_path):
    _, records, predictions, undefined, word = case
    report = evaluate(dataset(*records), predictions, n_bootstrap=30)
    figures = dict(figures_of(report))
    assert undefined <= {name for name, one in figures.items() if one.value is None}
    for name, one in figures.items():
        assert (one.value is None) == (one.reason is not None), name
        assert one.value is None or math.isfinite(one.value), name
    assert any(word in note for note in report.notes)
    report.save(tmp_path)
    assert Report.load(tmp_path) == report


def test_one_group_has_values_but_no_interval():
    study = dataset(record(0, (1,), group="p"), record(1, group="p"))
    report = evaluate(study, {0: found((1, 0.9)), 1: found()}, n_bootstrap=30)
    assert report.image["AUROC"] == Estimate(1.0, n=1)
    # Wilson's interval of 1 of 1: (1 + z^2 / 2 -+ z sqrt(z^2 / 4)) / (1 + z^2) = 1 / (1 + 1.96^2) to 1
    sensitivity = report.operating_points[0].image["sensitivity"]
    assert (sensitivity.low, sensitivity.high) == (None, None)
    assert (sensitivity.wilson_low, sensitivity.wilson_high) == (pytest.approx(1 / (1 + 1.959964**2), abs=1e-6), 1)


@pytest.fixture(scope="module")
def report():
    study, predictions = random_study(3)
    predicted = {key: one for key, one in predictions.items() if key}
    return evaluate(study, predicted, operating_score=0.4, n_bootstrap=50, failures={0: "truncated"})


class TestReport:
    def test_evaluating_again_gives_the_same_json_whatever_the_order(self):
        study, predictions = random_study(3)
        orders = (dict(predictions), dict(list(predictions.items())[::-1]))
        one, two = (evaluate(study, order, n_bootstrap=40, seed=5) for order in orders)
        assert one.to_json() == two.to_json()
        assert evaluate(study, predictions, n_bootstrap=40, seed=6).to_json() != one.to_json()

    def test_timing_is_apart(self, report):
        timed = replace(report, timing=Timing("a machine", 3, 1, 2.0, None, {}))
        with_timing, without = json.loads(timed.to_json()), json.loads(report.to_json())
        assert with_timing.pop("timing")["images_per_second"] == 2.0
        assert without.pop("timing") is None
        assert with_timing == without

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: "{", "cannot be read"),
            (lambda text: "[]", "expected format"),
            (lambda text: text.replace('"version": 4', '"version": 99'), "99"),
            (lambda text: text.replace('"coco"', '"koko"'), "coco"),
            (lambda text: text.replace('"fp_per_image": [', '"fp_per_image": 7, "x": [', 1), r"\$\.froc\[\.\.\.\]"),
        ],
    )
    def test_a_wrong_file_says_what_is_wrong(self, report, tmp_path, change, message):
        path = report.save(tmp_path)
        path.write_text(change(path.read_text()))
        with pytest.raises(ReportError, match=message):
            Report.load(tmp_path)
        path.unlink()
        with pytest.raises(ReportError, match=r"report\.json"):
            Report.load(path)


class TestPredictionsFile:
    study = dataset(record(0, (1,)), record(1))

    def predictions(self, *extra, score=None):
        images = (ImagePrediction("image1.png", (100, 400), found()), *extra)
        return Predictions("toy", ("other", "fracture"), images, score)

    def hit(self):
        boxes = found((1, 0.9)).boxes
        return ImagePrediction("image0.png", (100, 400), Detections.from_unsorted(boxes, [0.9], [1]))

    def test_classes_are_matched_by_name(self):
        report = evaluate_predictions(self.study, self.predictions(self.hit()), n_bootstrap=0)
        assert report.coco["AP50"].value == pytest.approx(1)
        assert report.about == {"detector": "toy"}

    def test_the_operating_score_is_given_or_stated_or_the_papers(self):
        stated = self.predictions(self.hit(), score=0.3)
        for predictions, given, points in [
            (stated, None, [("detector", 0.3), ("paper", 0.5)]),
            (stated, 0.7, [("given", 0.7), ("detector", 0.3), ("paper", 0.5)]),
            (self.predictions(self.hit()), None, [("paper", 0.5)]),
        ]:
            report = evaluate_predictions(self.study, predictions, operating_score=given, n_bootstrap=0)
            assert [(point.rule, point.score) for point in report.operating_points] == points

    def test_an_error_line_is_a_failure_and_others_are_ignored_aloud(self):
        failed = ImagePrediction("image0.png", error="truncated")
        stranger = ImagePrediction("stranger.png", (5, 5), found())
        report = evaluate_predictions(self.study, self.predictions(failed, stranger), n_bootstrap=0)
        assert report.failures == {"image0.png": "truncated"}
        assert any("1 predicted images are not in this data set" in note for note in report.notes)

    def test_what_does_not_fit_is_an_error(self):
        with pytest.raises(PredictionsError, match=r"1 of 2 images: image0\.png"):
            evaluate_predictions(self.study, self.predictions())
        with pytest.raises(PredictionsError, match=r"image0\.png: predicted on .*\(400, 100\)"):
            evaluate_predictions(self.study, self.predictions(replace(self.hit(), size=(400, 100))))
        wrong = replace(self.hit(), detections=found((1, 0.9)))
        with pytest.raises(PredictionsError, match=r"image0\.png, label: .*'other'"):
            evaluate_predictions(self.study, self.predictions(wrong))
