"""COCO JSON: how prepared data sets are stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fracture_det.data.annotation_formats.coco import EXACT_KEY, SHOWN_FAULTS, CocoImage, load_coco
from fracture_det.data.annotation_formats.text import MISSING, expected, show
from fracture_det.data.annotations import AnnotationError
from fracture_det.data.checks import AnnotationRules, build_record
from fracture_det.data.image_info import ImageInfo
from fracture_det.data.records import EXCLUDED, TYPE_ATTRIBUTE, Dataset, ImageRecord, Problem


def write_coco(dataset: Dataset, path: str | Path, *, description: str = "") -> None:
    """Write the data set for pycocotools and Detectron2, with anatomy, group and attributes on each image.

    Boxes are x, y, width, height as floats, crowd regions likewise, with `iscrowd` 1. Where x + width or y + height
    does not reproduce a corner to the last bit, the corners are stored beside them as `bbox_xyxy`, so that a round trip
    is exact. A known type of fracture is the attribute `type`, as CVAT writes attributes. Category ids are class
    index + 1.
    """
    Path(path).write_text(json.dumps(to_coco(dataset, description=description), ensure_ascii=False), encoding="utf-8")


def to_coco(dataset: Dataset, *, description: str = "") -> dict[str, Any]:
    """Return the data set as a COCO dictionary."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset:
        images.append(
            {
                "id": record.image_id,
                "file_name": record.file_name,
                "height": record.height,
                "width": record.width,
                "anatomy": record.anatomy,
                "group": record.group_id,
                "attributes": dict(record.attributes),
            }
        )
        no_types = (None,) * len(record.crowd_boxes)
        marks = (
            (record.boxes, record.classes, record.types, 0),
            (record.crowd_boxes, record.crowd_classes, no_types, 1),
        )
        for boxes, classes, types, crowd in marks:
            for (x0, y0, x1, y1), index, kind in zip(boxes.tolist(), classes.tolist(), types, strict=True):
                width, height = x1 - x0, y1 - y0
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": record.image_id,
                        "category_id": index + 1,
                        "bbox": [x0, y0, width, height],
                        "area": width * height,
                        "iscrowd": crowd,
                    }
                )
                if kind is not None:
                    annotations[-1]["attributes"] = {TYPE_ATTRIBUTE: kind}
                if (x0 + width, y0 + height) != (x1, y1):
                    annotations[-1][EXACT_KEY] = [x0, y0, x1, y1]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(dataset.class_names)]
    info = {"description": description, "version": "1"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def read_coco(path: str | Path) -> Dataset:
    """Read a COCO file into a Dataset, with anatomy, group and attributes where it has them.

    An image of the file without annotations is a reviewed, healthy image. Ids that are not whole numbers are replaced
    by 1, 2, ... The data set's notes say what was read with tolerance.
    Raises AnnotationError for a file that is not COCO, and one that lists what is wrong with its images and boxes: all
    that would exclude an image from `prepare`.
    """
    content = load_coco(path)
    faults = [problem for problem in content.problems if problem.action == EXCLUDED]
    noted = [problem for problem in content.problems if problem.action != EXCLUDED]
    numbered = all(isinstance(image.id, int) for image in content.images)
    rules = AnnotationRules(content.class_names)
    twice = [name for name, n in Counter(content.class_names).items() if n > 1]
    if twice:
        faults.append(Problem(str(path), "bad_category", f"categories: several are named {twice[0]!r}", EXCLUDED))
    records: list[ImageRecord] = []
    for number, image in enumerate(content.images, 1):
        record, problems = _read_record(image, image.id if numbered and isinstance(image.id, int) else number, rules)
        faults += [problem for problem in problems if problem.action == EXCLUDED]
        noted += [problem for problem in problems if problem.action != EXCLUDED]
        if record is not None:
            records.append(record)
    if faults:
        raise _listed(str(path), faults)
    notes = _counted(noted)
    if not numbered:
        notes.append("Image ids that are not whole numbers were replaced by 1, 2, ...")
    return Dataset(tuple(records), content.class_names, tuple(notes))


def _read_record(image: CocoImage, image_id: int, rules: AnnotationRules) -> tuple[ImageRecord | None, list[Problem]]:
    annotation, entry = image.annotation, image.entry
    name, size = str(annotation.image_path), annotation.size
    if annotation.fault is not None:
        fault = annotation.fault
        return None, [Problem(name, fault.kind, f"{fault.field}: {fault.value}", EXCLUDED)]
    if size is None or min(size) < 1:
        stated = {key: entry.get(key, MISSING) for key in ("height", "width")}
        wrong = {key: value for key, value in stated.items() if value in (None, MISSING)} or stated
        detail = "; ".join(f"{key}: {expected('1 or more', value)}" for key, value in wrong.items())
        return None, [Problem(name, "size_missing", detail, EXCLUDED)]
    record, problems = build_record(image_id, ImageInfo(name, size, 1, "", None), annotation, rules, stored=True)
    group, anatomy = entry.get("group"), entry.get("anatomy", entry.get("site"))  # `site` in files before 2026-11
    attributes = entry.get("attributes")
    if attributes is not None and not isinstance(attributes, dict):
        problems.append(Problem(name, "attributes", f"expected an object, got {show(attributes)}; not used"))
    if record is not None:
        record = replace(
            record,
            group_id=str(group) if group is not None else record.group_id,
            anatomy=None if anatomy is None else str(anatomy),
            attributes=_texts(attributes) if isinstance(attributes, dict) else {},
        )
    return record, problems


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in attributes.items()}


def _listed(file: str, faults: Sequence[Problem]) -> AnnotationError:
    """Return one error that lists the faults, and counts those after the first SHOWN_FAULTS."""
    if len(faults) == 1:
        return AnnotationError(file, faults[0].kind, _line(file, faults[0]), kind=faults[0].kind)
    shown = "".join(f"\n  {_line(file, fault)}" for fault in faults[:SHOWN_FAULTS])
    more = f"\n  and {len(faults) - SHOWN_FAULTS:,} more" if len(faults) > SHOWN_FAULTS else ""
    return AnnotationError(file, "truth", f"{len(faults):,} faults{shown}{more}")


def _line(file: str, fault: Problem) -> str:
    return fault.detail if fault.file == file else f"{fault.file}: {fault.detail}"


def _counted(noted: Sequence[Problem]) -> list[str]:
    """Return a sentence for each kind of note, with the first of it."""
    of_kind: dict[str, list[Problem]] = {}
    for problem in noted:
        of_kind.setdefault(problem.kind, []).append(problem)
    return [
        f"Data set: {len(problems)} x {kind}; first {problems[0].file}: {problems[0].detail}."
        for kind, problems in of_kind.items()
    ]
