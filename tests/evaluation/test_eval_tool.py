import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.coco import write_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation import Report
from fracture_det.inference.detector import DETECTORS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "eval.py"
OUTPUT = ["froc.png", "per_site.csv", "pr_curve.png", "predictions.jsonl", "report.json", "report.md"]


@pytest.fixture
def study(tmp_path):
    """Eight images, every other with a bright box that is its truth; test.json and images/ in the folder."""
    records = []
    for index in range(8):
        pixels, truth = np.full((40, 60, 3), 30, np.uint8), np.zeros((0, 4))
        if index % 2:
            pixels[10:30, 5 * index : 5 * index + 12] = 250
            truth = np.array([[5.0 * index, 10, 5 * index + 12, 30]])
        name = f"images/{index}.png"
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
        site = "wrist" if index < 4 else "hand"
        records.append(
            ImageRecord(index + 1, name, 40, 60, f"p{index // 2}", site, truth, np.zeros(len(truth), np.int64))
        )
    write_coco(Dataset(tuple(records), ("fracture",)), tmp_path / "test.json")
    return tmp_path


@pytest.fixture
def evaluate(monkeypatch, study):
    """tools/eval.py's main on the study, with the toy detector behind `bright:`."""
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")
    tool = load_tool("eval")

    def run(out, *more):
        arguments = ["--data", str(study / "test.json"), "--out", str(study / out), "--bootstrap", "50", *more]
        return tool.main(arguments)

    return run


def test_a_detector_is_evaluated(evaluate, study, capsys):
    assert evaluate("out", "--detector", "bright:0.3", "--images", str(study), "--batch-size", "3") == 0
    assert sorted(path.name for path in (study / "out").iterdir()) == OUTPUT
    report = Report.load(study / "out")
    assert report.operating_points[0].score == 0.3
    assert report.operating_points[0].figures["recall"].count == 4
    assert report.coco["AP50"].value == pytest.approx(1)
    assert report.image["AUROC"].value == 1
    assert [row.site for row in report.sites] == ["hand", "wrist", "all"]
    assert report.timing["images"] == 8
    assert report.timing["machine"]
    assert "bright was asked about 8 radiographs" in capsys.readouterr().out


def test_predictions_give_the_same_report_without_a_model(evaluate, study):
    evaluate("first", "--detector", "bright:", "--images", str(study))
    evaluate("again", "--predictions", str(study / "first/predictions.jsonl"))
    first, again = (json.loads((study / out / "report.json").read_text()) for out in ("first", "again"))
    assert first.pop("timing")
    assert again.pop("timing") is None
    assert first == again
    assert (study / "first/predictions.jsonl").read_bytes() == (study / "again/predictions.jsonl").read_bytes()


def test_predictions_are_evaluated_where_torch_is_not_installed(evaluate, study):
    evaluate("first", "--detector", "bright:", "--images", str(study))
    code = f"""
import runpy, sys
sys.modules["torch"] = sys.modules["detectron2"] = None
sys.argv = ["eval", "--data", "test.json", "--out", "again", "--predictions", "first/predictions.jsonl"]
runpy.run_path({str(TOOL)!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=study, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Report.load(study / "again").coco["AP50"].value == pytest.approx(1)


def test_a_truncated_image_is_a_counted_failure(evaluate, study):
    path = study / "images/3.png"
    path.write_bytes(path.read_bytes()[:60])
    assert evaluate("out", "--detector", "bright:", "--images", str(study)) == 1
    report = Report.load(study / "out")
    assert list(report.failures) == ["images/3.png"]
    assert str(study) not in report.failures["images/3.png"]
    assert report.counts["images_failed_fractured"] == 1


def test_what_cannot_be_done_is_said_in_one_line(evaluate, study, capsys):
    lines = ['{"format": "fracture_det predictions", "version": 1, "class_names": ["fracture"], "detector": "d"}']
    (study / "few.jsonl").write_text("\n".join(lines))
    for more, message in [
        (["--predictions", str(study / "few.jsonl")], "no prediction for 8 of 8 images: images/0.png"),
        (["--predictions", str(study / "absent.jsonl")], "absent.jsonl: cannot be read"),
        (["--detector", "nothing:x", "--images", str(study)], "expected one of shipped"),
    ]:
        assert evaluate("out", *more) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("eval: ")
        assert message in said[-1]


@pytest.mark.parametrize(
    "more", [[], ["--images", ".", "--operating-score", "50"], ["--images", ".", "--bootstrap=-1"]]
)
def test_wrong_options_are_refused_before_anything_is_predicted(evaluate, study, more):
    with pytest.raises(SystemExit):
        evaluate("out", "--detector", "bright:", *more)
    assert not (study / "out").exists()


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool
