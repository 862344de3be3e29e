"""tools/compare.py: runs of tools/eval.py and predictions files, side by side."""

from __future__ import annotations

import pytest

from fracture_det.data.coco import write_coco
from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import ImagePrediction, Predictions
from fracture_det.evaluation.comparison import Comparison
from fracture_det.evaluation.evaluator import evaluate_predictions
from tests.evaluation.cases import random_study
from tests.evaluation.test_eval_tool import load_tool


@pytest.fixture
def runs(tmp_path):
    """test.json, a run folder of detector "one" with operating point .4, and predictions of "two" that state .6."""
    study, found = random_study(4, n_classes=1)
    write_coco(study, tmp_path / "test.json")
    images = [ImagePrediction(one.file_name, one.size, found[one.image_id]) for one in study]
    one = Predictions("one", study.class_names, tuple(images))
    halved = [ImagePrediction(image.file_name, image.size, image.detections.above(0.5)) for image in images]
    (tmp_path / "run").mkdir()
    write_predictions(tmp_path / "run/predictions.jsonl", one)
    evaluate_predictions(study, one, operating_score=0.4, n_bootstrap=0).save(tmp_path / "run")
    write_predictions(tmp_path / "two.jsonl", Predictions("two", study.class_names, tuple(halved), 0.6))
    return tmp_path


def compare(folder, *more):
    given = ["--data", str(folder / "test.json"), "--out", str(folder / "out"), "--bootstrap", "50"]
    runs = ["--runs", str(folder / "run"), str(folder / "two.jsonl")]
    return load_tool("compare").main([*given, *runs, *more])


def test_runs_are_compared_each_at_its_own_operating_point(runs, capsys):
    assert compare(runs) == 0
    comparison = Comparison.load(runs / "out")
    assert [(one.name, one.score) for one in comparison.detectors] == [("one", 0.4), ("two", 0.6)]
    (pair,) = comparison.pairs
    assert pair.differences["AP50"].value > 0  # two lost every box under .5
    assert pair.differences["AP50"].low <= pair.differences["AP50"].value <= pair.differences["AP50"].high
    assert comparison.about["data"] == "test.json"
    text = (runs / "out/comparison.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "AUROC" in text


def test_names_and_scores_may_be_given(runs):
    assert compare(runs, "--names", "A", "B", "--operating-scores", "0.1", "0.2") == 0
    detectors = Comparison.load(runs / "out").detectors
    assert [(one.name, one.score) for one in detectors] == [("A", 0.1), ("B", 0.2)]


def test_an_image_that_one_of_them_failed_on_is_left_out_and_tells(runs):
    path = runs / "two.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = '{"file_name": "0.png", "error": "truncated"}'
    path.write_text("\n".join(lines))
    assert compare(runs) == 1
    assert Comparison.load(runs / "out").left_out == {"0.png": ["two"]}


def test_what_cannot_be_compared_is_said_in_one_line(runs, capsys):
    assert compare(runs, "--names", "A", "A") == 2
    assert "expected different names, got A A" in capsys.readouterr().err
    assert compare(runs, "--operating-scores", "0.1", "7") == 2
    assert "expected 0..1, got 7" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare(runs, "--names", "A")
    with pytest.raises(SystemExit):
        compare(runs, "--bootstrap", "-1")
    assert "--bootstrap must be at least 0, got -1" in capsys.readouterr().err
    (runs / "run/report.json").unlink()
    assert compare(runs) == 2
    assert "report.json" in capsys.readouterr().err
