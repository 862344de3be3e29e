"""CreateML's JSON, compared with LabelImg's own code, and TensorFlow's CSV."""

from __future__ import annotations

import json

import pytest
from libs.create_ml_io import CreateMLWriter

from fracture_det.data.annotation_formats.createml import parse_createml
from fracture_det.data.annotation_formats.tensorflow_csv import parse_tensorflow_csv
from fracture_det.data.annotations import AnnotationError, RawBox

BOXES = [(1, 1, 40, 30), (12, 7, 13, 8), (100, 50, 200, 150)]


def corners(x0, y0, x1, y1):
    return {"label": "fracture", "points": [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]}


def test_reads_what_labelimg_writes_and_it_writes_an_image_once(tmp_path):
    path = tmp_path / "hand.json"
    for boxes in (BOXES[:1], BOXES):  # saved again
        shapes = [corners(*box) for box in boxes]
        CreateMLWriter("images", "hand.png", (150, 200, 3), shapes, str(path)).write()
    CreateMLWriter("images", "healthy.png", (150, 200, 3), [], str(path)).write()

    hand, healthy = parse_createml(path).annotations

    assert (hand.image_path, healthy.image_path) == ("hand.png", "healthy.png")
    assert hand.boxes == tuple(RawBox("fracture", box) for box in BOXES)
    assert (healthy.boxes, healthy.fault) == ((), None)


def createml(tmp_path, *items):
    (tmp_path / "a.json").write_text(json.dumps(items))
    return parse_createml(tmp_path / "a.json")


def test_an_image_that_is_listed_twice_is_a_fault(tmp_path):
    box = {"label": "fracture", "coordinates": {"x": 5, "y": 5, "width": 4, "height": 4}}
    items = {"image": "a.png", "annotations": []}, {"image": "./a.png", "annotations": [box]}
    (found,) = createml(tmp_path, *items).annotations
    assert found.boxes == ()
    assert "annotated 2 times" in str(found.fault)


def test_apples_present_keys_are_read(tmp_path):
    box = {"label": "fracture", "coordinates": {"x": 5, "y": 6, "width": 4, "height": 2}}
    (found,) = createml(tmp_path, {"imagefilename": "a.png", "annotation": [box]}).annotations
    assert found.boxes == (RawBox("fracture", (3, 5, 7, 7)),)


@pytest.mark.parametrize("bad", [None, {}, {"label": "fracture"}, {"label": None, "coordinates": {"x": 1}}, "box"])
def test_one_bad_box_excludes_its_image_alone(tmp_path, bad):
    box = {"label": "fracture", "coordinates": {"x": 5, "y": 5, "width": 4, "height": 4}}
    items = {"image": "a.png", "annotations": [box, bad]}, {"image": "b.png", "annotations": [box]}
    a, b = createml(tmp_path, *items).annotations
    assert "annotation 2" in str(a.fault)
    assert (a.boxes, b.fault) == ((), None)


def csv(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    return parse_tensorflow_csv(tmp_path / "a.csv")


def test_the_csv_is_read_by_its_column_names_whatever_divides_them(tmp_path):
    text = "class;xmin;ymin;xmax;ymax;filename;width;height\nfracture;40;50;100;80;a.png;200;240\n"
    (found,) = csv(tmp_path, text).annotations
    assert (found.image_path, found.size) == ("a.png", (240, 200))
    assert found.boxes == (RawBox("fracture", (40, 50, 100, 80)),)


def test_one_bad_row_of_the_csv_excludes_its_image_alone(tmp_path):
    rows = ["a.png,200,240,fracture,1,2,3,4", "a.png,200,240,fracture,,2,3,4", "b.png,200,240,fracture,1,2,3,4"]
    rows += ["c.png,200,240,f,1,2,3,4", "c.png,100,240,f,1,2,3,4", ",200,240,f,1,2,3,4"]
    export = csv(tmp_path, "\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *rows]))
    assert [(a.image_path, len(a.boxes), a.fault is not None) for a in export.annotations] == [
        ("a.png", 0, True),
        ("b.png", 1, False),
        ("c.png", 0, True),
    ]
    assert [problem.action for problem in export.problems] == ["excluded"]


@pytest.mark.parametrize("cut", ["b.png", "b.png,200,240", "b.png,200,240,,,,", "b.png,200,240,fracture,1,2,3"])
def test_a_row_that_is_cut_off_is_a_fault_and_not_a_healthy_image(tmp_path, cut):
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax", "a.png,200,240,,,,,", cut]
    a, b = csv(tmp_path, "\n".join(rows)).annotations
    assert (a.boxes, a.fault) == ((), None)
    assert (b.image_path, b.boxes) == ("b.png", ())
    assert b.fault is not None


def test_a_csv_with_other_columns_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="xmin"):
        csv(tmp_path, "image_id,fractured\na.png,1\n")
