"""What a detector must provide, so that this project's trainer trains it and its evaluator evaluates it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn
from torchvision.ops import batched_nms

# Boxes that enter the non-maximum suppression of one image.
MAX_CANDIDATES = 1000


class Truth(NamedTuple):
    """The annotated boxes (M, 4) float32 XYXY of one image, in its own pixels, and their classes (M,) int64."""

    boxes: torch.Tensor
    classes: torch.Tensor


class Candidates(NamedTuple):
    """The boxes (N, 4) float32 XYXY of one image, in its own pixels, scores (N,) 0..1, classes (N,) int64."""

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor


class Architecture(nn.Module, ABC):
    """A detector that is trained, evaluated and opened like Detectron2's own ones.

    A subclass provides `losses` and `candidates`, is made of a configuration alone, and keeps its whole state in its
    `state_dict`. It is registered under its class name, which MODEL.META_ARCHITECTURE then selects.

    As with Detectron2's GeneralizedRCNN, a batch is a list of dicts with `image` (3, h, w) uint8 and, for the losses,
    `instances`. In training a call returns losses by name, whose sum is minimised; otherwise, for each image,
    `instances` in the frame of `image`. MODEL.ROI_HEADS.NUM_CLASSES, SCORE_THRESH_TEST and NMS_THRESH_TEST, and
    TEST.DETECTIONS_PER_IMAGE hold for these detectors too.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor
    # Both sides of a batch are padded to a multiple of this.
    size_divisibility = 32

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(cfg.MODEL.PIXEL_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(cfg.MODEL.PIXEL_STD).view(-1, 1, 1), persistent=False)
        self.n_classes = int(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        self.score_floor = float(cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
        self.nms_iou = float(cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST)
        self.max_boxes = int(cfg.TEST.DETECTIONS_PER_IMAGE)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.pixel_mean.device

    @abstractmethod
    def losses(self, images: ImageList, truth: Sequence[Truth]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch, by names that begin with "loss"; `images` are normalised and padded."""

    @abstractmethod
    def candidates(self, images: ImageList) -> list[Candidates]:
        """Return the boxes of each image before score floor and non-maximum suppression."""

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> Any:
        """Return the losses in training, else one {"instances": Instances} for each image."""
        images = self._images(batched_inputs)
        if self.training:
            return self.losses(images, [self._truth(item["instances"]) for item in batched_inputs])
        return [
            {"instances": self.select(found, size)}
            for found, size in zip(self.candidates(images), images.image_sizes, strict=True)
        ]

    def detect(self, normed: torch.Tensor) -> list[Instances]:
        """Return the detections on normalised images (N, 3, H, W) of one size; for graphs, which begin here."""
        size = (normed.shape[2], normed.shape[3])
        images = ImageList(normed, [size] * normed.shape[0])
        return [self.select(found, size) for found in self.candidates(images)]

    def select(self, found: Candidates, size: tuple[int, int]) -> Instances:
        """Return what is above the score floor and survives non-maximum suppression, on an image of `size` (h, w)."""
        boxes, scores, classes = (part.detach() for part in found)
        boxes, scores = boxes.float(), scores.float()
        above = scores > self.score_floor
        boxes, scores, classes = boxes[above], scores[above], classes[above]
        order = scores.argsort(descending=True)[:MAX_CANDIDATES]
        boxes = _clipped(boxes[order], size)
        kept = batched_nms(boxes, scores[order], classes[order], self.nms_iou)[: self.max_boxes]
        instances = Instances(size)
        instances.pred_boxes = Boxes(boxes[kept])
        instances.scores = scores[order][kept]
        instances.pred_classes = classes[order][kept]
        return instances

    def _images(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        planes = [(item["image"].to(self.device) - self.pixel_mean) / self.pixel_std for item in batched_inputs]
        return ImageList.from_tensors(planes, self.size_divisibility)

    def _truth(self, instances: Instances) -> Truth:
        return Truth(instances.gt_boxes.tensor.to(self.device), instances.gt_classes.to(self.device))


def _clipped(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    height, width = size
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def build_bottom_up(cfg: CfgNode) -> Backbone:
    """Return the backbone MODEL.BACKBONE.NAME of an architecture: feature maps by name, without a feature pyramid."""
    return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, ShapeSpec(channels=3))
