"""Pascal VOC XML as LabelImg writes it, and the dialects of roLabelImg, LabelMe, Roboflow and CVAT."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from fracture_det.data.annotation_formats.text import (
    Note,
    one_note_per_kind,
    parse_number,
    parse_whole_number,
    read_xml,
)
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from fracture_det.data.records import TYPE_ATTRIBUTE
from fracture_det.data.stated_types import joined_types

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# What holds the place of an object: its box, its box with an angle (roLabelImg), its outline (LabelMe, Roboflow).
_PLACES = ("bndbox", "robndbox", "polygon")
_ATTRIBUTE = (
    "\t\t<attributes>\n\t\t\t<attribute>\n\t\t\t\t<name>{name}</name>\n\t\t\t\t<value>{value}</value>\n"
    "\t\t\t</attribute>\n\t\t</attributes>"
)
# Outside of an <object> these are boxes that would be overlooked.
_OF_OBJECTS = {*_CORNERS, *_PLACES, "box", "bbox", "difficult", "part", "pose", "rectangle", "truncated"}


def parse_voc(path: str | Path, data: bytes | None = None) -> RawAnnotation:
    """Read one LabelImg XML file (`data`: its bytes, where already read).

    Coordinates are used as written: LabelImg clamps xmin and ymin up to 1 and never subtracts 1, so nothing is
    taken off here. Raises AnnotationError for XML that is broken, is no annotation, lacks a field, holds one that
    is not a number, or a box outside of an <object>; and for entities and document types, which LabelImg never writes.
    """
    file = str(path)
    root, notes = read_xml(file, Path(path).read_bytes() if data is None else data)
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.lower()
    if root.tag != "annotation":
        raise AnnotationError(file, "xml", f"<{root.tag}> instead of <annotation>")
    if not len(root):
        raise AnnotationError(file, "xml", "<annotation> is empty: it states neither its image nor that it is healthy")
    reader = _Reader(file, list(notes))
    objects = list(root.iter("object"))
    boxes = tuple(reader.box(item) for item in objects)
    within = {id(element) for item in objects for element in item.iter()}
    stray = next((e.tag for e in root.iter() if e.tag in _OF_OBJECTS and id(e) not in within), None)
    if stray is not None:
        raise AnnotationError(file, stray, "stands outside of every <object>")
    return RawAnnotation(
        file=file,
        image_name=_text(root, "filename"),
        image_path=_text(root, "path"),
        folder=_text(root, "folder"),
        size=reader.size(root),
        boxes=boxes,
        notes=one_note_per_kind(reader.notes),
    )


def voc_xml(image: str | Path, size: tuple[int, int], boxes: tuple[RawBox, ...], *, depth: int = 3) -> str:
    """Return the LabelImg XML for the boxes of an image of `size` (height, width).

    Coordinates are rounded to whole pixels and clamped up to 1, as LabelImg does, so that a box moves by at most
    1 px. The type of a fracture is written among <attributes>, as CVAT writes them; LabelImg ignores those.
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
            "\t\t</bndbox>",
            *([_ATTRIBUTE.format(name=TYPE_ATTRIBUTE, value=escape(box.type))] if box.type else []),
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _text(parent: Element, tag: str) -> str | None:
    text = parent.findtext(tag)
    return text.strip() if text and text.strip() else None


class _Reader:
    """Reads the fields of one file and collects the notes on the way."""

    def __init__(self, file: str, notes: list[Note]) -> None:
        self.file, self.notes = file, notes

    def size(self, root: Element) -> tuple[int, int] | None:
        size = root.find("size")
        if size is None:
            return None
        sides = []
        for tag in ("height", "width"):
            try:
                side, notes = parse_whole_number(self._required(size, tag))
            except ValueError as error:
                raise self._error(tag, error) from None
            self.notes += notes
            sides.append(side)
        return sides[0], sides[1]

    def box(self, item: Element) -> RawBox:
        name = self._required(item, "name")
        if (_text(item, "deleted") or "0").lower() not in ("0", "false"):
            raise AnnotationError(self.file, "deleted", "the object is marked as deleted; take it out of the file")
        difficult = (_text(item, "difficult") or "0").lower() not in ("0", "false")
        rotation, kind = self._rotation_attribute(item), joined_types(self._attributes(item, TYPE_ATTRIBUTE))
        if len(item.findall("bndbox")) > 1:
            raise AnnotationError(self.file, "bndbox", "two in one <object>")
        corners, rotated, outline = (item.find(tag) for tag in _PLACES)
        if corners is not None:
            x0, y0, x1, y1 = (self._number(corners, tag) for tag in _CORNERS)
            return RawBox(name, (x0, y0, x1, y1), difficult, rotation=rotation, type=kind)
        if rotated is not None:
            x, y, width, height, angle = (self._number(rotated, tag) for tag in ("cx", "cy", "w", "h", "angle"))
            if not math.isfinite(angle):
                raise AnnotationError(self.file, "angle", angle)
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            return RawBox(name, box, difficult, rotation=math.degrees(angle), type=kind)
        if outline is not None:
            self.notes.append(("box_from_polygon", f"no <bndbox> of {name!r}; the box around its polygon was taken"))
            return RawBox(name, self._around(outline), difficult, type=kind)
        raise AnnotationError(self.file, "bndbox", "missing")

    def _around(self, outline: Element) -> tuple[float, float, float, float]:
        """Return the box around <pt><x/><y/></pt> ... (LabelMe), or <x1/><y1/><x2/> ... (Roboflow)."""
        xs, ys = (
            [self._float(e.tag, e.text) for e in outline.iter() if re.fullmatch(rf"{axis}\d*", e.tag)] for axis in "xy"
        )
        if len(xs) != len(ys) or len(xs) < 3 or not all(map(math.isfinite, (*xs, *ys))):
            raise AnnotationError(self.file, "polygon", f"expected 3 points or more, got {len(xs)} x and {len(ys)} y")
        return min(xs), min(ys), max(xs), max(ys)

    def _rotation_attribute(self, item: Element) -> float:
        """Return CVAT's <attribute><name>rotation</name><value>45.0</value></attribute>, in degrees."""
        written = next(iter(self._attributes(item, "rotation")), None)
        if written is None:
            return 0.0
        if not written:
            raise AnnotationError(self.file, "value", "missing")
        degrees = self._float("value", written)
        if not math.isfinite(degrees):
            raise AnnotationError(self.file, "rotation", degrees)
        return degrees

    def _attributes(self, item: Element, name: str) -> list[str]:
        """Return the values of CVAT's <attributes> of this name of an object, "" for one without value."""
        attributes = item.iterfind("attributes/attribute")
        return [_text(attribute, "value") or "" for attribute in attributes if _text(attribute, "name") == name]

    def _required(self, parent: Element, tag: str) -> str:
        text = _text(parent, tag)
        if text is None:
            raise AnnotationError(self.file, tag, "missing")
        return text

    def _number(self, parent: Element, tag: str) -> float:
        return self._float(tag, self._required(parent, tag))

    def _float(self, tag: str, text: str | None) -> float:
        try:
            value, notes = parse_number(text)
        except ValueError as error:
            raise self._error(tag, error) from None
        self.notes += notes
        return value

    def _error(self, tag: str, error: ValueError) -> AnnotationError:
        return AnnotationError(self.file, tag, str(error))
