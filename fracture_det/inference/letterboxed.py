"""From what a model finds in the letterbox to what a detector answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fracture_det.detections import Detections
from fracture_det.images import Letterbox


def on_image(
    boxes: NDArray, scores: NDArray, classes: NDArray, letterbox: Letterbox, size: tuple[int, int]
) -> Detections:
    """Return boxes (N, 4) XYXY in letterbox px with scores and classes (N,) as Detections on an image of `size` (h, w).

    Boxes are clipped to the image; one that lies wholly in the padding is dropped: there is nothing to see there.
    """
    undone = np.clip(letterbox.undo_boxes(boxes, size), 0, [size[1], size[0]] * 2)
    inside = (undone[:, 2:] > undone[:, :2]).all(1)
    return Detections.from_unsorted(undone[inside], scores[inside], classes[inside])
