"""Label Studio's exports "JSON" and "JSON-MIN"."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.fields import FieldReader, read_bytes
from fracture_det.data.annotation_formats.image_labels import check_image_labels
from fracture_det.data.annotation_formats.image_names import one_per_image, referred_path
from fracture_det.data.annotation_formats.shapes import Box, ellipse_box, enclosing_box, rotated_about_corner
from fracture_det.data.annotation_formats.text import MISSING, Notes, read_json, show
from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.records import EXCLUDED, TYPE_ATTRIBUTE, Problem
from fracture_det.structures.image_files import IMAGE_SUFFIXES

NOT_REVIEWED = "not_reviewed"
_READINGS = ("annotations", "completions")  # the second before 1.0
_GEOMETRY = ("x", "y", "points", "rle", "vertices", "radiusX")
_SIZES = ("original_width", "original_height", "image_rotation")
_IMAGE_LABELS = ("choices", "taxonomy")
_RECORD_KEYS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "meta")
# Two readings with corners as near as this are one opinion.
_SAME_PX, _SAME_DEGREES = 1.0, 1.0


@dataclass(frozen=True)
class _Reading:
    """What one reader saw in one image: boxes in pixels, or in fractions where no size is stated.

    labels: chosen of the image. type: of fracture, chosen of the image in a control of that name.
    """

    boxes: tuple[RawBox, ...]
    size: tuple[int, int] | None
    labels: tuple[str, ...]
    type: str = ""


def parse_label_studio(path: str | Path, data: bytes | None = None) -> ParsedExport:
    """Read a JSON or JSON-MIN export of Label Studio (`data`: its bytes, where already read).

    A submitted annotation without a result means reviewed and healthy. A task that has no annotation, or only skipped
    ones, is not reviewed, whatever its predictions say: a fault. Of several annotations of one task, those marked as
    ground truth count; they have to agree. Ellipses and polygons become the box that encloses them; brushes, key points
    and vectors are a fault. What is chosen in a control called `type`, of a box or of the image, is its type of
    fracture (JSON-MIN does not say of which control a choice is). Sizes are of the upright image, as the browser shows
    it. Raises AnnotationError for another file.
    """
    file = str(path)
    content, notes = read_json(file, read_bytes(path) if data is None else data)
    items = content if isinstance(content, list) else [content]
    if any(map(is_task, items)):
        tasks = [(f"{file}#task {_id(item, n)}", item) for n, item in enumerate(items, 1)]
    elif any(map(is_min_record, items)):
        tasks = _tasks_of_records(file, items)
    else:
        raise AnnotationError(file, "json", "expected tasks with data and annotations, as Label Studio exports them")
    annotations: list[RawAnnotation] = []
    problems: list[Problem] = []
    for place, task in tasks:
        reference = _image_reference(task)
        if reference:
            annotations.append(_annotation(FieldReader(place), referred_path(reference), task, notes))
        else:
            problems.append(Problem(place, "unreadable_annotation", "its data names no image", EXCLUDED))
    return ParsedExport(one_per_image(annotations), problems=tuple(problems))


def is_task(item: object) -> bool:
    """Return whether a JSON value is a task of Label Studio's JSON."""
    keys = (*_READINGS, "predictions")
    return isinstance(item, dict) and isinstance(item.get("data"), dict) and any(key in item for key in keys)


def is_min_record(item: object) -> bool:
    """Return whether a JSON value is a record of Label Studio's JSON-MIN."""
    return isinstance(item, dict) and "annotation_id" in item and ("annotator" in item or "created_at" in item)


def _id(item: object, number: int) -> object:
    written = item.get("id") if isinstance(item, dict) else None
    return written if isinstance(written, int | str) else f"number {number}"


def _image_reference(task: object) -> str:
    """Return the text of the task's data that refers to its image, or nothing where that is not clear."""
    data = task.get("data") if isinstance(task, dict) else None
    texts = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
    if referred_path(texts.get("image", ""))[0]:
        return texts["image"]
    images = [text for text in texts.values() if referred_path(text)[0].lower().endswith(IMAGE_SUFFIXES)]
    return images[0] if len(images) == 1 else ""


def _tasks_of_records(file: str, records: Sequence[object]) -> list[tuple[str, Any]]:
    """Return JSON-MIN as tasks: one per id, with one annotation per record."""
    tasks: dict[object, tuple[str, Any]] = {}
    for number, record in enumerate(records, 1):
        task_id = _id(record, number)
        if not isinstance(record, dict):
            tasks[f"number {number}"] = (f"{file}#number {number}", None)
            continue
        results = [result for key in _marked_keys(record) for result in _results_of(record[key])]
        texts = {key: value for key, value in record.items() if isinstance(value, str)}
        task = tasks.setdefault(task_id, (f"{file}#task {task_id}", {"data": texts, "annotations": []}))[1]
        task["annotations"].append({"result": results})
    return list(tasks.values())


