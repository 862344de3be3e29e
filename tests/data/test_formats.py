"""LabelImg VOC, YOLO and COCO: read, written, and compared with LabelImg's own code and with globox."""

from __future__ import annotations

import globox
import numpy as np
import pytest

from fracture_det.data.annotations import AnnotationError
from fracture_det.data.formats import read_annotations, write_annotations
from fracture_det.data.records import Dataset, ImageRecord
from tests.builders import build_dataset

BOXES = [(1, 1, 40, 30), (12, 7, 13, 8), (100, 50, 200, 150), (0, 0, 200, 150)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return folder, build_dataset(folder, n_fractured=4, n_healthy=3, seed=5, size=(150, 200))


def boxes_by_name(dataset: Dataset) -> dict[str, list]:
    return {record.file_name: record.boxes.tolist() for record in dataset}


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


@pytest.mark.parametrize("fmt", ["voc", "yolo"])
def test_a_crowd_region_is_not_written_as_healthy_bone(tmp_path, fmt):
    record = ImageRecord(1, "a.png", 100, 80, "a", crowd_boxes=[[1, 2, 30, 40]])
    with pytest.raises(ValueError, match=f"a.png: a region marked iscrowd, which {fmt} cannot hold"):
        write_annotations(Dataset((record,), ("fracture",)), tmp_path / "out", fmt)
