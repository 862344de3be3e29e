"""Many answers about one radiograph made into one: orientations to look at it in, and weighted boxes fusion."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Return the image (H, W, 3) in one of ORIENTATIONS, as its own memory; (W, H, 3) where rows become columns."""
    exchanged, mirrored, flipped = ORIENTATIONS[orientation]
    turned = pixels.transpose(1, 0, 2) if exchanged else pixels
    return np.ascontiguousarray(turned[:: -1 if flipped else 1, :: -1 if mirrored else 1])


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
    order = np.argsort(-scores, kind="stable")
    clusters: list[list[int]] = []
    centres = np.zeros((0, 4))
    labels: list[int] = []
    for index in order:
        overlaps = np.where(np.array(labels) == classes[index], box_iou(boxes[index], centres)[0], 0.0)
        if len(overlaps) and overlaps.max() > iou:
            cluster = int(overlaps.argmax())
            clusters[cluster].append(index)
            centres[cluster] = np.average(boxes[clusters[cluster]], axis=0, weights=scores[clusters[cluster]])
        else:
            clusters.append([index])
            centres = np.concatenate([centres, boxes[index : index + 1]])
            labels.append(int(classes[index]))
    fused = [_share(scores[members], source[members], len(answers)) for members in clusters]
    return Detections.from_unsorted(centres, fused, labels)


def _share(scores: NDArray[np.float64], source: NDArray[np.int64], n_answers: int) -> float:
    """Return the mean over answers of the best score that each gave; `scores` are in descending order."""
    _, first = np.unique(source, return_index=True)
    return float(scores[first].sum() / n_answers)