def _marked_keys(record: Mapping[str, Any]) -> list[str]:
    """Return the keys of what the reader marked and chose: they stand between the id and the annotator.

    Where the order was lost, all keys: data taken for a label excludes an image, a label taken for data heals it.
    """
    keys = list(record)
    first, last = (keys.index(key) if key in keys else -1 for key in ("id", "annotator"))
    if 0 <= first < last:
        return keys[first + 1 : last]
    return [key for key in keys if key not in _RECORD_KEYS]


def _results_of(value: object) -> list[object]:
    if isinstance(value, str):
        return [{"type": "choices", "value": {"choices": [value]}}]
    results: list[object] = []
    for region in value if isinstance(value, list) else [value]:  # a number is a rating
        if isinstance(region, dict):
            sizes = {key: region[key] for key in _SIZES if key in region}
            results.append({**sizes, "type": "region", "value": region})
        elif isinstance(region, str):
            results += _results_of(region)
        elif isinstance(value, list):
            results.append(region)  # no object: a fault
    return results


def _annotation(
    reader: FieldReader, names: tuple[str, tuple[str, ...]], task: Mapping[str, Any], notes: Notes
) -> RawAnnotation:
    for note in notes:
        reader.note(*note)
    annotation = RawAnnotation(reader.file, image_path=names[0], other_names=names[1])
    try:
        readings = [_reading(reader, item, place) for place, item in _submitted(reader, task)]
        _check_agreement(reader, readings)
        reading = readings[0]
        check_image_labels(reader, [label for item in readings for label in item.labels], reading.boxes)
    except AnnotationError as error:
        return replace(annotation, notes=reader.notes, fault=error)
    relative = reading.size is None and bool(reading.boxes)
    annotation = replace(annotation, boxes=reading.boxes, size=reading.size, type=reading.type)
    return replace(annotation, relative=relative, notes=reader.notes)


