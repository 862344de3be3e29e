"""A real, small detector for the tests of the page: it finds bright rectangles.

`python -m tests.webapp.bright` is `python -m webapp` with this detector as `bright:SECONDS`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.detections import Detections
from fracture_det.images import Pixels
from fracture_det.inference.detector import DETECTORS, DetectorError

CARD = """# Bright rectangles

Finds **bright** areas. <script>alert(1)</script>

| part | value |
| --- | --- |
| threshold | 10 |
"""


class BrightRectangles:
    """Finds areas that are brighter than their dark surroundings; the score is their mean brightness / 255.

    `delay_s` is the time one batch takes. `batches` are the sizes of the batches seen. An image with a pure red
    first pixel makes it raise, like a detector that meets something it cannot do.
    """

    name = "bright rectangles"
    class_names = ("fracture",)

    def __init__(self, *, delay_s: float = 0.0, card: Path | None = None, operating_score: float = 0.5) -> None:
        self.delay_s, self.card, self.operating_score = delay_s, card, operating_score
        self.sha256 = "0" * 64
        self.batches: list[int] = []

    @classmethod
    def open(cls, target: str, **options: float) -> BrightRectangles:
        """Open it by URI; the target is the delay in seconds, or `untrained` for weights that are refused."""
        if target == "untrained":
            raise DetectorError("detector 'bright:untrained': these weights were never trained")
        return cls(delay_s=float(target or 0))

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return the bright areas of each image (H, W, 3)."""
        self.batches.append(len(images))
        time.sleep(self.delay_s)
        return [self._find(image) for image in images]

    def _find(self, image: Pixels) -> Detections:
        if tuple(image[0, 0]) == (255, 0, 0):
            raise ArithmeticError("this image cannot be done")
        grey = image.max(axis=2)
        count, labels, stats, _ = cv2.connectedComponentsWithStats((grey > 10).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:count]]
        scores = [float(grey[labels == index].mean()) / 255 for index in range(1, count)]
        return Detections.from_unsorted(np.array(boxes).reshape(-1, 4), scores, np.zeros(len(boxes)))


def dark_plate(*rectangles: tuple[int, int, int, int, int], size: tuple[int, int] = (120, 160)) -> NDArray[np.uint8]:
    """Return a black plate (H, W) of `size` (height, width) with rectangles x0, y0, x1, y1, brightness."""
    plate = np.zeros(size, dtype=np.uint8)
    for x0, y0, x1, y1, brightness in rectangles:
        plate[y0:y1, x0:x1] = brightness
    return plate


if __name__ == "__main__":
    from webapp.__main__ import main

    DETECTORS["bright"] = "tests.webapp.bright:BrightRectangles.open"
    sys.exit(main())
