"""Readers' feedback as annotations."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fracture_det.data.annotation_formats.voc import parse_voc
from fracture_det.data.coco import read_coco
from fracture_det.data.feedback import Review, write_reviews
from fracture_det.structures.readings import Reading, ReadRadiograph

A, B, MISSED = (1, 2, 11, 12), (20, 5, 30, 15), (3, 3, 9, 9)


def review(image="kept.png", name="a", n_required=1, **said):
    reading = Reading(**({"verdicts": {}, "missed": (), "no_fracture": False, "comment": ""} | said))
    read = ReadRadiograph([A, B], ["fracture", "implant"], n_required, [reading])
    return Review(name, image, (40, 60), read, {"author": "x"})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"image": None, "no_fracture": True}, "its picture was not kept"),
        ({"missed": [MISSED]}, "box 1 was not judged"),  # the first of two needs a verdict
        ({"n_required": 0}, "there is only a comment"),
        ({"verdicts": {1: "wrong"}}, ""),
        ({"no_fracture": True}, ""),
        ({"n_required": 0, "missed": [MISSED]}, ""),
        ({"unreadable": True}, "its reader found it not readable"),
    ],
)
def test_what_says_too_little_is_not_trained_on(values, reason):
    assert review(**values).unusable == reason


@pytest.mark.parametrize(
    ("values", "truth"),
    [
        ({"verdicts": {1: "wrong", 2: "right"}, "missed": [MISSED]}, [("implant", B), ("fracture", MISSED)]),
        ({"verdicts": {1: "right"}, "no_fracture": True}, []),
        ({"verdicts": {1: "right"}, "moved": {1: MISSED}}, [("fracture", MISSED)]),
        ({"verdicts": {1: "wrong"}}, []),
    ],
)
def test_the_truth_is_what_was_confirmed_and_what_was_missed(values, truth):
    assert [(box.name, box.box) for box in review(**values).truth("fracture")] == truth


def test_what_is_usable_is_written_and_the_rest_named(tmp_path):
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "kept.png")
    reviews = [
        review(tmp_path / "kept.png", verdicts={1: "right"}, missed=[MISSED]),
        review(None, name="b"),
    ]
    assert write_reviews(reviews, tmp_path / "out", label="fracture") == [("b", "its picture was not kept")]
    (record,) = read_coco(tmp_path / "out" / "coco.json")
    assert (record.file_name, record.size, record.boxes.tolist()) == ("a.png", (40, 60), [list(A), list(MISSED)])
    assert (tmp_path / "out" / "metadata.csv").read_text().splitlines() == ["file_name,author", "a.png,x"]
    assert (tmp_path / "out" / "annotations" / "a.xml").is_file()


def test_types_that_readers_stated_are_in_both_forms_and_no_others(tmp_path):
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "kept.png")
    said = {"verdicts": {1: "right", 2: "right"}, "types": {1: "spiral"}, "missed": [MISSED, (31, 31, 39, 39)]}
    typed = review(tmp_path / "kept.png", **said, missed_types=[None, "greenstick"])
    write_reviews([typed], tmp_path / "out", label="fracture")
    types = ["spiral", None, None, "greenstick"]
    written = json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]
    assert [box.get("attributes", {}).get("type") for box in written] == types
    (record,) = read_coco(tmp_path / "out" / "coco.json")
    assert record.types == tuple(types)
    xml = tmp_path / "out" / "annotations" / "a.xml"
    assert [box.type or None for box in parse_voc(xml).boxes] == types
    attribute = ElementTree.parse(xml).find("object/attributes/attribute")
    assert [(part.tag, part.text) for part in attribute] == [("name", "type"), ("value", "spiral")]
    assert len(ElementTree.parse(xml).findall("object/attributes")) == 2
    # LabelImg reads these alone.
    first = ElementTree.parse(xml).find("object")
    assert (first.findtext("name"), first.findtext("difficult"), first.findtext("bndbox/xmax")) == (
        "fracture",
        "0",
        "11",
    )
