"""A real, small detector for the tests of the page: it finds bright rectangles.

`python -m tests.webapp.bright` is `python -m webapp` with this detector as `bright:SECONDS`, and as `typed:SECONDS`
with types of fracture.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fracture_det.inference.base import DetectorError, DetectorInfo
from fracture_det.inference.registry import DETECTORS
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels

ROOT = Path(__file__).parents[2]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
HANG_S = 6.0
INFO = DetectorInfo("bright rectangles", ("fracture",), sha256="0" * 64, operating_score=0.5)
CARD = """# Bright rectangles

Finds **bright** areas. <script>alert(1)</script>

| part | value |
| --- | --- |
| threshold | 10 |
"""


class BrightRectangles:
    """Finds areas that are brighter than their dark surroundings; the score is their mean brightness / 255.

    `delay_s` is the time one batch takes. `batches` are the sizes of the batches seen. The first pixel of an image can
    make it fail: RED makes it raise, like a detector that meets something it cannot do, GREEN makes it hang for
    HANG_S, and BLUE kills its process. `facts` are those of its DetectorInfo that are not as in INFO.
    """

    def __init__(self, *, delay_s: float = 0.0, **facts: Any) -> None:
        self.delay_s = delay_s
        self.info = replace(INFO, **facts)
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
        first = tuple(image[0, 0])
        if first == RED:
            raise ArithmeticError("this image cannot be done")
        if first == GREEN:
            time.sleep(HANG_S)
        if first == BLUE:
            os.kill(os.getpid(), signal.SIGKILL)
        grey = image.max(axis=2)
        count, labels, stats, _ = cv2.connectedComponentsWithStats((grey > 10).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:count]]
        scores = [float(grey[labels == index].mean()) / 255 for index in range(1, count)]
        return Detections.from_unsorted(np.array(boxes).reshape(-1, 4), scores, np.zeros(len(boxes)))


class TypedRectangles(BrightRectangles):
    """Tells types, too: the wider an area the more transverse, the higher the more longitudinal, and always .1 spiral.

    It names those of at least .5, of which .71 are said to be right.
    """

    def __init__(self, *, delay_s: float = 0.0, **facts: Any) -> None:
        super().__init__(delay_s=delay_s, **({"type_confidence": 0.5, "type_accuracy": 0.71} | facts))
        self.info = replace(self.info, type_names=("spiral", "transverse", "longitudinal"))

    def _find(self, image: Pixels) -> Detections:
        found = super()._find(image)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        shares = 0.9 * sides / sides.sum(axis=1, keepdims=True)
        return replace(found, types=np.column_stack([np.full(len(found), 0.1), shares]))


def dark_plate(*rectangles: tuple[int, int, int, int, int], size: tuple[int, int] = (120, 160)) -> NDArray[np.uint8]:
    """Return a black plate (H, W) of `size` (height, width) with rectangles x0, y0, x1, y1, brightness."""
    plate = np.zeros(size, dtype=np.uint8)
    for x0, y0, x1, y1, brightness in rectangles:
        plate[y0:y1, x0:x1] = brightness
    return plate


@dataclass(frozen=True)
class BrightServer:
    """`python -m tests.webapp.bright` as a process of its own; what it says goes into the file `log`."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path


@contextmanager
def start_bright(folder: Path, *, detector: str = "bright:0", **variables: str) -> Iterator[BrightServer]:
    """Start it on a free port with its data in `folder`, and stop it at the end."""
    # Its plates with bright rectangles are no radiographs.
    own = {"FRACTURE_DATA_DIR": str(folder / "instance"), "PYTHONUNBUFFERED": "1", "FRACTURE_SUITABILITY": "off"}
    environ = os.environ | own | variables
    command = [sys.executable, "-m", "tests.webapp.bright", "--port", "0", "--detector", detector]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(r"^fracture_det: (http://\S+) \(detector", log.read_text(), re.MULTILINE)):
            if process.poll() is not None:
                raise AssertionError(f"the server ended with code {process.returncode}: {log.read_text()}")
            time.sleep(0.05)
        yield BrightServer(process, found[1], log)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


if __name__ == "__main__":
    from webapp.__main__ import main

    DETECTORS["bright"] = "tests.webapp.bright:BrightRectangles.open"
    DETECTORS["typed"] = "tests.webapp.bright:TypedRectangles.open"
    sys.exit(main())
