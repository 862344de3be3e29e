"""labelme's shapes: which are boxes, which become boxes, and which exclude the image."""

from __future__ import annotations

import json

import pytest

from fracture_det.data.annotation_formats.labelme import parse_labelme
from fracture_det.data.annotations import RawBox
from tests.data.annotation_formats.exporters import labelme


def parse(tmp_path, *shapes, **fields):
    content = json.loads(labelme("hand.png", (240, 200), []))
    (tmp_path / "hand.json").write_text(json.dumps({**content, "shapes": shapes, **fields}), encoding="utf-8")
    return parse_labelme(tmp_path / "hand.json")


def shape(points, kind, **fields):
    return {"label": "fracture", "points": points, "shape_type": kind, "flags": {}, "group_id": None, **fields}


@pytest.mark.parametrize(
    ("points", "kind", "box"),
    [
        ([[40, 50], [100, 80]], "rectangle", (40, 50, 100, 80)),
        ([[100, 50], [40, 80]], "rectangle", (40, 50, 100, 80)),  # another diagonal
        ([[40, 50], [100, 50], [100, 80], [40, 80]], "rectangle", (40, 50, 100, 80)),
        ([[40, 50], [100, 60], [70, 80]], "polygon", (40, 50, 100, 80)),
        ([[40, 50], [100, 60], [70, 80]], None, (40, 50, 100, 80)),  # labelme 2
        ([[50, 60], [53, 64]], "circle", (45, 55, 55, 65)),  # the radius is 5
        ([[40, 50], [99, 79]], "mask", (40, 50, 100, 80)),
        ([[60, 40], [80, 60], [60, 80], [40, 60]], "oriented_rectangle", (40, 40, 80, 80)),
    ],
)
def test_shapes_with_area_are_boxes(tmp_path, points, kind, box):
    found = parse(tmp_path, shape(points, kind))
    assert found.fault is None
    assert found.boxes == (RawBox("fracture", box),)
    expected = {"rectangle": [], "polygon": ["box_from_polygon"], None: ["box_from_polygon"]}
    assert [noted for noted, _ in found.notes] == expected.get(kind, ["box_from_shape"])


@pytest.mark.parametrize(
    "bad",
    [
        shape([[40, 50]], "point"),
        shape([[40, 50], [60, 70]], "line"),
        shape([[40, 50], [60, 70], [80, 80]], "linestrip"),
        shape([[40, 50]], "rectangle"),
        shape([[40, 50], [60, None]], "rectangle"),
        shape([[40, 50], [60]], "rectangle"),
        shape([[40, 50], [60, 70]], "rectangle", label=None),
        shape(None, "rectangle"),
        None,
    ],
)
def test_one_bad_shape_excludes_the_image_and_no_box_is_kept(tmp_path, bad):
    found = parse(tmp_path, shape([[40, 50], [100, 80]], "rectangle"), bad)
    assert found.boxes == ()
    assert "shape 2" in str(found.fault)


def test_a_file_without_shapes_is_reviewed_and_healthy_unless_a_flag_says_otherwise(tmp_path):
    assert parse(tmp_path).fault is None
    assert parse(tmp_path, flags={"normal": True, "fracture": False}).fault is None
    assert parse(tmp_path, flags={"fracture": True}).fault.kind == "label_without_box"
    contradicted = parse(tmp_path, shape([[40, 50], [100, 80]], "rectangle"), flags={"normal": True})
    assert len(contradicted.boxes) == 1
    assert [kind for kind, _ in contradicted.notes] == ["label_of_image"]


def test_numbers_written_as_text_are_read_and_a_wrong_size_is_a_fault(tmp_path):
    found = parse(tmp_path, shape([["40", "50,5"], ["100", "80"]], "rectangle"), imageHeight="240")
    assert found.boxes[0].box == (40, 50.5, 100, 80)
    assert found.size == (240, 200)
    assert parse(tmp_path, imageHeight="tall").fault is not None
    assert parse(tmp_path, imageHeight=None, imageWidth=None).size is None


@pytest.mark.parametrize("key", ["label", "points", "imageHeight"])
@pytest.mark.parametrize("is_missing", [True, False])
def test_a_missing_key_is_another_thing_than_null(tmp_path, key, is_missing):
    content = json.loads(labelme("hand.png", (240, 200), []))
    content["shapes"] = [shape([[40, 50], [100, 80]], "rectangle")]
    place = content if key in content else content["shapes"][0]
    place[key] = None
    if is_missing:
        del place[key]
    (tmp_path / "hand.json").write_text(json.dumps(content), encoding="utf-8")
    said = str(parse_labelme(tmp_path / "hand.json").fault)
    assert said.endswith(": missing") if is_missing else (": expected a " in said and said.endswith(", got null"))
