"""YOLO text, compared with LabelImg's own code."""

from __future__ import annotations

import numpy as np
import pytest
from libs.yolo_io import YOLOWriter

from fracture_det.data.annotation_formats.yolo import parse_yolo, yolo_text
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


def test_a_yolo_polygon_becomes_its_enclosing_box(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.1 0.2 0.5 0.1 0.3 0.6\n")
    assert parse_yolo(tmp_path / "a.txt", ["fracture"]).boxes == (RawBox("fracture", (0.1, 0.1, 0.5, 0.6)),)


@pytest.mark.parametrize("line", ["0 .1 .2 .3", "fracture .1 .2 .3 .4", "-1 .1 .2 .3 .4", "0 .1 .2 .3 .4 .9"])
def test_a_broken_yolo_line_is_an_error_with_its_number(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"0 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(AnnotationError, match="line 2"):
        parse_yolo(tmp_path / "a.txt", ["fracture"])
