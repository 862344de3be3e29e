"""COCO's own figures, computed by pycocotools itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fracture_det.data.records import Dataset
from fracture_det.detections import Detections, box_area

# The order of COCOeval.stats for boxes.
STATS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
         "AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large")  # fmt: skip
MAX_DETECTIONS = 100


@dataclass(frozen=True, eq=False)
class CocoResult:
    """What COCOeval says.

    stats: its twelve figures by name, 0..1; None where the data set holds no such truth (COCOeval says -1).
    recall, precision: (101,) the interpolated curve at IoU .5, mean over classes; empty without truth.
    """

    stats: Mapping[str, float | None]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]


def coco_result(dataset: Dataset, detections: Mapping[int, Detections]) -> CocoResult:
    """Run COCOeval over the images of `dataset` that `detections` has, by image id.

    The area of a truth box is its width times its height; small ends at 32^2 and medium at 96^2 px of the original
    image. At most 100 detections per image and class count.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        judge = COCOeval(_coco(dataset, _truth_rows(dataset)), _coco(dataset, _found_rows(detections)), "bbox")
        judge.params.imgIds = sorted(detections)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    stats = {name: None if value < 0 else float(value) for name, value in zip(STATS, judge.stats, strict=True)}
    # precision: (IoU thresholds, recall thresholds, classes, areas, detections per image); -1 without truth
    curves = judge.eval["precision"][0, :, :, 0, -1]
    curves = curves[:, (curves > -1).all(axis=0)]
    if not curves.shape[1]:
        return CocoResult(stats, np.zeros(0), np.zeros(0))
    return CocoResult(stats, np.asarray(judge.params.recThrs, dtype=np.float64), curves.mean(axis=1))


def _coco(dataset: Dataset, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": record.image_id, "height": record.height, "width": record.width} for record in dataset],
        "categories": [{"id": index, "name": name} for index, name in enumerate(dataset.class_names)],
        # pycocotools takes annotation id 0 for "no match"
        "annotations": [{"id": number, "iscrowd": 0, **row} for number, row in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco


def _truth_rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for record in dataset for row in _rows(record.image_id, record.boxes, record.classes)]


def _found_rows(detections: Mapping[int, Detections]) -> list[dict[str, Any]]:
    rows = []
    for image_id, found in detections.items():
        for row, score in zip(_rows(image_id, found.boxes, found.classes), found.scores.tolist(), strict=True):
            rows.append({**row, "score": score})
    return rows


def _rows(image_id: int, boxes: ArrayLike, classes: ArrayLike) -> list[dict[str, Any]]:
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sizes = corners[:, 2:] - corners[:, :2]
    bboxes = np.concatenate([corners[:, :2], sizes], axis=1).tolist()
    return [
        {"image_id": image_id, "category_id": index, "bbox": bbox, "area": area}
        for bbox, index, area in zip(bboxes, np.asarray(classes).tolist(), box_area(corners).tolist(), strict=True)
    ]
