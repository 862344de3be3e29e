"""VGG Image Annotator 2 (and 1): its project, its JSON of annotations and its CSV."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.fields import FieldReader, read_bytes
from fracture_det.data.annotation_formats.image_labels import check_image_labels
from fracture_det.data.annotation_formats.image_names import one_per_image, referred_path
from fracture_det.data.annotation_formats.shapes import Box, ellipse_box, enclosing_box
from fracture_det.data.annotation_formats.tensorflow_csv import read_csv
from fracture_det.data.annotation_formats.text import MISSING, Notes, read_json, show
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.records import EXCLUDED, TYPE_ATTRIBUTE, Problem

CSV_COLUMNS = ("filename", "region_count", "region_shape_attributes", "region_attributes")
# The class of a region without one: unknown until --class-map names it.
UNNAMED = "region"
_CLASS_ATTRIBUTES = ("class", "classname", "label", "category", "type", "name", "object", "finding")
_NO_VALUE = ("", "undefined")


@dataclass
class _Entry:
    """One image of a VIA file: its place in it, name, regions and the attributes of the file itself."""

    place: str
    name: str
    regions: Any
    file_attributes: Any


def parse_via(path: str | Path, data: bytes | None = None, *, class_names: Sequence[str] = ()) -> ParsedExport:
    """Read what VIA 2 or 1 saves (`data`: its bytes, where already read).

    class_names: known names of classes; where regions have several attributes, that whose values are among them is the
    class, or else one that is called class, label, type or the like; `type` beside it is the type of fracture. A region
    without a value is of the class `region`. VIA lists every image that was added and does not say which were looked
    at: an image without regions has no annotation, unless a file attribute says that it is healthy; another file
    attribute is then a fault. Circles, ellipses and polygons become the box that encloses them; points and polylines
    are a fault of their image. Raises AnnotationError for another file, one of VIA 3, and where several attributes may
    be the class.
    """
    file = str(path)
    data = read_bytes(path) if data is None else data
    entries, options, notes = _csv_entries(file, data) if _is_csv(data) else _json_entries(file, data)
    attribute = _class_attribute(file, entries, class_names)
    annotations: list[RawAnnotation] = []
    problems: list[Problem] = []
    for entry in entries:
        name = referred_path(entry.name)[0]
        labels = _values(entry.file_attributes)
        if not name:
            problems.append(Problem(entry.place, "unreadable_annotation", "it names no image", EXCLUDED))
        elif entry.regions == [] and not labels:
            detail = f"no region in {Path(path).name}, which does not say whether it was reviewed"
            problems.append(Problem(name, "review_not_stated", detail))
        else:
            annotations.append(_annotation(FieldReader(entry.place), name, entry, attribute, options, labels, notes))
    return ParsedExport(one_per_image(annotations), tuple(options.values()), tuple(problems))


def is_via_item(item: object) -> bool:
    """Return whether a JSON value is the entry of one image in a VIA file."""
    return isinstance(item, dict) and "filename" in item and "regions" in item


def _is_csv(data: bytes) -> bool:
    return not data.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith((b"{", b"["))


def _json_entries(file: str, data: bytes) -> tuple[list[_Entry], dict[str, str], Notes]:
    """Return the entries, the class names by the option ids of the project, and notes."""
    content, notes = read_json(file, data)
    if isinstance(content, dict) and isinstance(content.get("project"), dict) and "vid_list" in content["project"]:
        raise AnnotationError(file, "project", "saved by VIA 3, which is not read: export COCO, or annotate in VIA 2")
    options: dict[str, str] = {}
    if isinstance(content, dict) and "_via_img_metadata" in content:
        attributes = content.get("_via_attributes")
        options = _options(attributes.get("region") if isinstance(attributes, dict) else None)
        content = content["_via_img_metadata"]
    if not isinstance(content, dict) or not any(map(is_via_item, content.values())):
        raise AnnotationError(file, "json", "expected a VIA 2 project, or an object of filename and regions per image")
    entries = []
    for key, item in content.items():
        item = item if isinstance(item, dict) else {}
        name, regions = item.get("filename"), item.get("regions", MISSING)
        if isinstance(regions, dict):  # VIA 1
            regions = list(regions.values())
        name = name if isinstance(name, str) else ""
        entries.append(_Entry(f"{file}#{key}", name, regions, item.get("file_attributes")))
    return entries, options, notes


def _csv_entries(file: str, data: bytes) -> tuple[list[_Entry], dict[str, str], Notes]:
    columns, rows, notes = read_csv(file, data)
    if not set(CSV_COLUMNS) <= set(columns):
        raise AnnotationError(file, "columns", f"expected {', '.join(CSV_COLUMNS)}, as VIA's CSV")
    entries: dict[tuple[str, str], _Entry] = {}
    stated: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, 2):
        name, count = row.get("filename", ""), row.get("region_count", "").strip()
        key = (name, row.get("file_size", ""))
        entry = entries.setdefault(key, _Entry(f"{file}#{name}", name, [], _loads(row.get("file_attributes", ""))))
        stated[key] = count
        shape = _loads(row.get("region_shape_attributes", ""))
        if shape == {} and count == "0":
            continue
        region = {"shape_attributes": shape, "region_attributes": _loads(row.get("region_attributes", ""))}
        entry.regions.append(region if shape is not None else f"row {number}")
    for key, entry in entries.items():
        if stated[key] != str(len(entry.regions)):
            entry.regions.append(f"{stated[key]} stated, {len(entry.regions)} read")
    return list(entries.values()), {}, notes


def _loads(text: str) -> Any:
    """Return the JSON in a cell, or None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _options(attributes: object) -> dict[str, str]:
    """Return {option id: its description} of numbered options, whose ids say nothing."""
    options: dict[str, str] = {}
    for attribute in attributes.values() if isinstance(attributes, dict) else ():
        listed = attribute.get("options") if isinstance(attribute, dict) else None
        for key, description in listed.items() if isinstance(listed, dict) else ():
            if key.isdigit() and isinstance(description, str) and description.strip():
                options[key] = description.strip()
    return options


