import json
import unicodedata

import numpy as np
import pytest

from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import (
    ImagePrediction,
    Predictions,
    PredictionsError,
    align,
    read_predictions,
    stream_predictions,
)
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.detections import Detections

HEADER = {"format": "fracture_det predictions", "version": 1, "class_names": ["fracture"], "detector": "toy"}
FOUND = {"box_xyxy_px": [1, 2, 3.5, 4], "score": 0.5, "label": "fracture"}
IMAGE = {"file_name": "a.png", "height": 10, "width": 20, "detections": [FOUND]}


def write_lines(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_a_round_trip_is_exact_in_float32(tmp_path):
    random = np.random.default_rng(0)
    corners = random.uniform(0, 4000, (200, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(0, 900, (200, 2)).astype(np.float32)], axis=1)
    detections = Detections.from_unsorted(boxes, random.uniform(0, 1, 200), random.integers(0, 2, 200))
    images = (
        ImagePrediction("Ordner/Röntgen 1.png", (4000, 5000), detections),
        ImagePrediction("healthy.png", (7, 9), Detections.empty()),
        ImagePrediction("broken.png", error="file is truncated"),
    )
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, Predictions("toy", ("fracture", "implant"), images, 0.25, {"weights SHA-256": "ab"}))
    read = read_predictions(path)
    assert (read.detector, read.class_names, read.operating_score) == ("toy", ("fracture", "implant"), 0.25)
    assert read.about == {"weights SHA-256": "ab"}
    assert [(image.file_name, image.size, image.error) for image in read.images] == [
        (image.file_name, image.size, image.error) for image in images
    ]
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_array_equal(getattr(read.images[0].detections, name), getattr(detections, name))
    assert len(read.images[1].detections) == 0
    assert [image.file_name for image in read.failed] == ["broken.png"]
    write_predictions(tmp_path / "again.jsonl", read)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


def test_rows_of_others_may_be_unsorted_and_lines_blank(tmp_path):
    rows = [{**FOUND, "score": 0.1}, {**FOUND, "score": 1}]
    path = write_lines(tmp_path / "p.jsonl", HEADER, {**IMAGE, "detections": rows}, "", "")
    assert read_predictions(path).images[0].detections.scores.tolist() == pytest.approx([1, 0.1])


def without(name):
    return {key: value for key, value in IMAGE.items() if key != name}


def row(**values):
    """Return the lines of a file with one detection that differs."""
    return [HEADER, {**IMAGE, "detections": [{**FOUND, **values}]}]


WRONG = [
    ("empty", [], ": empty; expected a header line"),
    ("no header", [IMAGE], r"line 1, format: expected 'fracture_det predictions' in the first line, got None"),
    ("header is a list", ["[1]"], r"line 1, format: expected .* got \[1\]"),
    ("other version", [{**HEADER, "version": 2}], r"line 1, version: expected 1 .*got 2"),
    ("no detector", [{**HEADER, "detector": None}], r"line 1, detector: expected a text, got None"),
    ("class names", [{**HEADER, "class_names": [1]}], r"line 1, class_names\[0\]: expected a text, got 1"),
    ("class names missing", [{**HEADER, "class_names": "a"}], r"line 1, class_names: expected a list, got 'a'"),
    ("operating score", [{**HEADER, "operating_score": 5}], r"line 1, operating_score: expected .* <= 1.0.*, got 5"),
    ("about", [{**HEADER, "about": {"weights SHA-256": 5}}], r"line 1, about.*: expected a text, got .*5"),
    ("not JSON", [HEADER, IMAGE, "{"], r"line 3: not JSON"),
    ("not an object", [HEADER, "[1]"], r"line 2: expected an object, got \[1\]"),
    ("no file name", [HEADER, without("file_name")], r"line 2, file_name: missing; there is height, width, detections"),
    ("no detections", [HEADER, without("detections")], r"line 2, detections: missing"),
    (
        "height is text",
        [HEADER, {**IMAGE, "height": "10"}],
        r"line 2, height: expected a whole number or null, got '10'",
    ),
    (
        "height is a fraction",
        [HEADER, {**IMAGE, "height": 10.0}],
        r"line 2, height: expected a whole number or null, got 10.0",
    ),
    ("width is 0", [HEADER, {**IMAGE, "width": 0}], r"line 2, width: expected a whole number >= 1, got 0"),
    (
        "score missing",
        [HEADER, {**IMAGE, "detections": [FOUND, {"box_xyxy_px": [0, 0, 1, 1]}]}],
        r"line 2, detections\[1\].score: missing; there is box_xyxy_px",
    ),
    ("score is true", row(score=True), r"line 2, detections\[0\].score: expected a number, got True"),
    ("score above 1", row(score=89), r"line 2, detections\[0\].score: expected a number <= 1.0, got 89"),
    ("score is NaN", row(score=float("nan")), r"line 2, detections\[0\].score: expected a number .*, got nan"),
    ("score is text", row(score="0.5"), r"line 2, detections\[0\].score: expected a number, got '0.5'"),
    ("label", row(label="x"), r"line 2, detections\[0\].label: expected one of \['fracture'\], got 'x'"),
    ("short box", row(box_xyxy_px=[1, 2, 3]), r"line 2, detections\[0\].box_xyxy_px: .* 4, got \[1, 2, 3\]"),
    ("box of text", row(box_xyxy_px=[1, 2, 3, "4"]), r"line 2, detections\[0\].box_xyxy_px\[3\]: .*a number, got '4'"),
    ("xywh box", row(box_xyxy_px=[9, 9, 2, 2]), r"line 2, detections: .*ends before it begins.*\(9.0, 9.0, 2.0, 2.0\)"),
    ("endless box", row(box_xyxy_px=[9, 9, 20, float("inf")]), r"line 2, detections: .*not finite.*inf"),
    (
        "row is a list",
        [HEADER, {**IMAGE, "detections": [[1]]}],
        r"line 2, detections\[0\]: expected an object, got \[1\]",
    ),
    ("twice", [HEADER, IMAGE, IMAGE], r"line 3, file_name: 'a.png' occurs a second time"),
    (
        "error is a number",
        [HEADER, {"file_name": "a.png", "error": 5}],
        r"line 2, error: expected a text or null, got 5",
    ),
]


