"""Files that were written before the packages were renamed (commit c4f6495) still open; `files/` holds what it wrote.

Made there from 28 synthetic radiographs (tests/builders.py) with `tools/prepare_dataset.py --site-columns site` and
`tools/eval.py --detector bright: --val ... --bootstrap 100`.
fusion.json and config.yaml are those of its weights/shipped.
"""

import logging
import shutil
from pathlib import Path

import pytest

from fracture_det.calibration.calibration import Calibration
from fracture_det.data.coco import read_coco
from fracture_det.data.predictions import read_predictions
from fracture_det.data.splits import read_split
from fracture_det.evaluation.report import Report
from fracture_det.inference.ensemble import EnsembleConfig, ensemble_file
from fracture_det.reporting.writer import write_report
from fracture_det.resources import resource

FILES = Path(__file__).with_name("files")


def test_a_data_set_whose_body_part_was_called_site():
    dataset = read_coco(FILES / "test.json")
    assert len(dataset) == 10
    assert {record.anatomy for record in dataset} == {"elbow", "hand", "lower limb", "shoulder", "wrist"}


def test_a_split():
    names = [record.file_name for record in read_coco(FILES / "test.json")]
    assignment, digests, problems = read_split(FILES / "split.json", names)
    assert set(assignment.values()) == {"test"}
    assert len(digests) == len(names)
    assert {problem.kind for problem in problems} == {"split_without_image"}  # those of train and val


def test_predictions():
    predictions = read_predictions(FILES / "predictions.jsonl")
    assert predictions.detector.startswith("bright")
    assert len(predictions.images) == 10


def test_a_calibration():
    calibration = Calibration.load(FILES / "calibration.json")
    assert calibration.operating_points["youden"] == pytest.approx(0.8)


def test_a_report_is_read_and_drawn_again(tmp_path):
    report = Report.load(FILES / "report.json")
    assert {row.column for row in report.strata} >= {"all", "anatomy"}
    assert {row.anatomy for row in report.errors.healthy} >= {"all"}
    write_report(report, tmp_path)
    assert "AUROC" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_an_ensemble_under_its_former_name(tmp_path):
    shutil.copy(FILES / "fusion.json", tmp_path)
    assert EnsembleConfig.load(tmp_path / "fusion.json").orientations == ("identity", "half_turn")


@pytest.mark.parametrize(("former", "now"), [("fusion.json", "ensemble.json"), ("float.json", "ensemble_float.json")])
def test_the_shipped_ensembles_are_found_under_their_former_names(former, now, caplog):
    shipped = resource("weights/shipped")
    assert ensemble_file(shipped / former) == shipped / now
    assert f"{former}: the file is now called {now}" in caplog.text


def test_a_configuration_with_the_former_keys(caplog):
    pytest.importorskip("detectron2")
    from fracture_det.modeling.config import load_config

    with caplog.at_level(logging.WARNING):
        cfg = load_config(FILES / "config.yaml")
    assert cfg.INPUT.ROTATION == 12
    assert "INPUT.TILT" in caplog.text
    assert "INPUT.ROTATION" in caplog.text
