"""Which annotation belongs to which image."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotations import RawBox
from fracture_det.data.checks import AnnotationRules
from fracture_det.data.formats import CheckedDataset, build_dataset
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.pairing import open_annotations

BOX, NO_BOX = "0 .5 .5 .2 .2\n", ""


def read_tree(root: Path, images: list[str], labels: dict[str, str], fmt: str = "yolo", **options) -> CheckedDataset:
    """Write empty images and annotation files by their paths under `root`, and read them as far as pairing goes."""
    for name in images:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).touch()
    for name, text in labels.items():
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / name).write_text(text, encoding="utf-8")
    annotations = root / "labels" / next(iter(labels)) if fmt in ("coco", "label-studio") else root / "labels"
    source = open_annotations(annotations, fmt, images=root / "images", yolo_names=["fracture"])
    infos = [ImageInfo(name, (100, 100), 1, name, None) for name in source.images]
    return build_dataset(infos, source, AnnotationRules(), missing_is_healthy=True, **options)


def labels_of(checked: CheckedDataset) -> dict[str, bool]:
    """Return {image that can be used: whether it is fractured}."""
    return {record.file_name: record.fractured for record in checked.dataset}


def excluded(checked: CheckedDataset) -> dict[str, str]:
    """Return {file that is left out: kind of problem}."""
    return {problem.file: problem.kind for problem in checked.problems if problem.action == "excluded"}


def xml(image: str, box: tuple[float, float, float, float] | None = (10, 20, 30, 40)) -> str:
    return voc_xml(image, (100, 100), () if box is None else (RawBox("fracture", box),))


def coco(*entries: tuple[str, int]) -> str:
    """Return a COCO file of (file name, number of boxes)."""
    images = [{"id": k, "file_name": name, "width": 100, "height": 100} for k, (name, _) in enumerate(entries)]
    boxes = [
        {"id": 10 * k + n, "image_id": k, "category_id": 1, "bbox": [10 + 30 * n, 20, 20, 20], "iscrowd": 0}
        for k, (_, count) in enumerate(entries)
        for n in range(count)
    ]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "fracture"}]})


class TestAnotherFolder:
    """A label never goes to another folder's image, whose own label is missing."""

    IMAGES = ("fractured/1.jpg", "healthy/2.jpg", "healthy/3.jpg")

    def test_yolo(self, tmp_path):
        labels = {"fractured/1.txt": BOX, "fractured/3.txt": BOX, "healthy/2.txt": NO_BOX}
        checked = read_tree(tmp_path, list(self.IMAGES), labels)
        assert labels_of(checked) == {"fractured/1.jpg": True, "healthy/2.jpg": False}
        assert excluded(checked) == {
            "fractured/3.txt": "annotation_without_image",
            "healthy/3.jpg": "possibly_annotated",
        }

    def test_voc(self, tmp_path):
        names = {"fractured/1.xml": "fractured/1.jpg", "fractured/3.xml": "fractured/3.jpg"}
        labels = {file: xml(f"/data/{image}") for file, image in names.items()}
        labels["healthy/2.xml"] = xml("/data/healthy/2.jpg", None)
        checked = read_tree(tmp_path, list(self.IMAGES), labels, "voc")
        assert labels_of(checked) == {"fractured/1.jpg": True, "healthy/2.jpg": False}
        assert excluded(checked)["healthy/3.jpg"] == "possibly_annotated"

    def test_coco(self, tmp_path):
        content = coco(("fractured/1.jpg", 1), ("fractured/3.jpg", 1), ("healthy/2.jpg", 0))
        checked = read_tree(tmp_path, list(self.IMAGES), {"all.json": content}, "coco")
        assert labels_of(checked) == {"fractured/1.jpg": True, "healthy/2.jpg": False}
        assert excluded(checked)["healthy/3.jpg"] == "possibly_annotated"

    def test_an_image_of_a_kind_that_is_not_read_keeps_its_label(self, tmp_path):
        labels = {"fractured/3.txt": BOX, "healthy/2.txt": NO_BOX}
        checked = read_tree(tmp_path, ["fractured/3.heic", "healthy/2.jpg", "healthy/3.jpg"], labels)
        assert labels_of(checked) == {"healthy/2.jpg": False, "healthy/3.jpg": False}
        assert excluded(checked) == {
            "fractured/3.heic": "kind_not_read",
            "fractured/3.txt": "image_not_read",
        }


