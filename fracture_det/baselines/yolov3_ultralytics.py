"""YOLOv3 of ultralytics, which is AGPL-3.0: an optional extra, imported by this file and by no other."""

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

# Read once, when it is imported: no request to a server, no pip at run time, nothing printed.
QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def build_network(n_classes: int) -> Any:
    """Return YOLOv3 with random weights for `n_classes`; its answer begins with (1, 4 + n_classes, N).

    Raises ModuleNotFoundError when ultralytics is not installed.
    """
    with _process_left_as_it_is():
        os.environ.update({**QUIET, "YOLO_CONFIG_DIR": os.environ.get("YOLO_CONFIG_DIR") or _config_folder()})
        from ultralytics.nn.tasks import DetectionModel

        return DetectionModel("yolov3.yaml", ch=3, nc=n_classes, verbose=False)


def _config_folder() -> str:
    """Return a folder for its settings, which it would write into the user's home; gone when this process ends."""
    folder = tempfile.mkdtemp(prefix="yolov3-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _process_left_as_it_is() -> Iterator[None]:
    """Undo what its import does to all others.

    That is OMP_NUM_THREADS=1, for child processes too, OpenCV's threads, and an Image.open of its own, which answers
    files that are no images with a search for a HEIF reader.
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
