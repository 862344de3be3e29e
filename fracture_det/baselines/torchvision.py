"""torchvision's Faster R-CNN R50-FPN as a baseline."""

from __future__ import annotations

from torch import nn

from fracture_det.baselines.baseline import (
    CLASS_NAMES,
    Baseline,
    BaselineDetector,
    Decoded,
    Outputs,
    ShortestSide,
    TupleOutputs,
    open_baseline,
)


def open_torchvision(target: str) -> BaselineDetector:
    """Open `torchvision:TARGET`; see `open_baseline`."""
    return open_baseline(TORCHVISION, target)


def _build() -> nn.Module:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    # It normalises by itself, and scales to the same shortest side as ShortestSide, so that this changes nothing.
    network = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=1 + len(CLASS_NAMES))
    return TupleOutputs(
        network, lambda model, batch: [model([batch[0]])[0][key] for key in ("boxes", "scores", "labels")]
    )


def _decode(outputs: Outputs, size: tuple[int, int]) -> Decoded:
    boxes, scores, labels = outputs
    return boxes, scores, labels - 1


TORCHVISION = Baseline("torchvision", "torchvision Faster R-CNN R50-FPN", ShortestSide(800), _build, _decode)
