"""LabelImg's XML, compared with LabelImg's own code."""

from __future__ import annotations

import pytest
from libs.pascal_voc_io import PascalVocReader, PascalVocWriter

from fracture_det.data.annotation_formats.voc import parse_voc, voc_xml
from fracture_det.data.annotations import AnnotationError, RawBox
from tests.builders import labelimg_xml

BOXES = [(1, 1, 40, 30), (12, 7, 13, 8), (100, 50, 200, 150), (0, 0, 200, 150)]


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
