"""YOLO text labels: one line `class x_centre y_centre width height` per box, in fractions of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fracture_det.data.annotations import AnnotationError, RawAnnotation, RawBox

CLASSES_FILE = "classes.txt"


def read_class_names(folder: str | Path) -> tuple[str, ...] | None:
    """Return the names in classes.txt of `folder` or of its parent, one per line; None when there is none."""
    for place in (Path(folder), Path(folder).parent):
        if (place / CLASSES_FILE).is_file():
            lines = (place / CLASSES_FILE).read_text(encoding="utf-8").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return None


def parse_yolo(path: str | Path, names: Sequence[str], data: bytes | None = None) -> RawAnnotation:
    """Read one label file; an empty file is a reviewed image without a finding.

    A line of more than five numbers is a polygon (class x y x y ...), of which the enclosing box is taken. Class
    ids without a name in `names` keep their number as name, so that they are reported as unknown classes.
    Raises AnnotationError for a line that is neither.
    """
    file = str(path)
    try:
        text = (Path(path).read_bytes() if data is None else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(file, "text", str(error)) from error
    lines = ((number, line.split()) for number, line in enumerate(text.splitlines(), 1))
    boxes = tuple(_box(file, number, fields, names) for number, fields in lines if fields)
    return RawAnnotation(file=file, boxes=boxes, relative=True)


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


def _box(file: str, number: int, fields: list[str], names: Sequence[str]) -> RawBox:
    place = f"line {number}"
    try:
        index, values = int(fields[0]), [float(field) for field in fields[1:]]
    except ValueError:
        raise AnnotationError(file, place, " ".join(fields)) from None
    if index < 0 or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
        raise AnnotationError(file, place, f"expected `class x y w h` or a polygon, got {len(fields)} fields")
    name = names[index] if index < len(names) else str(index)
    if len(values) > 4:
        xs, ys = values[0::2], values[1::2]
        return RawBox(name, (min(xs), min(ys), max(xs), max(ys)))
    x, y, w, h = values
    return RawBox(name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