class TestNames:
    @pytest.mark.parametrize(
        ("image", "label"),
        [
            ("C.PNG", "C.TXT"),
            (unicodedata.normalize("NFD", "hüfte.png"), unicodedata.normalize("NFC", "hüfte.txt")),
            ("a.png", "a.png.txt"),
            ("hand 1.png", "hand%201.txt"),
            ("Hand.png", "hand.txt"),
        ],
    )
    def test_spellings_of_one_name(self, tmp_path, image, label):
        checked = read_tree(tmp_path, [image, "other.png"], {label: BOX})
        assert labels_of(checked) == {image: True, "other.png": False}

    @pytest.mark.parametrize("entry", ["hand a", "hand%20a.png", "images\\1/hand a.png", "hand a.png ", "HAND A.PNG"])
    def test_entries_of_an_export(self, tmp_path, entry):
        checked = read_tree(tmp_path, ["hand a.png", "other.png"], {"all.json": coco((entry, 1))}, "coco")
        assert labels_of(checked) == {"hand a.png": True, "other.png": False}

    def test_recurring_names_follow_images_to_labels(self, tmp_path):
        for split, text in (("train", BOX), ("valid", NO_BOX)):
            for folder, name, content in (("images", "0.png", ""), ("labels", "0.txt", text)):
                (tmp_path / split / folder).mkdir(parents=True, exist_ok=True)
                (tmp_path / split / folder / name).write_text(content)
        source = open_annotations(tmp_path, "yolo", images=tmp_path, yolo_names=["fracture"])
        infos = [ImageInfo(name, (100, 100), 1, name, None) for name in source.images]
        checked = build_dataset(infos, source, AnnotationRules(), missing_is_healthy=True)
        assert labels_of(checked) == {"train/images/0.png": True, "valid/images/0.png": False}

    def test_an_upload_may_be_of_either_image(self, tmp_path):
        value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["fracture"]}
        box = {"type": "rectanglelabels", "value": value, "original_width": 100, "original_height": 100}
        task = {"id": 1, "data": {"image": "/data/upload/1/0123abcd-hand_a.png"}, "annotations": [{"result": [box]}]}
        images = ["hand a.png", "hand_a.png", "other.png"]
        checked = read_tree(tmp_path, images, {"all.json": json.dumps([task])}, "label-studio")
        assert labels_of(checked) == {"hand_a.png": True, "other.png": False}
        assert excluded(checked) == {"hand a.png": "possibly_annotated"}


class TestSecondAnnotations:
    def test_the_same_path_wins_and_the_other_is_listed(self, tmp_path):
        checked = read_tree(tmp_path, ["a/1.png", "b/2.png"], {"a/1.txt": BOX, "b/2.txt": NO_BOX, "old/1.txt": NO_BOX})
        assert labels_of(checked) == {"a/1.png": True, "b/2.png": False}
        assert excluded(checked) == {"old/1.txt": "second_annotation"}

    def test_an_empty_one_does_not_outweigh_a_box(self, tmp_path):
        checked = read_tree(tmp_path, ["a/1.png", "b/2.png"], {"a/1.txt": NO_BOX, "b/2.txt": NO_BOX, "old/1.txt": BOX})
        assert labels_of(checked) == {"b/2.png": False}
        assert excluded(checked)["a/1.png"] == "second_annotation"

    def test_another_kind_of_annotation_is_no_absence(self, tmp_path):
        checked = read_tree(tmp_path, ["1.png", "2.png"], {"1.json": "{}", "2.txt": NO_BOX})
        assert labels_of(checked) == {"2.png": False}
        assert excluded(checked)["1.png"] == "possibly_annotated"


