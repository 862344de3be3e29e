"""Many answers about one radiograph made into one: orientations to look at it in, and weighted boxes fusion."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.detections import Detections, box_iou
from fracture_det.images import Pixels

# Name -> (rows and columns exchanged, columns reversed, rows reversed), in this order: the symmetries of the square.
ORIENTATIONS = {
    "identity": (False, False, False),
    "mirror": (False, True, False),
    "flip": (False, False, True),
    "half_turn": (False, True, True),
    "transpose": (True, False, False),
    "quarter_turn": (True, True, False),
    "three_quarter_turn": (True, False, True),
    "anti_transpose": (True, True, True),
}


def turn_image(pixels: Pixels, orientation: str) -> Pixels:
    """Return the image (H, W, C) in one of ORIENTATIONS; (W, H, C) where rows become columns."""
    exchanged, mirrored, flipped = ORIENTATIONS[orientation]
    # By OpenCV, which takes a tenth of the time of a copy of a turned view.
    turned: NDArray = np.ascontiguousarray(pixels)
    if exchanged:
        turned = cv2.transpose(turned)
    if mirrored or flipped:
        turned = cv2.flip(turned, -1 if mirrored and flipped else int(mirrored))
    # OpenCV drops a single channel.
    return np.asarray(turned, np.uint8).reshape(*turned.shape[:2], pixels.shape[2])


def turn_back(found: Detections, orientation: str, size: tuple[int, int]) -> Detections:
    """Return what was found on `turn_image(pixels, orientation)` in pixels of the image itself, of `size` (h, w)."""
    exchanged, mirrored, flipped = ORIENTATIONS[orientation]
    height, width = size[::-1] if exchanged else size
    x0, y0, x1, y1 = found.boxes.T
    if mirrored:
        x0, x1 = width - x1, width - x0
    if flipped:
        y0, y1 = height - y1, height - y0
    sides = (y0, x0, y1, x1) if exchanged else (x0, y0, x1, y1)
    return Detections(np.stack(sides, axis=1), found.scores, found.classes)


def fuse(answers: Sequence[Detections], *, iou: float = 0.5) -> Detections:
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
