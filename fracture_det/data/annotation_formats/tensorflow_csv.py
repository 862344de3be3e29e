"""The CSV of TensorFlow's object detection, as Roboflow writes it: one row per box."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from fracture_det.data.annotation_formats.fields import FieldReader, read_bytes
from fracture_det.data.annotation_formats.image_names import one_per_image, plain_path
from fracture_det.data.annotation_formats.text import MISSING, Notes, decode_text
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.records import EXCLUDED, Problem

COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
_OF_BOX = ("class", "xmin", "ymin", "xmax", "ymax")

Row = Mapping[str, str]


def parse_tensorflow_csv(path: str | Path, data: bytes | None = None) -> ParsedExport:
    """Read a CSV with the columns COLUMNS (`data`: its bytes, where already read).

    A row with class and corners left empty says that its image was reviewed and is healthy; Roboflow writes no row at
    all for such an image. Raises AnnotationError for a file without these columns.
    """
    file = str(path)
    columns, rows, notes = read_csv(file, read_bytes(path) if data is None else data)
    if not set(COLUMNS) <= set(columns):
        raise AnnotationError(file, "columns", f"expected {', '.join(COLUMNS)}")
    problems: list[Problem] = []
    of_image: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for number, row in enumerate(rows, 2):
        image = plain_path(row.get("filename", ""))
        if image:
            of_image[image].append((number, row))
        else:
            problems.append(Problem(f"{file}#row {number}", "unreadable_annotation", "it names no image", EXCLUDED))
    annotations = [_annotation(FieldReader(f"{file}#{image}"), image, of_image[image], notes) for image in of_image]
    return ParsedExport(one_per_image(annotations), problems=tuple(problems))


def read_csv(file: str, data: bytes) -> tuple[tuple[str, ...], list[dict[str, str]], Notes]:
    """Return columns and rows of a CSV, divided by comma, semicolon or tab; a row that is cut off lacks its last ones.

    Column names are without case, spaces at the ends and a leading `#`. Raises AnnotationError for what is no text.
    """
    try:
        text, notes = decode_text(data)
        first = text.partition("\n")[0]
        divider = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=divider, skipinitialspace=True)
        lines = [line for line in reader if any(cell.strip() for cell in line)]
    except (ValueError, csv.Error) as error:
        raise AnnotationError(file, "csv", str(error)) from error
    if not lines:
        return (), [], notes
    columns = tuple(name.strip().lstrip("#").lower() for name in lines[0])
    return columns, [dict(zip(columns, line, strict=False)) for line in lines[1:]], notes


def _annotation(reader: FieldReader, image: str, rows: Sequence[tuple[int, Row]], notes: Notes) -> RawAnnotation:
    for note in notes:
        reader.note(*note)
    boxes: list[RawBox] = []
    sizes, fault = set(), None
    try:
        for number, row in rows:
            place = f"row {number}"
            missing = [column for column in COLUMNS if column not in row]
            if missing:
                raise reader.fail(place, f"it ends before {missing[0]}")
            sizes.add(reader.size(row["height"].strip() or MISSING, row["width"].strip() or MISSING))
            if any(row[column].strip() for column in _OF_BOX):
                x0, y0, x1, y1 = (reader.number(row[key].strip() or MISSING, f"{place}: {key}") for key in _OF_BOX[1:])
                boxes.append(RawBox(reader.name(row["class"], f"{place}: class"), (x0, y0, x1, y1)))
        if len(sizes) > 1:
            raise reader.fail("size", "its rows state different sizes")
    except AnnotationError as error:
        boxes, fault = [], error
    return RawAnnotation(
        reader.file,
        tuple(boxes),
        image_path=image,
        size=next(iter(sizes), None),
        notes=reader.notes,
        fault=fault,
    )
