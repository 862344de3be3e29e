"""An image is healthy by --missing-xml-is-healthy only where no file may hold its annotation."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from fracture_det.data.unused_files import copy_forms
from tests.data.test_pairing import BOX, coco, excluded, labels_of, read_tree, xml

IMAGES = ["hand_a.png", "hand_b.png", "hand_c.png"]


def read(tmp_path, extra: dict[str, str | bytes], *, fmt: str = "voc", beside: str = "labels"):
    """Read three images, of which hand_b alone has an annotation, with extra files beside the labels or the images."""
    for name, content in extra.items():
        path = tmp_path / beside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    labels = {"voc": {"hand_b.xml": xml("hand_b.png")}, "yolo": {"hand_b.txt": BOX}}
    return read_tree(tmp_path, IMAGES, labels[fmt], fmt)


def reasons(checked) -> dict[str, str]:
    """Return {image that may be annotated: why}."""
    return {p.file: p.detail for p in checked.problems if p.kind == "possibly_annotated"}


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def tarred(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


COPIES = [
    *("hand_a.xml.bak", "hand_a (1).xml", "hand_a - Copy.xml", "hand_a.xml~", "Copy of hand_a.xml", "#hand_a.xml#"),
    *("hand_a - Copy (2).xml", "~hand_a.xml", "hand_a_backup.xml", "hand_a.xml.old", ".hand_a.xml.swp", "hand_a"),
    *("hand_a - Kopie.xml", "hand_a_v2.xml", "hand_a.xml.2024", "hand_a_labels.xml", "hand_a.png.bak", "HAND_A-1.XML"),
    *("hand-a.xml", "hand a.xml", "handa.xml", "Hand_A_01.xml"),
    *("hand_a.xm", "hand_a [reader 2].xml", "old/hand_a.orig", "backup_hand_a.xml", "hand_a.xml.gz", "hand_a.zip"),
]


@pytest.mark.parametrize("beside", ["labels", "images"])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_its_annotation_is_no_absence(tmp_path, name, beside):
    checked = read(tmp_path, {name: "<annotation>"}, beside=beside)
    assert labels_of(checked) == {"hand_b.png": True, "hand_c.png": False}
    assert name in reasons(checked)["hand_a.png"]


def test_copies_of_labels_without_a_name_in_them(tmp_path):
    checked = read(tmp_path, {"hand_a (1).txt": BOX, "hand_c_old.txt": BOX}, fmt="yolo")
    assert labels_of(checked) == {"hand_b.png": True}
    assert excluded(checked)["hand_a (1).txt"] == "annotation_without_image"


def test_a_number_that_belongs_to_another_image_is_no_copy(tmp_path):
    checked = read_tree(tmp_path, ["a.png", "a_2.png"], {"a_2.txt": BOX})
    assert labels_of(checked) == {"a.png": False, "a_2.png": True}


def test_copy_forms():
    assert "hand_a" in copy_forms("x/Copy of hand_a (2) - Kopie.xml.bak~")
    assert copy_forms("wrist_left.xml") == {"wrist_left.xml", "wrist_left"}


TEXTS = {
    "export.json": json.dumps({"images": [{"file_name": "x/hand_a.png", "id": 1}]}),
    "escaped.json": '["hand\\u005fa.png"]',
    "escaped.xml": '<annotations><image name="hand&#95;a.png"/></annotations>',
    "table.csv": "image;finding\nhand_a;1\n",
    "notes.txt": "seen on Monday: hand_a.jpg, distal radius",
    "annotations.xml": '<annotations><image id="0" name="hand_a.png"/></annotations>',
    "tasks.jsonl": '{"data": {"image": "/data/upload/1/hand%5Fa.png"}}\n',
    "latin.csv": b"name,Befund\nhand_a.png,Br\xfcche\n",
    "wide.csv": "name\thand_a\n".encode("utf-16"),
    "labels.db": b"SQLite format 3\0\1\2\3\0hand_a.png\0\1",
    "export.json.gz": gzip.compress(b'["hand_a.png"]'),
    "all.zip": zipped({"labels/hand_a.xml": "<annotation/>", "labels/hand_b.xml": "<annotation/>"}),
    "export.zip": zipped({"result.json": '{"image": "hand_a.png"}', "images/hand_c.png": ""}),
    "table.xlsx": zipped({"xl/sharedStrings.xml": "<sst><si><t>hand_a.png</t></si></sst>", "xl/x.bin": "\1\2"}),
    "all.tar.gz": tarred({"hand_a.xml": "<annotation/>"}),
}


@pytest.mark.parametrize("beside", ["labels", "images"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_names_the_image_is_no_absence(tmp_path, name, beside):
    checked = read(tmp_path, {name: TEXTS[name]}, beside=beside)
    assert labels_of(checked) == {"hand_b.png": True, "hand_c.png": False}
    assert name in reasons(checked)["hand_a.png"]


LOCKED = {
    "labels.7z": (b"7z\xbc\xaf\x27\x1c", "cannot be looked into"),
    "labels.rar": (b"Rar!\x1a\7", "cannot be looked into"),
    "cut.tar.gz": (b"\x1f\x8b\x08", "cannot be looked into"),
    "outer.zip": (zipped({"inner.zip": "PK"}), "inner.zip in outer.zip is an archive in an archive"),
    "export.json": (b"\x00\x81\xff\x07", "cannot be read as text"),
    "labels.pkl": (b"\x80\x04\x95\x01\x02", "cannot be read as text"),
}


@pytest.mark.parametrize("name", LOCKED)
def test_a_file_that_cannot_be_looked_into_may_be_of_any_image(tmp_path, name):
    content, words = LOCKED[name]
    checked = read(tmp_path, {name: content})
    assert labels_of(checked) == {"hand_b.png": True}
    found = reasons(checked)
    assert set(found) == {"hand_a.png", "hand_c.png"}
    assert all(name in detail and words in detail for detail in found.values())


def test_an_encrypted_archive_may_be_of_any_image(tmp_path):
    data = bytearray(zipped({"result.json": "[]"}))
    data[6] |= 1  # the flag in the member's header, and in the list at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    checked = read(tmp_path, {"export.zip": bytes(data)})
    assert labels_of(checked) == {"hand_b.png": True}
    assert "encrypted" in reasons(checked)["hand_a.png"]


HARMLESS = {
    "images.zip": zipped({"hand_a.png": "", "hand_b.png": ""}),
    "labels.zip": zipped({"hand_b.xml": "<annotation/>"}),
    "train.txt": "hand_a.png\nhand_b.png\n",
    "ImageSets/Main/default.txt": "hand_a\nhand_b\n",
    "README.md": "Hands of two hospitals.",
    "other.json": '{"file_name": "hand_ab.png", "width": 100}',
    "paper.pdf": b"%PDF-1.4\n\x00\x01\x02",
    "empty.json": "",
    ".git/index": b"DIRC\0\1hand_a.png",
    ".git/pack.idx": b"\0\1\2",
    ".DS_Store": b"\0\1Bud1hand_a.png",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_says_nothing_of_an_image_does_not_cost_it(tmp_path, name):
    checked = read(tmp_path, {name: HARMLESS[name]})
    assert labels_of(checked) == {"hand_a.png": False, "hand_b.png": True, "hand_c.png": False}


def test_numbers_in_files_are_no_names_of_images(tmp_path):
    labels = {"1.txt": BOX}
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "boxes.json").write_text('{"bbox": [0, 2, 3], "id": 2}')
    (tmp_path / "labels" / "spare.csv.bak").write_text("0 2 3\n")
    checked = read_tree(tmp_path, ["1.png", "2.png", "3.png"], labels)
    assert labels_of(checked)["1.png"]
    assert not excluded(checked).get("2.png")


def test_a_link_to_nothing_was_its_annotation(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "hand_a.xml").symlink_to(tmp_path / "gone" / "hand_a.xml")
    checked = read(tmp_path, {})
    assert labels_of(checked) == {"hand_b.png": True, "hand_c.png": False}
    assert "hand_a.xml" in reasons(checked)["hand_a.png"]


def test_an_entry_of_an_export_under_the_name_of_a_copy(tmp_path):
    checked = read_tree(tmp_path, IMAGES, {"all.json": coco(("hand_a (1).png", 1), ("hand_b.png", 1))}, "coco")
    assert labels_of(checked) == {"hand_b.png": True, "hand_c.png": False}


def test_a_file_may_name_one_of_two_images_of_one_name(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "all.json").write_text('["left/1.png"]')
    checked = read_tree(tmp_path, ["left/1.png", "right/1.png", "right/2.png"], {"right/2.txt": BOX})
    assert labels_of(checked) == {"right/1.png": False, "right/2.png": True}


def test_0_png_xml_may_be_of_either(tmp_path):
    checked = read_tree(tmp_path, ["a/0.png", "a/0.png.png", "b/1.png"], {"moved/0.png.txt": BOX, "b/1.txt": BOX})
    assert labels_of(checked) == {"b/1.png": True}
    assert excluded(checked)["moved/0.png.txt"] == "annotation_ambiguous"


def test_a_mask_of_the_image_among_the_annotations(tmp_path):
    (tmp_path / "images").mkdir()
    for name in IMAGES:
        (tmp_path / "images" / name).write_bytes(b"picture")
    # The same bytes are the image itself, which exporters put beside their labels.
    for name, content in (("hand_a.png", b"mask"), ("hand_b.png", b"picture"), ("hand_c_mask.png", b"mask")):
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / name).write_bytes(content)
    checked = read_tree(tmp_path, [*IMAGES, "hand_d.png"], {"hand_d.txt": BOX})
    assert labels_of(checked) == {"hand_b.png": False, "hand_d.png": True}
    assert "hand_a.png, another picture of its name," in reasons(checked)["hand_a.png"]
    assert "hand_c_mask.png" in reasons(checked)["hand_c.png"]


@pytest.mark.parametrize("name", ["hand_a_mask.png", "hand_a-segmentation.png", "hand_a_annotated.jpg"])
def test_a_mask_among_the_images_is_no_radiograph(tmp_path, name):
    checked = read_tree(tmp_path, [*IMAGES, name], {"hand_b.txt": BOX})
    assert labels_of(checked) == {"hand_b.png": True, "hand_c.png": False}
    assert f"{name} is, by its name, a mask" in reasons(checked)["hand_a.png"]
    assert "a mask or a drawing of hand_a.png" in reasons(checked)[name]


def test_a_picture_is_no_mask_of_one_that_is_not_there(tmp_path):
    checked = read_tree(tmp_path, ["hand_mask.png", "hand_b.png"], {"hand_b.txt": BOX})
    assert labels_of(checked) == {"hand_mask.png": False, "hand_b.png": True}


def test_an_empty_annotation_element_says_nothing(tmp_path):
    checked = read_tree(tmp_path, ["a.png", "b.png"], {"a.xml": "<annotation/>", "b.xml": xml("b.png", None)}, "voc")
    assert labels_of(checked) == {"b.png": False}
    assert excluded(checked)["a.png"] == "unreadable_annotation"


def test_leading_zeros(tmp_path):
    checked = read_tree(tmp_path, ["hand_0007.png", "hand_0017.png", "b.png"], {"hand_7.txt": BOX, "b.txt": BOX})
    assert labels_of(checked) == {"hand_0017.png": False, "b.png": True}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("all.json", "not read as voc; bears the name of no image"),
        ("all.tar.gz", "an archive, which is not unpacked"),
        ("table.xlsx", "neither an image nor an annotation"),
        ("classes.txt", "neither an image nor an annotation"),
    ],
)
def test_what_is_listed_is_called_what_it_is(tmp_path, name, words):
    checked = read(tmp_path, {name: b"\0"})
    assert {p.detail for p in checked.problems if p.file == name} == {words}
