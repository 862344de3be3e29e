"""YOLOv3 of ultralytics, which is AGPL-3.0: an optional extra, imported by this file and by no other."""

from __future__ import annotations

import os
import tempfile
from typing import Any


def build_network(n_classes: int) -> Any:
    """Return YOLOv3 with random weights for `n_classes`; its answer begins with (1, 4 + n_classes, N).

    Raises ModuleNotFoundError when ultralytics is not installed.
    """
    # It writes settings into the home folder and reports to a server unless told otherwise before its import.
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolov3-"))
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel("yolov3.yaml", ch=3, nc=n_classes, verbose=False)
