"""The one letterbox of this project: images and boxes into it, detections back out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels


@dataclass(frozen=True)
class Letterbox:
    """Scaling to fit a square of `size` pixels, aspect ratio kept, zeros to the right and below.

    step: pixels; with it, the padding of each side ends at the next multiple of `step` within the square, so that
    little of an elongated radiograph is padding. Without it, the padding fills the square.

    The only implementation: training, inference and export use it. Axes are scaled by the exact ratio of
    whole pixel sizes, so that `undo_boxes(apply_boxes(b)) == b`.
    """

    size: int = 800
    step: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "step"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"Letterbox.{name}: expected at least 1 px, got {value}")

    def inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image of `size` (height, width) gets inside the letterbox."""
        height, width = size
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def outer_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of the letterbox itself for an image of `size` (height, width)."""
        step = self.step or self.size
        height, width = (min(self.size, -(-side // step) * step) for side in self.inner_size(size))
        return height, width

    def apply_image(self, pixels: Pixels, *, out: Pixels | None = None) -> Pixels:
        """Return the letterboxed image (*outer_size, C) of `pixels` (H, W, C) uint8.

        out: an array of that shape that is zero, to write into.
        """
        height, width = self.inner_size(pixels.shape[:2])
        shrinks = height < pixels.shape[0] or width < pixels.shape[1]
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        if out is None:
            out = np.zeros((*self.outer_size(pixels.shape[:2]), *pixels.shape[2:]), dtype=np.uint8)
        out[:height, :width] = resized.reshape(height, width, *pixels.shape[2:])
        return out

    def apply_boxes(self, boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
        """Map boxes (N, 4) of an image of `size` (height, width) into the letterbox."""
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * self._scale_xyxy(size)

    def undo_boxes(self, boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
        """Map boxes (N, 4) of the letterbox back to the image of `size` (height, width)."""
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / self._scale_xyxy(size)

    def _scale_xyxy(self, size: tuple[int, int]) -> NDArray[np.float64]:
        height, width = size
        inner_height, inner_width = self.inner_size(size)
        return np.array([inner_width / width, inner_height / height] * 2)


def group_by_letterbox_size(
    images: Sequence[Pixels], letterbox: Letterbox, *, max_batch: int | None = None
) -> list[list[int]]:
    """Return the indices of `images` in groups of one letterbox size, each of at most `max_batch`: its batches."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        by_size.setdefault(letterbox.outer_size(image.shape[:2]), []).append(index)
    step = max_batch or max(1, len(images))
    return [group[first : first + step] for group in by_size.values() for first in range(0, len(group), step)]


def detections_on_image(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    classes: NDArray[Any],
    letterbox: Letterbox,
    size: tuple[int, int],
    types: NDArray[Any] | None = None,
) -> Detections:
    """Return boxes (N, 4) x0 y0 x1 y1 in letterbox px with scores and classes (N,), on an image of `size` (h, w).

    types: (N, T), see `Detections`; None where the detector tells none.
    Boxes are clipped to the image; those that lie entirely in the padding are dropped: there is no image there.
    """
    undone = np.clip(letterbox.undo_boxes(boxes, size), 0, [size[1], size[0]] * 2)
    inside = (undone[:, 2:] > undone[:, :2]).all(1)
    of_boxes = None if types is None else types[inside]
    return Detections.from_unsorted(undone[inside], scores[inside], classes[inside], of_boxes)
