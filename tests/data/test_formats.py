"""LabelImg VOC, YOLO and COCO: read, written, and compared with LabelImg's own code and with globox."""

from __future__ import annotations

import json

import globox
import numpy as np
import pytest
from libs.pascal_voc_io import PascalVocReader, PascalVocWriter
from libs.yolo_io import YOLOWriter
from pycocotools.coco import COCO

from fracture_det.data.annotations import AnnotationError, RawBox
from fracture_det.data.coco import parse_coco, read_coco
from fracture_det.data.formats import read_annotations, write_annotations
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.data.voc import parse_voc, voc_xml
from fracture_det.data.yolo import parse_yolo, yolo_text
from tests.builders import build_dataset, labelimg_xml

BOXES = [(1, 1, 40, 30), (12, 7, 13, 8), (100, 50, 200, 150), (0, 0, 200, 150)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return folder, build_dataset(folder, n_fractured=4, n_healthy=3, seed=5, size=(150, 200))


def boxes_by_name(dataset: Dataset) -> dict[str, list]:
    return {record.file_name: record.boxes.tolist() for record in dataset}


def test_reads_what_labelimg_writes(tmp_path):
    writer = PascalVocWriter("images", "é & x.png", (150, 200, 3), local_img_path="/data/images/é & x.png")
    for box in BOXES[:3]:
        writer.add_bnd_box(*box, "fracture", 0)
    writer.add_bnd_box(5, 5, 9, 9, "fracture", 1)
    writer.save(str(tmp_path / "a.xml"))

    annotation = parse_voc(tmp_path / "a.xml")

    assert (annotation.image_name, annotation.folder) == ("é & x.png", "images")
    assert annotation.size == (150, 200)
    assert [raw.box for raw in annotation.boxes] == [*BOXES[:3], (5, 5, 9, 9)]  # nothing is taken off
    assert [raw.difficult for raw in annotation.boxes] == [False, False, False, True]


def test_labelimg_reads_what_we_write(tmp_path):
    raw = tuple(RawBox("fracture", box) for box in BOXES)
    (tmp_path / "a.xml").write_text(voc_xml("images/a.png", (150, 200), raw), encoding="utf-8")

    shapes = PascalVocReader(str(tmp_path / "a.xml")).get_shapes()

    # LabelImg clamps a start of 0 up to 1, and so does our writer.
    expected = [[(max(1, x0), max(1, y0)), (x1, y1)] for x0, y0, x1, y1 in BOXES]
    assert [[points[0], points[2]] for _, points, *_ in shapes] == expected


@pytest.mark.parametrize("make", [voc_xml, labelimg_xml], ids=["package", "builders"])
def test_xml_is_labelimgs_to_the_letter(tmp_path, make):
    image = tmp_path / "images" / "a.png"
    writer = PascalVocWriter("images", "a.png", (150, 200, 3), local_img_path=str(image))
    for box in BOXES[:3]:
        writer.add_bnd_box(*box, "fracture", 0)
    writer.save(str(tmp_path / "a.xml"))
    if make is voc_xml:
        text = voc_xml(image, (150, 200), tuple(RawBox("fracture", box) for box in BOXES[:3]))
    else:
        text = labelimg_xml(image, (150, 200, 3), [("fracture", box) for box in BOXES[:3]])
    assert text == (tmp_path / "a.xml").read_text(encoding="utf-8")


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


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "xml"),
        ("<annotation><object>", "xml"),
        ("<html/>", "xml"),
        ("<annotation><object><name>fracture</name></object></annotation>", "bndbox"),
        ("<annotation><object><bndbox/></object></annotation>", "name"),
        ("<annotation><object><name>f</name><bndbox><xmin>a</xmin></bndbox></object></annotation>", "xmin"),
        ("<annotation><size><height>9</height></size></annotation>", "width"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "xml"),
        (
            "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><annotation><folder>&e;</folder></annotation>",
            "entity",
        ),
        ("<!DOCTYPE a [<!ENTITY e 'ha'><!ENTITY f '&e;&e;'>]><annotation><folder>&f;</folder></annotation>", "entity"),
    ],
)
def test_broken_xml_is_an_error_with_file_and_field(tmp_path, text, field):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(AnnotationError) as caught:
        parse_voc(tmp_path / "a.xml")
    assert caught.value.field == field
    assert "a.xml" in str(caught.value)
    assert caught.value.kind == ("entity_attack" if field == "entity" else "unreadable_annotation")


