import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fracture_det.detections import Detections
from fracture_det.evaluation import EvaluationError, Report, ReportError, evaluate, evaluate_predictions
from fracture_det.evaluation.coco import coco_result
from fracture_det.evaluation.report import Estimate
from fracture_det.predictions import ImagePrediction, Predictions, PredictionsError
from tests.evaluation.cases import dataset, found, random_study, record

FILES = {"report.json", "report.md", "per_site.csv", "pr_curve.png", "froc.png"}


def figures_of(report):
    """Return every figure of a report by name."""
    figures = {**report.coco, **report.image, "FROC mean": report.froc.mean}
    pairs = zip(report.froc.fp_per_image, report.froc.sensitivity, strict=True)
    figures |= {f"FROC@{target:g}": one for target, one in pairs}
    for point in report.operating_points:
        figures |= {f"{point.name}: {name}": one for name, one in point.figures.items()}
    for row in report.sites:
        figures |= {f"{row.site}: {name}": getattr(row, name) for name in ("ap50", "precision", "recall")}
    return figures


def test_a_detector_that_knows_the_truth_scores_one_everywhere():
    # sizes for small (< 32^2), medium and large (> 96^2 px), one box per image, so that AR@1 is 1, too
    records = [record(index, (), site="wrist", group=f"p{index // 2}") for index in range(12)]
    boxes = {index: [[0, 0, side, side]] for index, side in enumerate([20, 60, 99] * 3)}
    fractured = [replace(one, boxes=np.array(boxes[i], float), classes=[0]) for i, one in enumerate(records[:9])]
    study = dataset(*fractured, *records[9:])
    known = {one.image_id: Detections.from_unsorted(one.boxes, [0.9] * len(one.boxes), one.classes) for one in study}
    for name, figure in figures_of(evaluate(study, known, n_bootstrap=50)).items():
        assert figure.value == pytest.approx(1), name
        if name.startswith(("AP50", "AUROC", "FROC", "operating point")):
            assert (figure.low, figure.high) == (1, 1), name


def test_a_detector_that_guesses_scores_its_expected_value_within_the_interval():
    random = np.random.default_rng(1)
    study = dataset(*(record(index, (1,) if index % 2 else ()) for index in range(400)))
    guesses = {index: found((1, float(random.random()))) for index in range(400)}
    report = evaluate(study, guesses, n_bootstrap=300)
    point = report.operating_points[0].figures
    # the score says nothing: AUROC .5; half of the images reach .5; half of the boxes lie on a fracture
    expected = {report.image["AUROC"]: 0.5, point["sensitivity"]: 0.5, point["specificity"]: 0.5}
    for figure, value in {**expected, point["precision"]: 0.5, point["recall"]: 0.5}.items():
        assert figure.low < value < figure.high


def test_coco_figures_are_those_of_pycocotools_and_lie_in_their_interval():
    study, predictions = random_study(7)
    report = evaluate(study, predictions, n_bootstrap=100)
    expected = coco_result(study, predictions).stats
    assert {name: one.value for name, one in report.coco.items()} == pytest.approx(expected, abs=1e-9)
    assert report.coco["AP50"].low < report.coco["AP50"].value < report.coco["AP50"].high


def test_operating_points_stand_beside_the_papers():
    study, predictions = random_study(7)
    report = evaluate(study, predictions, operating_score=0.25, n_bootstrap=0)
    assert [(point.name, point.score) for point in report.operating_points] == [
        ("operating point", 0.25),
        ("paper", 0.5),
    ]
    lenient, strict = (point.figures["recall"].value for point in report.operating_points)
    assert lenient > strict
    assert len(evaluate(study, predictions, n_bootstrap=0).operating_points) == 1


@pytest.mark.parametrize("score", [-0.1, 1.01, float("nan")])
def test_an_operating_score_is_a_share(score):
    with pytest.raises(EvaluationError, match=r"operating_score: expected 0\.\.1"):
        evaluate(dataset(record(0)), {0: found()}, operating_score=score)


def test_sites_have_their_own_rows():
    study = dataset(
        record(0, (1,), site="wrist"), record(1, (1, 2), site="hand"), record(2, site="hand"), record(3, (1,))
    )
    predictions = {0: found((1, 0.9)), 1: found((1, 0.9), (9, 0.8)), 2: found((1, 0.6)), 3: found()}
    rows = {row.site: row for row in evaluate(study, predictions, n_bootstrap=20).sites}
    assert list(rows) == ["hand", "unknown", "wrist", "all"]
    hand = rows["hand"]
    assert (hand.n_images, hand.n_fractured, hand.n_boxes) == (2, 1, 2)
    # of three boxes one hits; of two fractures one is found
    assert (hand.precision.count, hand.precision.n, hand.recall.count, hand.recall.n) == (1, 3, 1, 2)
    assert hand.ap50.value == pytest.approx(51 / 101)
    assert (rows["unknown"].recall.value, rows["unknown"].precision.value) == (0, None)
    assert rows["all"].n_images == 4
    assert hand.recall.small


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
        assert report.operating_points[0].figures["sensitivity"].n == 1
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


# name, records, predictions, figures that are not defined, a word of the notes
DEGENERATE = [
    ("no image", (), {}, {"AP50", "AUROC", "operating point: precision", "operating point: accuracy"}, "no image"),
    ("all healthy, no box", (record(0), record(1)), {0: found(), 1: found()}, {"AP50", "AUROC", "FROC@1"}, "no truth"),
    ("all healthy, boxes", (record(0), record(1)), dict.fromkeys((0, 1), found((1, 0.9))), {"AP50", "AUROC"}, "no fra"),
    ("no box", (record(0, (1,)), record(1)), {0: found(), 1: found()}, {"operating point: precision"}, "no box"),
    ("all fractured", (record(0, (1,)), record(1, (1,))), dict.fromkeys((0, 1), found((1, 0.9))), {"AUROC"}, "no hea"),
    ("one group", (record(0, (1,), group="p"), record(1, group="p")), {0: found((1, 0.9)), 1: found()}, set(), "1 gr"),
    ("all scores equal", (record(0, (1,)), record(1)), dict.fromkeys((0, 1), found((1, 0.7))), set(), "of its own"),
]


