"""Boxes with scores: what every detector returns and every metric reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found on one radiograph, highest score first.

    boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the original upright image.
    scores: (N,) float32 in 0..1, descending.
    classes: (N,) int64, indices into the detector's `class_names`.

    Raises ValueError when a shape, an order or a range is not as stated.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32)
        scores = np.asarray(self.scores, dtype=np.float32)
        classes = np.asarray(self.classes, dtype=np.int64)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"Detections.boxes: expected shape (N, 4), got {boxes.shape}")
        if scores.shape != (len(boxes),) or classes.shape != (len(boxes),):
            raise ValueError(f"Detections: {len(boxes)} boxes, but scores {scores.shape} and classes {classes.shape}")
        if not np.isfinite(boxes).all():
            raise ValueError("Detections.boxes: a coordinate is not finite")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError("Detections.boxes: a box ends before it begins (x1 < x0 or y1 < y0)")
        if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
            raise ValueError(f"Detections.scores: expected 0..1, got {scores.min()}..{scores.max()}")
        if (np.diff(scores) > 0).any():
            raise ValueError("Detections.scores: expected descending order; see Detections.from_unsorted")
        for name, array in (("boxes", boxes), ("scores", scores), ("classes", classes)):
            array = array.copy() if array is getattr(self, name) else array
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """Return the detections of an image on which nothing was found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def from_unsorted(cls, boxes: ArrayLike, scores: ArrayLike, classes: ArrayLike) -> Detections:
        """Return Detections of the same rows, put in descending order of score (ties keep their order)."""
        scores_array = np.asarray(scores, dtype=np.float32)
        order = np.argsort(-scores_array, kind="stable")
        boxes_array = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        return cls(boxes_array[order], scores_array[order], np.asarray(classes, dtype=np.int64)[order])

    def above(self, score: float) -> Detections:
        """Return only the detections whose score is at least `score`."""
        keep = self.scores >= np.float32(score)
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])
