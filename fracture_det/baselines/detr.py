"""DETR-R50 of transformers as a baseline."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from torchvision.ops import box_convert

from fracture_det.baselines.baseline import (
    CLASS_NAMES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Baseline,
    Decoded,
    Outputs,
    ShortestSide,
    TupleOutputs,
    open_baseline,
)
from fracture_det.baselines.trained import is_trained, open_trained, refuse_nms_iou
from fracture_det.inference.base import Detector


def open_detr(target: str, *, nms_iou: float | None = None) -> Detector:
    """Open `detr:TARGET`: a training folder or a file of one, else see `open_baseline`."""
    if is_trained(target):
        return open_trained(target, scheme="detr", architecture="DETR", nms_iou=nms_iou)
    refuse_nms_iou("detr", target, nms_iou)
    return open_baseline(DETR, target)


def _build() -> nn.Module:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it would otherwise look for pretrained weights of the backbone
    from transformers import DetrConfig, DetrForObjectDetection

    settings: dict[str, Any] = {"backbone": "resnet50", "use_timm_backbone": True, "use_pretrained_backbone": False}
    settings["num_labels"] = len(CLASS_NAMES)
    config = DetrConfig(**settings)

    def outputs(model: Any, batch: torch.Tensor) -> Outputs:
        prediction = model(pixel_values=batch)
        return prediction.logits, prediction.pred_boxes

    return TupleOutputs(DetrForObjectDetection(config), outputs)


def _decode(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    logits, boxes = outputs
    scores, classes = logits[0].softmax(-1)[:, :-1].max(dim=1)  # the last class is "no object"
    return box_convert(boxes[0], "cxcywh", "xyxy") * torch.tensor([*size[::-1]] * 2), scores, classes


DETR = Baseline("detr", "DETR-R50", ShortestSide(800), _build, _decode, IMAGENET_MEAN, IMAGENET_STD, transformer=True)