@pytest.mark.parametrize("case", DEGENERATE, ids=[case[0] for case in DEGENERATE])
def test_degenerate_inputs_give_a_stated_result(case, tmp_path):
    _, records, predictions, undefined, word = case
    report = evaluate(dataset(*records), predictions, n_bootstrap=30)
    figures = figures_of(report)
    assert undefined <= {name for name, one in figures.items() if one.value is None}
    for name, one in figures.items():
        assert (one.value is None) == (one.reason is not None), name
        assert one.value is None or math.isfinite(one.value), name
    assert any(word in note for note in report.notes)
    report.save(tmp_path)
    assert Report.load(tmp_path) == report
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert "nan" not in (tmp_path / "report.md").read_text().lower()


def test_one_group_has_values_but_no_interval():
    study = dataset(record(0, (1,), group="p"), record(1, group="p"))
    report = evaluate(study, {0: found((1, 0.9)), 1: found()}, n_bootstrap=30)
    assert report.image["AUROC"] == Estimate(1.0, n=1)


@pytest.fixture(scope="module")
def report():
    study, predictions = random_study(3)
    records = tuple(
        replace(one, site=("wrist", "hand")[i % 2], file_name=f"Bilder/Händ|{i}.png") for i, one in enumerate(study)
    )
    study = type(study)(records, study.class_names)
    predicted = {key: one for key, one in predictions.items() if key}
    return evaluate(
        study, predicted, operating_score=0.4, n_bootstrap=100, failures={0: "a|b\nc"}, about={"detector": "d"}
    )


class TestReport:
    def test_what_is_saved_is_read_back(self, report, tmp_path):
        report.save(tmp_path / "new")
        assert {path.name for path in (tmp_path / "new").iterdir()} == FILES
        assert Report.load(tmp_path / "new" / "report.json") == report

    def test_equal_inputs_give_equal_bytes(self, report, tmp_path):
        report.save(tmp_path / "one")
        replace(Report.load(tmp_path / "one"), timing=None).save(tmp_path / "two")
        for name in FILES:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name

    def test_evaluating_again_gives_the_same_json(self):
        study, predictions = random_study(3)
        one, two = (evaluate(study, dict(order), n_bootstrap=40, seed=5) for order in self.two_orders(predictions))
        assert one.to_json() == two.to_json()
        assert evaluate(study, predictions, n_bootstrap=40, seed=6).to_json() != one.to_json()

    @staticmethod
    def two_orders(predictions):
        return list(predictions.items()), list(predictions.items())[::-1]

    def test_timing_is_apart(self, report):
        timed = replace(report, timing={"images": 3, "seconds_in_detector": 1.5})
        with_timing, without = json.loads(timed.to_json()), json.loads(report.to_json())
        assert with_timing.pop("timing") == {"images": 3, "seconds_in_detector": 1.5}
        assert without.pop("timing") is None
        assert with_timing == without

    def test_markdown_tells_the_whole(self, report, tmp_path):
        report.save(tmp_path)
        text = (tmp_path / "report.md").read_text()
        for word in (
            "59",
            "AP50",
            "wrist",
            "†",
            "froc.png",
            "score 0.4",
            "paper, score 0.5",
            r"a\|b c",
            "not a medical",
        ):
            assert word.lower() in text.lower(), word
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert all(line.endswith("|") for line in rows)

    def test_per_site_csv_has_a_row_per_site(self, report, tmp_path):
        report.save(tmp_path)
        lines = (tmp_path / "per_site.csv").read_text().splitlines()
        assert lines[0].startswith("site,n_images,n_fractured,n_boxes,ap50,ap50_low,ap50_high,ap50_n,precision")
        assert [line.split(",")[0] for line in lines[1:]] == ["hand", "wrist", "all"]

    def test_figures_are_pictures(self, report, tmp_path):
        report.save(tmp_path)
        for name in ("froc.png", "pr_curve.png"):
            with Image.open(tmp_path / name) as image:
                assert min(image.size) > 500

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: "{", "cannot be read"),
            (lambda text: "[]", "expected format"),
            (lambda text: text.replace('"version": 1', '"version": 99'), "99"),
            (lambda text: text.replace('"AP50"', '"XX"').replace('"coco"', '"koko"'), "coco"),
            (lambda text: text.replace('"reason"', '"why"'), "why"),
        ],
    )
    def test_a_wrong_file_says_what_is_wrong(self, report, tmp_path, change, message):
        report.save(tmp_path)
        path = tmp_path / "report.json"
        path.write_text(change(path.read_text()))
        with pytest.raises(ReportError, match=message):
            Report.load(path)
        shutil.rmtree(tmp_path)
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
        assert report.about == {"detector": "toy", "operating score": "the paper's"}

    def test_the_operating_score_is_given_or_stated_or_the_papers(self):
        stated = self.predictions(self.hit(), score=0.3)
        for predictions, given, score, source in [
            (stated, None, 0.3, "the detector's own"),
            (stated, 0.7, 0.7, "given"),
            (self.predictions(self.hit()), None, 0.5, "the paper's"),
        ]:
            report = evaluate_predictions(self.study, predictions, operating_score=given, n_bootstrap=0)
            assert (report.operating_points[0].score, report.about["operating score"]) == (score, source)

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
