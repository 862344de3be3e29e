"""A label that states another folder than that of an image is not paired with it by its bare name."""

from __future__ import annotations

import pytest

from fracture_det.data.pairing import open_annotations
from fracture_det.data.stated_folders import are_alternatives
from tests.data.test_pairing import BOX, coco, excluded, labels_of, read_tree, xml

IMAGES = ["site1/1.png", "site2/2.png"]


def voc(folder: str, name: str, path: str = "") -> str:
    """Return a label that states a folder, a name and, if any, a path."""
    lines = [line for line in xml(name).splitlines() if not any(tag in line for tag in ("<folder>", "<path>"))]
    stated = [f"<folder>{folder}</folder>"] * bool(folder) + [f"<path>{path}</path>"] * bool(path)
    return "\n".join([lines[0], *stated, *lines[1:]])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (voc("site9", "1.png"), voc("site2", "2.png")),
        (voc("", "1.png", "/data/site9/1.png"), voc("", "2.png", "/data/site2/2.png")),
        (voc("", "1.png", r"C:\data\site9\1.png"), voc("", "2.png", r"C:\data\site2\2.png")),
        (voc("later", "1.png"), voc("site2", "2.png")),
    ],
)
def test_voc(tmp_path, first, second):
    checked = read_tree(tmp_path, IMAGES, {"1.xml": first, "2.xml": second}, "voc")
    assert labels_of(checked) == {"site2/2.png": True}
    assert excluded(checked)["site1/1.png"] == excluded(checked)["1.xml"] == "annotation_ambiguous"


@pytest.mark.parametrize("prefix", ["", "/home/somebody/data/", "./"])
def test_coco(tmp_path, prefix):
    entries = coco((f"{prefix}site9/1.png", 1), (f"{prefix}site2/2.png", 1))
    checked = read_tree(tmp_path, IMAGES, {"all.json": entries}, "coco")
    assert labels_of(checked) == {"site2/2.png": True}
    assert "site1/1.png" in excluded(checked)


def test_yolo(tmp_path):
    checked = read_tree(tmp_path, IMAGES, {"site9/1.txt": BOX, "site2/2.txt": BOX})
    assert labels_of(checked) == {"site2/2.png": True}


@pytest.mark.parametrize("lost", ["fractured", "train", "site2", "left"])
def test_folders_of_which_one_excludes_the_other_even_where_all_labels_agree(tmp_path, lost):
    other = {"fractured": "healthy", "train": "val", "site2": "site1", "left": "right"}[lost]
    labels = {f"{lost}/1.txt": BOX, f"{lost}/2.txt": BOX}
    assert labels_of(read_tree(tmp_path, [f"{other}/1.png", f"{other}/2.png"], labels)) == {}


def test_folders_that_have_nothing_in_common(tmp_path):
    checked = read_tree(tmp_path, IMAGES, {"all.json": coco(("monday/1.png", 1), ("friday/2.png", 1))}, "coco")
    assert labels_of(checked) == {}


def test_labels_of_another_root(tmp_path):
    images, annotations = tmp_path / "val", tmp_path / "labels"
    images.mkdir(), annotations.mkdir()
    for number, folder in ((1, "train"), (2, "val")):
        (annotations / f"{number}.xml").write_text(voc(folder, f"{number}.png"))
        (images / f"{number}.png").touch()
    source = open_annotations(annotations, "voc", images=images)
    assert not source.has("1.png")
    assert source.has("2.png")
    assert "1.png" in source.excluded_images


def test_one_folder_that_all_labels_state_is_where_they_were_written(tmp_path):
    """As in FracAtlas, whose labels all say <folder>PASCAL VOC</folder>."""
    labels = {"1.xml": voc("PASCAL VOC", "1.png"), "2.xml": voc("PASCAL VOC", "2.png")}
    assert labels_of(read_tree(tmp_path, IMAGES, labels, "voc")) == dict.fromkeys(IMAGES, True)


def test_images_without_folders_contradict_none(tmp_path):
    entries = coco(("train2017/1.png", 1), ("val2017/2.png", 1))
    checked = read_tree(tmp_path, ["1.png", "2.png"], {"all.json": entries}, "coco")
    assert labels_of(checked) == {"1.png": True, "2.png": True}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("train", "valid", True),
        ("val", "validation", False),
        ("Non_fractured", "Fractured", True),
        ("site1", "site_2", True),
        ("part a", "part b", True),
        ("site1", "ward2", False),
        ("wrist", "Desktop", False),
    ],
)
def test_alternatives(first, second, expected):
    assert are_alternatives(first, second) is expected
