"""COCO of any origin: what is wrong with one image excludes that image alone; what is clear is read with a note."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from pycocotools import mask

from fracture_det.data.annotation_formats.coco import HEALTHY_IN_DOUBT, REPEATED_ANNOTATION_ID, parse_coco
from fracture_det.data.annotations import AnnotationError
from fracture_det.data.records import EXCLUDED

BOXES = ([40, 50, 60, 30], [10, 10, 50, 80])


def content():
    """Return three images, of which the first has two boxes, the second one, and the third none."""
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 240, "width": 200} for n in range(3)],
        "annotations": [
            {"id": 10 + n, "image_id": image, "category_id": 1, "bbox": list(box), "iscrowd": 0, "segmentation": []}
            for n, (image, box) in enumerate([(0, BOXES[0]), (0, BOXES[1]), (1, BOXES[0])])
        ],
        "categories": [{"id": 1, "name": "fracture"}],
    }


def read(folder, change=lambda content: None, encoding="utf-8"):
    """Return (names and faults, names and boxes, kinds of notes, kinds of problems) of a file after a change."""
    changed = content()
    change(changed)
    path = folder / "a.json"
    path.write_bytes(json.dumps(changed).encode(encoding))
    export = parse_coco(path)
    faults = {a.image_name: f"{a.fault.field}: {a.fault.value}" for a in export.annotations if a.fault}
    boxes = {a.image_name: [raw.box for raw in a.boxes] for a in export.annotations if not a.fault}
    notes = [(a.image_name, kind) for a in export.annotations for kind, _ in a.notes]
    return faults, boxes, notes, [(problem.kind, problem.action) for problem in export.problems]


CORNERS = [(40, 50, 100, 80), (10, 10, 60, 90)]
ALL = {"0.png": CORNERS, "1.png": CORNERS[:1], "2.png": []}


def test_a_good_file_has_no_findings(tmp_path):
    assert read(tmp_path) == ({}, ALL, [], [])


def item(**fields):
    return lambda content: content["annotations"][2].update(**fields)


def without(key):
    return lambda content: content["annotations"][2].pop(key)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (item(category_id=None), "annotations[2] (id 12): category_id: expected a number or a text, got null"),
        (without("category_id"), "annotations[2] (id 12): category_id: missing"),
        (without("bbox"), "annotations[2] (id 12): bbox: missing, and there is no segmentation"),
        (item(category_id=9), "annotations[2] (id 12): category_id: no category has the id 9"),
        (item(category_id=[1]), "annotations[2] (id 12): category_id: expected a number or a text, got [1]"),
        (item(bbox=[]), "annotations[2] (id 12): bbox: expected 4 numbers, got [], and there is no segmentation"),
        (item(bbox=None), "annotations[2] (id 12): bbox: expected 4 numbers, got null, and there is no segmentation"),
        (item(bbox=[1, 2, 3, 4, 0.5]), "annotations[2] (id 12): bbox: expected 4 numbers, got [1, 2, 3, 4, 0.5], and"),
        (item(bbox=[1, "b", 3, 4]), "annotations[2] (id 12): bbox: expected a number, got 'b', and"),
        (item(bbox=[1, None, 3, 4]), "annotations[2] (id 12): bbox: expected a number, got null, and"),
        (item(bbox=[1, 10**400, 3, 4]), "annotations[2] (id 12): bbox: expected a number, got one of more than 300"),
        (item(iscrowd="maybe"), "annotations[2] (id 12): iscrowd: expected 0 or 1, got 'maybe'"),
        (item(attributes={"rotation": "left"}), "annotations[2] (id 12): rotation: expected a number, got 'left'"),
        (item(id=[3]), "annotations[2] (id [3]): id: expected a number or a text"),
        (lambda c: c["images"][1].update(height=float("inf")), "images[1] (id 1): height: expected a whole number"),
        (lambda c: c["images"][1].update(width=float("nan")), "images[1] (id 1): width: expected a whole number"),
        (lambda c: c["images"][1].update(width="wide"), "images[1] (id 1): width: expected a number, got 'wide'"),
        (lambda c: c["images"][1].update(annotations=[1]), "images[1] (id 1): annotations: boxes inside the image's"),
    ],
)
def test_what_is_wrong_with_one_image_is_its_fault_alone(tmp_path, change, fault):
    faults, boxes, notes, problems = read(tmp_path, change)
    assert list(faults) == ["1.png"]
    assert faults["1.png"].startswith(fault)
    assert (boxes, notes, problems) == ({"0.png": CORNERS, "2.png": []}, [], [])


def test_an_image_without_an_id_is_a_fault_and_puts_its_boxes_in_doubt(tmp_path):
    faults, boxes, _, problems = read(tmp_path, lambda c: c["images"][2].pop("id"))
    assert (faults, list(boxes), problems) == ({"2.png": "images[2]: id: missing"}, ["0.png", "1.png"], [])
    faults, boxes, _, problems = read(tmp_path, lambda c: c["images"][1].update(id=None))
    assert list(faults) == ["1.png", "2.png"]  # the box of 1.png may be of 2.png as well
    assert problems == [("annotation_without_image", EXCLUDED)]


def image_with(key, value=None):
    return lambda content: content["images"].append({"id": 9, "file_name": "9.png", key: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"].append({"id": 50}), "annotations[3] (id 50): image_id: missing"),
        (
            lambda c: c["annotations"].append({"id": 50, "image_id": None}),
            "annotations[3] (id 50): image_id: expected a number or a text, got null",
        ),
        (lambda c: c["images"].append({"id": 9}), "images[3] (id 9): file_name: missing"),
        (image_with("file_name"), "images[3] (id 9): file_name: expected a text, got null"),
        (lambda c: c["categories"].append({"name": "a"}), "categories[1]: id: missing"),
        (lambda c: c["categories"].append({"id": None}), "categories[1]: id: expected a number or a text, got null"),
        (lambda c: c["categories"].append({"id": 8}), "categories[1]: name: missing"),
        (lambda c: c["categories"].append({"id": 8, "name": None}), "categories[1]: name: expected a text, got null"),
    ],
)
def test_a_missing_key_is_another_thing_than_null(tmp_path, change, said):
    changed = content()
    change(changed)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(changed))
    assert said in [problem.detail for problem in parse_coco(path).problems]


@pytest.mark.parametrize("entry", [None, 7, "1.png", [], {}, {"id": 9}, {"id": 9, "file_name": 3}])
def test_an_entry_that_names_no_image_is_a_problem(tmp_path, entry):
    assert read(tmp_path, lambda c: c["images"].append(entry)) == ({}, ALL, [], [("image_without_name", EXCLUDED)])


@pytest.mark.parametrize("image_id", [None, 99, "00", "1.png", [0], True, 0.5])
def test_boxes_of_no_image_put_images_without_a_box_in_doubt(tmp_path, image_id):
    extra = {"id": 50, "image_id": image_id, "category_id": 1, "bbox": [1, 2, 30, 40]}
    faults, boxes, _, problems = read(tmp_path, lambda c: c["annotations"].append(extra))
    assert faults == {
        "2.png": "images[2] (id 2): no box, but 1 box of the file belongs to no image, and may be of this one"
    }
    assert boxes == {"0.png": CORNERS, "1.png": CORNERS[:1]}
    assert problems == [("annotation_without_image", EXCLUDED)]
    (doubtful,) = [a for a in parse_coco(tmp_path / "a.json").annotations if a.fault]
    assert doubtful.fault.kind == HEALTHY_IN_DOUBT


@pytest.mark.parametrize("entry", [None, {}, []])
def test_an_empty_entry_is_a_problem_that_concerns_no_image(tmp_path, entry):
    assert read(tmp_path, lambda c: c["annotations"].append(entry)) == (
        {}, ALL, [], [("annotation_without_image", EXCLUDED)],
    )  # fmt: skip


def test_ids_are_the_same_as_text_and_as_number(tmp_path):
    def change(content):
        for annotation in content["annotations"]:
            annotation.update(image_id=str(annotation["image_id"]), category_id="1", id=str(annotation["id"]))

    expected = [("0.png", "id_as_text"), ("1.png", "id_as_text")]
    assert read(tmp_path, change) == ({}, ALL, expected, [])

    def both(content):
        change(content)
        for image in content["images"]:
            image["id"] = str(image["id"])

    assert read(tmp_path, both) == ({}, ALL, [], [])


@pytest.mark.parametrize("again", [1, "1", 1.0])
def test_of_images_with_one_id_none_is_used(tmp_path, again):
    faults, boxes, _, _ = read(tmp_path, lambda c: c["images"][2].update(id=again))
    assert list(faults) == ["1.png", "2.png"]
    assert "the id 1 is also that of 2.png; which boxes are whose is not known" in faults["1.png"]
    assert list(boxes) == ["0.png"]


@pytest.mark.parametrize("name", ["1.png", "sub\\é.png"])
def test_of_images_with_one_name_none_is_used(tmp_path, name):
    def change(content):
        content["images"][1]["file_name"] = "sub/e\u0301.png" if "sub" in name else name
        content["images"][2]["file_name"] = name

    faults, boxes, _, _ = read(tmp_path, change)
    assert all("the file name is listed 2 times" in fault for fault in faults.values())
    assert list(boxes) == ["0.png"]


def test_boxes_with_one_id_exclude_their_images_as_a_fault_that_can_be_lifted(tmp_path):
    faults, boxes, _, _ = read(tmp_path, item(id="10"))
    assert list(faults) == ["0.png", "1.png"]
    assert list(boxes) == ["2.png"]
    annotations = parse_coco(tmp_path / "a.json").annotations
    assert {a.fault.kind for a in annotations if a.fault} == {REPEATED_ANNOTATION_ID}
    assert [len(a.boxes) for a in annotations] == [2, 1, 0]


def test_boxes_without_an_id_are_read_with_a_note(tmp_path):
    def change(content):
        del content["annotations"][0]["id"]
        content["annotations"][1]["id"] = None

    assert read(tmp_path, change) == ({}, ALL, [], [("annotation_id_missing", "kept")])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read_with_a_note(tmp_path, encoding):
    assert read(tmp_path, encoding=encoding) == ({}, ALL, [], [("byte_order_mark", "kept")])


POLYGON = [40, 50, 100, 60, 70, 80]


@pytest.mark.parametrize("bbox", ["absent", None, [], ["a", 1, 2, 3], [float("nan"), 50, 60, 30]])
@pytest.mark.parametrize("segmentation", [[POLYGON], POLYGON, [POLYGON, [50, 55, 60, 55, 60, 60]]])
def test_a_box_is_made_from_the_polygon_where_there_is_no_bbox(tmp_path, bbox, segmentation):
    def change(content):
        content["annotations"][2].update(bbox=bbox, segmentation=segmentation)
        if bbox == "absent":
            del content["annotations"][2]["bbox"]

    assert read(tmp_path, change) == ({}, ALL, [("1.png", "box_from_polygon")], [])


@pytest.mark.parametrize(
    "segmentation",
    [
        [], [[]], [[1, 2]], [[1, 2, 3, 4, 5]], ["12"], [["a"] * 6], {}, {"counts": "x"}, "x", 7,
        {"size": [0, 9], "counts": [3]}, {"size": [9, 9], "counts": [-3, 5]},
    ],
)  # fmt: skip
def test_a_segmentation_that_holds_no_outline_makes_no_box(tmp_path, segmentation):
    faults, *_ = read(tmp_path, item(bbox=[], segmentation=segmentation))
    assert list(faults) == ["1.png"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_the_box_around_a_mask_is_that_of_pycocotools(tmp_path, seed, compressed):
    random = np.random.default_rng(seed)
    pixels = np.zeros((24, 31), dtype=np.uint8)
    for _ in range(seed % 3 + 1):
        y, x = random.integers(0, 20), random.integers(0, 27)
        pixels[y : y + random.integers(1, 24), x : x + random.integers(1, 9)] = 1
    runs = mask.encode(np.asfortranarray(pixels))
    x, y, width, height = mask.toBbox(runs).tolist()
    if compressed:
        segmentation = {"size": [24, 31], "counts": runs["counts"].decode()}
    else:
        flat = np.concatenate([[0], pixels.ravel(order="F"), [2]])
        starts = np.flatnonzero(np.diff(flat.astype(int)) != 0)
        counts = np.diff(np.concatenate([[0], starts])).tolist()  # the first run is of zeros, and may be empty
        segmentation = {"size": [24, 31], "counts": counts}
    _, boxes, _, _ = read(tmp_path, item(bbox=None, segmentation=segmentation))
    assert boxes["1.png"] == [(x, y, x + width, y + height)]


def test_crowd_and_rotation_are_kept_with_the_box(tmp_path):
    changed = content()
    changed["annotations"][0].update(iscrowd=1)
    changed["annotations"][1].update(attributes={"rotation": 30.0, "occluded": False})
    changed["annotations"][2].update(iscrowd=True, rotation="45")
    (tmp_path / "a.json").write_text(json.dumps(changed))
    boxes = [raw for annotation in parse_coco(tmp_path / "a.json").annotations for raw in annotation.boxes]
    assert [(raw.crowd, raw.rotation) for raw in boxes] == [(True, 0), (False, 30), (True, 45)]


@pytest.mark.parametrize(
    "categories",
    [
        [None, {"id": 1, "name": "fracture"}],
        [{"name": "line"}, {"id": 1, "name": "fracture"}],
        [{"id": 2, "name": None}, {"id": 1, "name": "fracture"}],
        [{"id": 2, "name": "a"}, {"id": 2, "name": "b"}, {"id": 1, "name": "fracture"}],
    ],
)
def test_a_category_that_is_none_is_a_problem_of_its_boxes_alone(tmp_path, categories):
    def change(content):
        content["categories"] = categories
        content["annotations"][2]["category_id"] = 2

    faults, boxes, _, problems = read(tmp_path, change)
    assert faults == {"1.png": "annotations[2] (id 12): category_id: no category has the id 2"}
    assert boxes == {"0.png": CORNERS, "2.png": []}
    assert problems == [("bad_category", EXCLUDED)]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "json"), ("{", "json"), ("null", "images"), ("[]", "images"), ("7", "images"), ("{}", "images"),
        ('{"images": [], "annotations": null, "categories": []}', "annotations"),
        ('{"images": [], "annotations": [], "categories": {}}', "categories"),
        ('{"images": [], "annotations": [1], "annotations": [], "categories": []}', "json"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "json"),
        ("[" * 50_000, "json"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_coco_is_an_error(tmp_path, text, field):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AnnotationError) as caught:
        parse_coco(tmp_path / "a.json")
    assert (caught.value.file, caught.value.field) == (str(tmp_path / "a.json"), field)


def test_a_file_that_is_absent_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="No such file"):
        parse_coco(tmp_path / "a.json")


def test_several_faults_of_an_image_are_one_sentence(tmp_path):
    def change(content):
        broken = [{**copy.deepcopy(content["annotations"][2]), "id": 20 + n, "bbox": n} for n in range(5)]
        content["annotations"][2:] = broken

    faults, *_ = read(tmp_path, change)
    assert faults["1.png"].startswith("annotations[2] (id 20): bbox: expected 4 numbers, got 0")
    assert faults["1.png"].endswith(
        "annotations[6] (id 24): bbox: expected 4 numbers, got 4, and there is no segmentation"
    )
