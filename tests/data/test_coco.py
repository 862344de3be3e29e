"""COCO: what it keeps, and what is wrong with a broken file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from fracture_det.data.annotation_formats.coco import parse_coco
from fracture_det.data.annotations import AnnotationError
from fracture_det.data.coco import read_coco, to_coco
from fracture_det.data.formats import write_annotations
from fracture_det.data.records import Dataset, ImageRecord
from tests.builders import build_dataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return folder, build_dataset(folder, n_fractured=4, n_healthy=3, seed=5, size=(150, 200))


def test_coco_keeps_anatomy_group_attributes_and_every_bit_of_a_box(tmp_path):
    rng = np.random.default_rng(1)
    starts = rng.uniform(0, 1, (1000, 2)) * 10.0 ** rng.integers(1, 4, (1000, 2))
    boxes = np.concatenate(
        [starts, starts + 1 + rng.uniform(0, 1, (1000, 2)) * 10.0 ** rng.integers(-2, 3, (1000, 2))], 1
    )
    assert (boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) != boxes[:, 2:]).any()  # width alone would lose a bit
    record = ImageRecord(7, "a/b.png", 2000, 2001, "patient 3", "wrist", boxes, np.zeros(1000), {"view": "lateral"})
    healthy = ImageRecord(9, "c.png", 10, 20, "patient 4")
    write_annotations(Dataset((record, healthy), ("fracture",)), tmp_path / "a.json", "coco")

    back = read_coco(tmp_path / "a.json")

    first, second = back.records
    assert (first.image_id, first.file_name, first.size) == (7, "a/b.png", (2000, 2001))
    assert (first.group_id, first.anatomy, dict(first.attributes)) == ("patient 3", "wrist", {"view": "lateral"})
    np.testing.assert_array_equal(first.boxes, boxes)
    assert (second.image_id, second.anatomy, second.fractured) == (9, None, False)


def test_a_bbox_that_was_edited_wins_over_the_corners_beside_it(tmp_path):
    box = [[9.61398498813779, 1, 61.53851114812539, 2]]
    write_annotations(
        Dataset((ImageRecord(1, "a.png", 99, 99, "g", None, np.array(box), np.zeros(1)),), ("fracture",)),
        tmp_path / "a.json",
        "coco",
    )
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["annotations"][0]["bbox_xyxy"] == box[0]
    content["annotations"][0]["bbox"] = [10, 1, 50, 1]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_coco(tmp_path / "a.json").records[0].boxes.tolist() == [[10, 1, 60, 2]]


def test_coco_is_valid_for_pycocotools(tmp_path, drawn, capsys):
    _, truth = drawn
    write_annotations(truth, tmp_path / "a.json", "coco")
    coco = COCO(str(tmp_path / "a.json"))
    assert len(coco.getImgIds()) == len(truth)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["fracture"]
    for record in truth:
        found = coco.loadAnns(coco.getAnnIds(imgIds=[record.image_id]))
        expected = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in record.boxes.tolist()]
        assert [item["bbox"] for item in found] == expected
        assert [item["area"] for item in found] == [w * h for *_, w, h in expected]


def written(folder, truth, change=lambda content: None):
    """Write `truth` as COCO after a change to its content; return the path."""
    content = to_coco(truth)
    change(content)
    path = folder / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(category_id=9),
        lambda c: c["annotations"][0].update(image_id=99),
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
        lambda c: c["annotations"][0].update(bbox="wide"),
        lambda c: c["images"][0].pop("height"),
        lambda c: c["images"][0].update(width=float("inf")),
        lambda c: c["images"][0].update(id=c["images"][1]["id"]),
        lambda c: c["images"][0].update(file_name=c["images"][1]["file_name"]),
        lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"]),
        lambda c: c["annotations"].append(dict(c["annotations"][0], id=77)),
        lambda c: c["annotations"][0].update(bbox=[0.1, 0.2, 0.3, 0.3]),
        lambda c: c["annotations"][0].update(bbox=[300, 300, 30, 30]),
        lambda c: c["annotations"][0].update(bbox=[100, 100, -30, -30]),
        lambda c: c["annotations"][0].update(bbox=[100, 100, 0, 30]),
        lambda c: c["annotations"][0].update(bbox=[float("nan"), 100, 30, 30]),
        lambda c: c["annotations"][0].update(attributes={"rotation": 30}),
        lambda c: c["categories"].append({"id": 5, "name": c["categories"][0]["name"]}),
    ],
)
def test_impossible_truth_is_refused_with_file_and_value(tmp_path, drawn, change):
    path = written(tmp_path, drawn[1], change)
    with pytest.raises(AnnotationError, match=r"a\.json: (truth: \d faults|\w+: .*(\d|'fracture'))"):
        read_coco(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image.pop("height"), "height: missing"),
        (lambda image: image.update(width=None), "width: expected 1 or more, got null"),
        (lambda image: (image.pop("height"), image.update(width=None)), "height: missing; width: expected 1 or more"),
        (lambda image: image.update(height=0), "height: expected 1 or more, got 0; width: expected 1 or more, got "),
    ],
)
def test_a_missing_size_is_another_thing_than_null(tmp_path, drawn, change, said):
    path = written(tmp_path, drawn[1], lambda content: change(content["images"][0]))
    with pytest.raises(AnnotationError) as caught:
        read_coco(path)
    assert f"{drawn[1].records[0].file_name}: {said}" in str(caught.value)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_file_that_is_not_coco_is_an_error_with_its_field(tmp_path, drawn, key):
    path = written(tmp_path, drawn[1], lambda content: content.pop(key))
    for read in (read_coco, parse_coco):
        with pytest.raises(AnnotationError) as caught:
            read(path)
        assert caught.value.field == key


@pytest.mark.parametrize(("n", "shown", "last"), [(12, 12, []), (1_003, 1_000, ["  and 3 more"])])
def test_all_faults_are_listed_up_to_a_thousand(tmp_path, drawn, n, shown, last):
    def change(content):
        content["images"] = [{"id": k, "file_name": f"{k}.png", "height": 9, "width": 9} for k in range(n)]
        content["annotations"] = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, -1, 3]} for k in range(n)]

    with pytest.raises(AnnotationError) as caught:
        read_coco(written(tmp_path, drawn[1], change))
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(f"a.json: truth: {n:,} faults")
    assert lines[:shown] == [f"  {k}.png: box (1, 2, 0, 5) ends before it begins" for k in range(shown)]
    assert lines[shown:] == last


def test_all_faults_of_one_image_are_listed(tmp_path, drawn):
    def change(content):
        content["images"] = [{"id": 1, "file_name": "a.png", "height": 9, "width": 9}]
        content["annotations"] = [{"id": k, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 3]} for k in range(9)]

    with pytest.raises(AnnotationError) as caught:
        read_coco(written(tmp_path, drawn[1], change))
    said = str(caught.value)
    assert all(f"annotations[{k}] (id {k}): category_id: no category has the id 7" in said for k in range(9))


def test_crowd_regions_are_stored_and_read_back(tmp_path):
    regions = np.array([[1.0, 2.0, 30.0, 40.0], [5.0, 5.0, 9.0, 9.0]])
    record = ImageRecord(
        1, "a.png", 50, 50, "g", boxes=np.array([[8.0, 8.0, 20.0, 20.0]]), classes=np.zeros(1, int),
        crowd_boxes=regions, crowd_classes=np.array([1, 0]),
    )  # fmt: skip
    alone = ImageRecord(2, "b.png", 50, 50, "g", crowd_boxes=regions[:1])
    path = written(tmp_path, Dataset((record, alone), ("angle", "line")))

    back, back_alone = read_coco(path)

    assert [item["iscrowd"] for item in json.loads(path.read_text())["annotations"]] == [0, 1, 1, 1]
    assert (back.boxes.tolist(), back.crowd_boxes.tolist()) == (record.boxes.tolist(), regions.tolist())
    assert back.crowd_classes.tolist() == [1, 0]
    assert (len(back_alone.boxes), len(back_alone.crowd_boxes), back_alone.fractured) == (0, 1, True)


def test_what_is_read_with_tolerance_is_noted(tmp_path, drawn):
    def change(content):
        for image in content["images"]:
            image.update(id=f"case {image['id']}", anatomy=3, attributes=["x"])
        for item in content["annotations"]:
            item["image_id"] = f"case {item['image_id']}"
            del item["id"]
        content["images"][0]["attributes"] = None

    read = read_coco(written(tmp_path, drawn[1], change))

    assert [record.image_id for record in read] == [1, 2, 3, 4, 5, 6, 7]
    assert {record.anatomy for record in read} == {"3"}
    assert [len(record.boxes) for record in read] == [len(record.boxes) for record in drawn[1]]
    kinds = " ".join(read.notes)
    assert "6 x attributes" in kinds
    assert "annotation_id_missing" in kinds
    assert "Image ids that are not whole numbers were replaced by 1, 2, ..." in kinds
