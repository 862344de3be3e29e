"""VGG Image Annotator: shapes, which attribute is the class, and images that were perhaps never looked at."""

from __future__ import annotations

import json
import math

import pytest

from fracture_det.data.annotation_formats.via import parse_via
from fracture_det.data.annotations import AnnotationError, RawBox
from tests.data.annotation_formats.exporters import TRUTH, via_csv

RECT = {"name": "rect", "x": 40, "y": 50, "width": 60, "height": 30}
BOX = (40, 50, 100, 80)


def region(attributes=None, shape=RECT):
    return {"shape_attributes": shape, "region_attributes": {"class": "fracture"} if attributes is None else attributes}


def parse(tmp_path, *regions, attributes=None, class_names=(), **fields):
    entry = {"filename": "hand.png", "size": 9, "regions": list(regions), "file_attributes": {}, **fields}
    content = {"_via_img_metadata": {"hand.png9": entry}, "_via_attributes": {"region": attributes or {}}}
    (tmp_path / "via.json").write_text(json.dumps(content), encoding="utf-8")
    return parse_via(tmp_path / "via.json", class_names=class_names)


def only(tmp_path, *regions, **options):
    return parse(tmp_path, *regions, **options).annotations[0]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (RECT, BOX),
        ({"name": "circle", "cx": 50, "cy": 60, "r": 5}, (45, 55, 55, 65)),
        ({"name": "ellipse", "cx": 50, "cy": 60, "rx": 20, "ry": 10}, (30, 50, 70, 70)),
        ({"name": "ellipse", "cx": 50, "cy": 60, "rx": 20, "ry": 10, "theta": math.pi / 2}, (40, 40, 60, 80)),
        ({"name": "polygon", "all_points_x": [40, 100, 70], "all_points_y": [50, 60, 80]}, BOX),
    ],
)
def test_shapes_with_area_are_boxes(tmp_path, shape, box):
    found = only(tmp_path, region(shape=shape))
    assert [raw.name for raw in found.boxes] == ["fracture"]
    assert found.boxes[0].box == pytest.approx(box)
    assert found.size is None


@pytest.mark.parametrize(
    "shape",
    [
        {"name": "point", "cx": 5, "cy": 5},
        {"name": "polyline", "all_points_x": [40, 100, 70], "all_points_y": [50, 60, 80]},
        {"name": "polygon", "all_points_x": [40, 100, 70], "all_points_y": [50, 60]},
        {"name": "rect", "x": 1, "y": 1, "width": None, "height": 3},
        None,
    ],
)
def test_what_is_no_box_is_a_fault(tmp_path, shape):
    found = only(tmp_path, region(), region(shape=shape))
    assert found.boxes == ()
    assert "region 2" in str(found.fault)


def test_an_image_without_regions_has_no_annotation_and_is_named(tmp_path):
    export = parse(tmp_path)
    assert export.annotations == ()
    assert [(problem.file, problem.kind) for problem in export.problems] == [("hand.png", "review_not_stated")]
    assert only(tmp_path, file_attributes={"finding": "normal"}).fault is None
    assert only(tmp_path, file_attributes={"finding": {"fracture": True}}).fault is not None
    assert only(tmp_path, regions=None).fault is not None


def test_the_class_is_the_only_attribute_or_the_one_that_holds_class_names_or_is_called_class(tmp_path):
    assert only(tmp_path, region({"what": "angle", "remark": ""})).boxes == (RawBox("angle", BOX),)
    two = region({"what": "angle", "side": "left"})
    assert only(tmp_path, two, class_names=("angle", "line")).boxes == (RawBox("angle", BOX),)
    assert only(tmp_path, region({"Class": "angle", "side": "left"})).boxes == (RawBox("angle", BOX),)
    with pytest.raises(AnnotationError, match="what: angle; side: left"):
        parse(tmp_path, two)


def test_checkboxes_and_numbered_options_are_read(tmp_path):
    checked = region({"what": {"angle": True, "line": True, "other": False}})
    assert [raw.name for raw in only(tmp_path, checked).boxes] == ["angle", "line"]
    options = {"what": {"type": "dropdown", "options": {"1": "angle", "2": "line"}}}
    assert [raw.name for raw in only(tmp_path, region({"what": "2"}), attributes=options).boxes] == ["line"]


def test_a_region_without_a_class_is_of_a_class_that_has_to_be_mapped(tmp_path):
    assert [raw.name for raw in only(tmp_path, region({}), region({"what": "angle"})).boxes] == ["region", "angle"]


def test_regions_of_via_1_are_an_object(tmp_path):
    assert only(tmp_path, regions={"0": region()}).boxes == (RawBox("fracture", BOX),)


def test_csv_with_a_broken_cell_is_a_fault_of_its_image_alone(tmp_path):
    text = via_csv(TRUTH).replace('""x"": 40', '""x"": ')
    (tmp_path / "via.csv").write_text(text, encoding="utf-8")
    faults = {a.image_path: a.fault is not None for a in parse_via(tmp_path / "via.csv").annotations}
    assert faults == {"hand a.png": True, "hand_b.png": False, "hand_c.png": False}


def test_csv_that_is_cut_off_is_a_fault_of_its_last_image(tmp_path):
    text = via_csv(dict(list(TRUTH.items())[:2]))
    for end in (text.rindex("hand_b"), text.rindex("angle") - 20, text.rindex('1,"{')):
        (tmp_path / "via.csv").write_text(text[:end], encoding="utf-8")
        first, last = parse_via(tmp_path / "via.csv").annotations
        assert (first.fault, last.image_path, last.boxes) == (None, "hand_b.png", ())
        assert last.fault is not None


def test_via_3_is_refused(tmp_path):
    content = {"project": {"pid": "x", "vid_list": ["1"]}, "config": {}, "attribute": {}, "file": {}, "metadata": {}}
    (tmp_path / "via.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match="VIA 3"):
        parse_via(tmp_path / "via.json")
