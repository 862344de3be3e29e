"""What predict and eval do with pictures that are no radiographs of a limb."""

import csv
import json

import numpy as np
import pytest

from fracture_det.data.predictions import ImagePrediction, Predictions, read_predictions
from fracture_det.evaluation.pipeline import unsuitable_notes
from fracture_det.inference.batch import Screening, predict_files
from fracture_det.inference.registry import DETECTORS
from fracture_det.structures.detections import Detections
from fracture_det.structures.image_files import find_images
from fracture_det.suitability.assess import assess
from tests.builders import build_dataset, draw_radiograph, write_image
from tests.inference.toys import BrightDetector
from tests.suitability.test_assess import scene
from tools.predict import main


@pytest.fixture
def folder(tmp_path):
    """Two films, a photograph, a blank and a file that cannot be read."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        film = draw_radiograph(np.random.default_rng(number), fractured=False)[0]
        write_image(folder / f"film {number}.png", film)
    write_image(folder / "photograph.png", scene())
    write_image(folder / "blank.png", np.zeros((200, 200, 3), np.uint8))
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Run the tool; return its exit code and the rows of predictions.csv by file."""
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")

    def call(*arguments):
        given = ["--detector", "bright:0.5", "--input", str(folder), "--out", str(tmp_path / "out")]
        code = main([*given, *arguments])
        with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return code, {row["file_name"]: row for row in csv.DictReader(file)}

    return call


def test_predict_lists_them_and_goes_on(run, tmp_path, capsys):
    code, rows = run()
    assert code == 1
    assert {name: (row["status"], row["unsuitable"]) for name, row in rows.items() if "film" not in name} == {
        "photograph.png": ("unsuitable", "colour_photograph"),
        "blank.png": ("unsuitable", "blank"),
        "broken.png": ("error", ""),
    }
    assert "does not look like a limb radiograph" in rows["photograph.png"]["error"]
    assert {rows[f"film {number}.png"]["unsuitable"] for number in range(2)} == {""}
    said = capsys.readouterr()
    assert "2 radiographs predicted" in said.out
    assert "1 of 5 files could not be predicted" in said.err
    assert "2 files not analysed: no radiograph of a limb, by the look of it (status unsuitable in " in said.err
    assert not list((tmp_path / "out").rglob("photograph*.jpg"))


def test_unsuitable_ones_alone_are_a_failure(run, folder):
    (folder / "broken.png").unlink()
    assert run()[0] == 1


def test_force_predicts_and_marks_them(run, tmp_path):
    code, rows = run("--force", "--parquet")
    assert code == 1  # the broken file
    assert rows["photograph.png"]["status"] in ("box", "none")
    assert rows["photograph.png"]["unsuitable"] == "colour_photograph"
    written = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[1:]]
    assert {line["file_name"] for line in written if "unsuitable" in line} == {"photograph.png", "blank.png"}
    again = {image.file_name: image for image in read_predictions(tmp_path / "out" / "predictions.jsonl").images}
    assert again["photograph.png"].unsuitable == "colour_photograph"
    assert again["photograph.png"].detections is not None


@pytest.mark.parametrize("read_ahead", [False, True])
def test_the_detector_never_sees_them(folder, read_ahead):
    detector = BrightDetector()
    files = find_images(folder).files
    list(predict_files(detector, files, batch_size=5, read_ahead=read_ahead, screening=Screening(assess)))
    assert sum(detector.batches) == 2


def test_eval_names_them_and_evaluates_all_the_same(tmp_path):
    dataset = build_dataset(tmp_path, n_fractured=1, n_healthy=1, seed=0)
    one, two = (record.file_name for record in dataset)
    nothing = Detections.empty()
    images = (
        ImagePrediction(one, (320, 256), nothing, unsuitable="document"),
        ImagePrediction(two, (320, 256), nothing),
        ImagePrediction("elsewhere.png", (320, 256), nothing, unsuitable="blank"),
    )
    (note,) = unsuitable_notes(dataset, Predictions("toy", ("fracture",), images))
    assert note.startswith("1 of 2 images do not look like limb radiographs")
    assert f"{one} (document)" in note
    assert unsuitable_notes(dataset, Predictions("toy", ("fracture",), images[1:])) == []
