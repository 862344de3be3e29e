"""labelme's JSON, one file per image; also as X-AnyLabeling writes it."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

from fracture_det.data.annotation_formats.fields import FieldReader, read_bytes
from fracture_det.data.annotation_formats.image_labels import check_image_labels
from fracture_det.data.annotation_formats.image_names import plain_path
from fracture_det.data.annotation_formats.shapes import Box, ellipse_box, enclosing_box
from fracture_det.data.annotation_formats.text import MISSING, read_json, show
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox
from fracture_det.data.stated_types import written_type

_POLYGONS = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")


def parse_labelme(path: str | Path, data: bytes | None = None) -> RawAnnotation:
    """Read one file of labelme (`data`: its bytes, where already read); no shapes means reviewed and healthy.

    Polygons, circles and masks become the box that encloses them. A shape without area (point, line), of an unknown
    type or without a label is a fault of the image. labelme shows images upright, and so are its coordinates.
    Raises AnnotationError for a file that is not labelme's.
    """
    file = str(path)
    content, notes = read_json(file, read_bytes(path) if data is None else data)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise AnnotationError(file, "shapes", "expected the list of shapes of a labelme file")
    reader = FieldReader(file)
    for note in notes:
        reader.note(*note)
    written = content.get("imagePath")
    image = PurePosixPath(plain_path(written)) if isinstance(written, str) and written.strip() else None
    boxes: tuple[RawBox, ...] = ()
    size, fault = None, None
    try:
        size = reader.size(content.get("imageHeight", MISSING), content.get("imageWidth", MISSING))
        boxes = tuple(_box(reader, shape, f"shape {n}") for n, shape in enumerate(content["shapes"], 1))
        flags = content.get("flags")
        check_image_labels(reader, [k for k, v in flags.items() if v] if isinstance(flags, dict) else [], boxes)
    except AnnotationError as error:
        boxes, fault = (), error
    return RawAnnotation(
        file,
        boxes,
        image_name=image.name if image else None,
        image_path=image.as_posix() if image else None,
        folder=image.parent.name or None if image else None,
        size=size,
        notes=reader.notes,
        fault=fault,
    )


def _box(reader: FieldReader, shape: Any, place: str) -> RawBox:
    shape = reader.object(shape, place)
    name = reader.name(shape.get("label", MISSING), f"{place}: label")
    kind = written_type(shape.get("attributes"))  # of X-AnyLabeling, which writes labelme's format
    return RawBox(name, _corners(reader, shape, place), bool(shape.get("difficult")), type=kind)


def _corners(reader: FieldReader, shape: dict[str, Any], place: str) -> Box:
    kind = shape.get("shape_type") or "polygon"  # labelme before 3.0 knew polygons only
    points = reader.pairs(shape.get("points", MISSING), f"{place}: points")
    if kind == "rectangle" and len(points) in (2, 4):
        return enclosing_box(points)
    if kind == "mask" and len(points) == 2:
        reader.note_shape(kind, place)
        x0, y0, x1, y1 = enclosing_box(points)
        return x0, y0, x1 + 1, y1 + 1  # the corners are the first and the last pixel
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        reader.note_shape(kind, place)
        return ellipse_box(points[0], (radius, radius))
    if kind in _POLYGONS and len(points) > 2:
        reader.note_shape(kind, place)
        return enclosing_box(points)
    raise reader.fail(place, f"a {show(kind)} of {len(points)} points is no box")