def _submitted(reader: FieldReader, task: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the task's annotations that count, each with a name for messages; one at least."""
    written = reader.list(next((task[key] for key in _READINGS if key in task), []), "annotations")
    items: list[tuple[str, Mapping[str, Any]]]
    items = [(f"annotation {n}", reader.object(item, f"annotation {n}")) for n, item in enumerate(written, 1)]
    submitted = [item for item in items if not (item[1].get("was_cancelled") or item[1].get("skipped"))]
    if not items:
        detail = "none, so that the image was not reviewed" + (
            "; predictions are no truth" * bool(task.get("predictions"))
        )
        raise reader.fail("annotations", detail, kind=NOT_REVIEWED)
    if not submitted:
        raise reader.fail("annotations", "skipped, so that the image was not reviewed", kind=NOT_REVIEWED)
    return [item for item in submitted if item[1].get("ground_truth") is True] or submitted


def _check_agreement(reader: FieldReader, readings: Sequence[_Reading]) -> None:
    first = readings[0]
    tolerance = _SAME_PX if first.size is not None else _SAME_PX / 1000
    for other in readings[1:]:
        if first.size != other.size and first.boxes and other.boxes:
            raise reader.fail("annotations", f"{len(readings)} readers worked on images of different sizes")
        pairs = zip(sorted(first.boxes, key=_order), sorted(other.boxes, key=_order), strict=False)
        if len(first.boxes) != len(other.boxes) or not all(_same(a, b, tolerance) for a, b in pairs):
            counts = ", ".join(str(len(reading.boxes)) for reading in readings)
            detail = f"{len(readings)} that differ ({counts} boxes): mark one as ground truth in Label Studio"
            raise reader.fail("annotations", detail, kind="readers_differ")


def _order(box: RawBox) -> tuple[str, Box]:
    return box.name, box.box


def _same(first: RawBox, second: RawBox, tolerance: float) -> bool:
    corners = zip(first.box, second.box, strict=True)
    near = all(math.isclose(a, b, rel_tol=0, abs_tol=tolerance) for a, b in corners)
    return near and first.name == second.name and abs(first.rotation - second.rotation) <= _SAME_DEGREES


def _reading(reader: FieldReader, item: Mapping[str, Any], place: str) -> _Reading:
    regions: dict[object, list[Mapping[str, Any]]] = defaultdict(list)
    labels: list[str] = []
    kinds: list[str] = []
    for number, result in enumerate(reader.list(item.get("result", MISSING), f"{place}: result"), 1):
        where = f"{place}: result {number}"
        result = reader.object(result, where)
        if result.get("type") == "relation":
            continue
        value = reader.object(result.get("value", MISSING), f"{where}: value")
        if any(key in value for key in _GEOMETRY) or "labels" in str(result.get("type")):
            own_id = result.get("id")
            # JSON-MIN has no ids: what was said of one region repeats its geometry.
            geometry = str([value.get(key) for key in (*_GEOMETRY, "width", "height")])
            regions[own_id if isinstance(own_id, str | int) else geometry].append(result)
        elif _is_of_type(result):
            kinds += _image_labels(value)
        else:
            labels += _image_labels(value)
    boxes: list[RawBox] = []
    sizes: set[tuple[int, int] | None] = set()
    for results in regions.values():
        size, region_boxes = _region(reader, results, f"{place}: region {len(boxes) + 1}")
        sizes.add(size)
        boxes += region_boxes
    if len(sizes) > 1:
        raise reader.fail(place, "its results state different sizes of the image")
    labels += [] if boxes else kinds  # of a fracture without a box
    return _Reading(tuple(boxes), next(iter(sizes), None), tuple(labels), ", ".join(kinds))


def _image_labels(value: Mapping[str, Any]) -> list[str]:
    labels: list[str] = []
    for key in _IMAGE_LABELS:
        listed = value.get(key)
        for choice in listed if isinstance(listed, list) else ([] if listed is None else [listed]):
            path = choice if isinstance(choice, list) else [choice]  # a taxonomy's choice is a path
            labels.append(" / ".join(str(part) for part in path))
    return labels


def _region(
    reader: FieldReader, results: Sequence[Mapping[str, Any]], place: str
) -> tuple[tuple[int, int] | None, list[RawBox]]:
    """Return the size of the image and a box per label of one region, whose geometry each of its results repeats."""
    shapes = [result for result in results if any(key in result["value"] for key in _GEOMETRY)]
    names: list[str] = []
    for result in results:
        for key, listed in result["value"].items():
            if key.endswith("labels"):
                names += [reader.name(name, f"{place}: {key}") for name in reader.list(listed, f"{place}: {key}")]
    if not shapes:
        raise reader.fail(place, "a label without a shape")
    if not names:
        raise reader.fail(place, "a shape without a label")
    shape = shapes[0]
    if shape.get("image_rotation") and reader.number(shape["image_rotation"], f"{place}: image_rotation") % 360:
        raise reader.fail(place, "marked on an image that was rotated in Label Studio; rotate it back and export again")
    size = reader.size(shape.get("original_height", MISSING), shape.get("original_width", MISSING))
    box, rotation = _corners(reader, shape["value"], size, place)
    kinds = [choice for result in results if _is_of_type(result) for choice in _image_labels(result["value"])]
    kind = ", ".join(dict.fromkeys(kinds))  # of several none is known
    return size, [RawBox(name, box, rotation=rotation, type=kind) for name in names]


def _is_of_type(result: Mapping[str, Any]) -> bool:
    """Return whether a result is what a reader chose in a control called `type`: the type of fracture."""
    return str(result.get("from_name", "")).lower() == TYPE_ATTRIBUTE


def _corners(
    reader: FieldReader, value: Mapping[str, Any], size: tuple[int, int] | None, place: str
) -> tuple[Box, float]:
    """Return corners in pixels, or as fractions where the size is not known, and the rotation about the centre.

    Label Studio writes percent, and rotates about the upper left corner.
    """
    height, width = size or (1, 1)
    scale = (width / 100, height / 100)
    if "points" in value:
        points = reader.pairs(value["points"], f"{place}: points")
        if len(points) < 3:
            raise reader.fail(place, f"a polygon of {len(points)} points is no box")
        reader.note_shape("polygon", place)
        return enclosing_box([(x * scale[0], y * scale[1]) for x, y in points]), 0.0
    degrees = reader.degrees(value.get("rotation", MISSING), f"{place}: rotation")
    if degrees and size is None:
        raise reader.fail(place, f"rotated by {degrees:g} degrees, on an image whose size is not stated")
    if "radiusX" in value:
        x, y, rx, ry = reader.numbers(value, ("x", "y", "radiusX", "radiusY"), place)
        reader.note_shape("ellipse", place)
        return ellipse_box((x * scale[0], y * scale[1]), (rx * scale[0], ry * scale[1]), degrees), 0.0
    if "rle" in value or "vertices" in value or "height" not in value:
        kind = "brush" if "rle" in value else "vector" if "vertices" in value else "key point"
        raise reader.fail(place, f"a {kind} is no box; its labels: {show(list(value))}")
    x, y, w, h = reader.numbers(value, ("x", "y", "width", "height"), place)
    box = (x * scale[0], y * scale[1], (x + w) * scale[0], (y + h) * scale[1])
    return (rotated_about_corner(box, degrees) if degrees else box), degrees
