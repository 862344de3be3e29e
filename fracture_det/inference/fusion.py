"""Weighted boxes fusion: several predictions of one radiograph made one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fracture_det.structures.boxes import box_iou
from fracture_det.structures.detections import Detections


def weighted_boxes_fusion(answers: Sequence[Detections], *, iou: float = 0.5) -> Detections:
    """Return the weighted boxes fusion of several answers about one image (Solovyev, Wang, Gabruseva 2021, section 3).

    Boxes of a class that overlap by more than `iou` become one: the mean of them weighted by score, whose score is
    their sum over answers (of each answer the best) divided by the number of answers, so that what only one of them
    sees counts for less. Scores stay in 0..1.
    """
    boxes = np.concatenate([answer.boxes for answer in answers]).astype(np.float64)
    scores = np.concatenate([answer.scores for answer in answers]).astype(np.float64)
    classes = np.concatenate([answer.classes for answer in answers])
    source = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
    # Of each cluster: its centre, what that is the quotient of, its class, which answers saw it, and their best scores.
    centres, sums = np.zeros((2, len(boxes), 4))
    weights, shares = np.zeros((2, len(boxes)))
    labels, seen = np.zeros(len(boxes), np.int64), np.zeros((len(boxes), len(answers)), bool)
    count = 0
    for index in np.argsort(-scores, kind="stable"):
        own = count
        if count:
            overlaps = np.where(labels[:count] == classes[index], box_iou(boxes[index], centres[:count])[0], 0.0)
            best = int(overlaps.argmax())
            own = best if overlaps[best] > iou else count
        if own == count:
            count += 1
            labels[own] = classes[index]
        if not seen[own, source[index]]:
            seen[own, source[index]] = True
            shares[own] += scores[index]
        sums[own] += scores[index] * boxes[index]
        weights[own] += scores[index]
        centres[own] = sums[own] / weights[own]
    return Detections.from_unsorted(centres[:count], shares[:count] / len(answers), labels[:count])