@pytest.mark.parametrize(("lines", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_file_is_an_error_with_file_line_field_and_value(tmp_path, lines, message):
    path = write_lines(tmp_path / "p.jsonl", *lines)
    with pytest.raises(PredictionsError, match=rf"p\.jsonl.*{message}"):
        read_predictions(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(PredictionsError, match=r"absent\.jsonl: cannot be read"):
        read_predictions(tmp_path / "absent.jsonl")


def test_a_prediction_is_detections_or_an_error():
    for wrong in ({}, {"size": (1, 1)}, {"size": (1, 1), "detections": Detections.empty(), "error": "both"}):
        with pytest.raises(ValueError, match=r"a\.png: expected"):
            ImagePrediction("a.png", **wrong)


def test_bytes_that_are_not_text_are_named_by_line(tmp_path):
    path = write_lines(tmp_path / "p.jsonl", HEADER, IMAGE)
    path.write_bytes(path.read_bytes() + b'\n{"file_name": "\xff.png"}')
    with pytest.raises(PredictionsError, match=r"p\.jsonl, line 3: not JSON: .*utf-8"):
        read_predictions(path)


def test_fields_that_are_not_known_are_left_alone(tmp_path):
    line = {**IMAGE, "model": 5, "detections": [{**FOUND, "mask": [1]}]}
    path = write_lines(tmp_path / "p.jsonl", {**HEADER, "author": "me"}, line)
    assert len(read_predictions(path).images[0].detections) == 1
    header, images = stream_predictions(path)
    assert header["author"] == "me"
    assert [image.file_name for image in images] == ["a.png"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read_and_noted(tmp_path, encoding):
    path = write_lines(tmp_path / "p.jsonl", HEADER, {**IMAGE, "file_name": "Röntgen 骨.png"})
    path.write_bytes(path.read_text("utf-8").encode(encoding))

    read = read_predictions(path)

    assert [image.file_name for image in read.images] == ["Röntgen 骨.png"]
    assert "byte order mark" in read.notes[0]
    assert [image.file_name for image in stream_predictions(path)[1]] == ["Röntgen 骨.png"]


def test_coco_results_are_called_by_their_name(tmp_path):
    rows = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5} for n in range(1000)]
    path = write_lines(tmp_path / "p.jsonl", json.dumps(rows))
    with pytest.raises(PredictionsError, match=r"p\.jsonl, line 1: a list of COCO results") as caught:
        read_predictions(path)
    assert len(str(caught.value)) < 400


def test_names_that_differ_in_their_writing_alone_are_one_name(tmp_path):
    names = ("sub\\a.png", unicodedata.normalize("NFD", "Röntgen.png"))
    path = write_lines(tmp_path / "p.jsonl", HEADER, *({**IMAGE, "file_name": name} for name in names))
    records = (ImageRecord(1, "sub/a.png", 10, 20, "a"), ImageRecord(2, "Röntgen.png", 10, 20, "b"))

    aligned = align(read_predictions(path), Dataset(records, ("fracture",)))

    assert sorted(aligned.detections) == [1, 2]
    assert aligned.not_asked == 0
    assert aligned.notes == ("Predictions: 2 names differ in writing alone; first 'sub\\\\a.png' is 'sub/a.png'.",)
    both = write_lines(tmp_path / "q.jsonl", HEADER, *({**IMAGE, "file_name": f"sub{s}a.png"} for s in "/\\"))
    with pytest.raises(PredictionsError, match="are one name"):
        align(read_predictions(both), Dataset(records[:1], ("fracture",)))
