"""Label Studio's export: percent into pixels, rotated boxes, readers, skipped tasks, and how it names images."""

from __future__ import annotations

import base64
import json

import pytest

from fracture_det.data.annotation_formats.image_names import ImageNames, referred_path
from fracture_det.data.annotation_formats.label_studio import parse_label_studio
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from tests.data.annotation_formats.exporters import label_studio_result

SIZE = (240, 200)
BOX = ("fracture", 40, 50, 100, 80)


def annotation(*results, **fields):
    return {"id": 1, "completed_by": 1, "result": list(results), "was_cancelled": False, **fields}


def task(*annotations, number=1, image="/data/upload/1/0a1b2c3d-hand.png", **fields):
    return {"id": number, "data": {"image": image}, "annotations": list(annotations), "predictions": [], **fields}


def parse(tmp_path, *tasks):
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    return parse_label_studio(tmp_path / "export.json")


def only(tmp_path, *annotations, **fields):
    return parse(tmp_path, task(*annotations, **fields)).annotations[0]


def result(value, kind="rectanglelabels", **fields):
    return {"type": kind, "value": value, "original_width": 200, "original_height": 240, "id": "r", **fields}


def test_percent_becomes_pixels_of_the_original_image(tmp_path):
    # 20 % of 200 px is 40; 10 % of 240 px is 24; 30 % of 200 is 60; 25 % of 240 is 60.
    value = {"x": 20, "y": 10, "width": 30, "height": 25, "rotation": 0, "rectanglelabels": ["fracture"]}
    found = only(tmp_path, annotation(result(value)))
    assert found.size == (240, 200)
    assert found.boxes == (RawBox("fracture", (40, 24, 100, 84)),)
    assert found.notes == ()


def test_a_rotation_about_the_corner_becomes_one_about_the_centre(tmp_path):
    # Clockwise about the upper left corner (100, 60), the centre (120, 70) goes to (90, 80); 40 x 20 stays 40 x 20.
    found = only(tmp_path, annotation(label_studio_result(("fracture", 100, 60, 140, 80), SIZE, rotation=90)))
    assert found.boxes[0].rotation == 90
    assert found.boxes[0].box == pytest.approx((70, 70, 110, 90))


