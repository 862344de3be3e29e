"""The whole way on synthetic radiographs: LabelImg XML, COCO, training, evaluation, export, upload, a box."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fracture_det.evaluation.report import Report
from fracture_det.inference.registry import open_detector
from fracture_det.inference.service import PredictionService
from fracture_det.structures.boxes import box_iou
from tests.builders import build_dataset, draw_radiograph
from tests.paths import QUICK_CONFIG, ROOT
from webapp import create_app
from webapp.settings import Settings

N_FRACTURED, N_HEALTHY = 180, 50

pytestmark = pytest.mark.slow


def run(tool, *arguments):
    """Call a tool as a user does."""
    done = subprocess.run([sys.executable, ROOT / "tools" / tool, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"{tool}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder where every tool has done its part."""
    work = tmp_path_factory.mktemp("end_to_end")
    build_dataset(work, n_fractured=N_FRACTURED, n_healthy=N_HEALTHY, seed=11)
    images, data, shipped = work / "images", work / "data", f"d2:{work / 'shipped'}"
    columns = ["--metadata", work / "metadata.csv", "--group-column", "patient", "--anatomy-columns", "anatomy"]
    source = ["--images", images, "--annotations", work / "annotations", *columns]
    run("prepare_dataset.py", *source, "--fractions", 0.7, 0.1, 0.2, "--out", data)
    run("train_net.py", "--config-file", QUICK_CONFIG, "--data", data, "--images", images, "OUTPUT_DIR", work / "run")
    run(
        "export_model.py",
        "--detector",
        f"d2:{work / 'run'}",
        "--check-images",
        images,
        "--check-count",
        20,
        "--out",
        work / "shipped",
    )
    asked = ["--detector", shipped, "--data", data / "test.json", "--images", images]
    run("eval.py", *asked, "--out", work / "report", "--bootstrap", 200)
    return work


@pytest.fixture(scope="module")
def detector(work):
    return open_detector(f"d2:{work / 'shipped'}")


def test_the_trained_detector_finds_fractures_on_unseen_radiographs(work):
    # The order of sums, and with it the result, depends on the number of threads: .49 with one, above .5 with two.
    assert Report.load(work / "report").coco["AP50"].value > 0.4


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
            image = answer.json["image"]
            assert (image["height"], image["width"]) == pixels.shape[:2]
            boxes = [found["box_xyxy_px"] for found in answer.json["detections"]]
            hits += bool(boxes) and box_iou(boxes, truth).max() >= 0.5
    assert hits >= 3


def test_predicting_a_folder_writes_what_the_evaluation_read(work, tmp_path):
    asked = ["--detector", f"d2:{work / 'shipped'}", "--input", work / "images"]
    run("predict.py", *asked, "--out", tmp_path, "--no-overlays")
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + N_FRACTURED + N_HEALTHY
    given = ["--predictions", tmp_path / "predictions.jsonl", "--data", work / "data" / "test.json"]
    run("eval.py", *given, "--out", tmp_path / "report", "--bootstrap", 200)
    again, first = Report.load(tmp_path / "report"), Report.load(work / "report")
    assert again.coco["AP50"].value == pytest.approx(first.coco["AP50"].value, abs=1e-6)
