"""Files of earlier versions still open: a report, a comparison, predictions and a calibration."""

import json
from pathlib import Path

import pytest

from fracture_det.calibration.calibration import Calibration
from fracture_det.data.predictions import read_predictions
from fracture_det.evaluation.comparison import Comparison
from fracture_det.evaluation.report import Report, ReportError
from fracture_det.reporting.comparison_report import comparison_markdown
from fracture_det.reporting.writer import write_report

EARLIER_FILES = Path(__file__).parents[1] / "compatibility"
# Written by version 0.1.0 on eight images; shortened to one operating point, one match rule and three bins.
VERSION_2 = Path(__file__).parent / "data" / "report_version_2.json"


def as_version_3(content):
    """Change a version 2 report as version 3 did: the body part is called anatomy."""
    for row in (*content["errors"]["healthy"], *content["errors"]["gallery"]):
        row["anatomy"] = row.pop("site")
    for row in content["strata"]:
        row["column"] = "anatomy" if row["column"] == "site" else row["column"]
    return {**content, "version": 3}


def test_a_report_of_version_2_opens_and_renders(tmp_path):
    report = Report.load(VERSION_2)
    assert [row.column for row in report.strata] == ["all", "anatomy", "anatomy"]
    assert report.operating_points[0].counts.images_tp == 4
    assert [(row.anatomy, row.false_positive_rate.count) for row in report.errors.healthy][-1] == ("all", 0)
    write_report(report, tmp_path)
    assert "hand" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "toy was evaluated on 7 radiographs" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert Report.load(tmp_path) == report  # written again, in the present version


def test_a_report_of_version_3_opens_alike(tmp_path):
    content = as_version_3(json.loads(VERSION_2.read_text(encoding="utf-8")))
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    assert Report.load(tmp_path) == Report.load(VERSION_2)


def test_an_earlier_origin_gives_the_data_that_the_threshold_was_chosen_on(tmp_path):
    content = json.loads(VERSION_2.read_text(encoding="utf-8"))
    content["operating_points"][0]["origin"] = "chosen on val.json"
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    assert Report.load(tmp_path).operating_points[0].chosen_on == "val.json"
    assert Report.load(VERSION_2).operating_points[0].chosen_on is None


@pytest.mark.parametrize("version", [2, 3])
def test_a_broken_report_of_an_earlier_version_says_so(tmp_path, version):
    (tmp_path / "report.json").write_text(json.dumps({"format": "fracture_det report", "version": version}))
    with pytest.raises(ReportError, match=f"not a fracture_det report of version {version}"):
        Report.load(tmp_path)


def test_an_earlier_comparison_opens_and_renders():
    comparison = Comparison.load(EARLIER_FILES / "comparison.json")
    assert [detector.name for detector in comparison.detectors] == ["toy", "worse toy"]
    assert "toy and worse toy were compared on the same 7 radiographs" in comparison_markdown(comparison)


def test_earlier_predictions_and_calibration_open():
    predictions = read_predictions(EARLIER_FILES / "predictions.jsonl")
    assert (predictions.detector, len(predictions.images), len(predictions.failed)) == ("toy", 8, 1)
    calibration = Calibration.load(EARLIER_FILES / "calibration.json")
    assert calibration.operating_points["youden"] == pytest.approx(0.6845)
