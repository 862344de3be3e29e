"""COCO: what it keeps, and what is wrong with a broken file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from fracture_det.data.annotation_formats.coco import parse_coco
from fracture_det.data.annotations import AnnotationError
from fracture_det.data.coco import read_coco
from fracture_det.data.formats import write_annotations
from fracture_det.data.records import Dataset, ImageRecord
from tests.builders import build_dataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return folder, build_dataset(folder, n_fractured=4, n_healthy=3, seed=5, size=(150, 200))


def test_coco_keeps_anatomy_group_attributes_and_every_bit_of_a_box(tmp_path):
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(0, 1, (5000, 2, 2)) * 10.0 ** rng.integers(-2, 4, (5000, 2, 2)), axis=1)
    boxes = corners.reshape(-1, 4)
    assert (boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) != boxes[:, 2:]).any()  # width alone would lose a bit
    record = ImageRecord(7, "a/b.png", 2000, 2001, "patient 3", "wrist", boxes, np.zeros(5000), {"view": "lateral"})
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


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.pop("categories"), "categories"),
        (lambda c: c["annotations"][0].update(category_id=9), "annotations id 1"),
        (lambda c: c["annotations"][0].update(image_id=99), "annotations id 1"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotations id 1"),
        (lambda c: c["annotations"][0].update(bbox="wide"), "annotations id 1"),
    ],
)
def test_broken_coco_is_an_error_with_file_and_field(tmp_path, drawn, change, field):
    write_annotations(drawn[1], tmp_path / "a.json", "coco")
    content = json.loads((tmp_path / "a.json").read_text())
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    for read in (read_coco, parse_coco):
        with pytest.raises(AnnotationError) as caught:
            read(tmp_path / "a.json")
        assert caught.value.field == field
