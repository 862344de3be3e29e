"""Types of fracture in predictions.jsonl."""

import json

import numpy as np
import pytest

from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import ImagePrediction, Predictions, PredictionsError, align, read_predictions
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.detections import Detections

TYPES = ("transverse", "spiral", "oblique")
HEADER = {"format": "fracture_det predictions", "version": 1, "class_names": ["other", "fracture"], "detector": "toy"}
TYPED = {**HEADER, "type_names": list(TYPES)}
FOUND = {"box_xyxy_px": [1, 2, 3.5, 4], "score": 0.5, "label": "fracture"}


def image(*rows):
    return {"file_name": "a.png", "height": 10, "width": 20, "detections": list(rows)}


def typed(*types, **values):
    return {**FOUND, **values, "types": list(types)}


def written(path, *lines):
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_types_are_written_with_few_digits_and_read_back(tmp_path):
    random = np.random.default_rng(0)
    types = random.dirichlet(np.ones(3), 50)
    boxes = np.tile([0, 0, 9, 9], (50, 1))
    detections = Detections.from_unsorted(boxes, random.uniform(0, 1, 50), np.zeros(50), types)
    images = (ImagePrediction("a.png", (9, 9), detections), ImagePrediction("b.png", (9, 9), Detections.empty()))
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, Predictions("toy", ("fracture",), images, type_names=TYPES))
    read = read_predictions(path)
    assert read.type_names == TYPES
    np.testing.assert_allclose(read.images[0].detections.types, detections.types, atol=5.1e-6)
    assert max(len(str(value)) for value in json.loads(path.read_text().splitlines()[1])["detections"][0]["types"]) <= 7
    write_predictions(tmp_path / "again.jsonl", read)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


def test_without_types_a_file_has_no_word_of_them(tmp_path):
    detections = Detections.from_unsorted([[0, 0, 9, 9]], [0.5], [0])
    write_predictions(
        tmp_path / "p.jsonl", Predictions("toy", ("fracture",), (ImagePrediction("a.png", (9, 9), detections),), 0.5)
    )
    assert (tmp_path / "p.jsonl").read_text() == (
        '{"format": "fracture_det predictions", "version": 1, "class_names": ["fracture"], "detector": "toy",'
        ' "operating_score": 0.5}\n'
        '{"file_name": "a.png", "height": 9, "width": 9, "detections": [{"box_xyxy_px": [0.0, 0.0, 9.0, 9.0],'
        ' "score": 0.5, "label": "fracture"}]}\n'
    )


def test_types_go_with_their_boxes_when_rows_are_sorted_and_matched_to_a_data_set(tmp_path):
    rows = [typed(1, 0, 0, score=0.1), typed(0, 0.25, 0.75, score=0.9, label="other")]
    predictions = read_predictions(written(tmp_path / "p.jsonl", TYPED, image(*rows)))
    dataset = Dataset((ImageRecord(3, "a.png", 10, 20, "a"),), ("fracture", "other"))
    detections = align(predictions, dataset).detections[3]
    assert detections.classes.tolist() == [1, 0]
    assert detections.types.tolist() == [[0, 0.25, 0.75], [1, 0, 0]]


def test_an_image_may_be_without_types(tmp_path):
    read = read_predictions(written(tmp_path / "p.jsonl", TYPED, image(FOUND)))
    assert read.images[0].detections.types is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{**HEADER, "type_names": "spiral"}], r"line 1, type_names: expected a list, got 'spiral'"),
        ([{**HEADER, "type_names": [3]}], r"line 1, type_names\[0\]: expected a text, got 3"),
        ([{**HEADER, "type_names": ["a", "a"]}], r"line 1, type_names: expected different names, got \['a', 'a'\]"),
        ([HEADER, image(typed(1))], r"line 2, detections\[0\].types: expected none, .* no type_names, got \[1.0\]"),
        ([TYPED, image(typed(0.5, 0.5))], r"detections\[0\].types: expected 3 numbers, .*, got \[0.5, 0.5\]"),
        ([TYPED, image(typed(1, 0, 0), FOUND)], r"detections\[1\].types: missing, and other detections"),
        ([TYPED, image(typed(0.5, 0.4, 0))], r"detections\[0\].types: expected probabilities whose sum is 1, got"),
        ([TYPED, image(typed(-0.5, 1, 0.5))], r"detections\[0\].types\[0\]: expected a number >= 0.0, got -0.5"),
        ([TYPED, image(typed(float("nan"), 1, 0))], r"line 2, detections\[0\].types.*, got .*nan"),
        ([TYPED, image({**FOUND, "types": "spiral"})], r"detections\[0\].types: expected a list or null, got 'spiral'"),
    ],
)
def test_wrong_types_are_an_error_with_line_field_and_value(tmp_path, lines, message):
    with pytest.raises(PredictionsError, match=rf"p\.jsonl, .*{message}"):
        read_predictions(written(tmp_path / "p.jsonl", *lines))
