"""YOLOv3: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", arXiv 1804.02767."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import nn
from torchvision.ops import box_iou

from fracture_det.modeling.architectures.base import (
    Architecture,
    Candidates,
    Truth,
    build_bottom_up,
)
from fracture_det.modeling.backbones import use_group_norm

ANCHORS_PER_LEVEL = 3
# Before training, the chance that a place holds an object: most places are empty.
PRIOR = 0.001
# Width and height of an annotated box are at least this, in px: what a crop has left of one may have no logarithm.
MIN_EXTENT = 1.0


class YOLOv3(Architecture):
    """YOLOv3 on the feature maps res3, res4, res5 of MODEL.BACKBONE; with timm's darknet53, the network of its paper.

    As in the paper: each annotated box belongs to the one anchor whose shape fits it best; places of other anchors that
    overlap a box by more than MODEL.YOLOV3.IGNORE_IOU are not counted as empty; squared errors of the logarithms of
    width and height, cross entropy of everything else. As in the authors' darknet, small boxes weigh up to twice as
    much.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        keys = cfg.MODEL.YOLOV3
        self.ignore_iou = float(keys.IGNORE_IOU)
        self.bottom_up = build_bottom_up(cfg)
        shapes = list(self.bottom_up.output_shape().values())
        self.strides = [int(shape.stride) for shape in shapes]
        # (levels, anchors, 2), width and height in px.
        anchors = torch.tensor(keys.ANCHORS, dtype=torch.float32).view(len(shapes), ANCHORS_PER_LEVEL, 2)
        self.anchors: torch.Tensor
        self.register_buffer("anchors", anchors, persistent=False)
        channels = [int(shape.channels) for shape in shapes]
        self.neck = Neck(channels, list(keys.WIDTHS), ANCHORS_PER_LEVEL * (5 + self.n_classes))
        if keys.NORM == "GN":
            use_group_norm(self.neck)

    def losses(self, images: ImageList, truth: Sequence[Truth]) -> dict[str, torch.Tensor]:
        """Return the losses of boxes, of objectness and of classes, each a sum over the boxes or places of an image."""
        levels = [level.float() for level in self.outputs(images.tensor)]
        with torch.autocast(images.tensor.device.type, enabled=False):
            targets = [self._targets(levels, index, of_image) for index, of_image in enumerate(truth)]
            sums = [self._image_losses(levels, index, target) for index, target in enumerate(targets)]
            boxes, objectness, classes = (sum(column) / len(truth) for column in zip(*sums, strict=True))
        return {"loss_box_reg": boxes, "loss_objectness": objectness, "loss_cls": classes}

    def candidates(self, images: ImageList) -> list[Candidates]:
        """Return every place's box of each image; a score is objectness times the best class."""
        boxes, objectness, classes = self.decode([level.float() for level in self.outputs(images.tensor)])
        best, of_class = classes.max(dim=2)
        return [Candidates(*one) for one in zip(boxes, objectness * best, of_class, strict=True)]

    def decode(self, levels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return boxes (N, P, 4) XYXY px, objectness (N, P) and class scores (N, P, classes) of all P places.

        levels: for each feature map (N, H, W, anchors, 5 + classes): x, y, log width, log height, objectness, classes.
        """
        boxes, objectness, classes = [], [], []
        for index, level in enumerate(levels):
            stride, anchors = self.strides[index], self.anchors[index]
            centre = (level[..., :2].sigmoid() + _grid(level)) * stride
            half = anchors * level[..., 2:4].clamp(max=8).exp() / 2
            boxes.append(torch.cat([centre - half, centre + half], dim=-1).flatten(1, 3))
            objectness.append(level[..., 4].sigmoid().flatten(1))
            classes.append(level[..., 5:].sigmoid().flatten(1, 3))
        return torch.cat(boxes, 1), torch.cat(objectness, 1), torch.cat(classes, 1)

    def outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return (N, H, W, anchors, 5 + classes) for each feature map."""
        levels = self.neck(list(self.bottom_up(images).values()))
        return [level.unflatten(1, (ANCHORS_PER_LEVEL, -1)).permute(0, 3, 4, 1, 2) for level in levels]

    @torch.no_grad()
    def _targets(self, levels: Sequence[torch.Tensor], image: int, truth: Truth) -> Targets:
        """Return which places of one image have an object, which are ignored, and what the boxes should be."""
        boxes, _, _ = self.decode([level[image : image + 1] for level in levels])
        counted = torch.ones(boxes.shape[1], dtype=torch.bool, device=boxes.device)
        extents = (truth.boxes[:, 2:] - truth.boxes[:, :2]).clamp(min=MIN_EXTENT)
        best = _shape_ious(extents, self.anchors.view(-1, 2)).argmax(dim=1)
        level, number = best // ANCHORS_PER_LEVEL, best % ANCHORS_PER_LEVEL
        heights, widths = (extents.new_tensor([each.shape[axis] for each in levels]) for axis in (1, 2))
        starts = extents.new_tensor([0, *(each[0, ..., 0].numel() for each in levels)]).cumsum(0)
        centres = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2 / extents.new_tensor(self.strides)[level, None]
        cells = centres.floor().minimum(torch.stack([widths, heights], dim=1)[level] - 1)
        places = starts[level] + (cells[:, 1] * widths[level] + cells[:, 0]) * ANCHORS_PER_LEVEL + number
        if len(truth.boxes):
            counted = box_iou(boxes[0], truth.boxes).max(dim=1).values <= self.ignore_iou
            counted[places.long()] = True
        area = (heights[0] * widths[0]) * self.strides[0] ** 2
        return Targets(
            places=places.long(),
            offsets=(centres - cells).clamp(0, 1),
            logs=(extents / self.anchors[level, number]).log(),
            weights=2 - extents.prod(dim=1) / area,
            classes=F.one_hot(truth.classes, self.n_classes).float(),
            counted=counted,
        )

    def _image_losses(self, levels: Sequence[torch.Tensor], image: int, targets: Targets) -> tuple[torch.Tensor, ...]:
        """Return the sums of the losses of boxes, objectness and classes over one image."""
        outputs = torch.cat([level[image].flatten(0, 2) for level in levels])
        at = outputs[targets.places]
        offsets = F.binary_cross_entropy_with_logits(at[:, :2], targets.offsets, reduction="none")
        errors = offsets + (at[:, 2:4] - targets.logs).square() / 2
        has_object = torch.zeros_like(outputs[:, 4])
        has_object[targets.places] = 1
        counted = targets.counted
        objectness = F.binary_cross_entropy_with_logits(outputs[counted, 4], has_object[counted], reduction="sum")
        classes = F.binary_cross_entropy_with_logits(at[:, 5:], targets.classes, reduction="sum")
        return (errors * targets.weights[:, None]).sum(), objectness, classes


class Targets(NamedTuple):
    """What the outputs of one image with M boxes and P places should be.

    places: (M,) the place of each box. offsets, logs: (M, 2) centre within its cell 0..1, log of the size in anchors.
    weights: (M,) of the box's error, 1..2. classes: (M, classes). counted: (P,) False where objectness is ignored.
    """

    places: torch.Tensor
    offsets: torch.Tensor
    logs: torch.Tensor
    weights: torch.Tensor
    classes: torch.Tensor
    counted: torch.Tensor


class Neck(nn.Module):
    """The layers after the backbone: five convolutions on each map and its output, from coarse to fine.

    channels: of the maps from fine to coarse; widths: of the layers on each; outputs: channels of each output.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.blocks, self.heads, self.steps = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in range(len(channels)):
            width = widths[level]
            below = widths[level + 1] // 2 if level + 1 < len(channels) else 0
            first = _conv(channels[level] + below, width, 1)
            pairs = [layer for _ in range(2) for layer in (_conv(width, 2 * width, 3), _conv(2 * width, width, 1))]
            self.blocks.append(nn.Sequential(first, *pairs))
            output = nn.Conv2d(2 * width, outputs, 1)
            nn.init.normal_(output.weight, std=0.01)
            bias = torch.zeros(ANCHORS_PER_LEVEL, outputs // ANCHORS_PER_LEVEL)
            bias[:, 4] = math.log(PRIOR / (1 - PRIOR))
            output.bias = nn.Parameter(bias.flatten())
            self.heads.append(nn.Sequential(_conv(width, 2 * width, 3), output))
            self.steps.append(_conv(width, width // 2, 1) if level else nn.Identity())

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return one output (N, outputs, H, W) for each map, from fine to coarse."""
        outputs: list[torch.Tensor] = []
        coarser = None
        for level in reversed(range(len(features))):
            feature = features[level]
            if coarser is not None:
                upsampled = F.interpolate(self.steps[level + 1](coarser), size=feature.shape[2:])
                feature = torch.cat([upsampled, feature], dim=1)
            coarser = self.blocks[level](feature)
            outputs.insert(0, self.heads[level](coarser))
        return outputs


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.1))


def _grid(level: torch.Tensor) -> torch.Tensor:
    """Return the column and row of each cell, (H, W, 1, 2), for (N, H, W, anchors, ...)."""
    rows = torch.arange(level.shape[1], device=level.device)
    columns = torch.arange(level.shape[2], device=level.device)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[:, :, None]


def _shape_ious(extents: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Return the IoU (M, A) of boxes and anchors of the given width and height with one common centre."""
    overlap = torch.minimum(extents[:, None], anchors[None]).prod(dim=2)
    return overlap / (extents.prod(dim=1)[:, None] + anchors.prod(dim=1)[None] - overlap)
