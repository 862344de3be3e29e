"""EfficientDet of effdet: Tan et al., "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from torch import nn

from fracture_det.modeling.architectures.base import (
    MAX_CANDIDATES,
    Architecture,
    Candidates,
    Truth,
    build_bottom_up,
)
from fracture_det.modeling.backbones import use_group_norm

# IoU with an annotated box from which an anchor is positive; effdet's own.
MATCH_IOU = 0.5
Size = tuple[int, int]


class EfficientDet(Architecture):
    """MODEL.EFFICIENTDET.NAME of effdet, on the feature maps res3, res4 and res5 of MODEL.BACKBONE.

    Its losses are effdet's: focal loss of the classes, Huber loss of the boxes. Training and prediction may have images
    of different sizes.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        with quiet_effdet():
            from effdet import EfficientDet as Network
            from effdet import get_efficientdet_config
            from effdet.efficientdet import Interpolate2d
            from effdet.loss import DetectionLoss

            self.config = get_efficientdet_config(cfg.MODEL.EFFICIENTDET.NAME)
            self.config.num_classes = self.n_classes
            self.network: Any = Network(self.config, pretrained_backbone=False)
            self.loss = DetectionLoss(self.config)
        if cfg.MODEL.EFFICIENTDET.NORM == "GN":
            for part in (self.network.fpn, self.network.class_net, self.network.box_net):
                use_group_norm(part)
        self.network.backbone = FeatureList(build_bottom_up(cfg), self.network.backbone.feature_info.channels())
        # effdet fixes the sizes of its feature maps when it builds the network; here they follow each batch.
        built_for = _feature_sizes(self.config.image_size, self.config)
        self._upsampled = [
            (module, built_for.index(tuple(module.size)))
            for module in self.network.modules()
            if isinstance(module, Interpolate2d)
        ]
        self._anchors: dict[Size, Any] = {}

    def losses(self, images: ImageList, truth: Sequence[Truth]) -> dict[str, torch.Tensor]:
        """Return the loss of the classes and, weighted as in effdet, that of the boxes."""
        from effdet.anchors import AnchorLabeler

        classes, boxes = self._outputs(images.tensor)
        labeler = AnchorLabeler(self._anchors_of(images.tensor), self.n_classes, match_threshold=MATCH_IOU)
        labels = [_labels(labeler, of_image) for of_image in truth]
        by_level = [torch.stack(level) for level in zip(*(label[0] for label in labels), strict=True)]
        boxes_by_level = [torch.stack(level) for level in zip(*(label[1] for label in labels), strict=True)]
        positives = torch.stack([label[2] for label in labels])
        with torch.autocast(images.tensor.device.type, enabled=False):
            _, class_loss, box_loss = self.loss(classes, boxes, by_level, boxes_by_level, positives)
        return {"loss_cls": class_loss, "loss_box_reg": self.config.box_loss_weight * box_loss}

    def candidates(self, images: ImageList) -> list[Candidates]:
        """Return the best boxes of each image."""
        from effdet.anchors import decode_box_outputs

        classes, boxes = self._outputs(images.tensor)
        anchors = self._anchors_of(images.tensor).boxes
        found = []
        for index in range(len(images)):
            logits, deltas = (
                torch.cat([level[index].permute(1, 2, 0).reshape(-1, width) for level in part])
                for part, width in ((classes, self.n_classes), (boxes, 4))
            )
            best, of_class = logits.float().sigmoid().max(dim=1)
            best, place = best.topk(min(MAX_CANDIDATES, len(anchors)))
            decoded = decode_box_outputs(deltas[place].float(), anchors[place], output_xyxy=True)
            found.append(Candidates(decoded, best, of_class[place]))
        return found

    def _outputs(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return logits and box deltas by level, each (N, anchors * width, H, W)."""
        sizes = _feature_sizes(_size_of(images), self.config)
        for module, level in self._upsampled:
            module.size = sizes[level]
        return self.network(images)

    def _anchors_of(self, images: torch.Tensor) -> Any:
        """Return effdet's Anchors for a batch (N, 3, H, W)."""
        from effdet.anchors import Anchors

        size = _size_of(images)
        if size not in self._anchors:
            config = self.config
            shape = (config.min_level, config.max_level, config.num_scales, config.aspect_ratios, config.anchor_scale)
            self._anchors[size] = Anchors(*shape, image_size=size).to(images.device)
        return self._anchors[size]


class FeatureList(nn.Module):
    """A backbone of Detectron2 as effdet's networks call theirs: a list of feature maps, from fine to coarse.

    channels: what effdet's network expects of each. Raises ValueError where the backbone has others.
    """

    def __init__(self, bottom_up: Backbone, channels: Sequence[int]) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        shapes = bottom_up.output_shape()
        if [shape.channels for shape in shapes.values()] != list(channels):
            raise ValueError(
                f"MODEL.EFFICIENTDET.NAME: its feature maps have {list(channels)} channels, those of MODEL.BACKBONE "
                f"{ {name: shape.channels for name, shape in shapes.items()} }"
            )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the feature maps of (N, 3, H, W)."""
        return list(self.bottom_up(images).values())


@contextmanager
def quiet_effdet() -> Iterator[None]:
    """Import and build effdet's networks without the warnings of torch.jit.script, which it uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _size_of(images: torch.Tensor) -> Size:
    """Return (h, w) of a batch as numbers, also while it is traced for an export."""
    return int(images.shape[2]), int(images.shape[3])


def _feature_sizes(size: Sequence[int], config: Any) -> list[Size]:
    from effdet.anchors import get_feat_sizes

    return [tuple(each) for each in get_feat_sizes(tuple(size), config.max_level)]


def _labels(labeler: Any, truth: Truth) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Return effdet's targets of one image, by level, and the number of positive anchors."""
    corners = truth.boxes[:, [1, 0, 3, 2]]  # effdet's boxes are y0, x0, y1, x1, and its classes start from 1
    return labeler.label_anchors(corners, truth.classes.float() + 1)
