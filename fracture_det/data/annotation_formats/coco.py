"""COCO JSON of any origin, read leniently: what is wrong with one image excludes that image alone."""

from __future__ import annotations

from pathlib import Path

from fracture_det.data.annotations import AnnotationError, ParsedExport, RawAnnotation, RawBox
from fracture_det.data.coco import _category, _corners, _load


def parse_coco(path: str | Path) -> ParsedExport:
    """Read a COCO file. Raises AnnotationError for a file that is not COCO."""
    content, boxes_of = _load(path)
    names = {category["id"]: category["name"] for category in content["categories"]}
    annotations: dict[str, RawAnnotation] = {}
    for image in content["images"]:
        boxes = []
        for item in boxes_of[image["id"]]:
            x0, y0, x1, y1 = _corners(path, item)
            boxes.append(RawBox(str(names[_category(path, item, names)]), (x0, y0, x1, y1), bool(item.get("iscrowd"))))
        name = str(image.get("file_name")).replace("\\", "/")
        if name in annotations:
            raise AnnotationError(str(path), "file_name", f"{name} is listed twice")
        size = (int(image.get("height") or 0), int(image.get("width") or 0))
        annotations[name] = RawAnnotation(
            f"{path}#{image['id']}", tuple(boxes), image_name=Path(name).name, image_path=name, size=size
        )
    return ParsedExport(tuple(annotations.values()), tuple(names.values()))
