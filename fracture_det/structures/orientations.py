"""The eight orientations of an image: the symmetries of the square."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

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


def orient_image(pixels: Pixels, orientation: str) -> Pixels:
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


def undo_orientation(found: Detections, orientation: str, size: tuple[int, int]) -> Detections:
    """Return what was found on `orient_image(pixels, orientation)` in pixels of the image itself, of `size` (h, w)."""
    exchanged, mirrored, flipped = ORIENTATIONS[orientation]
    height, width = size[::-1] if exchanged else size
    x0, y0, x1, y1 = found.boxes.T
    if mirrored:
        x0, x1 = width - x1, width - x0
    if flipped:
        y0, y1 = height - y1, height - y0
    sides = (y0, x0, y1, x1) if exchanged else (x0, y0, x1, y1)
    return Detections(np.stack(sides, axis=1), found.scores, found.classes)
