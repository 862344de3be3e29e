"""From radiographs to what a model sees of them, and from what it finds in the letterbox to what a detector answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.detections import Detections
from fracture_det.structures.letterbox import Letterbox
from fracture_det.structures.radiograph import Pixels


def alike(images: Sequence[Pixels], letterbox: Letterbox, *, most: int | None = None) -> list[list[int]]:
    """Return the indices of `images` in groups of one letterbox size, of at most `most`: what can be one batch."""
    of_size: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        of_size.setdefault(letterbox.outer_size(image.shape[:2]), []).append(index)
    most = most or max(1, len(images))
    return [group[first : first + most] for group in of_size.values() for first in range(0, len(group), most)]


def on_image(
    boxes: NDArray, scores: NDArray, classes: NDArray, letterbox: Letterbox, size: tuple[int, int]
) -> Detections:
    """Return boxes (N, 4) XYXY in letterbox px with scores and classes (N,) as Detections on an image of `size` (h, w).

    Boxes are clipped to the image; one that lies wholly in the padding is dropped: there is nothing to see there.
    """
    undone = np.clip(letterbox.undo_boxes(boxes, size), 0, [size[1], size[0]] * 2)
    inside = (undone[:, 2:] > undone[:, :2]).all(1)
    return Detections.from_unsorted(undone[inside], scores[inside], classes[inside])
