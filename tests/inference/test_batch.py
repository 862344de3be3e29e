import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.predictions import read_predictions
from fracture_det.inference.batch import predict_files, predict_to_file
from fracture_det.inference.prediction_folder import overlay_path, predict_to_folder
from fracture_det.inference.registry import DETECTORS
from fracture_det.structures.image_files import find_images
from tests.inference.toys import BrightDetector

TOOL = Path(__file__).parents[2] / "tools" / "predict.py"


def save(path, box=None, size=(40, 60)):
    """Save a dark image (h, w) with a bright box (x0, y0, x1, y1)."""
    pixels = np.full((*size, 3), 30, np.uint8)
    if box:
        pixels[box[1] : box[3], box[0] : box[2]] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Six images in three folders, two of them each broken in its own way, and two files that are not images."""
    root = tmp_path / "Röntgen"
    save(root / "a/x.png", (10, 10, 20, 30))
    save(root / "a/x.jpg.png", (10, 10, 20, 30))
    save(root / "b/x.png", (5, 6, 15, 16), (80, 50))
    save(root / "b/healthy.PNG")
    save(root / "b/thirteen.png", size=(20, 13))
    (root / "c").mkdir()
    (root / "c/broken.jpg").write_bytes(b"no image at all")
    (root / "notes.txt").write_text("hello")
    (root / "c/.DS_Store").write_text("")
    return root


NAMES = ["a/x.jpg.png", "a/x.png", "b/healthy.PNG", "b/thirteen.png", "b/x.png", "c/broken.jpg"]


class TestPredictFiles:
    @pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
    def test_one_bad_file_does_not_stop_the_rest(self, folder, batch_size):
        results = list(predict_files(BrightDetector(), find_images(folder).files, batch_size=batch_size))
        images = {one.prediction.file_name: one.prediction for one in results}
        assert list(images) == NAMES
        assert images["a/x.png"].detections.boxes[0].tolist() == [10, 10, 20, 30]
        assert images["b/x.png"].size == (80, 50)
        assert len(images["b/healthy.PNG"].detections) == 0
        assert images["c/broken.jpg"].error.startswith("not a JPEG")
        assert images["b/thirteen.png"].error == "the detector failed: RuntimeError: thirteen"

    def test_images_come_in_batches_of_what_could_be_read(self, folder):
        detector = BrightDetector()
        good = [file for file in find_images(folder).files if "thirteen" not in file[0]]
        list(predict_files(detector, good, batch_size=3))
        assert detector.batches == [3, 1]

    def test_it_reads_no_further_than_its_batch(self, folder):
        def files():
            yield "x.png", folder / "a/x.png"
            yield "y.png", folder / "b/x.png"
            raise AssertionError("read too far")

        results = predict_files(BrightDetector(), files(), batch_size=1)
        assert [next(results).prediction.file_name for _ in range(2)] == ["x.png", "y.png"]

    def test_what_is_predicted_may_be_altered(self, folder):
        def negative(name, pixels):
            return 255 - pixels if name == "a/x.png" else pixels

        one, altered = predict_files(BrightDetector(), find_images(folder).files[:2], alter=negative)
        assert one.prediction.detections.boxes[0].tolist() == [10, 10, 20, 30]
        assert altered.prediction.detections.boxes[0].tolist() == [0, 0, 60, 40]
        assert altered.pixels[0, 0, 0] == 225

    def test_a_detector_must_return_a_result_for_each_image(self, folder):
        detector = BrightDetector()
        detector.predict = lambda images: []
        with pytest.raises(ValueError, match="expected 1 results, got 0"):
            list(predict_files(detector, find_images(folder / "a/x.png").files))

    def test_batches_have_a_size(self, folder):
        with pytest.raises(ValueError, match="at least 1"):
            list(predict_files(BrightDetector(), [], batch_size=0))


def test_a_run_is_written_and_measured(folder, tmp_path, capsys):
    detector = BrightDetector(operating_score=0.6)
    path = tmp_path / "p.jsonl"
    run = predict_to_file(detector, find_images(folder).files, path, batch_size=2)
    assert (run.predicted, run.failed, run.batch_size) == (4, 2, 2)
    assert run.as_timing().images == 4
    assert list(run.as_timing().stages) == ["read", "model"]
    predictions = read_predictions(path)
    assert predictions.about == {}
    assert (predictions.detector, predictions.operating_score) == ("bright", 0.6)
    assert [image.file_name for image in predictions.images] == NAMES
    progress = capsys.readouterr().err
    assert "c/broken.jpg: not a JPEG" in progress
    assert "6/6" in progress


@pytest.mark.parametrize(
    ("facts", "about"),
    [
        ({}, {}),
        ({"sha256": "ab"}, {"weights SHA-256": "ab"}),
        ({"sha256": "ab", "about": {"NMS IoU": "0.3"}}, {"weights SHA-256": "ab", "NMS IoU": "0.3"}),
    ],
)
def test_the_file_keeps_what_the_detector_says_of_itself(folder, tmp_path, facts, about):
    detector = BrightDetector(**facts)
    predict_to_file(detector, find_images(folder / "a").files, tmp_path / "p.jsonl", progress=False)
    assert read_predictions(tmp_path / "p.jsonl").about == about


class TestFolder:
    def test_overlays_mirror_the_input_and_never_meet(self, folder, tmp_path):
        predict_to_folder(BrightDetector(), find_images(folder).files, tmp_path / "out", progress=False)
        overlays = sorted(path.relative_to(tmp_path / "out/overlays").as_posix() for path in out_files(tmp_path))
        predicted = [name for name in NAMES if name not in ("b/thirteen.png", "c/broken.jpg")]
        assert overlays == [f"{name}.overlay.jpg" for name in predicted]
        with Image.open(overlay_path(tmp_path / "out", "a/x.png")) as overlay:
            assert overlay.size == (60, 40)

    def test_the_table_says_box_none_or_error(self, folder, tmp_path):
        run = predict_to_folder(BrightDetector(), find_images(folder).files, tmp_path, overlays=False, progress=False)
        assert (run.predicted, run.failed, run.with_boxes, run.score) == (4, 2, 3, 0.5)
        with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
            rows = {row["file_name"]: row for row in csv.DictReader(file)}
        assert [row["status"] for row in rows.values()] == ["box", "box", "none", "error", "box", "error"]
        assert list(rows["b/x.png"].values())[4:] == [
            "1",
            "fracture",
            "0.8000",
            "5.0",
            "6.0",
            "15.0",
            "16.0",
            "",
            "",
            "",
        ]
        assert rows["c/broken.jpg"]["error"].startswith("not a JPEG")
        assert not (tmp_path / "overlays").exists()

    @pytest.mark.parametrize(
        ("own", "given", "score", "boxes"), [(None, None, 0.5, 1), (0.05, None, 0.05, 2), (0.05, 0.9, 0.9, 0)]
    )
    def test_the_score_is_given_or_the_detectors_or_the_papers(self, folder, tmp_path, own, given, score, boxes):
        detector = BrightDetector(operating_score=own)
        files = find_images(folder / "a/x.png").files
        assert predict_to_folder(detector, files, tmp_path, score=given, progress=False).score == score
        assert (tmp_path / "predictions.csv").read_text().count(",box,") == boxes
        assert len(read_predictions(tmp_path / "predictions.jsonl").images[0].detections) == 2

    def test_a_score_is_a_share(self, tmp_path):
        with pytest.raises(ValueError, match="got 50"):
            predict_to_folder(BrightDetector(), [], tmp_path, score=50)


def out_files(tmp_path):
    return (path for path in (tmp_path / "out/overlays").rglob("*") if path.is_file())


@pytest.fixture
def predict(monkeypatch):
    """tools/predict.py's main, with the toy detector behind `bright:`."""
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")
    spec = importlib.util.spec_from_file_location("predict_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return lambda arguments: tool.main([*arguments, "--force"])  # these are no radiographs


class TestTool:
    def test_bad_files_are_reported_and_counted(self, predict, folder, capsys):
        out = folder / "out"
        assert predict(["--detector", "bright:", "--input", str(folder), "--out", str(out), "--batch-size", "4"]) == 1
        said = capsys.readouterr()
        assert "8 files found: 6 radiographs, 2 not read (all of them in " in said.out
        assert "4 radiographs predicted, 3 with a box from score 0.5 on" in said.out
        assert "2 of 6 files could not be predicted" in said.err
        expected = ["overlays", "predictions.csv", "predictions.jsonl", "skipped.csv"]
        assert sorted(path.name for path in out.iterdir()) == expected

    def test_good_files_end_well(self, predict, folder, tmp_path):
        pattern = f"{folder}/*/x.*"
        arguments = ["--detector", "bright:", "--input", pattern, "--out", str(tmp_path / "out"), "--no-overlays"]
        assert predict(arguments) == 0
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.csv", "predictions.jsonl"]

    @pytest.mark.parametrize("change", [("--detector", "nothing:x"), ("--input", "nowhere"), ("--score", "2")])
    def test_what_cannot_be_done_is_said_in_one_line(self, predict, folder, tmp_path, capsys, change):
        options = {"--detector": "bright:", "--input": str(folder), "--out": str(tmp_path / "out")}
        options |= dict([change])
        assert predict([word for pair in options.items() for word in pair]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("predict: ")
