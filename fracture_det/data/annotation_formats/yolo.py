"""YOLO text labels: one line `class x_centre y_centre width height` per box, in fractions of the image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from fracture_det.data.annotation_formats.text import (
    Notes,
    decode_text,
    one_note_per_kind,
    parse_number,
    parse_whole_number,
    show,
)
from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox

CLASSES_FILE = "classes.txt"
# Fractions reach little beyond 1, where a box reaches over the edge; a larger number is no fraction.
LARGEST_FRACTION = 1.5

Corners = tuple[float, float, float, float]


def read_class_names(folder: str | Path) -> tuple[str, ...] | None:
    """Return the names in classes.txt of `folder` or of its parent, one per line; None when there is none.

    A line number is a class id, so that an empty line between two names counts. Raises AnnotationError for bytes that
    are no text.
    """
    for place in (Path(folder), Path(folder).parent):
        path = place / CLASSES_FILE
        if path.is_file():
            try:
                text, _ = decode_text(path.read_bytes())
            except ValueError as error:
                raise AnnotationError(str(path), "text", str(error)) from None
            return tuple(line.strip() for line in text.rstrip().splitlines())
    return None


def parse_yolo(path: str | Path, names: Sequence[str], data: bytes | None = None) -> RawAnnotation:
    """Read one label file; an empty file, or one of blanks, is a reviewed image without a finding.

    A line of more than five numbers is a polygon (class x y x y ...), of which the enclosing box is taken. Class
    ids without a name in `names` keep their number as name, so that they are reported as unknown classes.
    Read with a note: an id as 0.0 or as name, commas between or within the numbers, and keypoints after the box.
    Raises AnnotationError for a line that is none of these, a confidence, and pixels instead of fractions.
    """
    file = str(path)
    try:
        text, notes = decode_text(Path(path).read_bytes() if data is None else data)
    except ValueError as error:
        raise AnnotationError(file, "text", str(error)) from None
    boxes: list[RawBox] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                box, line_notes = _box(line, names)
            except ValueError as error:
                raise AnnotationError(file, f"line {number}", str(error)) from None
            boxes.append(box)
            notes = (*notes, *((kind, f"line {number}: {detail}") for kind, detail in line_notes))
    return RawAnnotation(file=file, boxes=tuple(boxes), relative=True, notes=one_note_per_kind(notes))


def yolo_text(size: tuple[int, int], boxes: Sequence[RawBox], names: Sequence[str]) -> str:
    """Return the label file for boxes in pixels of an image of `size` (height, width).

    Six decimals, as LabelImg writes them: a box moves by less than 0.01 px on an image of 5,000 px.
    """
    height, width = size
    lines = []
    for box in boxes:
        x0, y0, x1, y1 = box.box
        centre = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        lines.append(f"{names.index(box.name)} " + " ".join(f"{value:.6f}" for value in centre) + "\n")
    return "".join(lines)


def _box(line: str, names: Sequence[str]) -> tuple[RawBox, Notes]:
    """Return the box of one line. Raises ValueError, in words, for a line that holds none."""
    fields, notes = _split(line)
    name, rest, class_notes = _class(fields, names)
    values = []
    for field in rest:
        value, number_notes = parse_number(field)
        values.append(value)
        notes += number_notes
    notes += class_notes
    if len(values) < 4:
        raise ValueError(f"expected `class x y width height` or a polygon, got {len(fields)} fields: {show(line)}")
    corners, kind_notes = _corners(values, rest, line)
    return RawBox(name, corners), (*notes, *kind_notes)


def _split(line: str) -> tuple[list[str], Notes]:
    """Return the fields of a line, separated by blanks, by semicolons or by commas."""
    text = line.strip()
    if ";" in text:
        return [field.strip() for field in text.split(";")], (("separator", "semicolons between the numbers"),)
    commas = [field.strip() for field in text.split(",")]
    if len(commas) > 1 and (not re.search(r"\s", text) or re.search(r",\s", text)):
        if not any("." in field for field in commas):
            raise ValueError(f"commas between the numbers, or within them? {show(line)}")
        return commas, (("separator", "commas between the numbers"),)
    return text.split(), ()


def _class(fields: Sequence[str], names: Sequence[str]) -> tuple[str, Sequence[str], Notes]:
    """Return the class name of a line, the fields after it, and what was unusual about it."""
    try:
        index, notes = parse_whole_number(fields[0])
    except ValueError as error:
        # A name, which may hold blanks.
        end = next((n for n in range(len(fields), 0, -1) if " ".join(fields[:n]) in names), 1)
        name = " ".join(fields[:end])
        if name not in names and (re.match(r"[-+.\d]", name) or name.lower() in ("nan", "inf", "infinity")):
            raise ValueError(f"class: {error}") from None
        return name, fields[end:], (("class_as_name", f"the class is written as the name {name!r}"),)
    if index < 0:
        raise ValueError(f"class: expected 0 or more, got {show(fields[0])}")
    if notes:
        notes = (("class_as_float", f"the class {show(fields[0])} was read as {index}"),)
    if index < len(names):
        return names[index], fields[1:], notes
    if str(index) in names:
        raise ValueError(f"class: the id {index} is beyond the {len(names)} names, of which one is {str(index)!r}")
    return str(index), fields[1:], notes


def _corners(values: Sequence[float], fields: Sequence[str], line: str) -> tuple[Corners, Notes]:
    """Return the box of the numbers after the class; `fields`: as written."""
    visible = _visibilities(values, fields)
    outline = len(values) >= 6 and len(values) % 2 == 0
    if visible and outline and 2 not in visible:
        raise ValueError(f"a polygon, or a box with keypoints? {show(line)}")
    # Keypoints may lie outside the image; that they are no fractions says nothing of the box.
    largest = max((abs(v) for v in (values[:4] if visible else values) if math.isfinite(v)), default=0.0)
    if largest > LARGEST_FRACTION:
        raise ValueError(
            f"{largest:g} is no fraction: YOLO holds fractions of the image's width and height, 0 to 1, and these are "
            f"pixels or percent: {show(line)}"
        )
    if len(values) == 5:
        raise ValueError(
            "six columns, as `class x y width height confidence` of a detector's predictions, or with an angle; "
            f"expected truth: {show(line)}"
        )
    if visible or len(values) == 4:
        x, y, w, h = values[:4]
        notes: Notes = (("keypoints", f"{len(visible)} keypoints after the box were not used"),) if visible else ()
        return (x - w / 2, y - h / 2, x + w / 2, y + h / 2), notes
    if not outline:
        raise ValueError(f"expected `class x y width height` or a polygon, got {len(fields) + 1} fields: {show(line)}")
    xs, ys = values[0::2], values[1::2]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"expected the points of a polygon, got {show(line)}")
    detail = f"the box around a polygon of {len(xs)} points was taken"
    return (min(xs), min(ys), max(xs), max(ys)), (("box_from_polygon", detail),)


def _visibilities(values: Sequence[float], fields: Sequence[str]) -> list[float]:
    """Return the visibility (0, 1 or 2) of each keypoint `x y visibility` after a box; empty where there are none."""
    if len(values) < 7 or (len(values) - 4) % 3:
        return []
    written = fields[6::3]
    return list(values[6::3]) if all(field in ("0", "1", "2") for field in written) else []