@pytest.mark.parametrize(("fmt", "tolerance_px"), [("voc", 1.0), ("yolo", 0.01), ("coco", 0.0)])
def test_a_round_trip_moves_no_box_by_more_than_stated(tmp_path, drawn, fmt, tolerance_px):
    folder, truth = drawn
    rng = np.random.default_rng(0)
    records = []
    for record in truth:  # boxes with fractions, and one that touches all edges
        starts = rng.uniform(0, 60, (3, 2))
        boxes = np.concatenate([np.hstack([starts, starts + rng.uniform(1.5, 80, (3, 2))]), [[0, 0, 200, 150]]])
        boxes = boxes if record.fractured else np.zeros((0, 4))
        classes = np.arange(len(boxes)) % 2
        records.append(ImageRecord(record.image_id, record.file_name, *record.size, "g", None, boxes, classes))
    dataset = Dataset(tuple(records), ("fracture", "metal"))
    target = tmp_path / ("a.json" if fmt == "coco" else "labels")

    write_annotations(dataset, target, fmt)
    back = read_annotations(target, fmt, dataset.class_names, folder / "images")

    assert [record.file_name for record in back] == [record.file_name for record in dataset]
    for before, after in zip(dataset, back, strict=True):
        assert after.classes.tolist() == before.classes.tolist()
        assert np.abs(after.boxes - before.boxes).max(initial=0) <= tolerance_px


def test_coco_keeps_site_group_attributes_and_every_bit_of_a_box(tmp_path):
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


@pytest.mark.parametrize("fmt", ["voc", "yolo", "coco"])
def test_globox_an_independent_converter_reads_the_same_boxes(tmp_path, drawn, fmt):
    folder, truth = drawn
    target = tmp_path / ("a.json" if fmt == "coco" else "labels")
    write_annotations(truth, target, fmt)
    if fmt == "voc":
        theirs = globox.AnnotationSet.from_pascal_voc(target)
    elif fmt == "coco":
        theirs = globox.AnnotationSet.from_coco(target)
    else:
        for file in target.glob("*.txt"):  # globox takes every .txt for the labels of a .jpg
            if not (folder / "images" / file.with_suffix(".jpg").name).exists():
                file.unlink()
        theirs = globox.AnnotationSet.from_yolo_v5(target, image_folder=folder / "images")
    for record in truth:
        if fmt == "yolo" and record.file_name.endswith(".png"):
            continue
        found = [[box.xmin, box.ymin, box.xmax, box.ymax] for box in theirs[record.file_name].boxes]
        np.testing.assert_allclose(np.reshape(found, (-1, 4)), record.boxes, atol=0.01)


def test_what_globox_converts_from_our_xml_reads_back_as_coco(tmp_path, drawn):
    folder, truth = drawn
    theirs = globox.AnnotationSet.from_pascal_voc(folder / "annotations")
    theirs.save_coco(tmp_path / "theirs.json", auto_ids=True)
    back = read_annotations(tmp_path / "theirs.json", "coco", ["fracture"], folder / "images")
    assert boxes_by_name(back) == boxes_by_name(truth)


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


def test_strict_reading_raises_with_file_kind_and_value(tmp_path, drawn):
    folder, truth = drawn
    write_annotations(truth, tmp_path / "labels", "voc")
    (tmp_path / "labels" / truth.records[0].file_name).with_suffix(".xml").unlink()
    with pytest.raises(AnnotationError, match=f"{truth.records[0].file_name}: unlabelled"):
        read_annotations(tmp_path / "labels", "voc", ["fracture"], folder / "images")


def test_two_images_that_need_one_label_file_are_refused(tmp_path):
    dataset = Dataset((ImageRecord(1, "a.png", 5, 5, "g"), ImageRecord(2, "a.jpg", 5, 5, "h")), ("fracture",))
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png need the same file a\.xml"):
        write_annotations(dataset, tmp_path, "voc")


def test_builders_truth_is_what_their_xml_says(drawn):
    folder, truth = drawn
    back = read_annotations(folder / "annotations", "voc", ["fracture"], folder / "images")
    assert boxes_by_name(back) == boxes_by_name(truth)
    assert sum(record.fractured for record in truth) == 4
