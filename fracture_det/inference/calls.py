"""Calls of a detector whose answers are checked, and the images of its warm-up."""

from __future__ import annotations

import numpy as np

from fracture_det.inference.base import Detector
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels


def call_detector(detector: Detector, images: list[Pixels]) -> list[Detections]:
    """Return what a detector says of images (H_i, W_i, 3) uint8 RGB. Raises ValueError or TypeError for nonsense."""
    predictions, info = list(detector.predict(images)), detector.info
    if len(predictions) != len(images):
        raise ValueError(f"{info.name} returned {len(predictions)} predictions for {len(images)} radiographs")
    for detections in predictions:
        if not isinstance(detections, Detections):
            raise TypeError(f"{info.name} returned {type(detections).__name__}, not Detections")
        if len(detections) and not 0 <= detections.classes.min() <= detections.classes.max() < len(info.class_names):
            raise ValueError(f"{info.name} returned a class that is not in {info.class_names}")
        # None: a classifier of types is not asked of a radiograph without a finding.
        if detections.types is not None and detections.types.shape[1] != len(info.type_names):
            n_types = detections.types.shape[1]
            raise ValueError(f"{info.name} returned {n_types} types of its {len(info.type_names)}")
    return predictions


def warm_up(detector: Detector) -> None:
    """Let a detector predict what it is warmed up with. Raises whatever it fails with."""
    for pixels in warm_up_images():
        call_detector(detector, [pixels])


def warm_up_images() -> tuple[Pixels, Pixels]:
    """Return a grey ramp of the usual shape, upright and lying."""
    ramp = np.linspace(0, 200, 256, dtype=np.uint8)
    upright = np.ascontiguousarray(np.broadcast_to(ramp[:, None], (320, 256, 3)))
    return upright, np.ascontiguousarray(upright.transpose(1, 0, 2))
