"""CreateML's JSON as LabelImg, Roboflow and Apple's tool write it: a list of images with the centres of their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.fields import FieldReader, read_bytes
from fracture_det.data.annotation_formats.image_names import one_per_image, plain_path
from fracture_det.data.annotation_formats.text import MISSING, Notes, read_json
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.records import EXCLUDED, Problem

# Apple's present documentation says imagefilename and annotation.
_IMAGE_KEYS, _BOX_KEYS = ("image", "imagefilename"), ("annotations", "annotation")


def parse_createml(path: str | Path, data: bytes | None = None) -> ParsedExport:
    """Read a CreateML file (`data`: its bytes, where already read); an image without boxes is reviewed and healthy.

    x and y are the centre of a box, in pixels. No size is stated. LabelImg 1.8.6 writes one file per image, and
    replaces the entry when it saves again; an image that is listed twice has a fault. Raises AnnotationError for a
    file that is not CreateML's.
    """
    file = str(path)
    content, notes = read_json(file, read_bytes(path) if data is None else data)
    if not isinstance(content, list) or not any(is_createml_item(item) for item in content):
        raise AnnotationError(file, "json", "expected a list of objects with image and annotations, as CreateML's")
    annotations: list[RawAnnotation] = []
    problems: list[Problem] = []
    for number, item in enumerate(content, 1):
        place = f"{file}#{number}"
        name = next((item[key] for key in _IMAGE_KEYS if item.get(key)), None) if isinstance(item, dict) else None
        if isinstance(name, str) and plain_path(name):
            annotations.append(_annotation(FieldReader(place), plain_path(name), item, notes))
        else:
            problems.append(Problem(place, "unreadable_annotation", "it names no image", EXCLUDED))
    return ParsedExport(one_per_image(annotations), problems=tuple(problems))


def is_createml_item(item: object) -> bool:
    """Return whether a JSON value is the entry of one image in a CreateML file."""
    return (
        isinstance(item, dict)
        and any(isinstance(item.get(key), str) for key in _IMAGE_KEYS)
        and any(key in item for key in _BOX_KEYS)
    )


def _annotation(reader: FieldReader, image: str, item: dict[str, Any], notes: Notes) -> RawAnnotation:
    for note in notes:
        reader.note(*note)
    boxes: tuple[RawBox, ...] = ()
    fault = None
    try:
        written = reader.list(next((item[key] for key in _BOX_KEYS if key in item), MISSING), "annotations")
        boxes = tuple(_box(reader, box, f"annotation {n}") for n, box in enumerate(written, 1))
    except AnnotationError as error:
        fault = error
    return RawAnnotation(reader.file, boxes, image_path=image, notes=reader.notes, fault=fault)


def _box(reader: FieldReader, item: Any, place: str) -> RawBox:
    item = reader.object(item, place)
    name = reader.name(item.get("label", MISSING), f"{place}: label")
    coordinates = reader.object(item.get("coordinates", MISSING), f"{place}: coordinates")
    x, y, width, height = reader.numbers(coordinates, ("x", "y", "width", "height"), place)
    return RawBox(name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
