import hashlib
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
from fracture_det.evaluation.report import Report
from fracture_det.inference.registry import DETECTORS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "eval.py"
OUTPUT = {
    "report.html", "report.md", "report.json", "per_anatomy.csv", "strata.csv", "matches.csv", "predictions.jsonl",
    "figures", "gallery", "MODEL_CARD.md", "CLAIM_2024.md", "TRIPOD_AI.md",
}  # fmt: skip
FITTED = {"calibration.json", "validation_predictions.jsonl"}


def write_study(folder, name, first):
    """Write eight images from number `first` on, every other with a bright box that is its truth, and NAME.json."""
    records = []
    (folder / "images").mkdir(exist_ok=True)
    for index in range(8):
        pixels, truth = np.full((40, 60, 3), 30, np.uint8), np.zeros((0, 4))
        if index % 2:
            pixels[10:30, 5 * index : 5 * index + 12] = 250
            truth = np.array([[5.0 * index, 10, 5 * index + 12, 30]])
        file_name = f"images/{first + index}.png"
        Image.fromarray(pixels).save(folder / file_name)
        classes, group = np.zeros(len(truth), np.int64), f"p{(first + index) // 2}"
        anatomy = "wrist" if index < 4 else "hand"
        records.append(ImageRecord(index + 1, file_name, 40, 60, group, anatomy, truth, classes))
    write_coco(Dataset(tuple(records), ("fracture",)), folder / f"{name}.json")


@pytest.fixture
def study(tmp_path):
    """test.json, val.json and their images/ in one folder."""
    write_study(tmp_path, "test", 0)
    write_study(tmp_path, "val", 8)
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
    assert {path.name for path in (study / "out").iterdir()} == OUTPUT
    report = Report.load(study / "out")
    assert report.operating_points[0].score == 0.3
    assert report.operating_points[0].lesion["recall"].count == 4
    assert report.coco["AP50"].value == pytest.approx(1)
    assert report.image["AUROC"].value == 1
    assert [row.value for row in report.strata if row.column == "anatomy"] == ["hand", "wrist"]
    assert report.timing.images == 8
    assert report.timing.machine
    assert report.about["data SHA-256"] == hashlib.sha256((study / "test.json").read_bytes()).hexdigest()
    assert len(list((study / "out/gallery").glob("hit-*.jpg"))) == 4
    assert "bright was evaluated on 8 radiographs" in capsys.readouterr().out


def test_thresholds_come_from_validation_and_may_be_used_again(evaluate, study):
    given = ["--detector", "bright:0.3", "--images", str(study)]
    assert evaluate("fitted", *given, "--val", str(study / "val.json")) == 0
    assert {path.name for path in (study / "fitted").iterdir()} == OUTPUT | FITTED
    assert evaluate("used", *given, "--calibration", str(study / "fitted/calibration.json")) == 0
    fitted, used = (Report.load(study / out) for out in ("fitted", "used"))
    assert [point.rule for point in fitted.operating_points][-1] == "paper"
    assert "youden" in [point.rule for point in fitted.operating_points]
    assert fitted.operating_points == used.operating_points
    assert fitted.calibration == used.calibration


def test_a_threshold_cannot_be_chosen_on_the_images_that_are_evaluated(evaluate, study, capsys):
    given = ["--detector", "bright:", "--images", str(study)]
    (study / "copy.json").write_bytes((study / "test.json").read_bytes())
    assert evaluate("out", *given, "--val", str(study / "copy.json")) == 2
    assert "validation and test share 8 images" in capsys.readouterr().err
    assert list((study / "out").iterdir()) == []  # refused before hours of predicting
    evaluate("fitted", *given, "--val", str(study / "val.json"))
    again = ["--data", str(study / "val.json"), "--calibration", str(study / "fitted/calibration.json")]
    assert evaluate("out", *given, *again) == 2
    assert "must not be evaluated on that data" in capsys.readouterr().err
    assert list((study / "out").iterdir()) == []


