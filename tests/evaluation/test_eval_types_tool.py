"""tools/eval.py on predictions with types of fracture: the confidence is frozen on --val and applied to --data."""

import json
from dataclasses import replace

import pytest

from fracture_det.calibration.calibration import Calibration
from fracture_det.calibration.score_maps import CalibrationError
from fracture_det.data.coco import read_coco, write_coco
from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import ImagePrediction, Predictions, read_predictions
from fracture_det.evaluation.pipeline import EvaluationOptions, run_evaluation
from fracture_det.evaluation.validation import freeze
from tests.reporting.typed_report import TOLD, typed_study
from tools.eval import main


@pytest.fixture
def study(tmp_path):
    """Write test.json and val.json with predictions.jsonl of both."""
    images = []
    for seed, name in enumerate(("test", "val")):
        dataset, found = typed_study(seed)
        records = [
            replace(one, file_name=f"{name}/{one.file_name}", group_id=f"{name} {one.group_id}", types=())
            for one in dataset
        ]
        write_coco(replace(dataset, records=tuple(records)), tmp_path / f"{name}.json")
        images += [ImagePrediction(one.file_name, one.size, found[one.image_id]) for one in records]
    predictions = Predictions("typed", ("fracture",), tuple(images), type_names=TOLD)
    write_predictions(tmp_path / "predictions.jsonl", predictions)
    return tmp_path


def run(study, **options):
    """Evaluate as the tool does, without its pages."""
    given = {"predictions": study / "predictions.jsonl", "data": study / "test.json", "out": study / "out"}
    return run_evaluation(EvaluationOptions(**given, bootstrap=0, **options))


def call(study, *options):
    """Run the tool."""
    given = ["--predictions", study / "predictions.jsonl", "--data", study / "test.json", "--out", study / "out"]
    return main([*map(str, given), "--bootstrap", "0", *options])


def test_the_confidence_of_validation_is_kept_applied_and_used_again(study):
    report = run(study, val=study / "val.json", type_coverage=0.4)
    kept = json.loads((study / "out" / "calibration.json").read_text())["types"]
    assert (kept["rule"], kept["target"]) == ("coverage", 0.4)
    assert 0.4 <= kept["coverage"] < 0.5
    (row,) = [one for one in report.types.above if one.origin]
    assert (row.confidence, row.origin) == (kept["confidence"], "coverage 0.4 on val.json")
    (study / "out" / "calibration.json").rename(study / "calibration.json")
    assert row in run(study, calibration=study / "calibration.json").types.above


def test_without_a_target_four_of_five_answers_must_be_right(study):
    run(study, val=study / "val.json")
    kept = json.loads((study / "out" / "calibration.json").read_text())["types"]
    assert (kept["rule"], kept["target"]) == ("accuracy", 0.8)
    assert kept["accuracy"] >= 0.8


def test_the_tool_takes_the_target_and_writes_the_section(study):
    assert call(study, "--val", str(study / "val.json"), "--type-accuracy", "0.6") == 0
    assert json.loads((study / "out" / "calibration.json").read_text())["types"]["target"] == 0.6
    assert "Types of fracture" in (study / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "options",
    [("--type-accuracy", "0.8"), ("--type-coverage", "1.5", "--val", "x"), ("--type-accuracy", "0", "--val", "x")],
)
def test_a_target_that_cannot_be_is_refused(study, options, capsys):
    with pytest.raises(SystemExit):
        call(study, *options)
    assert "needs --val, and must be above 0, up to 1" in capsys.readouterr().err


def test_a_type_that_is_not_listed_is_an_error_and_no_report(study, capsys):
    path = study / "predictions.jsonl"
    path.write_text(path.read_text().replace('"spiral"', '"buckle"'))
    assert call(study) == 2
    assert "type_names: 'buckle' is not in configs/fracture_types.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "luck"}, "types.rule"),
        ({"confidence": 1.5}, "types.confidence"),
        ({"confidence": None}, "types"),
        ({"target": "much"}, "target"),
    ],
)
def test_a_wrong_threshold_in_a_file_is_named(study, change, message):
    validation = read_coco(study / "val.json")
    predictions = read_predictions(study / "predictions.jsonl")
    path = study / "calibration.json"
    freeze(validation, predictions, test=read_coco(study / "test.json"), method="platt").save(path)
    assert Calibration.load(path).types is not None
    content = json.loads(path.read_text())
    content["types"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=rf"calibration\.json.*{message}"):
        Calibration.load(path)


def test_without_types_the_file_of_a_calibration_has_none(study):
    path = study / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0].pop("type_names")
    for line in lines[1:]:
        for row in line["detections"]:
            row.pop("types")
    path.write_text("\n".join(map(json.dumps, lines)))
    report = run(study, val=study / "val.json")
    assert "types" not in json.loads((study / "out" / "calibration.json").read_text())
    assert "types" not in json.loads((study / "out" / "report.json").read_text())
    assert report.coco["AP50"].value > 0
