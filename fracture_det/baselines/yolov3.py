"""YOLOv3 of ultralytics as a baseline. ultralytics is AGPL-3.0: an optional package, imported in this file alone."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import nn
from torchvision.ops import box_convert

from fracture_det.baselines.baseline import (
    CLASS_NAMES,
    Baseline,
    BaselineDetector,
    Decoded,
    Outputs,
    TupleOutputs,
    open_baseline,
)
from fracture_det.structures.letterbox import Letterbox

# Read when ultralytics is imported: no request to a server, no pip at run time, nothing printed.
QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def open_yolov3(target: str) -> BaselineDetector:
    """Open `yolov3:TARGET`; see `open_baseline`."""
    return open_baseline(YOLOV3, target)


def _build() -> nn.Module:
    return TupleOutputs(_build_network(len(CLASS_NAMES)), lambda model, batch: [model(batch)[0]])


def _decode(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    columns = outputs[0][0].T
    scores, classes = columns[:, 4:].max(dim=1)
    return box_convert(columns[:, :4], "cxcywh", "xyxy"), scores, classes


def _build_network(n_classes: int) -> Any:
    """Return YOLOv3 with random weights for `n_classes`; its first output is (1, 4 + n_classes, N).

    Raises ModuleNotFoundError when ultralytics is not installed.
    """
    with _process_state_restored():
        os.environ.update({**QUIET, "YOLO_CONFIG_DIR": os.environ.get("YOLO_CONFIG_DIR") or _config_folder()})
        from ultralytics.nn.tasks import DetectionModel

        return DetectionModel("yolov3.yaml", ch=3, nc=n_classes, verbose=False)


def _config_folder() -> str:
    """Return a temporary folder for its settings, which it would write to the user's home; deleted at exit."""
    folder = tempfile.mkdtemp(prefix="yolov3-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _process_state_restored() -> Iterator[None]:
    """Undo what importing ultralytics changes for the whole process.

    That is OMP_NUM_THREADS=1, also for child processes, OpenCV's threads, numpy's print options, and an Image.open of
    its own, which looks for a HEIF reader when a file is no image.
    """
    environment, threads, image_open = dict(os.environ), cv2.getNumThreads(), Image.open
    try:
        with np.printoptions():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        cv2.setNumThreads(threads)
        Image.open = image_open


YOLOV3 = Baseline("yolov3", "YOLOv3", Letterbox(640), _build, _decode)
