"""Boxes with scores: what every detector returns and every metric reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found on one radiograph, highest score first.

    boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the original upright image.
    scores: (N,) float32 in 0..1, descending.
    classes: (N,) int64, indices into the detector's `class_names`.
    types: (N, T) float32 in 0..1, the probability of each of the detector's `type_names` if the box is a fracture, a
    row's sum 1; None where the detector does not tell types, or was not asked: nothing was found.

    Raises ValueError when a shape, an order or a range is not as stated.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    types: NDArray[np.float32] | None = None

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
        arrays: dict[str, NDArray[Any]] = {"boxes": boxes, "scores": scores, "classes": classes}
        if self.types is not None:
            arrays["types"] = _checked_types(self.types, len(boxes))
        for name, array in arrays.items():
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
    def from_unsorted(
        cls, boxes: ArrayLike, scores: ArrayLike, classes: ArrayLike, types: ArrayLike | None = None
    ) -> Detections:
        """Return Detections of the same rows, put in descending order of score (ties keep their order)."""
        scores_array = np.asarray(scores, dtype=np.float32)
        order = np.argsort(-scores_array, kind="stable")
        boxes_array = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        of_boxes = None if types is None else _checked_types(types, len(order))[order]
        return cls(boxes_array[order], scores_array[order], np.asarray(classes, dtype=np.int64)[order], of_boxes)

    def take(self, keep: NDArray[np.bool_]) -> Detections:
        """Return the detections of the mask `keep` (N,)."""
        types = None if self.types is None else self.types[keep]
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep], types)

    def above(self, score: float) -> Detections:
        """Return only the detections whose score is at least `score`."""
        return self.take(self.scores >= np.float32(score))

    def image_types(self) -> NDArray[np.float64] | None:
        """Return the probability (T,) of each type if the image shows a fracture: the mean of its boxes by score.

        None without types, or without a box of a score above 0.
        """
        if self.types is None or not self.scores.sum():
            return None
        return np.asarray(np.average(self.types.astype(np.float64), axis=0, weights=self.scores))


def _checked_types(types: ArrayLike, n: int) -> NDArray[np.float32]:
    """Return the types of n boxes as an array. Raises ValueError."""
    array = np.asarray(types, dtype=np.float32)
    if array.ndim != 2 or len(array) != n or array.shape[1] < 1:
        raise ValueError(f"Detections.types: expected shape ({n}, T), got {array.shape}")
    if array.size and not (array.min() >= 0 and np.allclose(array.sum(1), 1, atol=1e-3)):
        raise ValueError("Detections.types: expected rows of probabilities whose sum is 1")
    return array
