"""YOLO text, compared with LabelImg's own code."""

from __future__ import annotations

import numpy as np
import pytest
from libs.yolo_io import YOLOWriter

from fracture_det.data.annotation_formats.yolo import parse_yolo, read_class_names, yolo_text
from fracture_det.data.annotations import AnnotationError, RawBox

BOXES = [(1, 1, 40, 30), (12, 7, 13, 8), (100, 50, 200, 150), (0, 0, 200, 150)]


def test_reads_what_labelimg_writes_as_yolo(tmp_path):
    writer = YOLOWriter("images", "a.png", (150, 200, 3))
    for box in BOXES:
        writer.add_bnd_box(*box, "fracture", 0)
    writer.save([], str(tmp_path / "a.txt"))

    annotation = parse_yolo(tmp_path / "a.txt", ["fracture"])

    found = np.array([raw.box for raw in annotation.boxes]) * [200, 150, 200, 150]
    np.testing.assert_allclose(found, BOXES, atol=0.001)
    text = yolo_text((150, 200), [RawBox("fracture", box) for box in BOXES], ["fracture"])
    assert text == (tmp_path / "a.txt").read_text(encoding="utf-8")


def read(text, names=("fracture", "line"), encoding="utf-8"):
    annotation = parse_yolo("a.txt", names, text.encode(encoding))
    return [(raw.name, *(round(value, 6) for value in raw.box)) for raw in annotation.boxes], [
        kind for kind, _ in annotation.notes
    ]


BOX = (0.2, 0.2075, 0.5, 0.3325)  # of the line 0.35 0.27 0.30 0.125


@pytest.mark.parametrize(
    ("line", "name", "kinds"),
    [
        ("0 0.35 0.27 0.30 0.125", "fracture", []),
        ("0\t0.35\t0.27  0.30 0.125", "fracture", []),
        ("0.0 0.35 0.27 0.30 0.125", "fracture", ["class_as_float"]),
        ("1.000000000000000000e+00 3.5e-01 2.7e-01 3.0e-01 1.25e-01", "line", ["class_as_float"]),
        ("fracture 0.35 0.27 0.30 0.125", "fracture", ["class_as_name"]),
        ("0,0.35,0.27,0.30,0.125", "fracture", ["separator"]),
        ("0, 0.35, 0.27, 0.30, 0.125", "fracture", ["separator"]),
        ("0;0.35;0.27;0.30;0.125", "fracture", ["separator"]),
        ("0;0,35;0,27;0,30;0,125", "fracture", ["separator", "decimal_comma"]),
        ("0 0,35 0,27 0,30 0,125", "fracture", ["decimal_comma"]),
        ("3 0.35 0.27 0.30 0.125", "3", []),
        ("0 0.35 0.27 0.30 0.125 0.6 0.6 2 0.4 0.4 0", "fracture", ["keypoints"]),
        ("0 0.35 0.27 0.30 0.125 0.6 0.6 1", "fracture", ["keypoints"]),
        ("0 0.2 0.2075 0.5 0.2075 0.5 0.3325 0.2 0.3325", "fracture", ["box_from_polygon"]),
        ("0 0.2 0.2075 0.5 0.25 0.4 0.3325", "fracture", ["box_from_polygon"]),
    ],
)
def test_dialects_are_read_with_a_note(line, name, kinds):
    assert read(f"{line}\n") == ([(name, *BOX)], kinds)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_other_encodings_are_read_with_a_note(encoding):
    boxes, kinds = read("0 0.35 0.27 0.30 0.125\r\n", encoding=encoding)
    assert boxes == [("fracture", *BOX)]
    assert kinds == ["encoding" if encoding == "utf-16-le" else "byte_order_mark"]


@pytest.mark.parametrize("text", ["", "\n", "   \n\n", "\t \r\n"])
def test_a_file_without_a_line_is_healthy(text):
    assert read(text) == ([], [])


def test_a_class_name_with_blanks_is_read():
    assert read("simple fracture 0.35 0.27 0.30 0.125", ["line", "simple fracture"]) == (
        [("simple fracture", *BOX)],
        ["class_as_name"],
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .1 .2 .3", "expected `class x y width height` or a polygon, got 4 fields"),
        ("fracture", "got 1 fields"),
        ("-1 .1 .2 .3 .4", "class: expected 0 or more"),
        ("0.5 .1 .2 .3 .4", "class: expected a whole number"),
        ("1e999 .1 .2 .3 .4", "class: expected a whole number"),
        ("nan .1 .2 .3 .4", "class: expected a whole number"),
        ("0 .1 .2 .3 .4 .9", "six columns, as `class x y width height confidence`"),
        ("0 .1 .2 .3 .4 .9 .8 .7", "got 8 fields"),
        ("0 70 65 60 30", "70 is no fraction: .* pixels or percent"),
        ("0 70 65 60 30 12 40", "pixels or percent"),
        ("0 .1 .2 x .4", "expected a number, got 'x'"),
        ("0 .5 .5 .3 .2 .6 .6 1 .4 .4 0", "a polygon, or a box with keypoints?"),
        ("0,0,35,0,27,0,30,0,125", "commas between the numbers, or within them?"),
        ("\0\0\0\0", "class"),
    ],
)
def test_a_broken_line_is_an_error_with_its_number_and_its_own_sentence(line, message):
    with pytest.raises(AnnotationError, match=f"line 2: .*{message}|line 2: {message}"):
        read(f"0 .5 .5 .1 .1\n{line}\n")


def test_an_id_beyond_the_names_never_becomes_one_of_the_names():
    with pytest.raises(AnnotationError, match="the id 2 is beyond the 2 names, of which one is '2'"):
        read("2 .1 .2 .3 .4", ["2", "1"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_class_names_are_read_in_each_encoding_and_keep_their_line_numbers(tmp_path, encoding):
    (tmp_path / "classes.txt").write_bytes("fracture\r\n\r\nline\r\n\r\n".encode(encoding))
    assert read_class_names(tmp_path) == ("fracture", "", "line")
    assert read_class_names(tmp_path / "labels") == ("fracture", "", "line")


def test_class_names_that_are_no_text_are_an_error(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"fract\xfcre\n")
    with pytest.raises(AnnotationError, match=r"classes\.txt: text: not UTF-8"):
        read_class_names(tmp_path)
