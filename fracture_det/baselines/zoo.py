"""All baselines by the scheme of their URIs."""

from __future__ import annotations

from fracture_det.baselines.detr import DETR
from fracture_det.baselines.efficientdet import EFFICIENTDET
from fracture_det.baselines.torchvision import TORCHVISION
from fracture_det.baselines.yolov3 import YOLOV3

BASELINES = {baseline.scheme: baseline for baseline in (YOLOV3, EFFICIENTDET, DETR, TORCHVISION)}
