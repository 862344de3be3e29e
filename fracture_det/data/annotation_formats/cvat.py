"""CVAT's own XML, "CVAT for images 1.1"."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from fracture_det.data.annotation_formats.fields import FieldReader, read_bytes
from fracture_det.data.annotation_formats.image_labels import check_image_labels
from fracture_det.data.annotation_formats.image_names import one_per_image, plain_path
from fracture_det.data.annotation_formats.shapes import Box, Point, ellipse_box, enclosing_box
from fracture_det.data.annotation_formats.text import MISSING, Notes, read_xml
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.records import EXCLUDED, TYPE_ATTRIBUTE, Problem
from fracture_det.data.stated_types import joined_types

_CUBOID = [f"{side}{face}" for face in "12" for side in ("tl", "bl", "tr", "br")]


def parse_cvat(path: str | Path, data: bytes | None = None) -> ParsedExport:
    """Read an export "CVAT for images 1.1" (`data`: its bytes, where already read).

    Ellipses, polygons, masks and cuboids become the box that encloses them; points, polylines and
    skeletons are a fault of their image. CVAT lists every image of a task, opened or not: one without a shape counts
    as healthy, with a note; one with a tag that does not say so has a fault. Raises AnnotationError for another
    file, and for "CVAT for video", whose tracks name frames and not images.
    """
    file = str(path)
    root, notes = read_xml(file, read_bytes(path) if data is None else data)
    if root.tag != "annotations":
        raise AnnotationError(file, "xml", f"<{root.tag}> instead of CVAT's <annotations>")
    if root.find("track") is not None:
        raise AnnotationError(
            file, "track", 'a "CVAT for video" export names frames, not images: export "CVAT for images 1.1"'
        )
    if root.find("image") is None:
        raise AnnotationError(file, "image", "missing; CVAT for images writes one per image")
    annotations: list[RawAnnotation] = []
    problems: list[Problem] = []
    for number, image in enumerate(root.iterfind("image"), 1):
        place = f"{file}#image {image.get('id', number)}"
        name = plain_path(image.get("name") or "")
        if name:
            annotations.append(_annotation(FieldReader(place), name, image, notes))
        else:
            problems.append(Problem(place, "unreadable_annotation", "it names no image", EXCLUDED))
    names = (element.text or "" for element in root.iterfind("meta//labels/label/name"))
    class_names = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    return ParsedExport(one_per_image(annotations), class_names, tuple(problems))


def _annotation(reader: FieldReader, name: str, image: Element, notes: Notes) -> RawAnnotation:
    for note in notes:
        reader.note(*note)
    boxes: list[RawBox] = []
    size, fault = None, None
    try:
        size = reader.size(image.get("height", MISSING), image.get("width", MISSING))
        tags = [reader.name(shape.get("label", MISSING), "tag") for shape in image.iterfind("tag")]
        for number, shape in enumerate((shape for shape in image if shape.tag not in ("tag", "attribute")), 1):
            place = f"{shape.tag} {number}"
            label = reader.name(shape.get("label", MISSING), f"{place}: label")
            degrees = reader.degrees(shape.get("rotation", MISSING), f"{place}: rotation")
            # About its centre, as RawBox means it; an ellipse's box contains it.
            rotation = degrees if shape.tag == "box" else 0.0
            kinds = [a.text or "" for a in shape.iterfind("attribute") if a.get("name") == TYPE_ATTRIBUTE]
            corners = _corners(reader, shape, place, degrees)
            boxes.append(RawBox(label, corners, rotation=rotation, type=joined_types(kinds)))
        check_image_labels(reader, tags, boxes)
        if not boxes and not tags:
            detail = "no shape: healthy, if it was opened; CVAT lists every image of a task"
            reader.note("review_not_stated", detail)
    except AnnotationError as error:
        boxes, fault = [], error
    # In the archive of the export, images lie under images/, and of a project, by subset.
    subset = (image.get("subset") or "").strip()
    in_subset = (f"{subset}/{name}", f"images/{subset}/{name}") if subset else ()
    return RawAnnotation(
        reader.file,
        tuple(boxes),
        image_path=name,
        other_names=(*in_subset, f"images/{name}"),
        size=size,
        notes=reader.notes,
        fault=fault,
    )


def _corners(reader: FieldReader, shape: Element, place: str, degrees: float) -> Box:
    written = shape.attrib
    if shape.tag == "box":
        x0, y0, x1, y1 = reader.numbers(written, ("xtl", "ytl", "xbr", "ybr"), place)
        return x0, y0, x1, y1
    if shape.tag not in ("polygon", "ellipse", "mask", "cuboid"):
        raise reader.fail(place, f"a {shape.tag} is no box")
    reader.note_shape(shape.tag, place)
    if shape.tag == "ellipse":
        x, y, rx, ry = reader.numbers(written, ("cx", "cy", "rx", "ry"), place)
        return ellipse_box((x, y), (rx, ry), degrees)
    if shape.tag == "mask":
        left, top, width, height = reader.numbers(written, ("left", "top", "width", "height"), place)
        return left, top, left + width, top + height
    if shape.tag == "cuboid":
        xs, ys = ([written.get(f"{axis}{corner}", MISSING) for corner in _CUBOID] for axis in "xy")
        return enclosing_box(reader.points(xs, ys, place))
    return enclosing_box(_polygon(reader, written.get("points") or "", place))


def _polygon(reader: FieldReader, written: str, place: str) -> list[Point]:
    pairs = [pair.split(",") for pair in written.split(";") if pair.strip()]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise reader.fail(f"{place}: points", f"expected three or more x,y;x,y;..., got {written[:60]!r}")
    return reader.points([pair[0] for pair in pairs], [pair[1] for pair in pairs], place)
