"""EfficientDet-D3 of effdet as a baseline."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import nn

from fracture_det.baselines.baseline import (
    CLASS_NAMES,
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
from fracture_det.structures.letterbox import Letterbox


def open_efficientdet(target: str, *, nms_iou: float | None = None) -> Detector:
    """Open `efficientdet:TARGET`: a training folder or a file of one, else see `open_baseline`."""
    if is_trained(target):
        return open_trained(target, scheme="efficientdet", architecture="EfficientDet", nms_iou=nms_iou)
    refuse_nms_iou("efficientdet", target, nms_iou)
    return open_baseline(EFFICIENTDET, target)


def _build() -> nn.Module:
    with warnings.catch_warnings():  # of torch.jit.script, which it uses
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from effdet import create_model

        network = create_model(
            "tf_efficientdet_d3",
            bench_task="",
            num_classes=len(CLASS_NAMES),
            pretrained=False,
            pretrained_backbone=False,
        )
    return TupleOutputs(network, lambda model, batch: [level for part in model(batch) for level in part])


@cache
def _anchors() -> torch.Tensor:
    from effdet import get_efficientdet_config
    from effdet.anchors import Anchors

    return Anchors.from_config(get_efficientdet_config("tf_efficientdet_d3")).boxes


def _decode(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    from effdet.anchors import decode_box_outputs

    half = len(outputs) // 2
    scores, deltas = (
        torch.cat([level[0].permute(1, 2, 0).reshape(-1, width) for level in part])
        for part, width in ((outputs[:half], len(CLASS_NAMES)), (outputs[half:], 4))
    )
    best, classes = scores.sigmoid().max(dim=1)
    best, index = best.topk(5000)  # as effdet's own max_detection_points
    anchors = _anchors()[index]
    return decode_box_outputs(deltas[index].float(), anchors, output_xyxy=True), best, classes[index]


EFFICIENTDET = Baseline("efficientdet", "EfficientDet-D3", Letterbox(896), _build, _decode, IMAGENET_MEAN, IMAGENET_STD)