def test_a_yolo_folder_without_names_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="--yolo-names"):
        open_annotations(tmp_path, "yolo", [])
    with pytest.raises(ValueError, match=r"format: expected one of voc, yolo, coco.*, got 'nonsense'"):
        open_annotations(tmp_path, "nonsense", [])


def test_an_entry_of_an_export_is_told_with_its_file(tmp_path):
    images = ["fractured/1.jpg", "fractured/3.webp", "healthy/3.jpg", "healthy/4.jpg"]
    content = coco(("fractured/1.jpg", 1), ("fractured/3.jpg", 1), ("fractured/4.jpg", 1))
    checked = read_tree(tmp_path, images, {"all.json": content}, "coco")
    details = {problem.file: problem.detail for problem in checked.problems if problem.action == "excluded"}
    assert "the entry fractured/3.jpg of all.json names it" in details["healthy/3.jpg"]
    assert "the entry fractured/4.jpg of all.json" in details["healthy/4.jpg"]
    orphan = details["all.json: fractured/4.jpg"]
    assert "the entry fractured/4.jpg of all.json names the folder fractured" in orphan


def test_an_entry_whose_file_lies_in_another_folder_is_told_with_it(tmp_path):
    labels = {"train/a.json": coco(("1.jpg", 1)), "val/a.json": coco(("2.jpg", 1))}
    for name, text in labels.items():
        (tmp_path / "labels" / name).parent.mkdir(parents=True)
        (tmp_path / "labels" / name).write_text(text)
    for name in ("train/1.jpg", "train/2.jpg", "val/3.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    source = open_annotations(tmp_path / "labels", "coco", images=tmp_path / "images")
    details = {problem.file: problem.detail for problem in source.problems}
    assert details["val/a.json: 2.jpg"].endswith("train/2.jpg is another: val/a.json lies in val")


@pytest.mark.parametrize(
    ("file", "text"), [("classes.txt", "fracture\n"), ("obj.names", "fracture\n"), ("data.yaml", "names: [fracture]\n")]
)
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_the_file_of_the_class_names_is_told_as_read(tmp_path, file, text, mark):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    (tmp_path / "labels" / file).write_text(text, encoding=mark)
    (tmp_path / "images" / "classes.txt").write_text("other")
    source = open_annotations(tmp_path / "labels", "yolo", images=tmp_path / "images")
    found = {(p.file, p.kind): p.detail for p in source.problems}
    marked = {(file, "byte_order_mark"): "the file begins with a byte order mark (UTF-8)"} if mark != "utf-8" else {}
    details = [p.detail for p in source.problems if p.kind == "other_file"]
    assert sorted(details) == ["neither an image nor an annotation", "read for the class names"]
    assert {key: detail for key, detail in found.items() if key[1] != "other_file"} == marked
    given = open_annotations(tmp_path / "labels", "yolo", images=tmp_path / "images", yolo_names=["fracture"])
    assert {p.detail for p in given.problems} == {"neither an image nor an annotation"}


def test_the_mark_of_class_names_that_lie_above_the_labels_is_told(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("fracture\n", encoding="utf-8-sig")
    source = open_annotations(tmp_path / "labels", "yolo", images=tmp_path / "images")
    assert [(p.file, p.kind) for p in source.problems] == [(str(tmp_path / "classes.txt"), "byte_order_mark")]


def test_the_account_of_the_files_tells_annotation_files_and_one_in_the_singular(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "images" / "notes.md").touch()
    for name in ("a", "b", "c"):
        (tmp_path / "labels" / f"{name}.txt").write_text(BOX)
    source = open_annotations(tmp_path / "labels", "yolo", images=tmp_path / "images", yolo_names=["fracture"])
    assert str(source.count_files(["a.png"], ["a.png"])) == (
        "5 files found = 1 image used + 1 annotation file used + 3 listed in problems.csv "
        "(0 images, 2 annotation files, 1 other file)"
    )
    assert str(source.count_files([], [])) == (
        "5 files found = 0 images used + 0 annotation files used + 5 listed in problems.csv "
        "(1 image, 3 annotation files, 1 other file)"
    )
