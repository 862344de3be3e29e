"""Pascal VOC XML as LabelImg writes it."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def parse_voc(path: str | Path, data: bytes | None = None) -> RawAnnotation:
    """Read one LabelImg XML file (`data`: its bytes, where already read).

    Coordinates are used as written: LabelImg clamps xmin and ymin up to 1 and never subtracts 1, so nothing is
    taken off here. Raises AnnotationError for XML that is broken, is no annotation, lacks a field or holds one that
    is not a number, and for entities and document types, which LabelImg never writes.
    """
    file = str(path)
    try:
        root = ElementTree.fromstring(Path(path).read_bytes() if data is None else data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise AnnotationError(file, "entity", type(error).__name__, kind="entity_attack") from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise AnnotationError(file, "xml", str(error)) from error
    if root.tag != "annotation":
        raise AnnotationError(file, "xml", f"<{root.tag}> instead of <annotation>")
    return RawAnnotation(
        file=file,
        image_name=_text(root, "filename"),
        image_path=_text(root, "path"),
        folder=_text(root, "folder"),
        size=_size(root, file),
        boxes=tuple(_box(item, file) for item in root.iterfind("object")),
    )


def voc_xml(image: str | Path, size: tuple[int, int], boxes: tuple[RawBox, ...], *, depth: int = 3) -> str:
    """Return the LabelImg XML for the boxes of an image of `size` (height, width).

    Coordinates are rounded to whole pixels and clamped up to 1, as LabelImg does, so that a box moves by at most
    1 px.
    """
    image = Path(image)
    height, width = size
    lines = [
        "<annotation>",
        f"\t<folder>{escape(image.parent.name)}</folder>",
        f"\t<filename>{escape(image.name)}</filename>",
        f"\t<path>{escape(image.as_posix())}</path>",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>{depth}</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for box in boxes:
        x0, y0, x1, y1 = (max(1, round(value)) for value in box.box)
        at_edge = int(1 in (x0, y0) or x1 == width or y1 == height)
        lines += [
            f"\t<object>\n\t\t<name>{escape(box.name)}</name>\n\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{at_edge}</truncated>\n\t\t<difficult>{int(box.difficult)}</difficult>\n\t\t<bndbox>",
            f"\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>",
            "\t\t</bndbox>\n\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _text(parent: Element, tag: str) -> str | None:
    text = parent.findtext(tag)
    return text.strip() if text and text.strip() else None


def _number(parent: Element, tag: str, file: str) -> float:
    text = _text(parent, tag)
    if text is None:
        raise AnnotationError(file, tag, "missing")
    try:
        return float(text)
    except ValueError:
        raise AnnotationError(file, tag, text) from None


def _size(root: Element, file: str) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    return int(_number(size, "height", file)), int(_number(size, "width", file))


def _box(item: Element, file: str) -> RawBox:
    name, corners = _text(item, "name"), item.find("bndbox")
    if name is None:
        raise AnnotationError(file, "name", "missing")
    if corners is None:
        raise AnnotationError(file, "bndbox", "missing")
    x0, y0, x1, y1 = (_number(corners, tag, file) for tag in _CORNERS)
    difficult = (_text(item, "difficult") or "0").lower() not in ("0", "false")
    return RawBox(name, (x0, y0, x1, y1), difficult)
