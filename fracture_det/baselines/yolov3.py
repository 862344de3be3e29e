"""YOLOv3 as a baseline."""

from __future__ import annotations

import torch
from torch import nn

from fracture_det.baselines.baseline import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Baseline,
    Decoded,
    Outputs,
    TupleOutputs,
    open_baseline,
)
from fracture_det.baselines.trained import is_trained, open_trained, refuse_nms_iou
from fracture_det.inference.base import Detector
from fracture_det.modeling.architectures.yolov3 import YOLOv3
from fracture_det.modeling.config import load_config
from fracture_det.resources import resource
from fracture_det.structures.letterbox import Letterbox

CONFIG = "configs/baselines/yolov3.yaml"


def open_yolov3(target: str, *, nms_iou: float | None = None) -> Detector:
    """Open `yolov3:TARGET`: a training folder or a file of one, else see `open_baseline`."""
    if is_trained(target):
        return open_trained(target, scheme="yolov3", architecture="YOLOv3", nms_iou=nms_iou)
    refuse_nms_iou("yolov3", target, nms_iou)
    return open_baseline(YOLOV3, target)


def _build() -> nn.Module:
    return TupleOutputs(YOLOv3(load_config(resource(CONFIG))), _outputs)


def _outputs(model: YOLOv3, batch: torch.Tensor) -> Outputs:
    """Return boxes (N, P, 4) and scores (N, P, classes) of a batch."""
    boxes, objectness, classes = model.decode(model.outputs(batch))
    return boxes, objectness[..., None] * classes


def _decode(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    boxes, scores = (output[0] for output in outputs)
    best, classes = scores.max(dim=1)
    return boxes, best, classes


YOLOV3 = Baseline("yolov3", "YOLOv3", Letterbox(640), _build, _decode, IMAGENET_MEAN, IMAGENET_STD)
