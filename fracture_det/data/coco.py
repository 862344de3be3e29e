"""COCO JSON: how prepared data sets are stored, and a format to import."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fracture_det.data.annotations import AnnotationError
from fracture_det.data.records import Dataset, ImageRecord

EXACT_KEY = "bbox_xyxy"


def write_coco(dataset: Dataset, path: str | Path, *, description: str = "") -> None:
    """Write the data set for pycocotools and Detectron2, with anatomy, group and attributes on each image.

    Boxes are x, y, width, height as floats. Where x + width or y + height
    does not reproduce a corner to the last bit, the corners are stored beside them as `bbox_xyxy`, so that a round trip
    is exact. Category ids are class index + 1.
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
        for (x0, y0, x1, y1), index in zip(record.boxes.tolist(), record.classes.tolist(), strict=True):
            width, height = x1 - x0, y1 - y0
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": index + 1,
                    "bbox": [x0, y0, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
            if (x0 + width, y0 + height) != (x1, y1):
                annotations[-1][EXACT_KEY] = [x0, y0, x1, y1]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(dataset.class_names)]
    info = {"description": description, "version": "1"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def read_coco(path: str | Path) -> Dataset:
    """Read a COCO file into a Dataset, with anatomy, group and attributes where it has them.

    An image of the file without annotations is a reviewed, healthy image. Raises AnnotationError for a file that is
    not COCO, with the field that is missing or wrong.
    """
    content, boxes_of = _load(path)
    names = {category["id"]: category["name"] for category in content["categories"]}
    index_of = {category_id: index for index, category_id in enumerate(names)}
    records = []
    for image in content["images"]:
        boxes = [_corners(path, item) for item in boxes_of[image["id"]]]
        classes = [index_of[_category(path, item, names)] for item in boxes_of[image["id"]]]
        attributes = {key: str(value) for key, value in image.get("attributes", {}).items()}
        group = image.get("group")
        anatomy = image.get("anatomy", image.get("site"))  # its name in files written before 2026-11
        try:
            record = ImageRecord(
                int(image["id"]),
                image["file_name"],
                int(image["height"]),
                int(image["width"]),
                str(group) if group is not None else image["file_name"],
                anatomy,
                np.array(boxes, dtype=np.float64).reshape(-1, 4),
                np.array(classes, dtype=np.int64),
                attributes,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise AnnotationError(str(path), f"images id {image.get('id')}", repr(error)) from error
        records.append(record)
    try:
        return Dataset(tuple(records), tuple(names.values()))
    except ValueError as error:
        raise AnnotationError(str(path), "images", str(error)) from error


def _load(path: str | Path) -> tuple[Mapping[str, Any], Mapping[Any, list[Mapping[str, Any]]]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AnnotationError(str(path), "json", str(error)) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise AnnotationError(str(path), key, "expected a list of a COCO file")
    boxes_of: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    known = {image.get("id") for image in content["images"]}
    for item in content["annotations"]:
        if item.get("image_id") not in known:
            raise AnnotationError(str(path), f"annotations id {item.get('id')}", f"no image {item.get('image_id')}")
        boxes_of[item["image_id"]].append(item)
    return content, boxes_of


def _category(path: str | Path, item: Mapping[str, Any], names: Mapping[Any, str]) -> Any:
    if item.get("category_id") not in names:
        raise AnnotationError(str(path), f"annotations id {item.get('id')}", f"no category {item.get('category_id')}")
    return item["category_id"]


def _corners(path: str | Path, item: Mapping[str, Any]) -> list[float]:
    try:
        x, y, width, height = (float(value) for value in item["bbox"])
        exact = [float(value) for value in item.get(EXACT_KEY, ())]
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(str(path), f"annotations id {item.get('id')}", f"bbox {item.get('bbox')}") from error
    corners = [x, y, x + width, y + height]
    # Only a last bit may differ: a `bbox` edited by hand wins over stale corners.
    close = len(exact) == 4 and all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(exact, corners, strict=True))
    return exact if close else corners