def test_a_picture_that_is_gone_costs_the_galleries_and_no_figure(evaluate, study):
    given = ["--images", str(study)]
    evaluate("first", "--detector", "bright:", *given)
    (study / "images/3.png").unlink()
    assert evaluate("again", "--predictions", str(study / "first/predictions.jsonl"), *given) == 0
    first, again = Report.load(study / "first"), Report.load(study / "again")
    assert again.coco == first.coco
    assert any(note.startswith("There are no galleries: ") and "3.png" in note for note in again.notes)
    assert str(study) not in " ".join(again.notes)


def test_robustness_is_measured_and_resumed(evaluate, study):
    given = ["--detector", "bright:0.3", "--images", str(study), "--robustness"]
    assert evaluate("out", *given) == 0
    rows = Report.load(study / "out").robustness
    assert (len(rows), rows[0].perturbation, rows[0].figures["AP50"].value) == (41, "none", 1)
    first = (study / "out/report.json").read_bytes()
    assert evaluate("out", *given) == 0
    assert Report.load(study / "out").robustness == rows
    assert json.loads(first)["robustness"] == json.loads((study / "out/report.json").read_text())["robustness"]


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
    "more",
    [
        [],
        ["--images", ".", "--bootstrap=-1"],
        ["--images", ".", "--fp-target", "0"],
        ["--images", ".", "--operating-score", "50"],
        ["--images", ".", "--prevalence", "0.1", "20"],
        ["--images", ".", "--val", "v.json", "--calibration", "c.json"],
        ["--images", ".", "--val-predictions", "p.jsonl"],
    ],
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


def change_truth(study, change):
    """Change the content of test.json."""
    content = json.loads((study / "test.json").read_text())
    change(content)
    (study / "test.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda boxes: boxes[0].update(bbox=[100, 100, 10, 10]),
        lambda boxes: boxes[0].update(bbox=[30, 30, -10, -10]),
        lambda boxes: boxes[0].update(bbox=[3, 3, 0, 10]),
        lambda boxes: boxes[0].update(bbox=[float("nan"), 3, 9, 10]),
        lambda boxes: boxes[0].update(bbox=[0.1, 0.2, 0.3, 0.4]),
        lambda boxes: boxes.append({**boxes[0], "id": 99}),
        lambda boxes: boxes[0].update(category_id=None),
        lambda boxes: boxes[0].update(image_id=None),
        lambda boxes: boxes[1].update(id=boxes[0]["id"]),
    ],
)
@pytest.mark.parametrize("tool", ["eval", "compare"])
def test_impossible_truth_is_refused_with_image_and_value(study, capsys, tool, change):
    change_truth(study, lambda content: change(content["annotations"]))
    more = ["--predictions", "p.jsonl"] if tool == "eval" else ["--runs", "p.jsonl", "p.jsonl"]

    assert load_tool(tool).main(["--data", str(study / "test.json"), "--out", str(study / "out"), *more]) == 2

    message = capsys.readouterr().err
    assert message.startswith(f"{tool}: {study / 'test.json'}: ")
    assert "images/" in message
    assert not (study / "out" / "report.json").exists()


def test_odd_metadata_is_read_and_crowd_regions_are_noted(evaluate, study):
    assert evaluate("out", "--detector", "bright:0.3", "--images", str(study)) == 0

    def change(content):
        for image in content["images"]:
            image.update(anatomy=image["id"] % 2, attributes=None)
        healthy = content["images"][0]["id"]
        content["annotations"].append(
            {"id": 99, "image_id": healthy, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1, "area": 2400}
        )

    change_truth(study, change)
    assert evaluate("again", "--predictions", str(study / "out" / "predictions.jsonl")) == 0

    first, again = (Report.load(study / name) for name in ("out", "again"))
    assert again.coco["AP50"].value == first.coco["AP50"].value
    assert again.counts["images_fractured"] == first.counts["images_fractured"] + 1
    assert {row.value for row in again.strata if row.column == "anatomy"} == {"0", "1"}
    assert any(note.startswith("Crowd regions (iscrowd): 1, on 1 of the images.") for note in again.notes)
