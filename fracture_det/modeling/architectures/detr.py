"""DETR of transformers: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from torch import nn
from torchvision.ops import box_convert

from fracture_det.modeling.architectures.base import Architecture, Candidates, Truth, build_bottom_up

LOSSES = {"loss_ce": "loss_cls", "loss_bbox": "loss_box_reg", "loss_giou": "loss_giou"}


class DETR(Architecture):
    """DETR on the coarsest feature map of MODEL.BACKBONE, with the sizes of MODEL.DETR.

    Its losses are those of transformers, with one after each layer of the decoder: cross entropy of the classes, L1 and
    generalised IoU of the boxes.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded when a network is built
        from transformers import DetrConfig, DetrForObjectDetection

        keys = cfg.MODEL.DETR
        settings: dict[str, Any] = {"backbone": "resnet18", "num_labels": self.n_classes}  # a backbone to be replaced
        self.config: Any = DetrConfig(
            **settings,
            num_queries=keys.QUERIES,
            encoder_layers=keys.ENCODER_LAYERS,
            decoder_layers=keys.DECODER_LAYERS,
            d_model=keys.WIDTH,
            encoder_ffn_dim=keys.HIDDEN_WIDTH,
            decoder_ffn_dim=keys.HIDDEN_WIDTH,
            encoder_attention_heads=keys.HEADS,
            decoder_attention_heads=keys.HEADS,
            dropout=keys.DROPOUT,
            auxiliary_loss=True,
        )
        self.network: Any = DetrForObjectDetection(self.config)
        bottom_up = build_bottom_up(cfg)
        coarsest = max(bottom_up.output_shape().items(), key=lambda item: item[1].stride)
        self.network.model.backbone = MaskedFeatures(bottom_up, coarsest[0])
        self.network.model.input_projection = nn.Conv2d(coarsest[1].channels, keys.WIDTH, kernel_size=1)

    def losses(self, images: ImageList, truth: Sequence[Truth]) -> dict[str, torch.Tensor]:
        """Return the weighted losses, each summed over the layers of the decoder."""
        logits, boxes, each_logits, each_boxes = self._outputs(images)
        labels = [
            {"class_labels": one.classes, "boxes": _to_shares(one.boxes, images.tensor.shape[2:])} for one in truth
        ]
        with torch.autocast(images.tensor.device.type, enabled=False):
            _, found, _ = self.network.loss_function(
                logits, labels, images.tensor.device, boxes, self.config, each_logits, each_boxes
            )
        weights = {
            "loss_ce": 1.0,
            "loss_bbox": self.config.bbox_loss_coefficient,
            "loss_giou": self.config.giou_loss_coefficient,
        }
        return {
            LOSSES[kind]: weight * sum(value for name, value in found.items() if name.startswith(kind))
            for kind, weight in weights.items()
        }

    def candidates(self, images: ImageList) -> list[Candidates]:
        """Return one box for each query of each image; the last class is "no object"."""
        logits, boxes, _, _ = self._outputs(images)
        height, width = images.tensor.shape[2:]
        scores, classes = logits.softmax(-1)[..., :-1].max(dim=2)
        corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
        return [Candidates(*one) for one in zip(corners, scores, classes, strict=True)]

    def _outputs(self, images: ImageList) -> tuple[torch.Tensor, ...]:
        """Return logits (N, queries, classes + 1) and boxes (N, queries, 4) of the last layer, then of each layer."""
        mask = torch.zeros(len(images), *images.tensor.shape[2:], device=images.tensor.device)
        for index, (height, width) in enumerate(images.image_sizes):
            mask[index, :height, :width] = 1
        outputs = self.network.model(images.tensor, pixel_mask=mask)
        states, each = outputs.last_hidden_state.float(), outputs.intermediate_hidden_states.float()
        # bfloat16 would tell places apart by some three pixels only.
        with torch.autocast(images.tensor.device.type, enabled=False):
            classify, locate = self.network.class_labels_classifier, self.network.bbox_predictor
            return classify(states), locate(states).sigmoid(), classify(each), locate(each).sigmoid()


class MaskedFeatures(nn.Module):
    """A backbone of Detectron2 as transformers calls DETR's: the map `name`, and where it shows an image."""

    def __init__(self, bottom_up: Backbone, name: str) -> None:
        super().__init__()
        self.bottom_up, self.name = bottom_up, name

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return [(features (N, C, h, w), mask (N, h, w))] of images (N, 3, H, W) and mask (N, H, W) of 0 and 1."""
        features = self.bottom_up(images)[self.name]
        smaller = nn.functional.interpolate(mask[None].float(), size=features.shape[2:])[0]
        return [(features, smaller.bool())]


def _to_shares(boxes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return boxes XYXY px as centre, width and height in shares of an image of `size` (h, w)."""
    height, width = size
    return box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([width, height, width, height])
