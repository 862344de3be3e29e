"""The whole way on synthetic radiographs: LabelImg XML, COCO, training, evaluation, export, upload, a box."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracture_det.detections import box_iou
from fracture_det.evaluation.report import Report
from fracture_det.inference.detector import open_detector
from fracture_det.inference.service import PredictionService
from tests.builders import build_dataset, draw_radiograph
from tools import eval as eval_tool
from tools import export_model, predict, prepare_dataset, train_net
from webapp import create_app
from webapp.settings import Settings

QUICK_CONFIG = Path(__file__).parents[1] / "configs" / "quick" / "faster_rcnn_R_18_FPN_cpu.yaml"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder where every tool has done its part, each called as a user calls it."""
    work = tmp_path_factory.mktemp("end_to_end")
    build_dataset(work, n_fractured=220, n_healthy=60, seed=11)
    images, data, run = work / "images", work / "data", work / "run"
    arguments = ["--images", images, "--annotations", work / "annotations", "--metadata", work / "metadata.csv"]
    arguments += ["--group-column", "patient", "--site-columns", "site", "--fractions", ".7", ".1", ".2"]
    assert prepare_dataset.main([*map(str, arguments), "--out", str(data)]) == 0
    arguments = ["--config-file", QUICK_CONFIG, "--data", data, "--images", images, "OUTPUT_DIR", run]
    assert train_net.main(list(map(str, arguments))) == 0
    arguments = ["--detector", f"d2:{run}", "--check-images", images, "--out", work / "shipped"]
    assert export_model.main(list(map(str, arguments))) == 0
    arguments = ["--detector", f"d2:{work / 'shipped'}", "--data", data / "test.json", "--images", images]
    assert eval_tool.main([*map(str, arguments), "--out", str(work / "report"), "--bootstrap", "200"]) == 0
    return work


@pytest.fixture(scope="module")
def detector(work):
    return open_detector(f"d2:{work / 'shipped'}")


def test_the_trained_detector_finds_fractures_on_unseen_radiographs(work):
    assert Report.load(work / "report").coco["AP50"].value > 0.5


def test_an_upload_gets_a_box_on_its_fracture(detector, tmp_path):
    rng = np.random.default_rng(99)
    service = PredictionService(detector)
    service.warm_up()
    hits = 0
    with service:
        client = create_app(Settings(data_dir=tmp_path), predictor=service).test_client()
        for _ in range(5):
            pixels, truth = draw_radiograph(rng, fractured=True)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            file.seek(0)
            answer = client.post("/api/v1/predictions", data={"file": (file, "x.png")})
            assert answer.status_code == 201
            assert answer.json["image"] == {"height": pixels.shape[0], "width": pixels.shape[1]}
            boxes = [found["box_xyxy_px"] for found in answer.json["detections"]]
            hits += bool(boxes) and box_iou(boxes, truth).max() >= 0.5
    assert hits >= 3


def test_predicting_a_folder_writes_what_the_evaluation_read(work, tmp_path):
    arguments = ["--detector", f"d2:{work / 'shipped'}", "--input", work / "images", "--out", tmp_path, "--no-overlays"]
    assert predict.main(list(map(str, arguments))) == 0
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + 280
    arguments = ["--predictions", tmp_path / "predictions.jsonl", "--data", work / "data" / "test.json"]
    assert eval_tool.main([*map(str, arguments), "--out", str(tmp_path / "report"), "--bootstrap", "200"]) == 0
    again, first = Report.load(tmp_path / "report"), Report.load(work / "report")
    assert again.coco["AP50"].value == pytest.approx(first.coco["AP50"].value, abs=1e-6)