def _values(attributes: object) -> list[str]:
    """Return the values of attributes: texts, and the options of checkboxes that are set."""
    values: list[str] = []
    for value in attributes.values() if isinstance(attributes, dict) else ():
        if isinstance(value, dict):
            values += [key for key, is_set in value.items() if is_set is True]
        elif isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() not in _NO_VALUE:
            values.append(str(value).strip())
    return values


def _class_attribute(file: str, entries: Sequence[_Entry], class_names: Sequence[str]) -> str | None:
    """Return the region attribute that is the class; None where regions have no attribute with a value."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        for region in entry.regions if isinstance(entry.regions, list) else ():
            attributes = region.get("region_attributes") if isinstance(region, dict) else None
            for name, value in attributes.items() if isinstance(attributes, dict) else ():
                values[name].update(_values({name: value}))
    used = [name for name, counts in values.items() if counts]
    if len(used) < 2:
        return used[0] if used else None
    called_class = [name for name in used if "".join(filter(str.isalpha, name.lower())) in _CLASS_ATTRIBUTES]
    for candidates in (
        [name for name in used if class_names and set(values[name]) <= set(class_names)],
        # Beside another one of these, `type` is the type of fracture.
        [name for name in called_class if name != TYPE_ATTRIBUTE],
        called_class,
    ):
        if len(candidates) == 1:
            return candidates[0]
    listed = "; ".join(f"{name}: {', '.join(sorted(values[name])[:4])}" for name in used)
    raise AnnotationError(file, "region_attributes", f"which of them is the class is not known: {listed}")


def _annotation(
    reader: FieldReader,
    name: str,
    entry: _Entry,
    attribute: str | None,
    options: Mapping[str, str],
    labels: Sequence[str],
    notes: Notes,
) -> RawAnnotation:
    for note in notes:
        reader.note(*note)
    boxes: list[RawBox] = []
    fault = None
    try:
        for number, region in enumerate(reader.list(entry.regions, "regions"), 1):
            boxes += _boxes(reader, region, f"region {number}", attribute, options)
        if not boxes:
            check_image_labels(reader, labels, boxes)
    except AnnotationError as error:
        boxes, fault = [], error
    return RawAnnotation(reader.file, tuple(boxes), image_path=name, notes=reader.notes, fault=fault)


def _boxes(
    reader: FieldReader, region: Any, place: str, attribute: str | None, options: Mapping[str, str]
) -> list[RawBox]:
    """Return one box per class of a region: checkboxes may set several."""
    region = reader.object(region, place)
    box = _corners(reader, reader.object(region.get("shape_attributes", MISSING), f"{place}: shape_attributes"), place)
    attributes = region.get("region_attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    kinds = _values({name: attributes.get(name) for name in (TYPE_ATTRIBUTE,) if name != attribute})
    kind = ", ".join(options.get(value, value) for value in kinds)  # of several none is known
    named = {attribute: attributes.get(attribute)} if attribute else {}
    return [RawBox(options.get(value, value), box, type=kind) for value in _values(named) or [UNNAMED]]


def _corners(reader: FieldReader, shape: Mapping[str, Any], place: str) -> Box:
    kind = shape.get("name", MISSING)
    if kind is MISSING:
        raise reader.fail(f"{place}: name", "missing")
    if kind == "rect":
        x, y, width, height = reader.numbers(shape, ("x", "y", "width", "height"), place)
        return x, y, x + width, y + height
    if kind not in ("circle", "ellipse", "polygon"):
        raise reader.fail(place, f"a region of shape {show(kind)} is no box")
    reader.note_shape(str(kind), place)
    if kind == "circle":
        x, y, r = reader.numbers(shape, ("cx", "cy", "r"), place)
        return ellipse_box((x, y), (r, r))
    if kind == "ellipse":
        x, y, rx, ry = reader.numbers(shape, ("cx", "cy", "rx", "ry"), place)
        theta = reader.degrees(shape.get("theta", MISSING), f"{place}: theta")  # in radians, since 2.0.6
        return ellipse_box((x, y), (rx, ry), math.degrees(theta))
    xs, ys = (reader.list(shape.get(key, MISSING), f"{place}: {key}") for key in ("all_points_x", "all_points_y"))
    if len(xs) < 3:
        raise reader.fail(place, f"a polygon of {len(xs)} points is no box")
    return enclosing_box(reader.points(xs, ys, place))
