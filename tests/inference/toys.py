"""Detectors without a model for the tests of what stands around one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fracture_det.inference.base import DetectorInfo
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels


class BrightDetector:
    """Puts a box of score .8 around everything brighter than 200 and one of score .1 into the corner.

    It fails on a batch that holds an image of exactly 13 px width, to be a detector that can fail.
    facts: of its DetectorInfo, where they are others.
    """

    def __init__(self, **facts: Any) -> None:
        self.info = replace(DetectorInfo("bright", ("fracture",)), **facts)
        self.batches: list[int] = []

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        self.batches.append(len(images))
        if any(image.shape[1] == 13 for image in images):
            raise RuntimeError("thirteen")
        return [self._find(image) for image in images]

    def _find(self, image: Pixels) -> Detections:
        rows, columns = np.nonzero(image[..., 0] > 200)
        if not len(rows):
            return Detections.empty()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections.from_unsorted([box, [0, 0, 4, 4]], [0.8, 0.1], [0, 0])


def open_bright(target: str) -> BrightDetector:
    """Open the detector; `target` is its operating score, or empty."""
    return BrightDetector(operating_score=float(target) if target else None)


def open_bright_at(target: str) -> BrightDetector:
    """Open the detector for a path, which becomes its name."""
    return BrightDetector(name=target)


class SlowDetector(BrightDetector):
    """The same, and takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        time.sleep(self.seconds * len(images))
        return super().predict(images)


def open_slow(target: str, *, pids: Path | None = None) -> SlowDetector:
    """Open the detector that takes `target` seconds an image; its process leaves its number as a file in `pids`."""
    if pids is not None:
        (pids / str(os.getpid())).touch()
    return SlowDetector(float(target))


def open_never() -> BrightDetector:
    """Fail as on a machine that lacks the weights."""
    raise ValueError("no weights on this machine")
