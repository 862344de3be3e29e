"""Which detection hits which truth box of one image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.structures.boxes import box_iou, centre_inside
from fracture_det.structures.detections import Detections


def match_to_truth(
    detections: Detections, truth_boxes: ArrayLike, truth_classes: ArrayLike, *, iou: float | None = 0.5
) -> NDArray[np.int64]:
    """Return for each detection (N,) the index of the truth box that it hits, or -1.

    Greedy in descending order of score, as pycocotools matches: each detection takes the free truth box of its class
    with the highest IoU (of equal ones the last), if that is at least `iou`; a truth box is hit once.
    With `iou` None a truth box can be hit by the detections whose centre lies in it, whatever their IoU.
    """
    truth = np.asarray(truth_boxes, dtype=np.float64).reshape(-1, 4)
    overlaps = box_iou(detections.boxes, truth)
    # pycocotools compares with min(iou, 1 - 1e-10), so that identical boxes match at iou 1.
    possible = centre_inside(detections.boxes, truth) if iou is None else overlaps >= min(iou, 1 - 1e-10)
    possible &= detections.classes[:, None] == np.asarray(truth_classes, dtype=np.int64)[None, :]
    overlaps[~possible] = -1.0
    matches = np.full(len(detections), -1, dtype=np.int64)
    for index in range(len(detections) if len(truth) else 0):
        best = len(truth) - 1 - int(overlaps[index, ::-1].argmax())
        if overlaps[index, best] >= 0:
            matches[index] = best
            overlaps[:, best] = -1.0
    return matches
