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


def voc(place, *, size="<width>200</width><height>150</height>", name="<name>fracture</name>", more=""):
    """Return an annotation with one object at `place`."""
    return f"<annotation><size>{size}</size><object>{name}{place}</object>{more}</annotation>"


BOX = "<bndbox><xmin>40</xmin><ymin>50</ymin><xmax>100</xmax><ymax>80</ymax></bndbox>"
CORNERS = (40, 50, 100, 80)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (voc(BOX), []),
        (voc(BOX.replace("40", "40.0").replace("50", " 50 ")), []),
        (voc(BOX.replace("40", "40,0")), ["decimal_comma"]),
        (voc(BOX, size="<width>200.0</width><height>150</height>"), ["whole_number"]),
        (voc(BOX).replace("<annotation>", '<annotation xmlns="urn:voc">'), []),
        (voc(BOX).replace("object", "Object").replace("bndbox", "BndBox"), []),
        (voc(BOX + "<part><name>tip</name><bndbox><xmin>1</xmin></bndbox></part>"), []),
        (voc(BOX + "<polygon><x1>1</x1><y1>2</y1></polygon>"), []),
        (voc(BOX, more="<owner><name>someone</name></owner>"), []),
        (f"<annotation><objects>{voc(BOX).split('</size>')[1].split('</ann')[0]}</objects></annotation>", []),
        (voc("<polygon><pt><x>40</x><y>50</y></pt><pt><x>100</x><y>60</y></pt><pt><x>70</x><y>80</y></pt></polygon>"),
         ["box_from_polygon"]),
        (voc("<polygon><x1>40</x1><y1>50</y1><x2>100</x2><y2>60</y2><x3>70</x3><y3>80</y3></polygon>"),
         ["box_from_polygon"]),
    ],
)  # fmt: skip
def test_dialects_are_read(text, kinds):
    annotation = parse_voc("a.xml", text.encode())

    assert [(raw.name, raw.box, raw.rotation) for raw in annotation.boxes] == [("fracture", CORNERS, 0)]
    assert [kind for kind, _ in annotation.notes] == kinds


@pytest.mark.parametrize("declared", ["utf-8", "utf-16"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-8"])
def test_every_unicode_encoding_is_read_whatever_the_first_line_says(encoding, declared):
    text = f'<?xml version="1.0" encoding="{declared}"?>\r\n' + voc(BOX, name="<name>骨折</name>")
    assert [(raw.name, raw.box) for raw in parse_voc("a.xml", text.encode(encoding)).boxes] == [("骨折", CORNERS)]


@pytest.mark.parametrize(
    ("place", "degrees"),
    [
        ("<robndbox><cx>70</cx><cy>65</cy><w>60</w><h>30</h><angle>0.785398163</angle></robndbox>", 45),
        (BOX + "<attributes><attribute><name>rotation</name><value>45.0</value></attribute></attributes>", 45),
        (BOX + "<attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes>", 0),
    ],
)
def test_a_rotated_box_keeps_its_angle(place, degrees):
    (raw,) = parse_voc("a.xml", voc(place).encode()).boxes
    assert raw.box == CORNERS
    assert raw.rotation == pytest.approx(degrees)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (voc(BOX, size="<width>1e999</width><height>150</height>"), "width"),
        (voc(BOX, size="<width>200</width><height>NaN</height>"), "height"),
        (voc(BOX, size="<width>200.5</width><height>150</height>"), "width"),
        (voc(BOX, name=""), "name"),
        (voc(BOX + BOX), "bndbox"),
        (voc(""), "bndbox"),
        (voc("<polygon><x1>1</x1><y1>2</y1></polygon>"), "polygon"),
        (voc(BOX + "<deleted>1</deleted>"), "deleted"),
        (voc(BOX.replace("40", "1,234")), "xmin"),
        (voc(BOX, more=BOX), "bndbox"),
        (voc(BOX).replace("object", "item"), "bndbox"),
        (voc("<robndbox><cx>70</cx><cy>65</cy><w>60</w><h>30</h><angle>inf</angle></robndbox>"), "angle"),
    ],
)
def test_what_cannot_be_a_box_is_an_error_with_its_field(text, field):
    with pytest.raises(AnnotationError) as caught:
        parse_voc("a.xml", text.encode())
    assert caught.value.field == field


def test_a_box_of_infinite_numbers_is_left_to_the_checks():
    (raw,) = parse_voc("a.xml", voc(BOX.replace("40", "1e999")).encode()).boxes
    assert not raw.finite