def test_polygons_and_ellipses_become_the_box_that_encloses_them(tmp_path):
    polygon = {"points": [[10, 10], [30, 20], [20, 50]], "closed": True, "polygonlabels": ["fracture"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 5, "rotation": 0, "ellipselabels": ["angle"]}
    results = result(polygon, "polygonlabels"), result(ellipse, "ellipselabels", id="e")
    found = only(tmp_path, annotation(*results))
    assert [raw.name for raw in found.boxes] == ["fracture", "angle"]
    assert found.boxes[0].box == pytest.approx((20, 24, 60, 120))
    assert found.boxes[1].box == pytest.approx((80, 108, 120, 132))
    assert [kind for kind, _ in found.notes] == ["box_from_polygon", "box_from_shape"]


def test_a_rectangle_and_the_label_of_its_id_are_one_box(tmp_path):
    shape = {"x": 20, "y": 10, "width": 30, "height": 25, "rotation": 0}
    results = result(shape, "rectangle"), result({**shape, "labels": ["fracture"]}, "labels")
    choice = result({**shape, "choices": ["displaced"]}, "choices")
    assert only(tmp_path, annotation(*results, choice)).boxes == (RawBox("fracture", (40, 24, 100, 84)),)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ({"format": "rle", "rle": [1, 2], "brushlabels": ["fracture"]}, "brushlabels", "brush"),
        ({"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["fracture"]}, "keypointlabels", "key point"),
        ({"x": 1, "y": 1, "width": 5, "height": 5}, "rectangle", "without a label"),
        ({"rectanglelabels": ["fracture"]}, "rectanglelabels", "without a shape"),
        ({"x": "a", "y": 1, "width": 5, "height": 5, "rectanglelabels": ["f"]}, "rectanglelabels", "'a'"),
        ({"points": [[1, 1], [2, 2]], "polygonlabels": ["f"]}, "polygonlabels", "2 points"),
        ({"choices": ["Fracture"]}, "choices", "'Fracture'"),
    ],
)
def test_what_is_no_box_is_a_fault_of_its_image_alone(tmp_path, value, kind, said):
    good = task(annotation(label_studio_result(BOX, SIZE)), number=2, image="/data/upload/1/0a1b2c3d-other.png")
    bad, other = parse(tmp_path, task(annotation(result(value, kind))), good).annotations
    assert bad.boxes == ()
    assert said in str(bad.fault)
    assert (other.fault, len(other.boxes)) == (None, 1)


def test_an_image_rotated_in_label_studio_is_a_fault(tmp_path):
    rotated = {**label_studio_result(BOX, SIZE), "image_rotation": 90}
    assert "rotated" in str(only(tmp_path, annotation(rotated)).fault)


def test_only_a_submitted_annotation_without_result_is_healthy(tmp_path):
    skipped = annotation(was_cancelled=True)
    prediction = {"result": [label_studio_result(BOX, SIZE)]}
    healthy = only(tmp_path, annotation())
    assert (healthy.boxes, healthy.fault) == ((), None)
    assert only(tmp_path, annotation(result({"choices": ["Normal"]}, "choices"))).fault is None
    for unreviewed in (
        only(tmp_path),
        only(tmp_path, skipped),
        only(tmp_path, predictions=[prediction]),
        only(tmp_path, drafts=[prediction]),
    ):
        assert unreviewed.fault.kind == "not_reviewed"


def test_readers_have_to_agree_or_one_is_ground_truth(tmp_path):
    box, moved = label_studio_result(BOX, SIZE), label_studio_result(("fracture", 40.5, 50, 100, 80), SIZE)
    far = label_studio_result(("fracture", 45, 50, 100, 80), SIZE)
    assert len(only(tmp_path, annotation(box), annotation(moved)).boxes) == 1
    assert only(tmp_path, annotation(), annotation()).fault is None
    for differing in (
        (annotation(box), annotation()),
        (annotation(), annotation(box)),
        (annotation(box), annotation(far)),
    ):
        assert only(tmp_path, *differing).fault.kind == "readers_differ"
    assert len(only(tmp_path, annotation(), annotation(box, ground_truth=True)).boxes) == 1
    assert len(only(tmp_path, annotation(box), annotation(was_cancelled=True)).boxes) == 1


def test_without_a_size_boxes_are_fractions(tmp_path):
    bare = label_studio_result(BOX, SIZE)
    del bare["original_width"], bare["original_height"]
    found = only(tmp_path, annotation(bare))
    assert (found.relative, found.size) == (True, None)
    assert found.boxes[0].box == pytest.approx((40 / 200, 50 / 240, 100 / 200, 80 / 240))


def test_choices_of_json_min_are_labels_and_its_data_is_not(tmp_path):
    def record(number, **marked):
        image = f"/data/upload/1/0a1b2c3d-{number}.png"
        return {"image": image, "patient": "x", "id": number, **marked, "annotator": 1, "annotation_id": number}

    records = (
        record(1),
        record(2, finding="Fracture"),
        record(3, finding="no fracture"),
        record(4, finding={"choices": ["a"]}),
    )
    faults = [annotation.fault is not None for annotation in parse(tmp_path, *records).annotations]
    assert faults == [False, True, False, True]
    # Sorted keys no longer say which is which.
    (tmp_path / "sorted.json").write_text(json.dumps(records, sort_keys=True))
    assert all(annotation.fault for annotation in parse_label_studio(tmp_path / "sorted.json").annotations)


@pytest.mark.parametrize(
    ("reference", "path", "stored"),
    [
        ("/data/upload/1/abcd1234-hand%20a.png", "hand a.png", "abcd1234-hand a.png"),
        ("data/upload/abcd1234-hand.png", "hand.png", "abcd1234-hand.png"),
        ("http://localhost:8080/data/upload/12/abcd1234-hand.png", "hand.png", "abcd1234-hand.png"),
        ("/data/local-files/?d=hands/left%20a.png", "hands/left a.png", None),
        ("/data/local-files/?d=hands\\left.png", "hands/left.png", None),
        ("s3://bucket/hands/a%20b.png", "hands/a b.png", None),
        ("https://host/hands/a.png?X-Amz-Signature=1", "hands/a.png", None),
        ("/tasks/7/resolve/?fileuri=" + base64.b64encode(b"s3://bucket/hands/a.png").decode(), "hands/a.png", None),
        ("../images/abcd1234-a.png", "images/abcd1234-a.png", None),
        ("k#l%20.png", "k#l%20.png", None),
        ("C:\\hands\\a.png", "C:/hands/a.png", None),
        ("data:image/png;base64,AAAA", "", None),
        ("http://[", "http://[", None),
    ],
)
def test_what_the_reference_to_an_image_means(reference, path, stored):
    assert referred_path(reference) == (path, (stored,) if stored else ())


def test_the_image_is_looked_for_by_the_name_that_is_there():
    upload = RawAnnotation("e.json", image_path="hand_a.png", other_names=("0a1b2c3d-hand_a.png",))
    for names, path in (
        (["0a1b2c3d-hand_a.png", "hand_a.png"], "0a1b2c3d-hand_a.png"),
        (["left/0a1b2c3d-hand_a.png"], "0a1b2c3d-hand_a.png"),
        (["left/hand_a.png"], "hand_a.png"),
        (["left/hand a.png", "other.png"], "hand a.png"),
        (["hand (a).png"], "hand (a).png"),  # stored as hand_a.png
        (["hand a.png", "hand_(a).png"], "hand_a.png"),  # either
        (["other.png"], "hand_a.png"),
    ):
        assert ImageNames(names).path_of(upload) == path
    assert ImageNames(["hand a.png"]).path_of(RawAnnotation("a.json", image_path="hand_a.png")) == "hand_a.png"


def test_uploads_of_one_name_go_by_their_stored_names(tmp_path):
    box = annotation(label_studio_result(BOX, SIZE))
    tasks = task(box), task(annotation(), number=2, image="/data/upload/1/ffffffff-hand.png")
    found = {a.image_path: (len(a.boxes), a.fault is not None) for a in parse(tmp_path, *tasks).annotations}
    assert found == {"0a1b2c3d-hand.png": (1, False), "ffffffff-hand.png": (0, False), "hand.png": (0, True)}


def test_one_image_in_two_tasks_is_a_fault(tmp_path):
    local = "/data/local-files/?d=hand.png"
    tasks = task(annotation(label_studio_result(BOX, SIZE)), image=local), task(annotation(), number=2, image=local)
    (found,) = parse(tmp_path, *tasks).annotations
    assert found.boxes == ()
    assert "hand.png is annotated 2 times: task 1, task 2" in str(found.fault)


def test_the_image_is_found_under_another_key_and_a_task_without_one_is_reported(tmp_path):
    other = {**task(annotation()), "data": {"xray": "s3://b/a.png", "patient": "p 1"}}
    none = {**task(annotation(), number=2), "data": {"text": "no image"}}
    export = parse(tmp_path, other, none, None)
    assert [a.image_path for a in export.annotations] == ["a.png"]
    assert [(p.file.rpartition("#")[2], p.action) for p in export.problems] == [
        ("task 2", "excluded"),
        ("task number 3", "excluded"),
    ]


def test_a_list_of_something_else_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="Label Studio"):
        parse(tmp_path, {"image": "a.png", "annotations": []})
