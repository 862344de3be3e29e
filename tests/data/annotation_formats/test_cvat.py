"""CVAT's own XML: rotated boxes, other shapes, tags, subsets, videos."""

from __future__ import annotations

import pytest

from fracture_det.data.annotation_formats.cvat import parse_cvat
from fracture_det.data.annotation_formats.image_names import ImageNames
from fracture_det.data.annotations import AnnotationError, RawBox
from tests.data.annotation_formats.exporters import TRUTH, cvat

BOX = '<box label="fracture" occluded="0" xtl="40.00" ytl="50.00" xbr="100.00" ybr="80.00" z_order="0"{}></box>'


def parse(tmp_path, *images):
    (tmp_path / "annotations.xml").write_text(cvat({}, extra="".join(images)), encoding="utf-8")
    return parse_cvat(tmp_path / "annotations.xml")


def image(content="", name="hand.png", number=0, **more):
    attributes = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<image id="{number}" name="{name}" width="200" height="240"{attributes}>{content}</image>'


def only(tmp_path, content):
    return parse(tmp_path, image(content)).annotations[0]


def test_a_box_is_used_as_written_and_its_attributes_are_not_shapes(tmp_path):
    found = only(tmp_path, BOX.format("").replace("></box>", '><attribute name="side">left</attribute></box>'))
    assert found.boxes == (RawBox("fracture", (40, 50, 100, 80)),)
    assert (found.size, found.notes, found.fault) == ((240, 200), (), None)


def test_a_rotation_is_passed_on_about_the_centre(tmp_path):
    found = only(tmp_path, BOX.format(' rotation="90.00"'))
    assert found.boxes == (RawBox("fracture", (40, 50, 100, 80), rotation=90),)
    assert only(tmp_path, BOX.format(' rotation="nan"')).fault is not None


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<polygon label="fracture" points="10.00,20.00;50.00,30.00;30.00,90.00"/>', (10, 20, 50, 90)),
        ('<ellipse label="fracture" cx="50" cy="60" rx="20" ry="10"/>', (30, 50, 70, 70)),
        ('<ellipse label="fracture" cx="50" cy="60" rx="20" ry="10" rotation="90"/>', (40, 40, 60, 80)),
        ('<mask label="fracture" rle="3, 5" left="10" top="20" width="30" height="40"/>', (10, 20, 40, 60)),
    ],
)
def test_other_shapes_become_the_box_that_encloses_them(tmp_path, shape, box):
    found = only(tmp_path, shape)
    assert found.boxes[0].box == pytest.approx(box)
    assert found.boxes[0].rotation == 0
    assert [kind for kind, _ in found.notes] == ["box_from_polygon" if "polygon" in shape else "box_from_shape"]


@pytest.mark.parametrize(
    "shape",
    [
        '<points label="fracture" points="10,20"/>',
        '<polyline label="fracture" points="10,20;50,30;60,90"/>',
        '<polygon label="fracture" points="10,20;50"/>',
        '<skeleton label="hand"><points label="1" points="1,1"/></skeleton>',
        '<box label="fracture" xtl="a" ytl="1" xbr="9" ybr="9"/>',
        '<box label="" xtl="1" ytl="1" xbr="9" ybr="9"/>',
        '<tag label="fracture" source="manual"></tag>',
    ],
)
def test_what_is_no_box_is_a_fault_and_not_a_healthy_image(tmp_path, shape):
    bad, good = parse(tmp_path, image(shape), image(BOX.format(""), "other.png", 1)).annotations
    assert bad.boxes == ()
    assert bad.fault is not None
    assert good.fault is None


def test_an_image_without_shapes_is_healthy_with_a_note_unless_a_tag_says_so(tmp_path):
    bare, tagged = only(tmp_path, ""), only(tmp_path, '<tag label="Normal"/>')
    assert (bare.boxes, bare.fault) == ((), None)
    assert [kind for kind, _ in bare.notes] == ["review_not_stated"]
    assert (tagged.boxes, tagged.fault, tagged.notes) == ((), None, ())


def test_names_may_hold_folders_and_class_names_are_read(tmp_path):
    (tmp_path / "a.xml").write_text(cvat({"left/hand.png": TRUTH["hand a.png"]}), encoding="utf-8")
    export = parse_cvat(tmp_path / "a.xml")
    (found,) = export.annotations
    assert (found.image_path, found.other_names) == ("left/hand.png", ("images/left/hand.png",))
    # From the folder of the export, and from that of its images.
    assert ImageNames(["images/left/hand.png", "images/right/hand.png"]).path_of(found) == "images/left/hand.png"
    assert ImageNames(["left/hand.png", "right/hand.png"]).path_of(found) == "left/hand.png"
    assert ImageNames(["other/hand.png"]).path_of(found) == "left/hand.png"
    assert export.class_names == ("fracture", "angle")


def test_one_name_in_two_subsets_of_a_project_is_told_apart(tmp_path):
    images = image(BOX.format(""), subset="train", task_id="1"), image(subset="test", task_id="2")
    annotations = parse(tmp_path, *images).annotations
    assert annotations[0].other_names == ("images/train/hand.png",)
    found = {a.image_path: (len(a.boxes), a.fault is not None) for a in annotations}
    assert found == {"train/hand.png": (1, False), "test/hand.png": (0, False), "hand.png": (0, True)}


def test_a_video_export_is_refused_with_the_format_to_choose(tmp_path):
    track = '<track id="0" label="fracture"><box frame="0" xtl="1" ytl="1" xbr="9" ybr="9"/></track>'
    with pytest.raises(AnnotationError, match="CVAT for images"):
        parse(tmp_path, track)


def test_an_image_without_a_name_is_reported(tmp_path):
    export = parse(tmp_path, image(name=""), image())
    assert [problem.action for problem in export.problems] == ["excluded"]
    assert len(export.annotations) == 1
