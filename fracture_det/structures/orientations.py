"""The eight orientations of an image: the symmetries of the square."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.structures.detections import Detections

# Name -> (rows and columns exchanged, then columns reversed, then rows reversed); quarter turns are clockwise.
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
# EXIF tag 0x0112 -> the orientation that turns the stored pixels upright (EXIF 2.32, 4.6.4).
EXIF_ORIENTATIONS = {
    1: "identity",
    2: "mirror",
    3: "half_turn",
    4: "flip",
    5: "transpose",
    6: "quarter_turn",
    7: "anti_transpose",
    8: "three_quarter_turn",
}
Sample = TypeVar("Sample", bound=np.integer[Any])
# All others undo themselves.
INVERSE = {"quarter_turn": "three_quarter_turn", "three_quarter_turn": "quarter_turn"}


def orient_image(pixels: NDArray[Sample], orientation: str) -> NDArray[Sample]:
    """Return the image (H, W, C), of any depth, in one of ORIENTATIONS; (W, H, C) where rows become columns."""
    exchanged, mirrored, flipped = ORIENTATIONS[orientation]
    # OpenCV takes a tenth of the time of copying a transposed view.
    oriented: NDArray[Sample] = np.ascontiguousarray(pixels)
    if exchanged:
        oriented = np.asarray(cv2.transpose(oriented), pixels.dtype)
    if mirrored or flipped:
        oriented = np.asarray(cv2.flip(oriented, -1 if mirrored and flipped else int(mirrored)), pixels.dtype)
    # OpenCV drops a single channel.
    return oriented.reshape(*oriented.shape[:2], pixels.shape[2])


def orient_boxes(boxes: ArrayLike, orientation: str, size: tuple[int, int]) -> NDArray[np.floating]:
    """Return where boxes (N, 4) x0 y0 x1 y1 of an image of `size` (h, w) lie on `orient_image(pixels, orientation)`.

    A box with x0 > x1 or y0 > y1 stays reversed.
    """
    exchanged, mirrored, flipped = ORIENTATIONS[orientation]
    x0, y0, x1, y1 = np.asarray(boxes).reshape(-1, 4).T
    height, width = size
    if exchanged:
        (x0, y0, x1, y1), (height, width) = (y0, x0, y1, x1), (width, height)
    if mirrored:
        x0, x1 = width - x1, width - x0
    if flipped:
        y0, y1 = height - y1, height - y0
    return np.stack([x0, y0, x1, y1], axis=1)


def undo_orientation(detections: Detections, orientation: str, size: tuple[int, int]) -> Detections:
    """Return detections on `orient_image(pixels, orientation)` in the frame of the image itself, of `size` (h, w)."""
    oriented_size = size[::-1] if ORIENTATIONS[orientation][0] else size
    boxes = orient_boxes(detections.boxes, INVERSE.get(orientation, orientation), oriented_size)
    return replace(detections, boxes=boxes)
